//! Three nodes in a full mesh, two of ours and the kernel's VXLAN device in a bridge, while everything that can happen
//! to them happens at random: afterwards every frame is accounted for, every flow is alive, and nothing was left behind.

mod flows;
mod misfortune;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::{Config, Device, Dscp, Querier, Segment, Ttl, Vni};
use overplane_lab::{Namespace, Random, Vxlan, ping_ok, privileged};

use crate::hosts::{Node, configure, eventually, ip, settle};
use crate::process;
use flows::{Heartbeat, multicast_arrives, stream_arrives, traffic};
use misfortune::{churn, misfortune};

/// Which of the hosts is the kernel's; the others have a dataplane each.
const KERNEL: usize = 2;

/// How long flows may take to find out that their way is there again: TCP doubles its patience with every loss.
const RECOVERY: u64 = 30;

/// Growth of what is allocated that is none, in KiB: names of ports and VTEPs that have been are kept for a while.
const SLACK: u64 = 1 << 10;

/// The same of resident memory: batches and FDBs become resident where they are first touched, which goes on for long.
const RESIDENT_SLACK: u64 = 24 << 10;

/// The overlay address of a host.
fn inner(host: usize, v6: bool) -> IpAddr {
    let text = if v6 { format!("fd08::{}", host + 1) } else { format!("10.8.0.{}", host + 1) };
    ip(&text)
}

/// The overlay address of a host in the routed segment, which the two dataplanes have besides.
fn routed(host: usize) -> IpAddr {
    ip(&format!("10.7.{}.1", host + 1))
}

fn vtep(host: usize) -> SocketAddr {
    SocketAddr::new(ip(&format!("10.9.0.{}", host + 1)), 4789)
}

/// The link of a host that is on the overlay.
fn link(host: usize) -> &'static str {
    if host == KERNEL { "br1" } else { "ovl0" }
}

fn addresses(host: usize) -> [String; 2] {
    [format!("{}/24", inner(host, false)), format!("{}/64", inner(host, true))]
}

/// The hosts, each on a port of one switch.
struct Scene {
    hosts: [Namespace; 3],
    nodes: [Node; 2],
    _switch: Namespace,
}

impl Scene {
    fn new() -> Self {
        let switch = Namespace::new().unwrap();
        switch.add_bridge("br0").unwrap();
        switch.up("br0").unwrap();
        let hosts = [0, 1, 2].map(|n| {
            let host = Namespace::new().unwrap();
            let port = format!("port{n}");
            Namespace::veth(&host, "eth0", &switch, &port).unwrap();
            switch.set_master(&port, "br0").unwrap();
            switch.up(&port).unwrap();
            host.add_address("eth0", format!("{}/24", vtep(n).ip())).unwrap();
            // TCP marks its segments as ECN-capable.
            host.sysctl("net/ipv4/tcp_ecn", "1").unwrap();
            host.up("eth0").unwrap();
            host
        });
        for host in &hosts {
            host.wait_up("eth0", Duration::from_secs(5)).unwrap();
        }
        let nodes = [0, 1].map(|n| node(&hosts[n], n));
        hosts[KERNEL].add_bridge("br1").unwrap();
        // A bridge takes the address of a port otherwise, and the port will be another one.
        hosts[KERNEL].set_mac("br1", [2, 0, 0, 0, 0x42, 3]).unwrap();
        kernel_vxlan(&hosts[KERNEL]);
        configure(&hosts[KERNEL], "br1", 1450, &addresses(KERNEL));
        Self { hosts, nodes, _switch: switch }
    }

    /// Waits until everybody reaches everybody in every way.
    fn assert_alive(&self, heartbeats: &[Heartbeat]) {
        let beats: Vec<u64> = heartbeats.iter().map(Heartbeat::beats).collect();
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                for v6 in [false, true] {
                    let (host, address) = (&self.hosts[from], inner(to, v6));
                    let what = format!("{address} answers host {from}");
                    eventually(RECOVERY, &what, || ping_ok(host, address, 1000));
                    let what = format!("a stream from host {from} to {address}");
                    eventually(RECOVERY, &what, || {
                        stream_arrives(host, &self.hosts[to], address, 300_000)
                    });
                }
            }
            for v6 in [false, true] {
                let what = format!("multicast from host {from}, IPv6: {v6}");
                eventually(RECOVERY, &what, || multicast_arrives(&self.hosts, from, v6));
            }
        }
        for from in 0..2 {
            let (host, address) = (&self.hosts[from], routed(1 - from));
            eventually(RECOVERY, "the routed segment", || ping_ok(host, address, 1000));
        }
        for (heartbeat, before) in heartbeats.iter().zip(beats) {
            let what = format!("{heartbeat} goes on");
            eventually(RECOVERY, &what, || heartbeat.beats() > before + 2);
        }
        for host in &self.hosts {
            assert_eq!(host.checksum_errors().unwrap(), 0);
        }
    }
}

