//! Paths through the underlay that are narrower than its links: they are learned, used, and tried anew.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::{Config, DropReason, Event, PathMtu, ProbeState, Segment, Vni};
use overplane_lab::{Namespace, Ping, Transfer, ping, privileged, tcp_transfer};

use crate::hosts::{self, INNER_V4, INNER_V6, Node, eventually, inner_addresses, ip, underlay};

const V4: [&str; 2] = ["10.9.1.1", "10.9.2.1"];
const V6: [&str; 2] = ["fd09:1::1", "fd09:2::1"];

/// Two hosts in different networks with a router between them, whose link to the second one carries 1300 bytes.
struct Routed {
    hosts: [Namespace; 2],
    router: Namespace,
}

impl Routed {
    fn new() -> Self {
        let [hosts @ .., router] = [(); 3].map(|()| Namespace::new().unwrap());
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            router.sysctl(setting, "1").unwrap();
        }
        for (n, host) in hosts.iter().enumerate() {
            let port = format!("port{n}");
            Namespace::veth(host, "eth0", &router, &port).unwrap();
            // The kernel's own memory must not be longer than ours.
            for setting in ["net/ipv4/route/mtu_expires", "net/ipv6/route/mtu_expires"] {
                host.sysctl(setting, "1").unwrap();
            }
            for (address, of_router, len) in [
                (V4[n], format!("10.9.{}.254", n + 1), 24),
                (V6[n], format!("fd09:{}::fe", n + 1), 64),
            ] {
                host.add_address("eth0", format!("{address}/{len}")).unwrap();
                router.add_address(&port, format!("{of_router}/{len}")).unwrap();
            }
            host.up("eth0").unwrap();
            router.up(&port).unwrap();
        }
        for (n, host) in hosts.iter().enumerate() {
            host.wait_up("eth0", Duration::from_secs(5)).unwrap();
            router.wait_up(&format!("port{n}"), Duration::from_secs(5)).unwrap();
            for (everything, router) in [
                ("0.0.0.0/0", format!("10.9.{}.254", n + 1)),
                ("::/0", format!("fd09:{}::fe", n + 1)),
            ] {
                host.add_route(everything, Some(ip(&router)), None).unwrap();
            }
        }
        let routed = Self { hosts, router };
        routed.set_mtu(1300);
        routed
    }

    fn set_mtu(&self, mtu: u32) {
        self.router.set_mtu("port1", mtu).unwrap();
    }

    /// A dataplane on each host.
    fn nodes(&self, local: [&str; 2], expiry: Duration) -> [Node; 2] {
        self.nodes_that(local, expiry, false)
    }

    /// The same, which probe the path or not.
    fn nodes_that(&self, local: [&str; 2], expiry: Duration, probe: bool) -> [Node; 2] {
        [0, 1].map(|n| {
            let mut config = Config::new(ip(local[n]));
            config.path_mtu_expiry = expiry;
            config.probing.interval = Duration::from_secs(1);
            let mut segment = Segment::bridge(Vni::new(42).unwrap());
            segment.mtu_options.probe = probe;
            let node = Node::new(&self.hosts[n], config, segment, &inner_addresses(n));
            let peer = SocketAddr::new(ip(local[1 - n]), 4789);
            node.control.add_flood(node.segment, peer).unwrap();
            node
        })
    }
}

fn path(node: &Node) -> PathMtu {
    node.control.stats().vteps[0].path
}

fn pings(from: &Namespace, to: IpAddr, payload: usize) -> bool {
    let timeout = Duration::from_millis(100);
    let how = Ping { payload, count: 1, timeout, dont_fragment: true, ..Ping::default() };
    ping(from, to, how).unwrap().received > 0
}

fn check(local: [&str; 2], learned: u32) {
    let routed = Routed::new();
    let [left, right] = routed.nodes(local, Duration::from_secs(600));
    let hosts = &routed.hosts;
    // The far host's own link is as wide as the near one's: both have to be told by the router.
    for (inner, node) in [(INNER_V4, &left), (INNER_V6, &left)] {
        let server = SocketAddr::new(ip(inner[1]), 0);
        let bytes = 1 << 20;
        let report = tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(bytes)).unwrap();
        assert_eq!(report.bytes, bytes);
        assert_eq!(path(node).learned, Some(learned), "{}", node.control.stats());
    }
    let news = std::iter::from_fn(|| left.control.next_event());
    let vtep = SocketAddr::new(ip(local[1]), 4789);
    let wanted = Event::PathMtu { vtep, mtu: Some(learned) };
    assert_eq!(news.filter(|event| *event == wanted).count(), 1, "once is enough");
    left.finish();
    right.finish();
}

