//! A flow stays with one worker in both directions, and flows spread over the workers.
//!
//! Flows run one after the other, so that what a worker's counters gain meanwhile is that flow.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::{Config, Dataplane, Device, Segment, Stats, Totals, Vni};
use overplane_lab::{Namespace, Vxlan, privileged};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, configure, inner_addresses, ip, settle, underlay,
};

/// Requests of a flow before it is looked at, and while it is.
const WARM_UP: usize = 8;
const REQUESTS: usize = 100;

/// So many that the kernel's hash has hardly a chance to give all of them to one worker.
const SOURCE_PORTS: usize = 32;

fn config(local: &str, workers: usize) -> Config {
    let mut config = Config::new(ip(local));
    config.workers = workers;
    config.source_ports = SOURCE_PORTS;
    config
}

fn bridged(hosts: &[Namespace; 2], addresses: [&str; 2], workers: usize) -> [Node; 2] {
    [0, 1].map(|this| {
        let segment = Segment::bridge(Vni::new(42).unwrap());
        let config = config(addresses[this], workers);
        let node = Node::new(&hosts[this], config, segment, &inner_addresses(this));
        let peer = SocketAddr::new(ip(addresses[1 - this]), 4789);
        node.control.add_flood(node.segment, peer).unwrap();
        node
    })
}

/// What one flow was to each worker of a node.
struct Shares {
    sent: Vec<u64>,
    delivered: Vec<u64>,
}

impl Shares {
    fn between(before: &[Totals], after: &[Totals]) -> Self {
        let gain = |count: fn(&Totals) -> u64| {
            before.iter().zip(after).map(|(before, after)| count(after) - count(before)).collect()
        };
        Self { sent: gain(|t| t.sent), delivered: gain(|t| t.delivered) }
    }

    /// The worker that sent the flow to the underlay, and the one that delivered it from there.
    fn workers(&self) -> [usize; 2] {
        [&self.sent, &self.delivered].map(|counts| {
            let (worker, most) = counts.iter().enumerate().max_by_key(|(_, n)| **n).unwrap();
            let all: u64 = counts.iter().sum();
            // The others' are of the neighbour protocols.
            assert!(most * 100 >= all * 95, "sent {:?}, delivered {:?}", self.sent, self.delivered);
            worker
        })
    }

    /// The worker that had the flow, both ways.
    fn worker(&self) -> usize {
        let [out, back] = self.workers();
        assert_eq!(out, back, "sent {:?}, delivered {:?}", self.sent, self.delivered);
        out
    }
}

fn by_worker(node: &Node) -> Vec<Totals> {
    // Neighbour protocols speak at any time: a frame may be under way in the moment of the look.
    let look = || {
        settle(&node.control);
        node.control.stats()
    };
    let is_whole = |stats: &Stats| stats.workers.iter().all(Totals::is_conserved);
    let stats = (0..100).map(|_| look()).find(is_whole).unwrap_or_else(look);
    assert!(is_whole(&stats), "{stats}");
    let received: u64 = stats.workers.iter().map(|worker| worker.received).sum();
    assert_eq!(received, stats.totals.received);
    stats.workers
}

/// A flow that is open and can be made busy for a number of requests.
type Flow = Box<dyn FnMut(usize)>;

/// What a flow is to the workers of each node, once it has been answered.
fn shares(nodes: &[Node], mut flow: Flow) -> Vec<Shares> {
    flow(WARM_UP);
    let before: Vec<_> = nodes.iter().map(by_worker).collect();
    flow(REQUESTS);
    nodes
        .iter()
        .zip(&before)
        .map(|(node, before)| Shares::between(before, &by_worker(node)))
        .collect()
}

/// Runs `flows` one after the other and returns the workers of each node that had any.
fn watch(nodes: &[Node], flows: impl IntoIterator<Item = Flow>) -> Vec<HashSet<usize>> {
    let mut used = vec![HashSet::new(); nodes.len()];
    for flow in flows {
        for (used, shares) in used.iter_mut().zip(shares(nodes, flow)) {
            used.insert(shares.worker());
        }
    }
    used
}

