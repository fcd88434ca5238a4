//! Offloads that fail while they are in use: speed is lost, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use overplane::{
    Config, Control, Dataplane, DropReason, Event, Offload, OffloadState, Offloads, Segment, Turn,
    Vni, Worker,
};
use overplane_lab::{
    Namespace, Transfer, UdpFlow, ping_ok, privileged, refuse_gathering_writes, tcp_transfer,
    udp_flow,
};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, eventually, inner_addresses, ip, pair, settle, underlay,
};
use crate::offloads::udp_super_frame;
use crate::trouble::events;

/// Checked TCP and UDP from the first host to the second, over both families, for `time`.
///
/// Every byte and every datagram has to arrive, in order and once.
fn checked_traffic(hosts: [&Namespace; 2], mtu: usize, time: Duration) {
    let to = |inner: &str| SocketAddr::new(ip(inner), 0);
    // Neighbours are found: what waits for that is overtaken by what comes after.
    for inner in [INNER_V4, INNER_V6] {
        assert!(ping_ok(hosts[0], ip(inner[1]), 56));
    }
    thread::scope(|scope| {
        for (inner, headers) in [(INNER_V4, 28), (INNER_V6, 48)] {
            scope.spawn(move || {
                let what = Transfer { check: true, ..Transfer::of_duration(time) };
                let report = tcp_transfer(hosts[0], hosts[1], to(inner[1]), what).unwrap();
                assert!(report.bytes > 0);
            });
            scope.spawn(move || {
                let what = UdpFlow {
                    seed: headers as u64,
                    packet: mtu - headers,
                    duration: time,
                    ordered: true,
                };
                let report = udp_flow(hosts[0], hosts[1], to(inner[1]), what).unwrap();
                assert!(report.received > 0 && report.received == report.sent, "{report:?}");
            });
        }
    });
}

/// The same, with something happening in the middle.
fn meanwhile(hosts: [&Namespace; 2], mtu: usize, time: Duration, happening: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let traffic = scope.spawn(|| checked_traffic(hosts, mtu, time));
        thread::sleep(time / 3);
        happening();
        traffic.join().unwrap();
    });
}

fn state(control: &Control, offload: Offload) -> OffloadState {
    control.offloads().into_iter().find(|info| info.offload == offload).unwrap().state
}

fn has_failed(control: &Control, offload: Offload) -> bool {
    matches!(state(control, offload), OffloadState::Failed(_))
}

/// How often the failure of an offload was reported since events were read last.
fn failures(control: &Control, offload: Offload) -> usize {
    let is_failure =
        |event: &Event| matches!(event, Event::OffloadFailed { offload: o, .. } if *o == offload);
    events(control).iter().filter(|event| is_failure(event)).count()
}

/// Checks that nothing was dropped on the way out to the underlay or to devices.
fn assert_nothing_lost(control: &Control) {
    let stats = control.stats();
    for reason in DropReason::ALL {
        if reason.name().starts_with("underlay_") || reason.name().starts_with("port_") {
            assert_eq!(stats.totals.drops(*reason), 0, "{stats}");
        }
    }
}

/// The kernel refuses trains from sockets that send no checksums: for good, and in the middle of everything.
fn trains_refused(underlay_addresses: [&str; 2]) {
    let hosts = underlay();
    let [a, b] = underlay_addresses;
    let left = Node::vxlan(&hosts[0], a, b, &inner_addresses(0));
    let mut config = Config::new(ip(b));
    config.zero_checksums.accept_v6 = true;
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let right = Node::new(&hosts[1], config, segment, &inner_addresses(1));
    right.control.add_flood(right.segment, SocketAddr::new(ip(a), 4789)).unwrap();
    let both = [&hosts[0], &hosts[1]];
    if state(&left.control, Offload::UdpGso) != OffloadState::On {
        // A kernel without trains has none to refuse.
        return;
    }
    checked_traffic(both, left.mtu(), Duration::from_millis(300));
    assert_eq!(failures(&left.control, Offload::UdpGso), 0);
    meanwhile(both, left.mtu(), Duration::from_millis(1500), || {
        assert!(hosts[0].set_udp_checksums(ip(a), false).unwrap() > 1);
        eventually(1, "the refusal is noticed", || has_failed(&left.control, Offload::UdpGso));
    });
    let text = left.control.stats().to_string();
    assert!(text.contains("offload udp-gso failed: Invalid argument"), "{text}");
    assert_eq!(failures(&left.control, Offload::UdpGso), 1, "reported once");
    assert_nothing_lost(&left.control);
    assert_nothing_lost(&right.control);

    // Switched on again too early, and then at the right time.
    left.control.set_offloads(Offloads::ALL);
    checked_traffic(both, left.mtu(), Duration::from_millis(300));
    assert!(has_failed(&left.control, Offload::UdpGso));
    assert_eq!(failures(&left.control, Offload::UdpGso), 1);
    hosts[0].set_udp_checksums(ip(a), true).unwrap();
    left.control.set_offloads(Offloads::ALL);
    checked_traffic(both, left.mtu(), Duration::from_millis(300));
    assert_eq!(state(&left.control, Offload::UdpGso), OffloadState::On);
    assert_eq!(failures(&left.control, Offload::UdpGso), 0);
    assert_nothing_lost(&left.control);
    assert_nothing_lost(&right.control);
    assert_eq!(hosts[1].checksum_errors().unwrap(), 0);
    left.finish();
    right.finish();
}

