//! Learning and ageing, seen from outside: by where frames turn up.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, Dataplane, Device, Event, MacAddr, Origin, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, privileged};

use crate::hosts::{V4, configure, eventually, ip, quiet_host, underlay};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
/// An EtherType for experiments (IEEE 802, local experimental 1).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

fn frame(to: [u8; 6], from: [u8; 6], tag: u8) -> Vec<u8> {
    let mut frame = [&to[..], &from, &EXPERIMENT, &[tag]].concat();
    frame.resize(60, 0);
    frame
}

fn sees(sniffer: &mut Sniffer, tag: u8) -> bool {
    let wanted = |frame: &[u8]| frame[12..14] == EXPERIMENT && frame[14] == tag;
    sniffer.find(Duration::from_millis(300), wanted).is_some()
}

#[test]
fn row_13_learning_moving_and_ageing_are_reported() {
    if !privileged("row_13_learning_moving_and_ageing_are_reported") {
        return;
    }
    let [node, _far] = underlay();
    let dataplane = node.run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(Vni::new(9).unwrap());
    segment.ageing = Some(Duration::from_secs(2));
    let segment = control.add_segment(segment).unwrap();
    let hosts = [0, 1, 2].map(|_| quiet_host(&control, segment));
    let ports: Vec<_> = control.ports().iter().map(|port| port.id).collect();
    let senders = hosts.each_ref().map(|host| Sniffer::open(host, "eth0").unwrap());
    let mut seen = hosts.each_ref().map(|host| Sniffer::incoming(host, "eth0").unwrap());

    senders[0].inject(&frame(OTHER, HOST, 1)).unwrap();
    assert!(sees(&mut seen[1], 1) && sees(&mut seen[2], 1), "an unknown destination is flooded");

    senders[1].inject(&frame(HOST, OTHER, 2)).unwrap();
    assert!(sees(&mut seen[0], 2), "the answer arrives");
    assert!(!sees(&mut seen[2], 2), "and nowhere else: the first frame was learned from");

    let fdb = control.fdb(segment).unwrap();
    let entry = |mac: [u8; 6]| fdb.iter().find(|entry| entry.mac == MacAddr(mac)).copied();
    assert_eq!(entry(HOST).unwrap().destination, ports[0].into());
    assert_eq!(entry(OTHER).unwrap().destination, ports[1].into());
    assert!(fdb.iter().all(|entry| entry.origin == Origin::Learned && entry.age.is_some()));

    // The host moves: its next frame is enough.
    senders[2].inject(&frame(OTHER, HOST, 3)).unwrap();
    assert!(sees(&mut seen[1], 3));
    senders[1].inject(&frame(HOST, OTHER, 4)).unwrap();
    assert!(sees(&mut seen[2], 4) && !sees(&mut seen[0], 4), "frames follow the host");

    let mut events = Vec::new();
    let mac = MacAddr(HOST);
    eventually(6, "the host ages out", || {
        events.extend(std::iter::from_fn(|| control.next_event()));
        events.contains(&Event::Aged { segment, mac })
    });
    assert!(control.fdb(segment).unwrap().is_empty());
    senders[0].inject(&frame(OTHER, HOST, 5)).unwrap();
    assert!(sees(&mut seen[1], 5) && sees(&mut seen[2], 5), "flooded again");

    let learned = Event::Learned { segment, mac, at: ports[0].into() };
    let moved = Event::Moved { segment, mac, from: Some(ports[0].into()), to: ports[2].into() };
    let at = |wanted: &Event| events.iter().position(|event| event == wanted);
    assert!(at(&learned).is_some() && at(&learned) < at(&moved), "{events:?}");
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved());
}

#[test]
fn row_11_a_static_entry_holds_against_frames_from_elsewhere() {
    if !privileged("row_11_a_static_entry_holds_against_frames_from_elsewhere") {
        return;
    }
    let [node, _far] = underlay();
    let dataplane = node.run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let segment = control.add_segment(Segment::bridge(Vni::new(9).unwrap())).unwrap();
    let vtep: SocketAddr = format!("{}:4789", V4[1]).parse().unwrap();
    control.insert_fdb(segment, MacAddr(HOST), vtep).unwrap();
    let host = Namespace::new().unwrap();
    control.attach(segment, Device::tap_in(&host, "eth0").unwrap()).unwrap();
    configure(&host, "eth0", 1450, &[]);
    let sender = Sniffer::open(&host, "eth0").unwrap();
    let pinned = || control.stats().totals.drops(overplane::DropReason::PinnedSource);
    sender.inject(&frame(OTHER, HOST, 1)).unwrap();
    eventually(5, "the forged frame is dropped", || pinned() == 1);
    assert_eq!(control.fdb(segment).unwrap()[0].destination, vtep.into());
    dataplane.stop().unwrap();
}
