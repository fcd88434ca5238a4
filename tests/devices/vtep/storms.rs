//! What keeps a segment alive when frames loop or somebody floods it.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::{Config, Device, DropReason, Event, MacAddr, Segment, Vni};
use overplane_lab::{Sniffer, Vxlan, privileged};

use crate::hosts::{Node, V4, configure, eventually, ip, settle, underlay};

fn broadcast(from: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame.resize(100, from);
    frame
}

/// Two ports of one segment are joined by a bridge of the kernel outside: whatever is flooded comes back by the other port,
/// in both directions, and would go round for ever.
#[test]
fn a_loop_through_a_kernel_bridge_is_damped_and_reported() {
    if !privileged("a_loop_through_a_kernel_bridge_is_damped_and_reported") {
        return;
    }
    let hosts = underlay();
    let _ = hosts[0].sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.loops.moves = 1;
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &[]);
    let second = Device::tap_in(&hosts[0], "ovl1").unwrap();
    let second = node.control.attach(node.segment, second).unwrap();
    configure(&hosts[0], "ovl1", 1450, &[]);
    hosts[0].add_bridge("br0").unwrap();
    for port in ["ovl0", "ovl1"] {
        hosts[0].set_master(port, "br0").unwrap();
    }
    configure(&hosts[0], "br0", 1450, &[]);
    let frame = broadcast(9);
    let station = MacAddr([2, 0, 0, 0, 0, 9]);
    let outside = Sniffer::open(&hosts[0], "br0").unwrap();
    let mut damped = Vec::new();
    // A port of a bridge forwards a moment after it came up.
    eventually(4, "the loop is reported", || {
        outside.inject(&frame).unwrap();
        while let Some(event) = node.control.next_event() {
            // The bridge itself may speak up, too, and is held for it.
            let it = matches!(event, Event::Damped { mac, .. } if mac == station);
            damped.extend(it.then_some(event));
        }
        !damped.is_empty()
    });
    // One event, with both places.
    let [Event::Damped { segment, at, elsewhere, .. }] = damped[..] else {
        panic!("{damped:?}");
    };
    assert_eq!(segment, node.segment);
    let places = [at, elsewhere];
    assert!([node.port, second].iter().all(|port| places.contains(&(*port).into())), "{places:?}");
    // Nothing goes round any more, and nothing new begins to.
    settle(&node.control);
    let before = node.control.stats().totals;
    for _ in 0..10 {
        outside.inject(&frame).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = node.control.stats().totals;
    // Two frames for each, and what the bridge may have to say.
    assert!(after.received - before.received <= 50, "{before:?} {after:?}");
    assert!(after.flooded - before.flooded <= 20, "{before:?} {after:?}");
    assert!(after.drops(DropReason::Damped) > before.drops(DropReason::Damped));
    node.finish();
}

/// A kernel peer floods; the segment's limit holds for it, too.
#[test]
fn row_14_a_broadcast_storm_of_a_kernel_peer_is_limited() {
    if !privileged("row_14_a_broadcast_storm_of_a_kernel_peer_is_limited") {
        return;
    }
    let hosts = underlay();
    let _ = hosts[0].sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let _ = hosts[1].sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    // So slow that nothing comes back within the test.
    segment.storm.broadcast = Some(RateLimit { per_second: 1, burst: 50 });
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &[]);
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let remotes = [ip(V4[0])];
    let peer = Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(V4[1])) };
    hosts[1].add_vxlan(&peer).unwrap();
    configure(&hosts[1], "vx0", 1450, &[]);
    let mut here = Sniffer::incoming(&hosts[0], "ovl0").unwrap();
    let kernel = Sniffer::open(&hosts[1], "vx0").unwrap();
    let frame = broadcast(9);
    for _ in 0..500 {
        kernel.inject(&frame).unwrap();
    }
    let drops = || node.control.stats().totals.drops(DropReason::StormBroadcast);
    eventually(3, "the rest is counted", || drops() >= 440);
    settle(&node.control);
    let got = here.drain().iter().filter(|seen| **seen == frame).count();
    assert!((45..=60).contains(&got), "{got}");
    let mut storms = 0;
    while let Some(event) = node.control.next_event() {
        storms += usize::from(matches!(event, Event::Storm { port: None, .. }));
    }
    assert_eq!(storms, 1);
    node.finish();
}
