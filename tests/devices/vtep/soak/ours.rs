//! One of our nodes: the host and a guest in a bridge segment towards everybody, and, towards the other dataplane, the host
//! in a routed segment and a pod in another one, behind its gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::rate::RateLimit;
use overplane::{
    Config, Device, Dscp, Gateway, MacAddr, MssClamp, PortId, PortOptions, Querier, Segment,
    SegmentId, Ttl, Vni, mtu,
};
use overplane_lab::{Namespace, Random};

use super::churn::Charge;
use super::misfortune::pause;
use super::{addresses, guest_station, pod, routed, vtep};
use crate::hosts::{Node, configure};

/// What VXLAN leaves of the underlay's 1,500 bytes.
const MTU: u32 = 1450;

pub(super) struct Ours {
    pub(super) node: Node,
    pub(super) guest: Namespace,
    pub(super) pod: Namespace,
    pods: SegmentId,
    pod_port: PortId,
    number: usize,
    guest_port: PortId,
}

/// Which of a node's devices.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    Host,
    Guest,
    Pod,
}

impl Ours {
    pub(super) fn new(host: &Namespace, number: usize) -> Self {
        let mut config = Config::new(vtep(number).ip());
        config.workers = 2;
        // Slots become resident when the first super-frame lies in them, which could take as long as the test.
        config.batch = 16;
        // As nervous as may be: what is lost once is taken for too large.
        config.probing.interval = Duration::from_secs(1);
        config.probing.raise = Duration::from_secs(1);
        config.probing.max_probes = 1;
        // One floods multicast and answers for its neighbours, the other floods requests, at first.
        let mut segment = bridge(number);
        segment.neighbours.suppress = number == 1;
        let node = Node::new(host, config, segment, &addresses(number));
        let [guest, pod] = [Namespace::new().unwrap(), Namespace::new().unwrap()];
        let guest_port =
            node.control.attach(node.segment, Device::tap_in(&guest, "eth0").unwrap()).unwrap();
        configure(&guest, "eth0", MTU, &addresses(guest_station(number)));
        flood(&node, number);
        route(&node, number);
        let pods = pods(&node, number);
        let pod_port = attach_pod(&node, pods, number, &pod);
        Self { node, guest, pod, pods, pod_port, number, guest_port }
    }

    pub(super) fn charge<'a>(&self, agent: &'a Mutex<()>) -> Charge<'a> {
        let (control, segment) = (self.node.control.clone(), self.node.segment);
        Charge { control, segment, pods: self.pods, agent }
    }

    /// Somebody deletes a device, and the agent makes and attaches another one with the same addresses.
    pub(super) fn replace_device(&mut self, whose: Whose, random: &mut Random) {
        let (host, link, port) = match whose {
            Whose::Host => (&self.node.host, "ovl0", self.node.port),
            Whose::Guest => (&self.guest, "eth0", self.guest_port),
            Whose::Pod => (&self.pod, "eth0", self.pod_port),
        };
        let likeness = Likeness::of(host, link);
        host.delete(link).unwrap();
        pause(random, 100);
        self.node.control.detach(port).unwrap();
        match whose {
            Whose::Host => self.node.port = self.attach(host, link, likeness, self.number),
            Whose::Guest => {
                self.guest_port = self.attach(host, link, likeness, guest_station(self.number));
            }
            Whose::Pod => {
                self.pod_port = attach_pod(&self.node, self.pods, self.number, &self.pod);
            }
        }
    }

    /// The agent removes the bridge segment with its devices, and makes it again with other settings.
    pub(super) fn replace_segment(&mut self, random: &mut Random) {
        let [host, guest] = [&self.node.host, &self.guest];
        let likenesses = [Likeness::of(host, "ovl0"), Likeness::of(guest, "eth0")];
        self.node.control.remove_segment(self.node.segment).unwrap();
        pause(random, 100);
        let mut segment = bridge(self.number);
        let mut any = || random.of(0..=1) == 1;
        segment.neighbours.suppress = any();
        segment.snooping.enabled |= any();
        (segment.header.gbp, segment.header.any_vni) = (any(), any());
        if any() {
            segment.mtu_options.clamp_mss = MssClamp::ToMtu;
        }
        // More than is flooded by anybody here who is in his senses.
        if any() {
            let limit = Some(RateLimit::new(2000));
            let storm = &mut segment.storm;
            (storm.broadcast, storm.multicast, storm.unknown_unicast) = (limit, limit, limit);
        }
        self.node.control.add_segment(segment).unwrap();
        flood(&self.node, self.number);
        self.node.port = self.attach(host, "ovl0", likenesses[0], self.number);
        self.guest_port = self.attach(guest, "eth0", likenesses[1], guest_station(self.number));
    }

    /// A device of the bridge segment that looks to its host like the one before.
    fn attach(&self, host: &Namespace, link: &str, like: Likeness, station: usize) -> PortId {
        let device = Device::tap_in(host, link).unwrap();
        let port = self.node.control.attach(self.node.segment, device).unwrap();
        host.set_mac(link, like.mac).unwrap();
        let gso_max_size = mtu::gso_max_size(bridge(self.number).kind, false, like.mtu);
        host.set_gso_max_size(link, gso_max_size).unwrap();
        host.set_txqueuelen(link, 1000).unwrap();
        configure(host, link, like.mtu, &addresses(station));
        port
    }
}

