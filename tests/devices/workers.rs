//! Several workers share devices and ports, and keep each flow in order.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use overplane::{Config, Segment, Vni};
use overplane_lab::{Namespace, Transfer, privileged, tcp_transfer};

use crate::hosts::{
    INNER_V4, Node, V4, inner_addresses, ip, ping_around_the_mtu, tcp_both_ways, underlay,
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
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..DATAGRAMS {
                for source in &sources {
                    // A full queue loses datagrams, which is no disorder.
                    let _ = source.send(&number.to_be_bytes());
                }
                if number % 8 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
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