#[test]
fn trains_that_are_refused_half_way_go_singly_over_ipv4() {
    if privileged("trains_that_are_refused_half_way_go_singly_over_ipv4") {
        trains_refused(V4);
    }
}

#[test]
fn trains_that_are_refused_half_way_go_singly_over_ipv6() {
    if privileged("trains_that_are_refused_half_way_go_singly_over_ipv6") {
        trains_refused(V6);
    }
}

/// Threads that run workers, whose joined frames can be refused.
struct Threads {
    /// The error that joined frames meet; 0 for none.
    errno: Arc<AtomicI32>,
    /// Times that a worker has begun to run with an error, or without.
    begun: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

/// The parts of a frame that was not joined: vnet header, headers made here, and the frame as it was received.
const PARTS: u32 = 3;

impl Threads {
    fn start(workers: Vec<Worker>) -> Self {
        let (errno, begun) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicUsize::new(0)));
        let run = |worker: Worker| {
            let (errno, begun) = (errno.clone(), begun.clone());
            // Each error has a thread of its own, for refusals end with the thread.
            thread::spawn(move || {
                let mut next = Some(worker);
                while let Some(mut worker) = next.take() {
                    let (errno, begun) = (errno.clone(), begun.clone());
                    let thread = thread::spawn(move || {
                        let current = errno.load(Ordering::Relaxed);
                        if current != 0 {
                            refuse_gathering_writes(PARTS, current).unwrap();
                        }
                        begun.fetch_add(1, Ordering::Relaxed);
                        while errno.load(Ordering::Relaxed) == current {
                            if worker.turn(Some(Duration::from_millis(5))).unwrap() == Turn::Stopped
                            {
                                return None;
                            }
                        }
                        Some(worker)
                    });
                    next = thread.join().unwrap();
                }
            })
        };
        let threads = workers.into_iter().map(run).collect();
        Self { errno, begun, threads }
    }

    /// Makes joined frames meet another error from now on.
    fn refuse(&self, errno: i32) {
        let begun = self.begun.load(Ordering::Relaxed);
        if self.errno.swap(errno, Ordering::Relaxed) != errno {
            eventually(5, "all workers do so", || {
                self.begun.load(Ordering::Relaxed) >= begun + self.threads.len()
            });
        }
    }

    fn join(self) {
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A pair of hosts of which the second has a device that can be made to refuse joined frames.
fn refusing_pair() -> ([Namespace; 2], Node, Node, Threads) {
    let hosts = underlay();
    let left = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    let mut config = Config::new(ip(V4[1]));
    config.workers = 2;
    let (dataplane, workers) = hosts[1].run(|| Dataplane::build(config)).unwrap();
    let threads = Threads::start(workers);
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let right = Node::with(&hosts[1], dataplane, false, segment, &inner_addresses(1));
    right.control.add_flood(right.segment, SocketAddr::new(ip(V4[0]), 4789)).unwrap();
    (hosts, left, right, threads)
}

/// Checked traffic that is joined for sure: both kinds of super-frames.
fn joined_traffic(hosts: [&Namespace; 2], mtu: usize, happening: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                udp_super_frame(hosts, INNER_V4);
                udp_super_frame(hosts, INNER_V6);
            }
        });
        let _done = Done(&done);
        meanwhile(hosts, mtu, Duration::from_millis(1200), happening);
    });
}

/// Ends what runs beside a check, also if that fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const JOINING: [Offload; 2] = [Offload::CoalesceTcp, Offload::CoalesceUdp];