/// Datagrams of `size` bytes, each of which is answered with one of the same size.
fn udp(hosts: &[Namespace; 2], inner: [&str; 2], size: usize) -> Flow {
    let server = hosts[1].run(|| UdpSocket::bind((inner[1], 0)).unwrap());
    let client = hosts[0].run(|| UdpSocket::bind((inner[0], 0)).unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    server.connect(client.local_addr().unwrap()).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    Box::new(move |requests| {
        let mut buffer = vec![0; size + 1];
        let mut answered = 0;
        for _ in 0..requests {
            client.send(&vec![7; size]).unwrap();
            // One may be lost while the other end is being looked for.
            if server.recv(&mut buffer).is_ok() {
                server.send(&buffer[..size]).unwrap();
                answered += usize::from(client.recv(&mut buffer).is_ok());
            }
        }
        assert!(answered * 2 >= requests, "{answered} of {requests}");
    })
}

/// One connection with both directions busy at once: 16 KiB each way a request, none waiting for the other.
fn tcp(hosts: &[Namespace; 2], inner: [&str; 2]) -> Flow {
    let listener = hosts[1].run(|| TcpListener::bind((inner[1], 0)).unwrap());
    let client = hosts[0].run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    Box::new(move |requests| {
        let bytes = vec![7; requests * (16 << 10)];
        thread::scope(|scope| {
            for stream in [&client, &server] {
                scope.spawn(|| (&*stream).write_all(&bytes).unwrap());
                scope.spawn(|| (&*stream).read_exact(&mut vec![0; bytes.len()]).unwrap());
            }
        });
    })
}

fn check_bridged(addresses: [&str; 2], workers: usize) {
    let hosts = underlay();
    let nodes = bridged(&hosts, addresses, workers);
    let datagrams = (0..24).map(|n| udp(&hosts, [INNER_V4, INNER_V6][n % 2], 100));
    let used = watch(&nodes, datagrams);
    assert!(used.iter().all(|used| used.len() > 1), "{used:?}");
    watch(&nodes, (0..6).map(|n| tcp(&hosts, [INNER_V4, INNER_V6][n % 2])));
    // Fragments are all of one flow, whatever their ports, for those after the first have none.
    let fragments = (0..4).map(|_| udp(&hosts, INNER_V4, 4000));
    let used = watch(&nodes, fragments);
    assert!(used.iter().all(|used| used.len() == 1), "{used:?}");
    let text = nodes[0].control.stats().to_string();
    assert_eq!(text.lines().filter(|line| line.starts_with("worker ")).count(), workers, "{text}");
    nodes.into_iter().for_each(Node::finish);
}

#[test]
fn a_flow_has_one_of_two_workers() {
    if privileged("a_flow_has_one_of_two_workers") {
        check_bridged(V4, 2);
    }
}

#[test]
fn a_flow_has_one_of_four_workers_over_ipv6() {
    if privileged("a_flow_has_one_of_four_workers_over_ipv6") {
        check_bridged(V6, 4);
    }
}

/// Datagrams of routed segments have one source port, and so has their receiver one worker for each peer.
#[test]
fn a_routed_peer_has_one_worker() {
    if !privileged("a_routed_peer_has_one_worker") {
        return;
    }
    let hosts = underlay();
    let nodes = [0, 1].map(|this| {
        let addresses = [format!("{}/16", INNER_V4[this])];
        let segment = Segment::routed(FLANNEL_UDP_PORT);
        let node = Node::new(&hosts[this], config(V4[this], 3), segment, &addresses);
        let vtep = SocketAddr::new(ip(V4[1 - this]), FLANNEL_UDP_PORT);
        let prefix = INNER_V4[1 - this].parse().unwrap();
        node.control.insert_route(node.segment, prefix, vtep).unwrap();
        node
    });
    let flows = (0..6).map(|_| udp(&hosts, INNER_V4, 100));
    let used = watch(&nodes, flows.chain((0..3).map(|_| tcp(&hosts, INNER_V4))));
    assert!(used.iter().all(|used| used.len() == 1), "{used:?}");
    nodes.into_iter().for_each(Node::finish);
}

/// Makes the second host's end the kernel's, whose source ports are many.
fn kernel_end(hosts: &[Namespace; 2]) {
    let remotes = [ip(V4[0])];
    hosts[1].add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(V4[1])) }).unwrap();
    configure(&hosts[1], "vx0", 1450, &inner_addresses(1));
}

