//! Paths on which large packets vanish without a word: probes find them out, and hosts live on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overplane::wire::probe::is_for_probes;
use overplane::{
    Config, DontFragment, Error, Event, Offload, Offloads, PathMtu, ProbeState, ProbeStats,
    Segment, Vni,
};
use overplane_lab::{Namespace, Ping, Sniffer, TcpLoad, Vxlan, ping, ping_ok, privileged};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, configure, eventually, inner_addresses, ip, tcp_both_ways,
    underlay,
};

/// Two hosts on one Ethernet, with a switch between them that drops what is too large for a link, and tells nobody.
struct Switched {
    hosts: [Namespace; 2],
    switch: Namespace,
}

impl Switched {
    fn new() -> Self {
        let [hosts @ .., switch] = [(); 3].map(|()| Namespace::new().unwrap());
        switch.add_bridge("br0").unwrap();
        switch.up("br0").unwrap();
        for (n, host) in hosts.iter().enumerate() {
            let port = format!("port{n}");
            Namespace::veth(host, "eth0", &switch, &port).unwrap();
            switch.set_master(&port, "br0").unwrap();
            switch.up(&port).unwrap();
            host.add_address("eth0", format!("{}/24", V4[n])).unwrap();
            host.add_address("eth0", format!("{}/64", V6[n])).unwrap();
            host.up("eth0").unwrap();
        }
        for (n, host) in hosts.iter().enumerate() {
            host.wait_up("eth0", Duration::from_secs(5)).unwrap();
            switch.wait_up(&format!("port{n}"), Duration::from_secs(5)).unwrap();
        }
        Self { hosts, switch }
    }

    /// From now on no packets above so many bytes pass, in either direction.
    fn narrow(&self, mtu: u32) {
        self.switch.set_mtu("port1", mtu).unwrap();
    }

    /// A dataplane on each host.
    fn nodes(&self, local: [&str; 2], probe: bool) -> [Node; 2] {
        [0, 1].map(|n| {
            let node =
                Node::new(&self.hosts[n], config(local[n]), segment(probe), &inner_addresses(n));
            let peer = SocketAddr::new(ip(local[1 - n]), 4789);
            node.control.add_flood(node.segment, peer).unwrap();
            node
        })
    }
}

fn segment(probe: bool) -> Segment {
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.mtu_options.probe = probe;
    segment
}

/// As fast as may be, and without trains, which a veth pair carries whole, however long their datagrams.
fn config(local: &str) -> Config {
    let mut config = Config::new(ip(local));
    config.offloads = Offloads::ALL.without(Offload::UdpGso);
    config.probing.interval = Duration::from_secs(1);
    config.probing.raise = Duration::from_secs(1);
    config.probing.max_probes = 2;
    // One asks, and either hears the answers.
    config.workers = 2;
    config
}

fn path(node: &Node) -> (PathMtu, Option<ProbeStats>) {
    let vtep = &node.control.stats().vteps[0];
    (vtep.path, vtep.probe)
}

fn verified(node: &Node, mtu: u32) -> bool {
    path(node)
        .1
        .is_some_and(|probe| (probe.state, probe.verified) == (ProbeState::Complete, Some(mtu)))
}

/// TCP between two hosts goes on after the path has become narrow, and is as fast as before when it is wide again.
fn check(local: [&str; 2], inner: &str) {
    let switched = Switched::new();
    let [left, right] = switched.nodes(local, true);
    for node in [&left, &right] {
        eventually(5, "the path is verified", || verified(node, 1500));
        let probe = path(node).1.unwrap();
        assert!(probe.answered > 0 && probe.round_trip.is_some(), "{probe:?}");
    }
    let server = SocketAddr::new(ip(inner), 0);
    let load = TcpLoad::start(&switched.hosts[0], &switched.hosts[1], server, 1).unwrap();
    eventually(5, "TCP flows", || load.arrived() > 1 << 20);
    switched.narrow(1492);
    // In steps that are in the table of common sizes, and so takes no time but that of the loss.
    eventually(10, "the black hole is found", || verified(&left, 1492));
    let before = load.arrived();
    eventually(10, "TCP flows again", || load.arrived() > before + (1 << 20));
    let (path, probe) = path(&left);
    assert_eq!((path.limit(), probe.unwrap().black_holes), (Some(1492), 1));
    eventually(5, "so is that of the other direction", || verified(&right, 1492));
    switched.narrow(1500);
    for node in [&left, &right] {
        eventually(10, "the path is wide again", || verified(node, 1500));
    }
    load.stop().unwrap();
    let vtep = SocketAddr::new(ip(local[1]), 4789);
    let about_path =
        |event: &Event| matches!(event, Event::BlackHole { .. } | Event::PathMtu { .. });
    let events: Vec<Event> =
        std::iter::from_fn(|| left.control.next_event()).filter(about_path).collect();
    let base = if vtep.is_ipv6() { 1280 } else { 1200 };
    let expected = [
        Event::BlackHole { vtep, size: 1500, verified: base },
        Event::PathMtu { vtep, mtu: Some(1492) },
        Event::PathMtu { vtep, mtu: None },
    ];
    assert_eq!(events, expected);
    left.finish();
    right.finish();
}