#[test]
fn joined_frames_that_are_refused_half_way_are_delivered_apart() {
    if !privileged("joined_frames_that_are_refused_half_way_are_delivered_apart") {
        return;
    }
    let (hosts, left, right, threads) = refusing_pair();
    let (both, mtu) = ([&hosts[0], &hosts[1]], left.mtu());
    let coalesced = || right.control.stats().totals.coalesced;
    joined_traffic(both, mtu, || ());
    assert!(coalesced() > 0, "{}", right.control.stats());
    for round in 0..2 {
        events(&right.control);
        // Also when it is switched on again in vain.
        right.control.set_offloads(Offloads::ALL);
        joined_traffic(both, mtu, || {
            threads.refuse(libc::EINVAL);
            eventually(1, "the refusals are noticed", || {
                JOINING.iter().all(|offload| has_failed(&right.control, *offload))
            });
        });
        let reports = events(&right.control);
        for offload in JOINING {
            let is_it = |event: &&Event| matches!(event, Event::OffloadFailed { offload: o, .. } if *o == offload);
            assert_eq!(reports.iter().filter(is_it).count(), 1, "round {round}: {offload}");
            let failed = OffloadState::Failed("Invalid argument (os error 22)".to_owned());
            assert_eq!(state(&right.control, offload), failed);
        }
        assert_nothing_lost(&right.control);
    }
    settle(&right.control);
    let before = coalesced();
    checked_traffic(both, mtu, Duration::from_millis(300));
    assert_eq!(coalesced(), before, "nothing is joined any more");
    threads.refuse(0);
    right.control.set_offloads(Offloads::ALL);
    joined_traffic(both, mtu, || ());
    assert!(coalesced() > before, "and then it is");
    for offload in JOINING {
        assert_eq!(state(&right.control, offload), OffloadState::On);
    }
    assert_nothing_lost(&right.control);
    assert_nothing_lost(&left.control);
    left.finish();
    right.finish();
    threads.join();
}

/// `EIO` says that the link is down. If single frames pass nevertheless, none is lost, and nothing is blamed.
#[test]
fn joining_is_not_blamed_for_a_link_that_is_down() {
    if !privileged("joining_is_not_blamed_for_a_link_that_is_down") {
        return;
    }
    let (hosts, left, right, threads) = refusing_pair();
    let (both, mtu) = ([&hosts[0], &hosts[1]], left.mtu());
    joined_traffic(both, mtu, || threads.refuse(libc::EIO));
    settle(&right.control);
    let before = right.control.stats().totals.coalesced;
    joined_traffic(both, mtu, || ());
    assert_eq!(right.control.stats().totals.coalesced, before);
    assert_nothing_lost(&right.control);
    threads.refuse(0);

    // A link that really is down, again and again, while joined frames arrive.
    let to = SocketAddr::new(ip(INNER_V4[1]), 0);
    thread::scope(|scope| {
        let what = Transfer { check: true, ..Transfer::of_bytes(64 << 20) };
        let transfer = scope.spawn(move || tcp_transfer(both[0], both[1], to, what).unwrap());
        let mut flaps = 0;
        while !transfer.is_finished() && flaps < 8 {
            thread::sleep(Duration::from_millis(40));
            hosts[1].down("ovl0").unwrap();
            hosts[1].up("ovl0").unwrap();
            flaps += 1;
        }
        assert_eq!(transfer.join().unwrap().bytes, 64 << 20);
    });
    for offload in JOINING {
        assert_eq!(state(&right.control, offload), OffloadState::On);
        assert_eq!(failures(&right.control, offload), 0);
    }
    left.finish();
    right.finish();
    threads.join();
}

/// Trains cannot be given up while some are in the socket, so that switching has to wait for the right moment.
#[test]
fn receiving_trains_is_switched_under_traffic() {
    if !privileged("receiving_trains_is_switched_under_traffic") {
        return;
    }
    let (hosts, left, right) = pair();
    let both = [&hosts[0], &hosts[1]];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for set in [Offloads::ALL.without(Offload::UdpGro), Offloads::ALL] {
                    right.control.set_offloads(set);
                    thread::sleep(Duration::from_millis(3));
                }
            }
        });
        let _done = Done(&done);
        checked_traffic(both, left.mtu(), Duration::from_secs(3));
    });
    assert_nothing_lost(&left.control);
    assert_nothing_lost(&right.control);
    for host in &hosts {
        assert_eq!(host.checksum_errors().unwrap(), 0);
    }
    left.finish();
    right.finish();
}
