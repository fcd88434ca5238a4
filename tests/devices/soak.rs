//! Everything at once for a while: every byte and every datagram is checked, and whatever is lost has a reason.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::{Offload, Offloads};
use overplane_lab::{Namespace, Random, Transfer, UdpFlow, privileged, tcp_transfer, udp_flow};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, inner_addresses, ip, pair, ping_around_the_mtu, settle, underlay,
};
use crate::kernel_peer::kernel_end;
use crate::routed::end;

/// Two hosts that reach each other through an overlay.
struct Course {
    hosts: [Namespace; 2],
    /// The dataplanes: of both hosts, or of the first if the other end is the kernel.
    nodes: Vec<Node>,
}

impl Course {
    fn bridge() -> Self {
        let (hosts, left, right) = pair();
        Self { hosts, nodes: vec![left, right] }
    }

    fn routed() -> Self {
        let hosts = underlay();
        let nodes = vec![end(&hosts[0], 0, V4), end(&hosts[1], 1, V4)];
        Self { hosts, nodes }
    }

    fn kernel() -> Self {
        let hosts = underlay();
        let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
        kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
        Self { hosts, nodes: vec![node] }
    }

    /// Frames and datagrams that any counter says were dropped.
    fn accounted(&self) -> u64 {
        let of_nodes = self.nodes.iter().map(|node| {
            let stats = node.control.stats();
            stats.totals.drop_reasons().map(|(_, n)| n).sum::<u64>() + stats.socket_overflows
        });
        let links = ["eth0", "ovl0", "vx0"];
        let links = self.hosts.iter().flat_map(|host| links.map(|link| host.link_stats(link)));
        let of_links = links.flatten().map(|stats| stats.rx_dropped + stats.tx_dropped);
        of_nodes.chain(of_links).sum()
    }

    /// Runs traffic of all kinds in both directions for `time`.
    fn run(self, name: &str, seed: u64, time: Duration) {
        let both = [&self.hosts[0], &self.hosts[1]];
        let mtu = self.nodes[0].mtu();
        ping_around_the_mtu(both, mtu);
        let before = self.accounted();
        let (sent, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
        let until = Instant::now() + time;
        thread::scope(|scope| {
            for (number, (from, to)) in [(0, 1), (1, 0)].into_iter().enumerate() {
                let mut random = Random::new(seed ^ number as u64);
                scope.spawn(move || {
                    while Instant::now() < until {
                        stream([both[from], both[to]], to, &mut random);
                    }
                });
                let mut random = Random::new(seed ^ (2 + number as u64));
                let (sent, arrived) = (&sent, &arrived);
                scope.spawn(move || {
                    while Instant::now() < until {
                        let report = flow([both[from], both[to]], to, mtu, &mut random);
                        sent.fetch_add(report[0], Ordering::Relaxed);
                        arrived.fetch_add(report[1], Ordering::Relaxed);
                    }
                });
            }
            if self.nodes.len() == 2 {
                scope.spawn(|| switch(&self.nodes, until, Random::new(seed ^ 4)));
            }
        });
        for node in &self.nodes {
            settle(&node.control);
        }
        let (sent, arrived) = (sent.into_inner(), arrived.into_inner());
        assert!(arrived > 0);
        if arrived < sent {
            // What sockets have dropped is looked at once a second.
            thread::sleep(Duration::from_millis(1100));
            let accounted = self.accounted() - before;
            let lost = sent - arrived;
            assert!(lost <= accounted, "{name}: {lost} of {sent} lost, and {accounted} drops");
        }
        for host in &self.hosts {
            assert_eq!(host.checksum_errors().unwrap(), 0, "{name}");
        }
        self.nodes.into_iter().for_each(Node::finish);
    }
}

fn address(random: &mut Random, host: usize) -> (SocketAddr, usize) {
    let (inner, headers) = if random.of(0..=1) == 0 { (INNER_V4, 28) } else { (INNER_V6, 48) };
    (SocketAddr::new(ip(inner[host]), 0), headers)
}

/// One TCP transfer of some size over some connections.
fn stream(hosts: [&Namespace; 2], to: usize, random: &mut Random) {
    let bytes = random.of_any_size(1, 8 << 20);
    let streams = random.of_any_size(1, 8) as usize;
    let what = Transfer { streams, ..Transfer::of_bytes(bytes) };
    let report = tcp_transfer(hosts[0], hosts[1], address(random, to).0, what).unwrap();
    assert_eq!(report.bytes, bytes);
}

/// One UDP flow for some time: the datagrams that were sent, and those that arrived or found the test's own socket full.
fn flow(hosts: [&Namespace; 2], to: usize, mtu: usize, random: &mut Random) -> [u64; 2] {
    let (to, headers) = address(random, to);
    let duration = Duration::from_millis(random.of(20..=500));
    let what = UdpFlow { seed: random.number(), packet: mtu - headers, duration, ordered: true };
    let report = udp_flow(hosts[0], hosts[1], to, what).unwrap();
    [report.sent, report.received + report.overflowed]
}

/// Switches offloads on and off at random.
fn switch(nodes: &[Node], until: Instant, mut random: Random) {
    while Instant::now() < until {
        let mut set = Offloads::ALL;
        for offload in Offload::ALL {
            if random.of(0..=3) == 0 {
                set = set.without(*offload);
            }
        }
        nodes[random.of(0..=1) as usize].control.set_offloads(set);
        thread::sleep(Duration::from_millis(random.of_any_size(1, 500)));
    }
    for node in nodes {
        node.control.set_offloads(Offloads::ALL);
    }
}

/// Soaks all courses at once. The environment variable `SOAK_SEED` repeats the choices of an earlier run.
#[allow(clippy::print_stdout, reason = "shows when the test fails")]
fn soak(time: Duration) {
    let given = env::var("SOAK_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("SOAK_SEED={seed}");
    type Make = fn() -> Course;
    let courses: [(&str, Make); 3] =
        [("bridge", Course::bridge), ("routed", Course::routed), ("kernel", Course::kernel)];
    thread::scope(|scope| {
        for (name, make) in courses {
            scope.spawn(move || make().run(name, seed, time));
        }
    });
}

#[test]
fn nothing_is_lost_or_damaged_in_a_moment() {
    if privileged("nothing_is_lost_or_damaged_in_a_moment") {
        soak(Duration::from_secs(4));
    }
}

/// For longer; `.ci/run` does so.
#[test]
#[ignore = "takes over a minute"]
fn nothing_is_lost_or_damaged_in_a_minute() {
    if privileged("nothing_is_lost_or_damaged_in_a_minute") {
        soak(Duration::from_secs(60));
    }
}