#[test]
fn row_19_a_silent_black_hole_is_found_over_ipv4() {
    if privileged("row_19_a_silent_black_hole_is_found_over_ipv4") {
        check(V4, INNER_V4[1]);
    }
}

#[test]
fn row_19_a_silent_black_hole_is_found_over_ipv6() {
    if privileged("row_19_a_silent_black_hole_is_found_over_ipv6") {
        check(V6, INNER_V6[1]);
    }
}

/// What it is that is found: without probes TCP stands still there.
#[test]
fn without_probes_tcp_stands_still_in_a_black_hole() {
    if !privileged("without_probes_tcp_stands_still_in_a_black_hole") {
        return;
    }
    let switched = Switched::new();
    let [left, right] = switched.nodes(V4, false);
    let server = SocketAddr::new(ip(INNER_V4[1]), 0);
    let load = TcpLoad::start(&switched.hosts[0], &switched.hosts[1], server, 1).unwrap();
    eventually(5, "TCP flows", || load.arrived() > 1 << 20);
    switched.narrow(1492);
    std::thread::sleep(Duration::from_millis(500));
    let stopped = load.arrived();
    std::thread::sleep(Duration::from_millis(2500));
    // A host whose own probes are small enough may get a few through.
    assert!(load.arrived() < stopped + (1 << 20));
    assert_eq!(path(&left), (PathMtu::default(), None));
    let large = Ping { payload: 1450 - 28, count: 1, dont_fragment: true, ..Ping::default() };
    let large = Ping { timeout: Duration::from_millis(300), ..large };
    assert_eq!(ping(&switched.hosts[0], ip(INNER_V4[1]), large).unwrap().received, 0);
    assert!(ping_ok(&switched.hosts[0], ip(INNER_V4[1]), 1000));
    drop(load);
    left.finish();
    right.finish();
}

/// The kernel drops probes, whatever its bridge has behind it, and is sent what it was sent before.
#[test]
fn row_19_a_kernel_peer_does_not_mind_probes() {
    if !privileged("row_19_a_kernel_peer_does_not_mind_probes") {
        return;
    }
    for [near, far] in [V4, V6] {
        let hosts = underlay();
        let node = Node::new(&hosts[0], config(near), segment(true), &inner_addresses(0));
        node.control.add_flood(node.segment, SocketAddr::new(ip(far), 4789)).unwrap();
        let remotes = [ip(near)];
        let vxlan = Vxlan { remotes: &remotes, learning: true, ..Vxlan::new("vx0", 42, ip(far)) };
        hosts[1].add_vxlan(&vxlan).unwrap();
        hosts[1].set_mtu("vx0", node.mtu() as u32).unwrap();
        // A bridge with the VXLAN device and a host.
        let behind = Namespace::new().unwrap();
        Namespace::veth(&hosts[1], "veth0", &behind, "eth0").unwrap();
        hosts[1].add_bridge("br0").unwrap();
        for port in ["vx0", "veth0"] {
            hosts[1].set_master(port, "br0").unwrap();
            hosts[1].up(port).unwrap();
        }
        hosts[1].up("br0").unwrap();
        configure(&behind, "eth0", node.mtu() as u32, &inner_addresses(1));
        let mut underlay = Sniffer::incoming(&hosts[1], "eth0").unwrap();
        let mut sniffer = Sniffer::incoming(&behind, "eth0").unwrap();
        let outer = if near == V4[0] { 14 + 20 + 8 + 8 } else { 14 + 40 + 8 + 8 };
        let is_probe = |frame: &[u8]| frame.get(outer..).is_some_and(is_for_probes);
        let start = Instant::now();
        eventually(5, "it is clear that there is no answer", || {
            path(&node).1.is_some_and(|probe| probe.state == ProbeState::Error && probe.sent >= 2)
        });
        assert!(underlay.drain().iter().any(|frame| is_probe(frame)), "it was asked");
        assert_eq!((path(&node).0.verified, path(&node).0.limit()), (None, None));
        tcp_both_ways([&hosts[0], &behind], 1 << 20);
        assert!(sniffer.drain().iter().all(|frame| !is_for_probes(frame)));
        assert!(start.elapsed() < Duration::from_secs(60));
        node.finish();
    }
}

#[test]
fn paths_are_not_probed_where_the_underlay_may_fragment() {
    if !privileged("paths_are_not_probed_where_the_underlay_may_fragment") {
        return;
    }
    let hosts = underlay();
    let mut config = config(V4[0]);
    config.dont_fragment = DontFragment::Unset;
    let dataplane = hosts[0].run(|| overplane::Dataplane::start(config)).unwrap();
    let refused = dataplane.control().add_segment(segment(true));
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    dataplane.control().add_segment(segment(false)).unwrap();
    dataplane.stop().unwrap();
}