/// A dataplane of two workers, with a bridge segment towards both other hosts and a routed one towards the other
/// dataplane.
fn node(host: &Namespace, n: usize) -> Node {
    let mut config = Config::new(vtep(n).ip());
    config.workers = 2;
    // Slots become resident when the first super-frame lies in them, which could take as long as the test.
    config.batch = 16;
    // As nervous as may be: what is lost once is taken for too large.
    config.probing.interval = Duration::from_secs(1);
    config.probing.raise = Duration::from_secs(1);
    config.probing.max_probes = 1;
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    (segment.outer.dscp, segment.outer.ttl) = (Dscp::Inherit, Ttl::Inherit);
    // One answers for its neighbours, the other floods requests.
    segment.neighbours.suppress = n == 1;
    segment.mtu_options.probe = true;
    // One sends multicast to those who listen and asks for them, so that the kernel's bridge does, too; the other floods.
    segment.snooping.enabled = n == 0;
    let v6 = "fe80::51".parse().ok();
    let mut querier = Querier::new(Some([10, 8, 0, 51].into()), v6);
    querier.response_interval = Duration::from_secs(1);
    segment.snooping.querier = Some(querier);
    let node = Node::new(host, config, segment, &addresses(n));
    for other in (0..3).filter(|other| *other != n) {
        node.control.add_flood(node.segment, vtep(other)).unwrap();
    }
    let segment = node.control.add_segment(Segment::routed(FLANNEL_UDP_PORT)).unwrap();
    node.control.attach(segment, Device::tun_in(host, "tun0").unwrap()).unwrap();
    configure(host, "tun0", 1472, &[format!("{}/16", routed(n))]);
    let prefix = format!("10.7.{}.0/24", 2 - n).parse().unwrap();
    let peer = SocketAddr::new(vtep(1 - n).ip(), FLANNEL_UDP_PORT);
    node.control.insert_route(segment, prefix, peer).unwrap();
    node
}

/// The kernel's VXLAN device as a port of the bridge.
fn kernel_vxlan(host: &Namespace) {
    let remotes = [vtep(0).ip(), vtep(1).ip()];
    let vxlan = Vxlan::new("vx0", 42, vtep(KERNEL).ip());
    host.add_vxlan(&Vxlan { remotes: &remotes, ..vxlan }).unwrap();
    host.set_mtu("vx0", 1450).unwrap();
    host.set_master("vx0", "br1").unwrap();
    host.up("vx0").unwrap();
}

/// What the process holds when nothing is going on.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    heap: u64,
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Holdings {
    fn now() -> Self {
        Self {
            heap: process::heap(),
            memory: process::resident(),
            descriptors: process::descriptors(),
            threads: process::threads(),
        }
    }
}

/// Rounds of misfortune and recovery for `time` in all. The environment variable `SOAK_SEED` repeats the choices of an
/// earlier run.
#[allow(clippy::print_stdout, reason = "shows when the test fails, and how a long one gets on")]
fn soak(time: Duration, round: Duration) {
    let given = env::var("SOAK_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("SOAK_SEED={seed}");
    let start = Instant::now();
    let mut scene = Scene::new();
    scene.assert_alive(&[]);
    let pairs = [(0, 1), (1, 2), (2, 0)];
    let heartbeats: Vec<Heartbeat> = [false, true]
        .into_iter()
        .flat_map(|v6| pairs.map(|pair| Heartbeat::start(&scene.hosts, pair, v6)))
        .collect();
    let mut holdings: Vec<Holdings> = Vec::new();
    let mut number = 0;
    // What the first rounds take for good is warming up.
    while start.elapsed() < time || holdings.len() < 3 {
        number += 1;
        let random = |n: u64| Random::new(seed ^ number << 8 ^ n);
        let until = Instant::now() + round;
        let Scene { hosts, nodes, .. } = &mut scene;
        let controls = [0, 1].map(|n: usize| (nodes[n].control.clone(), nodes[n].segment));
        thread::scope(|scope| {
            let hosts = &*hosts;
            for n in 0..4 {
                scope.spawn(move || traffic(hosts, until, random(n)));
            }
            for (n, control) in (4..).zip(&controls) {
                scope.spawn(move || churn(control, n as usize - 4, until, random(n)));
            }
            misfortune(hosts, nodes, until, random(6));
        });
        scene.assert_alive(&heartbeats);
        scene.nodes.iter().for_each(|node| settle(&node.control));
        if let Some(first) = holdings.get(1) {
            let back = |now: Holdings| (now.descriptors, now.threads);
            eventually(10, "descriptors and threads are as many as before", || {
                back(Holdings::now()) == back(*first)
            });
        }
        holdings.push(Holdings::now());
        println!("{:?}: {:?}", start.elapsed(), holdings[holdings.len() - 1]);
    }
    let (early, last) = (holdings[1], holdings[holdings.len() - 1]);
    assert!(last.heap < early.heap + SLACK, "allocations grew: {holdings:?}");
    assert!(last.memory < early.memory + RESIDENT_SLACK, "memory grew: {holdings:?}");
    drop(heartbeats);
    for node in &scene.nodes {
        println!("{}", node.control.stats());
    }
    scene.nodes.into_iter().for_each(Node::finish);
}

/// `.ci/run` runs it for half a minute; the environment variable `SOAK_SECONDS` makes it longer:
/// `SOAK_SECONDS=600 cargo test --release --test devices -- --ignored --nocapture three_nodes`.
#[test]
#[ignore = "takes half a minute or SOAK_SECONDS, and --test-threads=1"]
fn three_nodes_outlive_whatever_happens() {
    if privileged("three_nodes_outlive_whatever_happens") {
        let seconds = env::var("SOAK_SECONDS").map_or(30, |text| text.parse().unwrap());
        soak(Duration::from_secs(seconds), Duration::from_secs(4));
    }
}
