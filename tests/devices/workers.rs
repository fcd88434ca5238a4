//! Several workers share devices and ports, and keep each flow in order.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::{Config, Dataplane, Device, Segment, Turn, Vni, Worker};
use overplane_lab::{Namespace, Transfer, Vxlan, ping_ok, privileged, tcp_transfer};

use crate::hosts::{
    INNER_V4, Node, V4, configure, eventually, inner_addresses, ip, ping_around_the_mtu,
    tcp_both_ways, underlay,
};

fn node(host: &Namespace, this: usize, workers: usize) -> Node {
    let mut config = Config::new(ip(V4[this]));
    config.workers = workers;
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let node = Node::new(host, config, segment, &inner_addresses(this));
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1 - this]), 4789)).unwrap();
    node
}

#[test]
fn two_workers_carry_what_one_does() {
    if !privileged("two_workers_carry_what_one_does") {
        return;
    }
    let hosts = underlay();
    let (left, right) = (node(&hosts[0], 0, 2), node(&hosts[1], 1, 3));
    ping_around_the_mtu([&hosts[0], &hosts[1]], 1450);
    tcp_both_ways([&hosts[0], &hosts[1]], 8 << 20);
    let to = SocketAddr::new(ip(INNER_V4[1]), 0);
    let streams = Transfer { streams: 4, ..Transfer::of_bytes(4 << 20) };
    tcp_transfer(&hosts[0], &hosts[1], to, streams).unwrap();
    left.finish();
    right.finish();
}

/// Numbers of a flow's datagrams only rise, whatever the other flows do.
#[test]
fn every_flow_arrives_in_order() {
    if !privileged("every_flow_arrives_in_order") {
        return;
    }
    const FLOWS: usize = 8;
    const DATAGRAMS: u32 = 4000;
    let hosts = underlay();
    let (left, right) = (node(&hosts[0], 0, 2), node(&hosts[1], 1, 2));
    let sinks: Vec<UdpSocket> =
        hosts[1].run(|| (0..FLOWS).map(|_| UdpSocket::bind((INNER_V4[1], 0)).unwrap()).collect());
    let sources: Vec<UdpSocket> = hosts[0].run(|| {
        let connected = |sink: &UdpSocket| {
            let socket = UdpSocket::bind((INNER_V4[0], 0)).unwrap();
            socket.connect(sink.local_addr().unwrap()).unwrap();
            socket
        };
        sinks.iter().map(connected).collect()
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..DATAGRAMS {
                for source in &sources {
                    // A full queue loses datagrams, which is no disorder.
                    let _ = source.send(&number.to_be_bytes());
                }
                if number % 8 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        for sink in &sinks {
            scope.spawn(|| {
                sink.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
                let (mut last, mut count) = (None, 0);
                let end = Instant::now() + Duration::from_secs(20);
                let mut number = [0; 4];
                while sink.recv(&mut number).is_ok() && Instant::now() < end {
                    let number = u32::from_be_bytes(number);
                    assert!(last < Some(number), "{number} after {last:?}");
                    last = Some(number);
                    count += 1;
                }
                assert!(count > DATAGRAMS / 4, "{count} of {DATAGRAMS} arrived");
            });
        }
    });
    left.finish();
    right.finish();
}

/// Runs a worker, but for the time that it is held up, which no failure makes longer than a minute.
fn run(mut worker: Worker, held: &AtomicBool) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if held.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        } else if worker.turn(Some(Duration::from_millis(10))).unwrap() == Turn::Stopped {
            return;
        }
    }
}

/// A worker that is held up loses the frames of its own flows, and no others.
#[test]
fn a_slow_worker_holds_its_own_flows_up_only() {
    if !privileged("a_slow_worker_holds_its_own_flows_up_only") {
        return;
    }
    const FLOWS: usize = 24;
    let hosts = underlay();
    let mut config = Config::new(ip(V4[0]));
    config.workers = 2;
    let (dataplane, workers) = hosts[0].run(|| Dataplane::build(config)).unwrap();
    let control = dataplane.control();
    let held = [const { AtomicBool::new(false) }; 2];
    thread::scope(|scope| {
        for (worker, held) in workers.into_iter().zip(&held) {
            scope.spawn(|| run(worker, held));
        }
        let segment = control.add_segment(Segment::bridge(Vni::new(42).unwrap())).unwrap();
        let device = Device::tap_in(&hosts[0], "ovl0").unwrap();
        let port = control.attach(segment, device).unwrap();
        control.add_flood(segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
        configure(&hosts[0], "ovl0", 1450, &inner_addresses(0));
        // The kernel's source ports are so many that each worker gets some of the flows.
        let remotes = [ip(V4[0])];
        hosts[1]
            .add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(V4[1])) })
            .unwrap();
        configure(&hosts[1], "vx0", 1450, &inner_addresses(1));
        assert!(ping_ok(&hosts[1], ip(INNER_V4[0]), 100));

        let flows: Vec<_> = (0..FLOWS).map(|_| Echo::new(&hosts)).collect();
        let answered = || -> Vec<bool> { flows.iter().map(|flow| flow.answers(8)).collect() };
        assert_eq!(answered(), [true; FLOWS], "both run");
        held[1].store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
        let of_the_first = answered();
        assert!(of_the_first.contains(&true), "all flows are held up");
        assert!(of_the_first.contains(&false), "no flow is held up");
        held.iter().zip([true, false]).for_each(|(held, on)| held.store(on, Ordering::Relaxed));
        thread::sleep(Duration::from_millis(20));
        let of_the_second: Vec<_> = of_the_first.iter().map(|answered| !answered).collect();
        assert_eq!(answered(), of_the_second);

        // The device goes when both have let go of it.
        control.detach(port).unwrap();
        assert!(!control.settled(Duration::from_millis(100)), "one is held up");
        assert!(hosts[0].exists("ovl0"));
        held[0].store(false, Ordering::Relaxed);
        assert!(control.settled(Duration::from_secs(5)));
        eventually(5, "the device is gone", || !hosts[0].exists("ovl0"));
        dataplane.stop().unwrap();
    });
    let stats = control.stats();
    assert!(stats.totals.is_conserved(), "{stats}");
}

/// A flow of requests from the second host to the first.
struct Echo {
    client: UdpSocket,
    server: UdpSocket,
}

impl Echo {
    fn new(hosts: &[Namespace; 2]) -> Self {
        let server = hosts[0].run(|| UdpSocket::bind((INNER_V4[0], 0)).unwrap());
        let client = hosts[1].run(|| UdpSocket::bind((INNER_V4[1], 0)).unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        server.connect(client.local_addr().unwrap()).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        }
        Self { client, server }
    }

    /// Whether all of `requests` are answered, each at once.
    fn answers(&self, requests: u32) -> bool {
        // What was held up before may have come since.
        let mut number = [0; 4];
        for socket in [&self.client, &self.server] {
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut number).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
        (0..requests).all(|request| {
            self.client.send(&request.to_be_bytes()).unwrap();
            self.server.recv(&mut number).is_ok()
                && self.server.send(&number).is_ok()
                && self.client.recv(&mut number).is_ok()
        })
    }
}
