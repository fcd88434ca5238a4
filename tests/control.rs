//! Control from any thread while traffic flows, over loopback and in-process channels: needs no privileges.
#![cfg(all(feature = "io", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "common/groups.rs"]
mod groups;
#[path = "common/packets.rs"]
mod packets;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overplane::{
    Change, ChannelError, ChannelPort, Config, Control, Dataplane, Device, DeviceKind, Error,
    Flush, MacAddr, PortId, PortOptions, Segment, SegmentId, Turn, Vni,
};

use groups::{Say, say};

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

/// A frame of a protocol for experiments that carries `number`.
fn frame(to: MacAddr, from: MacAddr, number: u32) -> Bytes {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    frame.resize(60, 0);
    frame.into()
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

struct Node {
    dataplane: Dataplane,
    control: Control,
}

/// A node on a loopback address of its own.
fn node(address: &str, workers: usize) -> Node {
    let mut config = Config::new(address.parse().unwrap());
    config.workers = workers;
    let dataplane = Dataplane::start(config).unwrap();
    Node { control: dataplane.control(), dataplane }
}

impl Node {
    fn bridge(&self, n: u32, udp_port: u16, peer: &str) -> SegmentId {
        let mut segment = Segment::bridge(vni(n));
        segment.udp_port = udp_port;
        let id = self.control.add_segment(segment).unwrap();
        self.control.add_flood(id, SocketAddr::new(peer.parse().unwrap(), udp_port)).unwrap();
        id
    }

    fn channel(&self, segment: SegmentId) -> ChannelPort {
        let (device, port) = Device::channel(DeviceKind::Tap, 1024).unwrap();
        self.control.attach(segment, device).unwrap();
        port
    }

    fn finish(self) {
        std::thread::sleep(Duration::from_millis(100));
        self.dataplane.stop().unwrap();
        let stats = self.control.stats();
        assert!(stats.totals.is_conserved(), "{stats}");
    }
}

const WAIT: Duration = Duration::from_secs(3);

#[test]
fn two_dataplanes_in_one_process_exchange_frames() {
    let (left, right) = (node("127.81.0.1", 1), node("127.81.0.2", 1));
    let segments = (left.bridge(5, 14789, "127.81.0.2"), right.bridge(5, 14789, "127.81.0.1"));
    let (a, b) = (left.channel(segments.0), right.channel(segments.1));
    a.send(frame(MacAddr::BROADCAST, mac(1), 1)).unwrap();
    assert_eq!(b.receive_timeout(WAIT).unwrap(), frame(MacAddr::BROADCAST, mac(1), 1));
    b.send(frame(mac(1), mac(2), 2)).unwrap();
    assert_eq!(a.receive_timeout(WAIT).unwrap(), frame(mac(1), mac(2), 2));
    a.send(frame(mac(2), mac(1), 3)).unwrap();
    assert_eq!(b.receive_timeout(WAIT).unwrap(), frame(mac(2), mac(1), 3));
    assert_eq!(left.control.stats().totals.flooded, 1, "only the first destination was unknown");
    assert_eq!(right.control.fdb(segments.1).unwrap().len(), 2);
    left.finish();
    right.finish();
}

#[test]
fn an_open_segment_discovers_its_peers() {
    let (left, right) = (node("127.82.0.1", 1), node("127.82.0.2", 1));
    let sender = left.bridge(5, 14790, "127.82.0.2");
    let mut segment = Segment::bridge(vni(5));
    segment.udp_port = 14790;
    segment.open = true;
    let receiver = right.control.add_segment(segment).unwrap();
    let (a, b) = (left.channel(sender), right.channel(receiver));
    let end = Instant::now() + WAIT;
    while right.control.fdb(receiver).unwrap().is_empty() {
        assert!(Instant::now() < end, "{}", right.control.stats());
        a.send(frame(MacAddr::BROADCAST, mac(1), 1)).unwrap();
        assert!(b.receive_timeout(WAIT).is_some(), "frames pass from the first on");
    }
    b.send(frame(mac(1), mac(2), 2)).unwrap();
    assert_eq!(number(&a.receive_timeout(WAIT).unwrap()), 2);
    left.finish();
    right.finish();
}

/// The first membership is published at once and those that follow a moment later, without anything else happening.
#[test]
fn what_is_heard_of_groups_is_published_however_fast_it_comes() {
    let node = node("127.94.0.1", 1);
    let mut segment = Segment::bridge(vni(5));
    (segment.udp_port, segment.snooping.enabled) = (14_794, true);
    let segment = node.control.add_segment(segment).unwrap();
    let port = node.channel(segment);
    let group = |n: u16| Ipv4Addr::from_bits(0xef00_0000 | u32::from(n));
    let known = || node.control.mdb(segment).unwrap().entries.len();
    for n in 0..100 {
        let report = say(packets::host(1), Say::Join(3), group(n).into());
        port.send(report.into()).unwrap();
        let end = Instant::now() + WAIT;
        // Each in a batch of its own at first, then all in a few.
        while n < 3 && known() <= usize::from(n) {
            assert!(Instant::now() < end, "{n}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let end = Instant::now() + WAIT;
    while known() < 100 {
        assert!(Instant::now() < end, "{} of 100", known());
        std::thread::sleep(Duration::from_millis(1));
    }
    node.control.remove_mdb(segment, Some(group(7).into()), port_of(&node, segment)).unwrap();
    assert_eq!((known(), node.control.stats().totals.memberships_refused), (99, 0));
    node.finish();
}

fn port_of(node: &Node, segment: SegmentId) -> PortId {
    let ports = node.control.ports();
    ports.iter().find(|port| port.segment == segment).unwrap().id
}

/// Every kind of change, from several threads, does not cost a frame of a segment that is left alone.
#[test]
fn churn_elsewhere_does_not_disturb_a_flow() {
    let (left, right) = (node("127.83.0.1", 2), node("127.83.0.2", 2));
    let segments = (left.bridge(1, 14791, "127.83.0.2"), right.bridge(1, 14791, "127.83.0.1"));
    let (a, b) = (left.channel(segments.0), right.channel(segments.1));
    let stop = AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (thread, node) in [&left, &right, &left].into_iter().enumerate() {
            let (control, stop, changes) = (&node.control, &stop, &changes);
            scope.spawn(move || {
                let peer: SocketAddr = "127.83.0.9:14791".parse().unwrap();
                let udp_port = [14791, 14792, 14793][thread];
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut segment = Segment::bridge(vni(100 + thread as u32));
                    segment.udp_port = udp_port;
                    let id = control.add_segment(segment).unwrap();
                    let (device, _port) = Device::channel(DeviceKind::Tap, 4).unwrap();
                    let port = control.attach(id, device).unwrap();
                    let vtep = SocketAddr::new(peer.ip(), udp_port);
                    let batch = [
                        Change::AddFlood { segment: id, vtep },
                        Change::InsertFdb {
                            segment: id,
                            mac: mac(n as u8),
                            destination: vtep.into(),
                        },
                        Change::InsertFdb { segment: id, mac: mac(200), destination: port.into() },
                        Change::FlushFdb { segment: id, which: Flush::All },
                    ];
                    // MAC addresses that wrap around to zero or 200 are fine; all else must succeed.
                    control.apply(batch).unwrap();
                    assert!(
                        control
                            .apply([Change::RemoveSegment(id), Change::RemovePort(port)])
                            .is_err()
                    );
                    control.detach(port).unwrap();
                    control.remove_segment(id).unwrap();
                    changes.fetch_add(9, Ordering::Relaxed);
                }
            });
        }
        a.send(frame(MacAddr::BROADCAST, mac(1), 0)).unwrap();
        assert!(b.receive_timeout(WAIT).is_some());
        b.send(frame(mac(1), mac(2), 0)).unwrap();
        assert!(a.receive_timeout(WAIT).is_some());
        let end = Instant::now() + Duration::from_secs(2);
        let mut sent = 0;
        while Instant::now() < end {
            // One window at a time, so that no queue is ever full: every frame must arrive, in order.
            for _ in 0..32 {
                sent += 1;
                a.send(frame(mac(2), mac(1), sent)).unwrap();
            }
            for expected in sent - 31..=sent {
                let got = b
                    .receive_timeout(WAIT)
                    .unwrap_or_else(|| panic!("{expected} of {sent} is missing"));
                assert_eq!(number(&got), expected);
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(sent > 1000, "{sent} frames");
    });
    assert!(changes.load(Ordering::Relaxed) > 100);
    assert_eq!(left.control.segments().len(), 1);
    left.finish();
    right.finish();
}

#[test]
fn a_failing_call_changes_nothing() {
    let node = node("127.84.0.1", 1);
    let id = node.bridge(1, 14794, "127.84.0.2");
    let before = (node.control.segments(), node.control.underlay(), node.control.fdb(id).unwrap());
    let vtep = "127.84.0.3:14794".parse().unwrap();
    let mut other = Segment::bridge(vni(2));
    other.udp_port = 14795;
    let missing = SegmentId { udp_port: 1, vni: None };
    let error = node
        .control
        .apply([
            Change::AddSegment(other),
            Change::InsertFdb { segment: id, mac: mac(1), destination: SocketAddr::into(vtep) },
            Change::RemoveSegment(missing),
        ])
        .unwrap_err();
    assert_eq!(error.to_string(), "segment IP in UDP on port 1 does not exist");
    let after = (node.control.segments(), node.control.underlay(), node.control.fdb(id).unwrap());
    assert_eq!(before, after);
    // Nor does it hold on to the UDP port it had opened.
    std::net::UdpSocket::bind("127.84.0.1:14795").unwrap();
    node.finish();
}

#[test]
fn a_device_of_the_wrong_kind_is_refused() {
    let node = node("127.85.0.1", 1);
    let id = node.bridge(1, 14796, "127.85.0.2");
    let (device, _port) = Device::channel(DeviceKind::Tun, 4).unwrap();
    let error = node.control.attach(id, device).unwrap_err().to_string();
    assert!(error.contains("it is a TUN, and the segment takes a TAP"), "{error}");
    let add = Change::AddPort {
        segment: id,
        name: "x".into(),
        offload: false,
        options: PortOptions::default(),
    };
    let error = node.control.apply([add]).unwrap_err().to_string();
    assert_eq!(error, "port \"x\": a port needs a device: attach one");
    node.finish();
}

/// The options of a port hold from the first frame on, and change while it is attached.
#[test]
fn a_port_is_attached_with_options_that_change_at_any_time() {
    let node = node("127.88.0.1", 1);
    let id = node.bridge(1, 14799, "127.88.0.2");
    let mut isolated = PortOptions::default();
    isolated.isolated = true;
    let ports = [0, 1].map(|_| {
        let (device, port) = Device::channel(DeviceKind::Tap, 16).unwrap();
        (node.control.attach_with(id, device, isolated.clone()).unwrap(), port)
    });
    let open = node.channel(id);
    ports[0].1.send(frame(MacAddr::BROADCAST, mac(1), 1)).unwrap();
    assert_eq!(number(&open.receive_timeout(WAIT).unwrap()), 1);
    node.control.set_port(ports[1].0, PortOptions::default()).unwrap();
    ports[0].1.send(frame(MacAddr::BROADCAST, mac(1), 2)).unwrap();
    assert_eq!(number(&ports[1].1.receive_timeout(WAIT).unwrap()), 2, "not the one before");
    let listed = node.control.ports();
    assert_eq!(
        listed.iter().map(|port| port.options.isolated).collect::<Vec<_>>(),
        [true, false, false]
    );
    node.finish();
}

#[test]
fn a_udp_port_given_up_is_free_and_can_be_taken_again_at_once() {
    let node = node("127.86.0.1", 2);
    for _ in 0..100 {
        let id = node.bridge(1, 14797, "127.86.0.2");
        node.control.remove_segment(id).unwrap();
    }
    let end = Instant::now() + WAIT;
    while std::net::UdpSocket::bind("127.86.0.1:14797").is_err() {
        assert!(Instant::now() < end, "the port stays taken");
        std::thread::sleep(Duration::from_millis(10));
    }
    node.finish();
}

/// The embedder's own thread runs the worker, turn by turn.
#[test]
fn an_embedder_can_run_the_workers_itself() {
    let (dataplane, mut workers) =
        Dataplane::build(Config::new("127.87.0.1".parse().unwrap())).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(vni(3));
    segment.udp_port = 14798;
    let id = control.add_segment(segment).unwrap();
    let ports = [0, 1].map(|_| {
        let (device, port) = Device::channel(DeviceKind::Tap, 16).unwrap();
        control.attach(id, device).unwrap();
        port
    });
    let worker = &mut workers[0];
    ports[0].send(frame(MacAddr::BROADCAST, mac(1), 7)).unwrap();
    let mut turns = 0;
    let got = loop {
        assert_ne!(worker.turn(Some(Duration::from_millis(10))).unwrap(), Turn::Stopped);
        turns += 1;
        if let Some(frame) = ports[1].try_receive() {
            break frame;
        }
        assert!(turns < 100);
    };
    assert_eq!(number(&got), 7);
    dataplane.stop().unwrap();
    assert_eq!(worker.turn(None).unwrap(), Turn::Stopped);
    assert!(control.stats().totals.is_conserved());
}

/// Between the two, a process can give up what its set-up needs.
#[test]
fn a_dataplane_that_was_built_is_run_later() {
    let build = |local: &str| Dataplane::build(Config::new(local.parse().unwrap())).unwrap();
    let (mut dataplane, workers) = build("127.87.0.2");
    let control = dataplane.control();
    let mut segment = Segment::bridge(vni(3));
    segment.udp_port = 14799;
    let id = control.add_segment(segment).unwrap();
    let ports = [0, 1].map(|_| {
        let (device, port) = Device::channel(DeviceKind::Tap, 16).unwrap();
        control.attach(id, device).unwrap();
        port
    });
    ports[0].send(frame(MacAddr::BROADCAST, mac(1), 7)).unwrap();
    assert!(ports[1].try_receive().is_none() && dataplane.is_running());
    let (_other, strangers) = build("127.87.0.3");
    assert!(matches!(dataplane.run(strangers), Err(Error::Conflict { .. })));
    dataplane.run(workers).unwrap();
    let end = Instant::now() + WAIT;
    let got = loop {
        if let Some(frame) = ports[1].try_receive() {
            break frame;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(number(&got), 7);
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved());
}

#[test]
fn a_worker_that_does_not_run_is_silent() {
    let (dataplane, mut workers) =
        Dataplane::build(Config::new("127.87.0.4".parse().unwrap())).unwrap();
    let start = Instant::now();
    // It is heard of when it has run for a second.
    while dataplane.silence() + Duration::from_millis(500) > start.elapsed() {
        assert!(start.elapsed() < WAIT, "{:?}", dataplane.silence());
        let _ = workers[0].turn(Some(Duration::from_millis(50))).unwrap();
    }
    let before = dataplane.silence();
    std::thread::sleep(Duration::from_millis(300));
    assert!(dataplane.silence() >= before + Duration::from_millis(300));
}

/// The file descriptor shows what is new, and what a turn leaves undone it says itself.
#[test]
fn a_loop_of_the_embedders_is_never_left_waiting() {
    let (dataplane, mut workers) =
        Dataplane::build(Config::new("127.89.0.1".parse().unwrap())).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(vni(3));
    segment.udp_port = 14800;
    let id = control.add_segment(segment).unwrap();
    let ports = [0, 1].map(|_| {
        let (device, port) = Device::channel(DeviceKind::Tap, 1024).unwrap();
        control.attach(id, device).unwrap();
        port
    });
    for n in 0..1000 {
        ports[0].send(frame(MacAddr::BROADCAST, mac(1), n)).unwrap();
    }
    let worker = &mut workers[0];
    let start = Instant::now();
    let mut last = Turn::Idle;
    let mut received = 0;
    while received < 1000 && start.elapsed() < WAIT {
        if last == Turn::Idle {
            let mut poll =
                libc::pollfd { fd: worker.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the pointer is to one pollfd that lives through the call.
            assert!(unsafe { libc::poll(&raw mut poll, 1, 1000) } >= 0);
        }
        last = worker.turn(Some(Duration::ZERO)).unwrap();
        received += std::iter::from_fn(|| ports[1].try_receive()).count();
    }
    assert_eq!(received, 1000);
    assert!(start.elapsed() < Duration::from_millis(900), "waited for a tick");
    dataplane.stop().unwrap();
}

/// Closed means closed: what was removed can be made anew at once.
#[test]
fn what_is_removed_is_closed_when_the_call_returns() {
    let node = node("127.91.0.1", 2);
    for _ in 0..200 {
        let id = node.bridge(1, 14801, "127.91.0.2");
        let (device, port) = Device::channel(DeviceKind::Tap, 16).unwrap();
        let attached = node.control.attach(id, device).unwrap();
        node.control.detach(attached).unwrap();
        let closed = port.send(frame(MacAddr::BROADCAST, mac(1), 1));
        assert!(matches!(closed, Err(ChannelError::Closed(_))), "{closed:?}");
        node.control.remove_segment(id).unwrap();
        drop(std::net::UdpSocket::bind("127.91.0.1:14801").unwrap());
    }
    assert!(node.control.settled(WAIT));
    node.finish();
}

#[test]
fn without_source_ports_datagrams_leave_from_the_segments_own() {
    let mut config = Config::new("127.92.0.1".parse().unwrap());
    config.source_ports = 0;
    let dataplane = Dataplane::start(config).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(vni(1));
    segment.udp_port = 14802;
    let id = control.add_segment(segment).unwrap();
    let peer = std::net::UdpSocket::bind("127.92.0.2:14803").unwrap();
    peer.set_read_timeout(Some(WAIT)).unwrap();
    control.add_flood(id, peer.local_addr().unwrap()).unwrap();
    let (device, port) = Device::channel(DeviceKind::Tap, 16).unwrap();
    control.attach(id, device).unwrap();
    port.send(frame(MacAddr::BROADCAST, mac(1), 1)).unwrap();
    let (len, from) = peer.recv_from(&mut [0; 100]).unwrap();
    assert_eq!((len, from), (8 + 60, "127.92.0.1:14802".parse().unwrap()));
    dataplane.stop().unwrap();
}

#[test]
fn row_22_two_dataplanes_do_not_share_a_udp_port() {
    let (first, second) = (node("127.93.0.1", 2), node("127.93.0.1", 2));
    first.bridge(1, 14804, "127.93.0.2");
    let mut segment = Segment::bridge(vni(2));
    segment.udp_port = 14804;
    let error = second.control.add_segment(segment).unwrap_err().to_string();
    assert!(error.contains("another process holds the port"), "{error}");
    first.finish();
    second.finish();
}

#[test]
fn row_22_a_node_is_no_vtep_of_its_own() {
    let node = node("127.94.0.1", 1);
    let id = node.bridge(1, 14805, "127.94.0.2");
    let error = node.control.add_flood(id, "127.94.0.1:14805".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("it is this node itself"), "{error}");
    // Nor does it become one by being at another port of this address, as a second dataplane would be.
    let other = node.bridge(1, 14806, "127.94.0.2");
    node.control.add_flood(other, "127.94.0.1:14805".parse().unwrap()).unwrap();
    assert!(node.control.add_flood(id, "127.94.0.1:14805".parse().unwrap()).is_err());
    node.finish();
}

/// A burst larger than a batch is drained although epoll reports it only once.
#[test]
fn a_burst_followed_by_silence_is_drained() {
    let node = node("127.88.0.1", 1);
    let id = node.bridge(1, 14799, "127.88.0.2");
    let (a, b) = (node.channel(id), node.channel(id));
    for n in 0..1000 {
        a.send(frame(MacAddr::BROADCAST, mac(1), n)).unwrap();
    }
    for n in 0..1000 {
        assert_eq!(number(&b.receive_timeout(WAIT).unwrap()), n);
    }
    node.finish();
}
