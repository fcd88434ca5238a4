//! Multicast between kernel stacks that join and leave groups, with the kernel's VXLAN device and bridge on other nodes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use overplane::{Config, Control, Destination, Querier, Segment, SegmentId, Vni};
use overplane_lab::{Namespace, Sniffer, Vxlan, privileged};

use crate::hosts::{Node, configure, eventually, ip};

/// Of both families; the second one is of a scope whose routes name their link.
const GROUPS: [&str; 2] = ["239.7.7.7", "ff02::4242"];

/// UDP ports of those who listen, by family.
const PORTS: [u16; 2] = [7777, 7778];

/// Underlay addresses of the nodes, each but the first on a link of its own to the first.
const LOCAL: &str = "10.9.0.1";
const PEERS: [&str; 2] = ["10.9.2.2", "10.9.3.2"];

/// A node of ours, and two with the kernel's VXLAN device in a bridge.
struct Nodes {
    node: Node,
    kernels: [Namespace; 2],
}

fn inner(n: usize) -> String {
    format!("10.8.0.{n}")
}

impl Nodes {
    fn new(segment: Segment) -> Self {
        let host = Namespace::new().unwrap();
        host.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let kernels = [2, 3].map(|n| {
            let kernel = Namespace::new().unwrap();
            let link = format!("eth{n}");
            Namespace::veth(&host, &link, &kernel, "eth0").unwrap();
            host.add_address(&link, format!("10.9.{n}.1/24")).unwrap();
            kernel.add_address("eth0", format!("10.9.{n}.2/24")).unwrap();
            let ends = [(&host, link.as_str()), (&kernel, "eth0")];
            ends.iter().for_each(|(host, link)| host.up(link).unwrap());
            for (host, link) in ends {
                host.wait_up(link, Duration::from_secs(5)).unwrap();
            }
            kernel.add_route("10.9.0.0/24", Some(ip(&format!("10.9.{n}.1"))), None).unwrap();
            kernel
        });
        host.add_address("eth2", format!("{LOCAL}/32")).unwrap();
        let node = Node::new(&host, Config::new(ip(LOCAL)), segment, &[format!("{}/24", inner(1))]);
        for (kernel, n) in kernels.iter().zip(2..) {
            let local = PEERS[n - 2];
            let remotes = [ip(LOCAL)];
            kernel
                .add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(local)) })
                .unwrap();
            kernel.add_bridge("br0").unwrap();
            kernel.set_master("vx0", "br0").unwrap();
            kernel.up("vx0").unwrap();
            configure(kernel, "br0", 1450, &[format!("{}/24", inner(n))]);
            node.control.add_flood(node.segment, vtep(n)).unwrap();
        }
        Self { node, kernels }
    }

    fn finish(self) {
        self.node.finish();
    }
}

fn vtep(n: usize) -> SocketAddr {
    SocketAddr::new(ip(PEERS[n - 2]), 4789)
}

/// The segment that snoops.
fn segment(change: impl FnOnce(&mut Segment)) -> Segment {
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.snooping.enabled = true;
    change(&mut segment);
    segment
}

/// A socket that has joined a group on a link; dropping it leaves the group.
fn join(host: &Namespace, link: &str, group: IpAddr) -> UdpSocket {
    let index = host.index(link).unwrap();
    let own = host.addresses().unwrap().into_iter().find_map(|(of, cidr)| match cidr.ip {
        IpAddr::V4(v4) if of == link => Some(v4),
        _ => None,
    });
    host.run(|| -> io::Result<UdpSocket> {
        let socket = match group {
            IpAddr::V4(group) => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORTS[0]))?;
                socket.join_multicast_v4(&group, &own.expect("an address of the link"))?;
                socket
            }
            IpAddr::V6(group) => {
                let socket = UdpSocket::bind(("::", PORTS[1]))?;
                socket.join_multicast_v6(&group, index)?;
                socket
            }
        };
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })
    .unwrap()
}

