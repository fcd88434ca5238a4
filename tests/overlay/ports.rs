//! Options of ports: who is kept apart, who gets what is flooded, and from whom is learned.

use overplane::{Change, DropReason, MacAddr, PortId, PortOptions};

use crate::network::Network;
use crate::packets::*;

/// Two nodes, the first of which has three ports with these options.
fn three_ports(options: [PortOptions; 3]) -> (Network, [PortId; 3], PortId) {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    network.change(1, Change::RemovePort(ports[0]));
    let here = options.map(|options| network.add_port_with(1, bridge_id(1), false, options));
    (network, here, ports[1])
}

fn isolated() -> PortOptions {
    port_options(|options| options.isolated = true)
}

/// How many frames each port of node 1 got.
fn got(network: &mut Network, ports: [PortId; 3]) -> [usize; 3] {
    ports.map(|port| network.frames(1, port).len())
}

#[test]
fn row_15_isolated_ports_do_not_reach_each_other() {
    let (mut network, ports, far) = three_ports([isolated(), isolated(), PortOptions::default()]);
    let hosts = [host(1), host(2), host(3)];
    network.send(1, ports[0], &udp(hosts[0], EVERYBODY, b"hello"));
    assert_eq!(got(&mut network, ports), [0, 0, 1]);
    assert_eq!(network.frames(2, far).len(), 1, "the underlay is none of them");
    for (port, host) in ports.into_iter().zip(hosts) {
        network.send(1, port, &udp(host, EVERYBODY, b"here I am"));
    }
    got(&mut network, ports);

    network.send(1, ports[0], &udp(hosts[0], hosts[1], b"neighbour"));
    assert_eq!(network.drops(1, DropReason::Isolated), 1);
    network.send(1, ports[0], &udp(hosts[0], hosts[2], b"router"));
    network.send(1, ports[2], &udp(hosts[2], hosts[0], b"answer"));
    network.send(2, far, &udp(host(9), hosts[1], b"from afar"));
    assert_eq!(got(&mut network, ports), [1, 1, 1]);
}

#[test]
fn options_change_while_traffic_flows() {
    let (mut network, ports, _) = three_ports([isolated(), isolated(), isolated()]);
    let (a, b) = (host(1), host(2));
    network.send(1, ports[0], &udp(a, EVERYBODY, b"hello"));
    network.send(1, ports[1], &udp(b, EVERYBODY, b"hello"));
    assert_eq!(got(&mut network, ports), [0, 0, 0]);
    let learned = network.stats(1).segments[0].learned;
    network.change(1, Change::SetPort { port: ports[1], options: PortOptions::default() });
    network.send(1, ports[0], &udp(a, b, b"now"));
    assert_eq!(got(&mut network, ports), [0, 1, 0]);
    assert_eq!((learned, network.stats(1).segments[0].learned), (2, 2));
}

#[test]
fn row_15_a_hairpin_port_gets_its_own_frames_back() {
    let hairpin = port_options(|options| options.hairpin = true);
    let (mut network, ports, _) =
        three_ports([hairpin.clone(), PortOptions::default(), PortOptions::default()]);
    let (a, b) = (host(1), host(2));
    network.send(1, ports[0], &udp(a, EVERYBODY, b"hello"));
    assert_eq!(got(&mut network, ports), [1, 1, 1]);
    network.send(1, ports[0], &udp(b, a, b"both behind one port"));
    assert_eq!(got(&mut network, ports), [1, 0, 0]);
    network.send(1, ports[1], &udp(host(3), host(3), b"myself"));
    assert_eq!(network.drops(1, DropReason::SamePort), 1, "not by other ports");

    // What is isolated does not even get its own.
    let options = port_options(|options| (options.hairpin, options.isolated) = (true, true));
    network.change(1, Change::SetPort { port: ports[0], options });
    network.send(1, ports[0], &udp(b, a, b"both behind one port"));
    assert_eq!(network.drops(1, DropReason::Isolated), 1);
    assert_eq!(got(&mut network, ports), [0, 0, 0]);
}

#[test]
fn a_port_is_flooded_only_with_what_it_wants() {
    let (mut network, ports, far) = three_ports([
        port_options(|options| options.flood_unknown_unicast = false),
        port_options(|options| options.flood_multicast = false),
        port_options(|options| options.flood_broadcast = false),
    ]);
    let group = Host { mac: MacAddr([1, 0, 0x5e, 0, 0, 5]), ..EVERYBODY };
    for (to, expected) in [(host(7), [0, 1, 1]), (group, [1, 0, 1]), (EVERYBODY, [1, 1, 0])] {
        network.send(2, far, &udp(host(9), to, b"for many"));
        assert_eq!(got(&mut network, ports), expected, "{to:?}");
    }
    network.send(1, ports[2], &udp(host(3), host(7), b"for many"));
    assert_eq!(got(&mut network, ports), [0, 1, 0]);
    // Flooding is for those that are not known.
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    network.send(2, far, &udp(host(9), host(1), b"for one"));
    assert_eq!(got(&mut network, ports), [1, 1, 0]);
}

#[test]
fn nothing_is_learned_from_a_port_that_is_not_to_be_learned_from() {
    let silent = port_options(|options| options.learning = false);
    let (mut network, ports, far) = three_ports([silent, PortOptions::default(), isolated()]);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    network.send(1, ports[1], &udp(host(2), EVERYBODY, b"hello"));
    let now = network.now;
    let fdb = network.node(1).tables.fdb(bridge_id(1), now).unwrap();
    let known: Vec<_> = fdb.iter().map(|entry| entry.mac).collect();
    assert_eq!(known, [host(2).mac]);
    got(&mut network, ports);
    network.send(2, far, &udp(host(9), host(1), b"who knows where"));
    assert_eq!(got(&mut network, ports), [1, 1, 1]);
}