#[test]
fn a_flow_with_a_kernel_peer_has_one_worker() {
    if !privileged("a_flow_with_a_kernel_peer_has_one_worker") {
        return;
    }
    let hosts = underlay();
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let node = Node::new(&hosts[0], config(V4[0], 3), segment, &inner_addresses(0));
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    kernel_end(&hosts);
    let nodes = [node];
    let datagrams = (0..24).map(|n| udp(&hosts, [INNER_V4, INNER_V6][n % 2], 100));
    let used = watch(&nodes, datagrams);
    assert!(used[0].len() > 1, "{used:?}");
    watch(&nodes, (0..6).map(|n| tcp(&hosts, [INNER_V4, INNER_V6][n % 2])));
    nodes.into_iter().for_each(Node::finish);
}

/// The first worker reads from a device with one queue; each worker writes to it what it gets from the underlay.
#[test]
#[cfg(feature = "tun-tap")]
fn a_flow_of_a_device_with_one_queue_has_one_worker_each_way() {
    if !privileged("a_flow_of_a_device_with_one_queue_has_one_worker_each_way") {
        return;
    }
    let hosts = underlay();
    let dataplane = hosts[0].run(|| Dataplane::start(config(V4[0], 3))).unwrap();
    let control = dataplane.control();
    let segment = control.add_segment(Segment::bridge(Vni::new(42).unwrap())).unwrap();
    control.add_flood(segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let open = || tun_tap::Iface::without_packet_info("ovl0", tun_tap::Mode::Tap);
    let device = Device::try_from(hosts[0].run(open).unwrap()).unwrap();
    let port = control.attach(segment, device).unwrap();
    configure(&hosts[0], "ovl0", 1450, &inner_addresses(0));
    kernel_end(&hosts);
    let nodes = [Node { host: hosts[0].clone(), dataplane, control, segment, port }];
    let flows = (0..24).map(|_| udp(&hosts, INNER_V4, 100));
    let mut writers = HashSet::new();
    for flow in flows.chain((0..4).map(|_| tcp(&hosts, INNER_V4))) {
        let [reader, writer] = shares(&nodes, flow)[0].workers();
        assert_eq!(reader, 0);
        writers.insert(writer);
    }
    assert!(writers.len() > 1, "{writers:?}");
    nodes.into_iter().for_each(Node::finish);
}

/// Two devices of one node with three workers, each in a host of its own; the workers that flows between them have.
fn between_two_devices(second: impl FnOnce(&Namespace) -> Device) -> HashSet<usize> {
    let hosts = underlay();
    let dataplane = hosts[0].run(|| Dataplane::start(config(V4[0], 3))).unwrap();
    let control = dataplane.control();
    let segment = control.add_segment(Segment::bridge(Vni::new(42).unwrap())).unwrap();
    let devices = [Device::tap_in(&hosts[0], "ovl0").unwrap(), second(&hosts[1])];
    let [port, _] = devices.map(|device| control.attach(segment, device).unwrap());
    for (host, end) in hosts.iter().zip(0..) {
        configure(host, "ovl0", 1450, &inner_addresses(end));
    }
    let nodes = [Node { host: hosts[0].clone(), dataplane, control, segment, port }];
    let flows = (0..24).map(|_| udp(&hosts, INNER_V4, 100));
    // Both directions are delivered here.
    let worker = |flow| shares(&nodes, flow)[0].workers()[1];
    let used = flows.chain((0..4).map(|_| tcp(&hosts, INNER_V4))).map(worker).collect();
    nodes.into_iter().for_each(Node::finish);
    used
}

#[test]
fn a_flow_between_two_devices_has_one_worker() {
    if privileged("a_flow_between_two_devices_has_one_worker") {
        let used = between_two_devices(|host| Device::tap_in(host, "ovl0").unwrap());
        assert!(used.len() > 1, "{used:?}");
    }
}

/// Flows follow the worker that reads from the device with fewer queues.
#[test]
#[cfg(feature = "tun-tap")]
fn flows_with_a_device_of_one_queue_gather_at_the_first_worker() {
    if privileged("flows_with_a_device_of_one_queue_gather_at_the_first_worker") {
        let used = between_two_devices(|host| {
            let open = || tun_tap::Iface::without_packet_info("ovl0", tun_tap::Mode::Tap);
            Device::try_from(host.run(open).unwrap()).unwrap()
        });
        assert_eq!(used, HashSet::from([0]));
    }
}