#[test]
fn row_19_a_narrow_path_is_learned_over_ipv4() {
    if privileged("row_19_a_narrow_path_is_learned_over_ipv4") {
        check(V4, 1300);
    }
}

#[test]
fn row_19_a_narrow_path_is_learned_over_ipv6() {
    if privileged("row_19_a_narrow_path_is_learned_over_ipv6") {
        check(V6, 1300);
    }
}

/// With probes no frame of a host is lost to find out, neither that the path is narrow nor that it is wide again.
#[test]
fn row_19_probes_hear_what_routers_say() {
    if !privileged("row_19_probes_hear_what_routers_say") {
        return;
    }
    for local in [V4, V6] {
        let routed = Routed::new();
        let [left, right] = routed.nodes_that(local, Duration::from_secs(1), true);
        let verified = |mtu| {
            let vtep = &left.control.stats().vteps[0];
            let done = (ProbeState::Complete, Some(mtu));
            vtep.probe.is_some_and(|probe| (probe.state, probe.verified) == done)
        };
        eventually(5, "the path is known", || verified(1300));
        routed.set_mtu(1500);
        eventually(8, "the path is wide", || verified(1500));
        let stats = left.control.stats();
        assert_eq!(stats.totals.drops(DropReason::TooBig), 0, "{stats}");
        assert_eq!(stats.vteps[0].probe.unwrap().black_holes, 0, "somebody did say so: {stats}");
        left.finish();
        right.finish();
    }
}

#[test]
fn row_19_a_path_grows_back_when_its_links_do() {
    if !privileged("row_19_a_path_grows_back_when_its_links_do") {
        return;
    }
    let routed = Routed::new();
    let [left, right] = routed.nodes(V4, Duration::from_secs(1));
    let (from, to) = (&routed.hosts[0], ip(INNER_V4[1]));
    eventually(5, "the path is learned", || {
        pings(from, to, 1400);
        path(&left).learned.is_some()
    });
    routed.set_mtu(1500);
    eventually(5, "packets as large as the overlay's MTU arrive", || {
        // The host remembers, too.
        pings(from, to, 1450 - 28)
    });
    // A late report of a datagram that was refused before may be heard once more.
    eventually(5, "nothing is remembered of it", || path(&left).learned.is_none());
    assert!(left.control.stats().totals.drops(DropReason::UnderlayTooBig) > 0);
    left.finish();
    right.finish();
}

/// The kernel refuses datagrams from the moment a link is narrower; whoever asks it a moment later is told that it is not.
#[test]
fn row_19_a_link_that_was_narrow_for_a_moment_leaves_nothing_behind() {
    if !privileged("row_19_a_link_that_was_narrow_for_a_moment_leaves_nothing_behind") {
        return;
    }
    for (local, mtu) in [(hosts::V4, 1450), (hosts::V6, 1430)] {
        let hosts = underlay();
        // Those who send remember what they were told, too.
        for setting in ["net/ipv4/route/mtu_expires", "net/ipv6/route/mtu_expires"] {
            hosts[0].sysctl(setting, "1").unwrap();
        }
        let nodes = [0, 1].map(|n| {
            let segment = Segment::bridge(Vni::new(42).unwrap());
            let config = Config::new(ip(local[n]));
            let node = Node::new(&hosts[n], config, segment, &inner_addresses(n));
            node.control.add_flood(node.segment, SocketAddr::new(ip(local[1 - n]), 4789)).unwrap();
            node
        });
        let to = ip(INNER_V4[1]);
        eventually(5, "the hosts know each other", || pings(&hosts[0], to, mtu - 28));
        let learned = || path(&nodes[0]).learned;
        let refused = || nodes[0].control.stats().totals.drops(DropReason::UnderlayTooBig);
        // An answer is not waited for.
        let timeout = Duration::from_millis(5);
        let at_once = Ping { payload: mtu - 28, count: 1, timeout, ..Ping::default() };
        let mut met = 0;
        for _ in 0..8 {
            let before = refused();
            hosts[0].set_mtu("eth0", 1300).unwrap();
            ping(&hosts[0], to, at_once).unwrap();
            hosts[0].set_mtu("eth0", 1500).unwrap();
            eventually(5, "nothing is remembered of it", || learned().is_none());
            eventually(5, "large packets arrive", || pings(&hosts[0], to, mtu - 28));
            met += u32::from(refused() > before);
        }
        assert!(met > 0, "{}", nodes[0].control.stats());
        nodes.into_iter().for_each(Node::finish);
    }
}
