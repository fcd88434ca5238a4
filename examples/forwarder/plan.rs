//! What is to be run: one dataplane and its segments, whoever asked for it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use overplane::{Config, MacAddr, PortOptions, Prefix, Segment, Vni};
use overplane_lab::Cidr;

use crate::capture::CapturePlan;
use crate::privileges::Privileges;
use crate::report::Format;

/// A dataplane with its segments.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Config,
    /// How counters are printed.
    pub stats: Format,
    /// Where counters are served over HTTP.
    pub metrics: Option<SocketAddr>,
    /// What is given up when all of it is set up.
    pub privileges: Privileges,
    /// Where the forwarder can be asked and changed, if it can.
    pub control: Option<PathBuf>,
    /// What is captured from the start.
    pub capture: Option<CapturePlan>,
    pub segments: Vec<SegmentPlan>,
}

/// A segment with all that belongs to it.
#[derive(Clone, Debug)]
pub struct SegmentPlan {
    /// Without an MTU it gets what the underlay's interface leaves.
    pub segment: Segment,
    pub ports: Vec<PortPlan>,
    pub flood: Vec<SocketAddr>,
    pub peers: Vec<SocketAddr>,
    /// Peers with a split horizon group of their own.
    pub groups: Vec<(SocketAddr, u8)>,
    pub fdb: Vec<(MacAddr, Target)>,
    /// VNIs under which datagrams go to VTEPs, where these are not the segment's.
    pub remote_vnis: Vec<(SocketAddr, Vni)>,
    pub routes: Vec<(Prefix, Via)>,
    /// Static bindings of neighbours, and whether each is a router.
    pub neighbours: Vec<(IpAddr, MacAddr, bool)>,
    /// Static destinations of multicast groups, and multicast routers.
    pub mdb: Vec<(Option<IpAddr>, Target)>,
    /// Of a routed segment in VXLAN.
    pub vtep_macs: Vec<(SocketAddr, MacAddr)>,
}

/// A device to be made and attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    pub device: String,
    pub addresses: Vec<Cidr>,
    pub options: PortOptions,
}

/// Where an FDB entry or a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Vtep(SocketAddr),
    /// A port of the same segment, by its place in [`SegmentPlan::ports`].
    Port(usize),
}

/// What becomes of the packets of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    One(Target),
    /// Their flows are shared out, by weight.
    Group(Vec<(Target, u16)>),
    Blackhole,
    Unreachable,
    Local,
}

impl SegmentPlan {
    pub fn new(segment: Segment) -> Self {
        Self {
            segment,
            ports: Vec::new(),
            flood: Vec::new(),
            peers: Vec::new(),
            groups: Vec::new(),
            fdb: Vec::new(),
            remote_vnis: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            mdb: Vec::new(),
            vtep_macs: Vec::new(),
        }
    }

    /// Adds a device.
    pub fn add_port(&mut self, device: String, addresses: Vec<Cidr>, options: PortOptions) {
        self.ports.push(PortPlan { device, addresses, options });
    }
}

impl Plan {
    /// One line about it.
    pub fn summary(&self) -> String {
        let sum = |of: fn(&SegmentPlan) -> usize| self.segments.iter().map(of).sum::<usize>();
        let parts = [
            (self.segments.len(), "segment", "segments"),
            (sum(|segment| segment.ports.len()), "port", "ports"),
            (sum(|segment| segment.flood.len()), "flood list entry", "flood list entries"),
            (sum(|segment| segment.peers.len()), "peer", "peers"),
            (sum(|segment| segment.fdb.len()), "FDB entry", "FDB entries"),
            (sum(|segment| segment.routes.len()), "route", "routes"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .map(|(n, one, many)| format!("{n} {}", if *n == 1 { one } else { many }))
            .collect();
        parts.join(", ")
    }
}

/// The allowed second addresses of this node, for messages.
pub const SECOND_LOCAL: &str = "a unicast address of this node, of the other family than local";

/// The second address of the node at `first`, if it can have it.
pub fn second_local(first: IpAddr, second: IpAddr) -> Option<IpAddr> {
    (second.is_ipv4() != first.is_ipv4()).then_some(second)
}

/// The allowed values of a VTEP, for messages.
pub const VTEP: &str = "a unicast ADDRESS, or ADDRESS:PORT";

/// Reads a VTEP, which is at `udp_port` unless it says otherwise.
pub fn vtep(text: &str, udp_port: u16) -> Option<SocketAddr> {
    flooded(text, udp_port).filter(|vtep| !vtep.ip().is_multicast())
}

/// The allowed values of a destination of floods, for messages.
pub const FLOODED: &str = "an ADDRESS of a node or of a group of nodes, or ADDRESS:PORT";

/// Reads a destination of floods: a VTEP, or a multicast group that stands for several.
pub fn flooded(text: &str, udp_port: u16) -> Option<SocketAddr> {
    let vtep = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, udp_port),
        Err(_) => text.parse().ok()?,
    };
    let fit = is_unicast(vtep.ip()) || vtep.ip().is_multicast();
    (fit && vtep.port() != 0).then_some(vtep)
}

