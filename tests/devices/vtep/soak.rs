//! Three nodes in a full mesh, two of ours and the kernel's VXLAN device in a bridge, while everything that can happen
//! to them happens at random: afterwards every frame is accounted for, every flow is alive, and nothing was left behind.

mod churn;
mod flows;
mod misfortune;
mod ours;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Random, Vxlan, ping_ok, privileged};

use crate::hosts::{configure, eventually, ip, settle};
use crate::process;
use churn::churn;
use flows::{Heartbeat, multicast_arrives, stream_arrives, traffic};
use misfortune::misfortune;
use ours::Ours;

/// Which of the hosts is the kernel's; the others have a dataplane each.
const KERNEL: usize = 2;

/// Those who are in the bridge segment: the three hosts, and a guest of each dataplane.
const STATIONS: usize = 5;

/// The guest of a host.
fn guest_station(host: usize) -> usize {
    3 + host
}

/// How long flows may take to find out that their way is there again: TCP doubles its patience with every loss.
const RECOVERY: u64 = 30;

/// Growth of what is allocated that is none, in KiB: names of ports and VTEPs that have been are kept for a while.
const SLACK: u64 = 1 << 10;

/// The same of resident memory: batches and FDBs become resident where they are first touched, which goes on for long.
const RESIDENT_SLACK: u64 = 24 << 10;

/// The overlay address of a station.
fn inner(station: usize, v6: bool) -> IpAddr {
    let number = station + 1;
    ip(&if v6 { format!("fd08::{number}") } else { format!("10.8.0.{number}") })
}

/// The only address of a family that the pod of a dataplane has.
fn pod(host: usize, v6: bool) -> IpAddr {
    ip(&if v6 { format!("fd66::{host}:1") } else { format!("10.66.{host}.1") })
}

/// The overlay address of a host in the routed segment, which the two dataplanes have besides.
fn routed(host: usize) -> IpAddr {
    ip(&format!("10.7.{}.1", host + 1))
}

fn vtep(host: usize) -> SocketAddr {
    SocketAddr::new(ip(&format!("10.9.0.{}", host + 1)), 4789)
}

/// The link of a station that is on the overlay.
fn link(station: usize) -> &'static str {
    match station {
        KERNEL => "br1",
        0..KERNEL => "ovl0",
        _ => "eth0",
    }
}

fn addresses(station: usize) -> [String; 2] {
    [format!("{}/24", inner(station, false)), format!("{}/64", inner(station, true))]
}

/// The hosts, each on a port of one switch, and whoever else is on the overlay.
struct Scene {
    stations: [Namespace; STATIONS],
    nodes: [Ours; 2],
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
        let nodes = [0, 1].map(|n| Ours::new(&hosts[n], n));
        hosts[KERNEL].add_bridge("br1").unwrap();
        // A bridge takes the address of a port otherwise, and the port will be another one.
        hosts[KERNEL].set_mac("br1", [2, 0, 0, 0, 0x42, 3]).unwrap();
        kernel_vxlan(&hosts[KERNEL]);
        configure(&hosts[KERNEL], "br1", 1450, &addresses(KERNEL));
        let [a, b, c] = hosts;
        let stations = [a, b, c, nodes[0].guest.clone(), nodes[1].guest.clone()];
        Self { stations, nodes, _switch: switch }
    }

    /// Waits until everybody reaches everybody in every way.
    fn assert_alive(&self, heartbeats: &[Heartbeat]) {
        let _report = Report(&self.nodes);
        let beats: Vec<u64> = heartbeats.iter().map(Heartbeat::beats).collect();
        let reaches = |from: &Namespace, to: &Namespace, address: IpAddr, whence: &str| {
            let what = format!("{address} answers {whence}");
            eventually(RECOVERY, &what, || ping_ok(from, address, 1000));
            let what = format!("a stream from {whence} to {address}");
            eventually(RECOVERY, &what, || stream_arrives(from, to, address, 300_000));
        };
        let stations = &self.stations;
        let everybody_from = |from: usize, v6: bool| {
            for to in (0..STATIONS).filter(|to| *to != from) {
                let whence = format!("station {from}");
                reaches(&stations[from], &stations[to], inner(to, v6), &whence);
            }
            let what = format!("multicast from station {from}, IPv6: {v6}");
            eventually(RECOVERY, &what, || multicast_arrives(stations, from, v6));
        };
        thread::scope(|scope| {
            for v6 in [false, true] {
                for from in 0..STATIONS {
                    scope.spawn(move || everybody_from(from, v6));
                }
                for from in 0..2 {
                    let [here, there] = [from, 1 - from].map(|n| &self.nodes[n].pod);
                    scope.spawn(move || reaches(here, there, pod(1 - from, v6), "the other pod"));
                }
            }
        });
        for (from, host) in stations.iter().enumerate().take(2) {
            let address = routed(1 - from);
            eventually(RECOVERY, "the routed segment", || ping_ok(host, address, 1000));
        }
        for (heartbeat, before) in heartbeats.iter().zip(beats) {
            let what = format!("{heartbeat} goes on");
            eventually(RECOVERY, &what, || heartbeat.beats() > before + 2);
        }
        for host in &self.stations {
            assert_eq!(host.checksum_errors().unwrap(), 0);
        }
    }
}

/// Says how the nodes are if somebody is not alive.
struct Report<'a>(&'a [Ours; 2]);

impl Drop for Report<'_> {
    #[allow(clippy::print_stdout, reason = "shows when the test fails")]
    fn drop(&mut self) {
        if thread::panicking() {
            for Ours { node, .. } in self.0 {
                println!("{}", node.control.stats());
                println!("{:?}\n{:?}", node.control.segments(), node.control.fdb(node.segment));
            }
        }
    }
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
    let mut heartbeats = Vec::new();
    for v6 in [false, true] {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (3, 2), (1, 4)] {
            let (from, server) = (&scene.stations[from], &scene.stations[to]);
            heartbeats.push(Heartbeat::start(from, server, inner(to, v6)));
        }
        let [client, server] = [0, 1].map(|n| &scene.nodes[n].pod);
        heartbeats.push(Heartbeat::start(client, server, pod(1, v6)));
    }
    let agents = [Mutex::new(()), Mutex::new(())];
    let mut holdings: Vec<Holdings> = Vec::new();
    let mut number = 0;
    // What the first rounds take for good is warming up.
    while start.elapsed() < time || holdings.len() < 3 {
        number += 1;
        let random = |n: u64| Random::new(seed ^ number << 8 ^ n);
        let until = Instant::now() + round;
        let Scene { stations, nodes, .. } = &mut scene;
        let charges = [0, 1].map(|n: usize| nodes[n].charge(&agents[n]));
        thread::scope(|scope| {
            let stations = &*stations;
            for n in 0..4 {
                scope.spawn(move || traffic(stations, until, random(n)));
            }
            for (n, charge) in (4..).zip(&charges) {
                scope.spawn(move || churn(charge, n as usize - 4, until, random(n)));
            }
            misfortune(stations, nodes, &agents, until, random(6));
        });
        scene.assert_alive(&heartbeats);
        scene.nodes.iter().for_each(|ours| settle(&ours.node.control));
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
    for ours in &scene.nodes {
        println!("{}", ours.node.control.stats());
    }
    scene.nodes.into_iter().for_each(|ours| ours.node.finish());
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
