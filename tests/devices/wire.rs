//! What is on the wires: outer checksums, and sizes within the MTU both ways.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use overplane::wire::{FrameInfo, L4};
use overplane_lab::{Namespace, Sniffer, Transfer, privileged, tcp_transfer};

use crate::hosts::{INNER_V4, INNER_V6, Node, V4, V6, inner_addresses, ip, underlay};
use crate::offloads::udp_super_frame;

/// Watches a link while `traffic` runs, and returns what `look` makes of its frames.
fn watch<T: Send>(
    host: &Namespace,
    link: &str,
    traffic: impl FnOnce(),
    mut look: impl FnMut(&[u8]) -> Option<T> + Send,
) -> Vec<T> {
    let mut sniffer = Sniffer::open(host, link).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut found = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let frame = sniffer.next(Duration::from_millis(50));
                found.extend(frame.and_then(|frame| look(&frame)));
            }
            found
        });
        traffic();
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    })
}

/// TCP and trains of UDP from the first host to the second.
fn traffic(hosts: [&Namespace; 2]) {
    for inner in [INNER_V4, INNER_V6] {
        let server = SocketAddr::new(ip(inner[1]), 0);
        tcp_transfer(hosts[0], hosts[1], server, Transfer::of_bytes(8 << 20)).unwrap();
        for _ in 0..10 {
            udp_super_frame(hosts, inner);
        }
    }
}

/// The outer UDP checksum field of a VXLAN datagram, and the number of bytes of IP that it is in.
fn outer(frame: &[u8]) -> Option<(u16, usize)> {
    let info = FrameInfo::parse(frame).filter(|info| info.l4 == L4::Udp)?;
    let l4 = usize::from(info.l4_offset);
    let to = u16::from_be_bytes([frame[l4 + 2], frame[l4 + 3]]);
    let check = u16::from_be_bytes([frame[l4 + 6], frame[l4 + 7]]);
    (to == 4789).then(|| (check, frame.len() - usize::from(info.l3_offset)))
}

/// Without checksum no receiver joins datagrams, and the kernel sends no trains.
#[test]
fn every_datagram_has_an_outer_checksum() {
    if !privileged("every_datagram_has_an_outer_checksum") {
        return;
    }
    for [a, b] in [V4, V6] {
        let hosts = underlay();
        let left = Node::vxlan(&hosts[0], a, b, &inner_addresses(0));
        let right = Node::vxlan(&hosts[1], b, a, &inner_addresses(1));
        let both = [&hosts[0], &hosts[1]];
        let datagrams = watch(&hosts[1], "eth0", || traffic(both), outer);
        assert!(datagrams.len() > 100);
        assert!(datagrams.iter().all(|(check, _)| *check != 0), "{a}");
        let trains = datagrams.iter().filter(|(_, len)| *len > 1500).count();
        assert!(trains > 10, "{trains} trains of {} sends", datagrams.len());
        left.finish();
        right.finish();
    }
}

/// On a link without segmentation offload trains are cut before it: there every packet shows its true size.
#[test]
fn no_packet_is_larger_than_the_mtu_of_its_link() {
    if !privileged("no_packet_is_larger_than_the_mtu_of_its_link") {
        return;
    }
    for [a, b] in [V4, V6] {
        let hosts = underlay();
        // The kernel cuts what does not fit into one packet of `gso_max_size` (kernel `net/core/dev.c`,
        // `gso_features_check`).
        hosts[0].set_gso_max_size("eth0", 1500).unwrap();
        let left = Node::vxlan(&hosts[0], a, b, &inner_addresses(0));
        let right = Node::vxlan(&hosts[1], b, a, &inner_addresses(1));
        let both = [&hosts[0], &hosts[1]];
        let datagrams = watch(&hosts[1], "eth0", || traffic(both), outer);
        let largest = datagrams.iter().map(|(_, len)| *len).max();
        assert_eq!(largest, Some(1500), "full, and no more");
        assert!(left.control.stats().totals.chunks > 1000, "they come from super-frames");
        left.finish();
        right.finish();
    }
}

/// What joined frames and kernel peers' super-frames are cut to again behind the device.
#[test]
fn super_frames_for_a_device_are_cut_to_its_mtu() {
    if !privileged("super_frames_for_a_device_are_cut_to_its_mtu") {
        return;
    }
    let hosts = underlay();
    let left = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    let right = Node::vxlan(&hosts[1], V4[1], V4[0], &inner_addresses(1));
    // Behind the second host is a third, over a link without offloads that is no wider than the segment.
    let third = Namespace::new().unwrap();
    Namespace::veth(&hosts[1], "veth1", &third, "eth1").unwrap();
    for (host, link, address) in
        [(&hosts[1], "veth1", "10.7.0.1/24"), (&third, "eth1", "10.7.0.2/24")]
    {
        host.add_address(link, address).unwrap();
        host.set_mtu(link, 1450).unwrap();
        host.set_gso_max_size(link, 1450).unwrap();
        host.up(link).unwrap();
    }
    third.wait_up("eth1", Duration::from_secs(5)).unwrap();
    hosts[1].sysctl("net/ipv4/ip_forward", "1").unwrap();
    hosts[0].add_route("10.7.0.0/24", Some(ip(INNER_V4[1])), None).unwrap();
    third.add_route("10.8.0.0/24", Some(ip("10.7.0.1")), None).unwrap();
    let server: SocketAddr = "10.7.0.2:0".parse().unwrap();
    let transfer = || {
        let report = tcp_transfer(&hosts[0], &third, server, Transfer::of_bytes(16 << 20)).unwrap();
        assert_eq!(report.bytes, 16 << 20);
    };
    let packet = |frame: &[u8]| FrameInfo::parse(frame).map(|_| frame.len() - 14);
    let packets = watch(&third, "eth1", transfer, packet);
    assert_eq!(packets.iter().max(), Some(&1450), "full, and no more");
    assert!(right.control.stats().totals.coalesced > 1000, "they come from super-frames");
    left.finish();
    right.finish();
}