/// The allowed MAC addresses, for messages.
pub const MAC: &str = "an individual MAC address as in 02:00:00:00:00:01";

/// Reads a MAC address of one station.
pub fn mac(text: &str) -> Option<MacAddr> {
    text.parse().ok().filter(|mac: &MacAddr| mac.is_individual())
}

/// What stands against sending from one of the addresses `locals` and `udp_port` to `vtep`; nothing if there are none.
pub fn vtep_conflict(locals: &[IpAddr], udp_port: u16, vtep: SocketAddr) -> Option<String> {
    if let [local] = locals
        && vtep.is_ipv4() != local.is_ipv4()
    {
        return Some(format!("{vtep} and this node's underlay address {local} differ in family"));
    }
    let own = vtep.port() == udp_port && locals.contains(&vtep.ip());
    own.then(|| format!("{vtep} is this node itself"))
}

/// Whether one node can have the address, as an underlay without scopes needs it.
pub fn is_unicast(ip: IpAddr) -> bool {
    let unfit = match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_unspecified() && !ip.is_multicast() && !unfit
}

/// Whether one host of an overlay can have the address.
pub fn is_host(ip: IpAddr) -> bool {
    let unfit = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !unfit
}

/// What stands against giving a device of the node at `locals` the address.
pub fn address_conflict(locals: &[IpAddr], ip: IpAddr) -> Option<String> {
    if ip.is_unspecified() || ip.is_multicast() {
        return Some(format!("{ip} is no address of one host"));
    }
    locals.contains(&ip).then(|| format!("{ip} is this node's underlay address"))
}

/// Smallest MTU of a link with IPv6 addresses (RFC 8200 §5).
const MIN_MTU_V6: u32 = 1280;

/// What stands against giving a device the address, with this MTU as the option `name` sets it.
pub fn mtu_conflict(name: &str, mtu: Option<u32>, ip: IpAddr) -> Option<String> {
    let mtu = mtu.filter(|mtu| ip.is_ipv6() && *mtu < MIN_MTU_V6)?;
    Some(format!("an IPv6 address needs an MTU of {MIN_MTU_V6} or more, and {name} is {mtu}"))
}

/// The allowed names of a device, for messages.
pub const DEVICE: &str = "1 to 15 bytes without '/', ':', '%' and spaces";

/// Whether the kernel takes the name for a device, and as it is.
pub fn is_device_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"/:%".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(plain) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vtep_is_an_address_with_or_without_a_port() {
        let at = |text: &str| text.parse().ok();
        assert_eq!(vtep("10.9.0.2", 4789), at("10.9.0.2:4789"));
        assert_eq!(vtep("10.9.0.2:8472", 4789), at("10.9.0.2:8472"));
        assert_eq!(vtep("fd00::2", 4789), at("[fd00::2]:4789"));
        assert_eq!(vtep("[fd00::2]:1", 4789), at("[fd00::2]:1"));
        assert_eq!(flooded("239.1.1.1", 4789), at("239.1.1.1:4789"));
        assert_eq!(flooded("10.9.0.2", 4789), at("10.9.0.2:4789"));
        assert_eq!(flooded("0.0.0.0", 4789), None);
        for wrong in ["", "host", "0.0.0.0", "239.1.1.1", "ff02::1", "10.9.0.2:0", "10.9.0.2:x"] {
            assert_eq!(vtep(wrong, 4789), None, "{wrong}");
        }
    }

    #[test]
    fn a_vtep_is_of_the_same_family_and_another_node() {
        let local: IpAddr = [10, 9, 0, 1].into();
        let conflict = |text| vtep(text, 4789).and_then(|vtep| vtep_conflict(&[local], 4789, vtep));
        assert_eq!(conflict("10.9.0.2"), None);
        assert_eq!(conflict("10.9.0.1:4790"), None);
        assert!(conflict("10.9.0.1").is_some_and(|why| why.ends_with("is this node itself")));
        assert!(conflict("fd00::2").is_some_and(|why| why.ends_with("differ in family")));
    }

    #[test]
    fn device_names_are_those_of_the_kernel() {
        for name in ["ovl0", "a", "tap-12.3_4", "123456789012345"] {
            assert!(is_device_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "tap%d", "a:1", "1234567890123456"] {
            assert!(!is_device_name(name), "{name}");
        }
    }
}