/// Sends `count` datagrams to a group out of a link.
fn send(host: &Namespace, link: &str, own: &str, group: IpAddr, count: usize) {
    let scope = host.index(link).unwrap();
    host.run(|| {
        let (from, to) = match group {
            IpAddr::V4(v4) => (format!("{own}:0"), SocketAddr::new(v4.into(), PORTS[0])),
            IpAddr::V6(v6) => {
                ("[::]:0".into(), std::net::SocketAddrV6::new(v6, PORTS[1], 0, scope).into())
            }
        };
        let socket = UdpSocket::bind(from).unwrap();
        (0..count).for_each(|_| _ = socket.send_to(CONTENT, to).unwrap());
    });
}

fn received(socket: &UdpSocket, count: usize) -> bool {
    (0..count).all(|_| socket.recv(&mut [0; 64]).is_ok())
}

/// What a datagram says.
const CONTENT: &[u8] = b"to whom it may concern";

/// How many datagrams of [`send`] some frames carry, trains among them.
fn concerned(frames: &[Vec<u8>]) -> usize {
    let contents = |frame: &Vec<u8>| frame.windows(CONTENT.len()).filter(|w| *w == CONTENT).count();
    frames.iter().map(contents).sum()
}

fn is_member(control: &Control, segment: SegmentId, group: IpAddr, at: Destination) -> bool {
    let entries = control.mdb(segment).unwrap().entries;
    entries.iter().any(|entry| entry.group == Some(group) && entry.destination == at)
}

/// Whether multicast is forwarded by who has joined, and no place is so new that it gets all.
fn active(control: &Control, segment: SegmentId) -> bool {
    let mdb = control.mdb(segment).unwrap();
    mdb.active_v4 && mdb.active_v6 && mdb.entries.iter().all(|entry| entry.group.is_some())
}

/// This node asks, with the least patience.
fn asking() -> Segment {
    segment(|segment| {
        let v6 = "fe80::51".parse().ok();
        let mut querier = Querier::new(Some([10, 8, 0, 51].into()), v6);
        querier.response_interval = Duration::from_secs(1);
        segment.snooping.querier = Some(querier);
    })
}

/// The hosts of the first kernel node speak the older versions, those of the second one the newer.
fn force_versions(nodes: &Nodes) {
    for (kernel, (igmp, mld)) in nodes.kernels.iter().zip([("2", "1"), ("3", "2")]) {
        kernel.sysctl("net/ipv4/conf/br0/force_igmp_version", igmp).unwrap();
        kernel.sysctl("net/ipv6/conf/br0/force_mld_version", mld).unwrap();
    }
}

#[test]
fn row_14_a_group_goes_to_the_kernel_nodes_whose_hosts_joined_it() {
    if !privileged("row_14_a_group_goes_to_the_kernel_nodes_whose_hosts_joined_it") {
        return;
    }
    let nodes = Nodes::new(asking());
    force_versions(&nodes);
    let Nodes { node, kernels } = &nodes;
    let (control, id) = (&node.control, node.segment);
    eventually(10, "the querier was answered", || active(control, id));
    let mut wires = [0, 1].map(|n| Sniffer::incoming(&kernels[n], "eth0").unwrap());
    for group in GROUPS.map(ip) {
        let first = join(&kernels[0], "br0", group);
        eventually(5, "the first one is known", || is_member(control, id, group, vtep(2).into()));
        wires.iter_mut().for_each(|wire| drop(wire.drain()));
        send(&node.host, "ovl0", &inner(1), group, 5);
        assert!(received(&first, 5), "{group}");
        let second = join(&kernels[1], "br0", group);
        eventually(5, "the second one is known", || is_member(control, id, group, vtep(3).into()));
        let [one, other] = &mut wires;
        assert_eq!((concerned(&one.drain()), concerned(&other.drain())), (5, 0), "{group}");
        send(&node.host, "ovl0", &inner(1), group, 5);
        assert!(received(&first, 5) && received(&second, 5), "{group}");
        assert_eq!((concerned(&one.drain()), concerned(&other.drain())), (5, 5), "{group}");
    }
    nodes.finish();
}

