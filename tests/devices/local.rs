//! Several devices on one node: switched locally within a segment, apart between segments.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, Control, Dataplane, Device, Segment, SegmentId, Stats, Vni};
use overplane_lab::{Namespace, Sniffer, Transfer, ping_ok, privileged, tcp_transfer};

use crate::hosts::{INNER_V4, V4, configure, inner_addresses, ip, settle, tcp_both_ways, underlay};

/// A host of its own for one TAP of the dataplane, as a container would have.
fn container(control: &Control, segment: SegmentId, addresses: &[String]) -> Namespace {
    let host = Namespace::new().unwrap();
    control.attach(segment, Device::tap_in(&host, "eth0").unwrap()).unwrap();
    configure(&host, "eth0", 1450, addresses);
    host
}

fn bridge(control: &Control, vni: u32, peer: &str) -> SegmentId {
    let segment = control.add_segment(Segment::bridge(Vni::new(vni).unwrap())).unwrap();
    control.add_flood(segment, SocketAddr::new(ip(peer), 4789)).unwrap();
    segment
}

#[test]
fn two_ports_of_a_segment_are_switched_without_the_underlay() {
    if !privileged("two_ports_of_a_segment_are_switched_without_the_underlay") {
        return;
    }
    let [node, _peer] = underlay();
    let dataplane = node.run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let segment = bridge(&control, 7, V4[1]);
    let containers = [0, 1].map(|n| container(&control, segment, &inner_addresses(n)));
    assert!(ping_ok(&containers[0], ip(INNER_V4[1]), 1422));
    settle(&control);
    let before = control.stats();
    tcp_both_ways([&containers[0], &containers[1]], 8 << 20);
    settle(&control);
    let after = control.stats();
    let bytes = |stats: &Stats| stats.ports.iter().map(|port| port.traffic.sent_bytes).sum::<u64>();
    assert!(bytes(&after) > bytes(&before) + (32 << 20));
    // Super-frames go from device to device whole.
    assert_eq!(after.totals.chunks, before.totals.chunks);
    // Neighbour solicitations are for a group and are flooded; of the transfers nothing leaves the node.
    let sent = after.totals.sent - before.totals.sent;
    assert!(sent < 50, "{sent} datagrams left the node");
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved());
}

/// Two tenants use the same addresses on the same nodes over the same UDP port.
#[test]
fn segments_on_one_udp_port_do_not_leak_into_each_other() {
    if !privileged("segments_on_one_udp_port_do_not_leak_into_each_other") {
        return;
    }
    let nodes = underlay();
    let dataplanes =
        [0, 1].map(|n| nodes[n].run(|| Dataplane::start(Config::new(ip(V4[n])))).unwrap());
    let controls = [0, 1].map(|n| dataplanes[n].control());
    let tenant = |vni: u32| {
        [0, 1].map(|n| {
            let segment = bridge(&controls[n], vni, V4[1 - n]);
            container(&controls[n], segment, &inner_addresses(n))
        })
    };
    let (red, blue) = (tenant(1), tenant(2));
    let mut sniffers: Vec<Sniffer> =
        blue.iter().map(|host| Sniffer::incoming(host, "eth0").unwrap()).collect();
    let report = tcp_transfer(
        &red[0],
        &red[1],
        SocketAddr::new(ip(INNER_V4[1]), 0),
        Transfer::of_bytes(4 << 20),
    );
    assert_eq!(report.unwrap().bytes, 4 << 20);
    // A frame of red that nobody in red can own is flooded, which is where a leak would show.
    let unknown = Sniffer::open(&red[0], "eth0").unwrap();
    let mut frame = vec![0; 60];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 99, 2, 0, 0, 0, 0, 98]);
    frame[12..18].copy_from_slice(&[0x88, 0xb5, b'l', b'e', b'a', b'k']);
    unknown.inject(&frame).unwrap();
    for sniffer in &mut sniffers {
        let macs: Vec<[u8; 6]> = red.iter().map(|host| host.mac("eth0").unwrap()).collect();
        let leaked = sniffer.collect(Duration::from_millis(300)).into_iter().find(|frame| {
            frame[12..].windows(4).any(|w| w == b"leak")
                || macs.iter().any(|mac| frame[6..12] == *mac)
        });
        assert_eq!(leaked, None);
    }
    assert!(ping_ok(&blue[0], ip(INNER_V4[1]), 56), "blue works by itself");
    for dataplane in dataplanes {
        dataplane.stop().unwrap();
    }
    assert!(controls.iter().all(|control| control.stats().totals.is_conserved()));
}
