//! Offloads: every combination that makes sense carries the same traffic, and can be switched under it.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use overplane::wire::{FrameInfo, L4};
use overplane::{Config, Kind, Offload, OffloadState, Offloads, Segment, Vni, mtu};
use overplane_lab::{Namespace, Sniffer, Transfer, ping_ok, privileged, tcp_transfer};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, inner_addresses, ip, pair, settle, tcp_both_ways, underlay,
};

/// All, none, each one left out, and each one alone with what it needs.
fn sets() -> Vec<Offloads> {
    let mut sets = vec![Offloads::ALL, Offloads::NONE];
    for offload in Offload::ALL {
        sets.push(Offloads::ALL.without(*offload));
        let needs = match offload {
            Offload::Tso | Offload::Uso => Offloads::NONE.with(Offload::Checksum),
            _ => Offloads::NONE,
        };
        sets.push(needs.with(*offload));
    }
    sets
}

fn switch(nodes: [&Node; 2], set: Offloads) {
    for node in nodes {
        node.control.set_offloads(set);
        for info in node.control.offloads() {
            let on = info.state == OffloadState::On;
            match info.state {
                // What an old or a broken kernel does not do, and says so.
                OffloadState::Unavailable(why) if !why.starts_with("needs checksum") => {}
                _ => assert_eq!(on, set.usable().contains(info.offload), "{set}: {info:?}"),
            }
        }
    }
}

fn ping_both_families(from: &Namespace, mtu: usize) {
    for (inner, headers) in [(INNER_V4, 28), (INNER_V6, 48)] {
        for payload in [0, mtu - headers, mtu - headers + 1, 9000] {
            assert!(ping_ok(from, ip(inner[1]), payload), "{payload} bytes to {}", inner[1]);
        }
    }
}

/// Sends 60,000 bytes with one call to be cut into datagrams of 1000 bytes (`UDP_SEGMENT`), and checks them on arrival.
pub(crate) fn udp_super_frame(hosts: [&Namespace; 2], inner: [&str; 2]) {
    let bind = |host: usize| {
        let socket = hosts[host].run(|| UdpSocket::bind((ip(inner[host]), 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let (sender, receiver) = (bind(0), bind(1));
    let size: libc::c_int = 1000;
    let (fd, value) = (sender.as_raw_fd(), (&raw const size).cast());
    // SAFETY: the pointer and the length are those of `size`, which outlives the call.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, value, 4) };
    assert_eq!(set, 0);
    let sent: Vec<u8> = (0..60_000_u32).map(|n| (n / 7) as u8).collect();
    assert_eq!(sender.send_to(&sent, receiver.local_addr().unwrap()).unwrap(), sent.len());
    let mut received = Vec::new();
    let mut datagram = [0; 2000];
    while received.len() < sent.len() {
        let (length, _) = receiver.recv_from(&mut datagram).unwrap();
        assert_eq!(length, 1000);
        received.extend_from_slice(&datagram[..length]);
    }
    assert!(received == sent, "in order and unharmed");
}

#[test]
fn every_combination_carries_the_same_traffic() {
    if !privileged("every_combination_carries_the_same_traffic") {
        return;
    }
    let (hosts, left, right) = pair();
    let both = [&hosts[0], &hosts[1]];
    // Neighbours are found, MACs learned.
    ping_both_families(both[0], left.mtu());
    for set in sets() {
        switch([&left, &right], set);
        // Workers follow before their next batch, and a super-frame may have been in the device before.
        settle(&left.control);
        let chunks = || left.control.stats().totals.chunks;
        let before = chunks();
        tcp_both_ways(both, 1 << 20);
        let tso = set.usable().contains(Offload::Tso);
        assert_eq!(chunks() > before, tso, "{set}: TCP super-frames");
        let before = chunks();
        for inner in [INNER_V4, INNER_V6] {
            udp_super_frame(both, inner);
        }
        assert_eq!(
            chunks() > before,
            set.usable().contains(Offload::Uso),
            "{set}: UDP super-frames"
        );
        ping_both_families(both[0], left.mtu());
    }
    left.finish();
    right.finish();
}

#[test]
fn offloads_are_switched_under_running_transfers() {
    if !privileged("offloads_are_switched_under_running_transfers") {
        return;
    }
    let (hosts, left, right) = pair();
    for host in &hosts {
        host.sysctl("net/ipv4/tcp_ecn", "1").unwrap();
    }
    let done = AtomicBool::new(false);
    let transfer = |from: usize, to: usize, inner: [&str; 2]| {
        let server = SocketAddr::new(ip(inner[to]), 0);
        let what = Transfer {
            bytes: None,
            duration: Some(Duration::from_secs(2)),
            ..Transfer::of_bytes(0)
        };
        tcp_transfer(&hosts[from], &hosts[to], server, what).unwrap().bytes
    };
    thread::scope(|scope| {
        let switcher = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                for set in sets() {
                    switch([&left, &right], set);
                    thread::sleep(Duration::from_millis(20));
                }
                rounds += 1;
            }
            rounds
        });
        let transfers = [(0, 1, INNER_V4), (1, 0, INNER_V6)];
        let transfers =
            transfers.map(|(from, to, inner)| scope.spawn(move || transfer(from, to, inner)));
        for transfer in transfers {
            assert!(transfer.join().unwrap() > 0);
        }
        done.store(true, Ordering::Relaxed);
        assert!(switcher.join().unwrap() > 1, "several times through all");
    });
    let lost = left.control.stats().totals.chunks;
    assert!(lost > 0);
    left.finish();
    right.finish();
}

#[test]
fn with_the_right_gso_max_size_a_super_frame_is_one_send() {
    if !privileged("with_the_right_gso_max_size_a_super_frame_is_one_send") {
        return;
    }
    let (hosts, left, right) = pair();
    let segment = left.mtu();
    let size = left.host.gso_max_size("ovl0").unwrap();
    let bridge = Kind::Bridge(Vni::new(42).unwrap());
    assert_eq!(size, mtu::gso_max_size(bridge, false, segment as u32));
    // What one send takes, in full chunks with their inner headers and VXLAN's.
    let fit = 65_507 / (segment + 22);
    for inner in [INNER_V4, INNER_V6] {
        for timestamps in ["1", "0"] {
            for host in &hosts {
                host.sysctl("net/ipv4/tcp_timestamps", timestamps).unwrap();
            }
            let mut sniffer = Sniffer::open(&hosts[0], "ovl0").unwrap();
            let done = AtomicBool::new(false);
            let largest = thread::scope(|scope| {
                let watch = scope.spawn(|| {
                    let mut largest = 0;
                    while !done.load(Ordering::Relaxed) {
                        let Some(frame) = sniffer.next(Duration::from_millis(50)) else { continue };
                        let info = FrameInfo::parse(&frame).filter(|info| info.l4 == L4::Tcp);
                        let Some(info) = info else { continue };
                        let headers = usize::from(info.payload_offset - info.l3_offset);
                        let payload = frame.len() - usize::from(info.payload_offset);
                        largest = largest.max(payload.div_ceil(segment - headers));
                    }
                    largest
                });
                let server = SocketAddr::new(ip(inner[1]), 0);
                tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(48 << 20)).unwrap();
                done.store(true, Ordering::Relaxed);
                watch.join().unwrap()
            });
            println!("{} timestamps {timestamps}: {largest} of {fit} chunks", inner[1]);
            assert!(largest <= fit, "{largest} chunks, and {fit} are one send");
            assert!(largest + 2 >= fit, "{largest} chunks, and {fit} would be one send");
        }
    }
    left.finish();
    right.finish();
}