#[test]
fn row_14_a_kernel_node_whose_hosts_left_a_group_does_not_get_it_any_more() {
    if !privileged("row_14_a_kernel_node_whose_hosts_left_a_group_does_not_get_it_any_more") {
        return;
    }
    let nodes = Nodes::new(asking());
    force_versions(&nodes);
    let Nodes { node, kernels } = &nodes;
    let (control, id) = (&node.control, node.segment);
    let groups = GROUPS.map(ip);
    let mut sockets = groups.map(|group| [0, 1].map(|n| Some(join(&kernels[n], "br0", group))));
    eventually(10, "the querier was answered", || active(control, id));
    let everybody =
        || [2, 3].map(|n| groups.map(|group| is_member(control, id, group, vtep(n).into())));
    eventually(5, "all of them are known", || everybody() == [[true; 2]; 2]);
    // Of one family from the first node, of the other from the second.
    (sockets[0][0], sockets[1][1]) = (None, None);
    eventually(8, "two have left", || everybody() == [[false, true], [true, false]]);
    for (group, stayed) in [(0, 1), (1, 0)] {
        let left = 1 - stayed;
        let mut wire = Sniffer::incoming(&kernels[left], "eth0").unwrap();
        send(&node.host, "ovl0", &inner(1), groups[group], 5);
        assert!(received(sockets[group][stayed].as_ref().unwrap(), 5));
        assert_eq!(concerned(&wire.drain()), 0);
        // Unless the control plane says so.
        control.insert_mdb(id, Some(groups[group]), vtep(left + 2)).unwrap();
        send(&node.host, "ovl0", &inner(1), groups[group], 5);
        assert!(received(sockets[group][stayed].as_ref().unwrap(), 5));
        assert_eq!(concerned(&wire.drain()), 5);
        control.remove_mdb(id, Some(groups[group]), vtep(left + 2)).unwrap();
    }
    nodes.finish();
}

#[test]
fn row_14_the_kernels_bridge_asks_and_learns_from_hosts_here() {
    if !privileged("row_14_the_kernels_bridge_asks_and_learns_from_hosts_here") {
        return;
    }
    let nodes = Nodes::new(segment(|_| ()));
    let Nodes { node, kernels } = &nodes;
    let (control, id) = (&node.control, node.segment);
    kernels[0].set_bridge_querier("br0", Duration::from_secs(1)).unwrap();
    eventually(10, "the kernel has asked", || {
        let mdb = control.mdb(id).unwrap();
        mdb.active_v4 && mdb.active_v6
    });
    let routers = control.mdb(id).unwrap().entries;
    let router = routers.iter().find(|entry| entry.group.is_none());
    assert_eq!(router.map(|entry| entry.destination), Some(vtep(2).into()));
    let mut wire = Sniffer::incoming(&node.host, "eth2").unwrap();
    for (group, other) in GROUPS.map(ip).into_iter().zip(["239.7.7.8", "ff02::4243"].map(ip)) {
        let here = join(&node.host, "ovl0", group);
        eventually(5, "who has joined here is known", || {
            is_member(control, id, group, node.port.into())
        });
        // The kernel's bridge has learned it, too, and sends nothing else this way.
        eventually(5, "what the kernel sends arrives", || {
            send(&kernels[0], "br0", &inner(2), group, 1);
            here.recv(&mut [0; 64]).is_ok()
        });
        wire.drain();
        send(&kernels[0], "br0", &inner(2), other, 5);
        send(&kernels[0], "br0", &inner(2), group, 5);
        assert!(received(&here, 5), "{group}");
        assert_eq!(concerned(&wire.drain()), 5, "{group}");
    }
    nodes.finish();
}