#[derive(Clone, Copy)]
struct Likeness {
    mac: [u8; 6],
    mtu: u32,
}

impl Likeness {
    fn of(host: &Namespace, link: &str) -> Self {
        Self { mac: host.mac(link).unwrap(), mtu: host.mtu(link).unwrap() }
    }
}

/// The bridge segment with what is always so.
fn bridge(number: usize) -> Segment {
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    (segment.outer.dscp, segment.outer.ttl) = (Dscp::Inherit, Ttl::Inherit);
    segment.mtu_options.probe = true;
    // One sends multicast to those who listen and asks for them, so that the kernel's bridge and maybe the other one do,
    // too. It never stops to: who snoops believes in a querier for minutes after its last question.
    if number == 0 {
        let mut querier = Querier::new(Some([10, 8, 0, 51].into()), "fe80::51".parse().ok());
        // Questions get lost here.
        querier.interval = Duration::from_secs(3);
        querier.response_interval = Duration::from_secs(1);
        segment.snooping.enabled = true;
        segment.snooping.querier = Some(querier);
    }
    segment
}

fn flood(node: &Node, number: usize) {
    for other in (0..3).filter(|other| *other != number) {
        node.control.add_flood(node.segment, vtep(other)).unwrap();
    }
}

/// The routed segment of the host, in bare UDP.
fn route(node: &Node, number: usize) {
    let segment = node.control.add_segment(Segment::routed(FLANNEL_UDP_PORT)).unwrap();
    node.control.attach(segment, Device::tun_in(&node.host, "tun0").unwrap()).unwrap();
    configure(&node.host, "tun0", 1472, &[format!("{}/16", routed(number))]);
    let prefix = format!("10.7.{}.0/24", 2 - number).parse().unwrap();
    let peer = SocketAddr::new(vtep(1 - number).ip(), FLANNEL_UDP_PORT);
    node.control.insert_route(segment, prefix, peer).unwrap();
}

fn router(number: usize) -> MacAddr {
    MacAddr([0x0e, 0x2a, 0, 0, 0, number as u8])
}

/// The segment of the pods, in VXLAN beside the bridge segment.
fn pods(node: &Node, number: usize) -> SegmentId {
    let mut segment = Segment::routed_vxlan(Vni::new(43).unwrap(), router(number));
    segment.mtu_options.probe = true;
    let segment = node.control.add_segment(segment).unwrap();
    let other = 1 - number;
    node.control.set_vtep_mac(segment, vtep(other), router(other)).unwrap();
    for v6 in [false, true] {
        let prefix = alone(pod(other, v6)).parse().unwrap();
        node.control.insert_route(segment, prefix, vtep(other)).unwrap();
    }
    segment
}

/// The prefix of one address.
fn alone(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// The pod's device, with its addresses, and its routes by way of the gateway.
fn attach_pod(node: &Node, pods: SegmentId, number: usize, host: &Namespace) -> PortId {
    let gateway = Gateway::default();
    let mut options = PortOptions::default();
    options.gateway = Some(gateway.clone());
    let device = Device::tap_in(host, "eth0").unwrap();
    let port = node.control.attach_with(pods, device, options).unwrap();
    let own = [false, true].map(|v6| alone(pod(number, v6)));
    for prefix in &own {
        node.control.insert_route(pods, prefix.parse().unwrap(), port).unwrap();
    }
    configure(host, "eth0", MTU, &own);
    for router in gateway.addresses {
        let all = if router.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        host.add_route(alone(router), None, Some("eth0")).unwrap();
        host.add_route(all, Some(router), Some("eth0")).unwrap();
    }
    port
}