#[test]
fn what_is_off_from_the_start_is_off_and_shows() {
    if !privileged("what_is_off_from_the_start_is_off_and_shows") {
        return;
    }
    let hosts = underlay();
    let [left, right] = [0, 1].map(|n| {
        let mut config = Config::new(ip(V4[n]));
        config.workers = 2;
        config.offloads = "auto,-checksum".parse().unwrap();
        let segment = Segment::bridge(Vni::new(42).unwrap());
        let node = Node::new(&hosts[n], config, segment, &inner_addresses(n));
        let peer = SocketAddr::new(ip(V4[1 - n]), 4789);
        node.control.add_flood(node.segment, peer).unwrap();
        node
    });
    let stats = left.control.stats().to_string();
    assert!(stats.contains("offloads on: coalesce-tcp,"), "{stats}");
    assert!(stats.contains("offload checksum off\n"), "{stats}");
    assert!(stats.contains("offload tso not available: needs checksum\n"), "{stats}");
    tcp_both_ways([&hosts[0], &hosts[1]], 1 << 20);
    assert_eq!(left.control.stats().totals.chunks, 0);
    left.control.set_offloads(Offloads::ALL);
    assert!(
        left.control.stats().to_string().contains("offloads on: checksum,tso,uso,coalesce-tcp,")
    );
    tcp_both_ways([&hosts[0], &hosts[1]], 1 << 20);
    assert_ne!(left.control.stats().totals.chunks, 0);
    left.finish();
    right.finish();
}

/// What `mtu::gso_max_size` says of traffic that does not begin on the node.
#[test]
fn a_container_keeps_its_super_frames_if_its_link_is_limited_too() {
    if !privileged("a_container_keeps_its_super_frames_if_its_link_is_limited_too") {
        return;
    }
    let ([node, peer], left, right) = pair();
    let container = Namespace::new().unwrap();
    Namespace::veth(&container, "eth1", &node, "veth1").unwrap();
    for (host, link, address) in
        [(&container, "eth1", "10.7.0.2/24"), (&node, "veth1", "10.7.0.1/24")]
    {
        host.add_address(link, address).unwrap();
        host.set_mtu(link, 1450).unwrap();
        host.up(link).unwrap();
    }
    container.wait_up("eth1", Duration::from_secs(5)).unwrap();
    node.sysctl("net/ipv4/ip_forward", "1").unwrap();
    container.add_route("10.8.0.0/24", Some(ip("10.7.0.1")), None).unwrap();
    peer.add_route("10.7.0.0/24", Some(ip(INNER_V4[0])), None).unwrap();
    let size = node.gso_max_size("ovl0").unwrap();
    let chunks = |limit: u32| {
        container.set_gso_max_size("eth1", limit).unwrap();
        let before = left.control.stats().totals;
        let server = SocketAddr::new(ip(INNER_V4[1]), 0);
        tcp_transfer(&container, &peer, server, Transfer::of_bytes(32 << 20)).unwrap();
        let after = left.control.stats().totals;
        after.chunks - before.chunks
    };
    let (limited, unlimited) = (chunks(size), chunks(mtu::MAX_GSO_MAX_SIZE));
    // 32 MiB are 24,000 segments.
    assert!(limited > 12_000, "{limited} segments came in super-frames");
    assert!(limited > unlimited, "{unlimited} without the limit: what is larger is cut");
    left.finish();
    right.finish();
}
