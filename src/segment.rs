//! What the control plane says of segments, ports and VTEPs, and how they are named.

mod gateway;
mod header;
mod loops;
mod mtu;
mod neighbours;
mod outer;
mod port;
mod scope;
mod snooping;
mod storm;
mod vlan;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::fdb::{self, DEFAULT_AGEING, DEFAULT_LIMIT, Limits};
use crate::wire::{MacAddr, Vni, vxlan};
pub use gateway::{Gateway, MAX_GATEWAY_ADDRESSES};
pub use header::HeaderOptions;
pub use loops::LoopGuard;
pub use mtu::{MssClamp, MtuOptions};
pub use neighbours::{DEFAULT_SNOOPED, MAX_SNOOPED, Neighbours};
pub(crate) use outer::OuterRule;
pub use outer::{Dscp, Ecn, OuterHeader, OuterOptions, Ttl};
pub use port::PortOptions;
pub(crate) use port::Traits;
pub(crate) use scope::horizon;
pub use scope::{MAX_HORIZON_GROUP, Scope};
pub use snooping::{DEFAULT_MEMBERSHIPS, MAX_MEMBERSHIPS, Querier, Snooping};
pub use storm::StormLimits;
pub(crate) use storm::{Exceeded, Storm};
pub(crate) use vlan::{Egress, Ingress};
pub use vlan::{MAX_VID, VlanMode, VlanSet};

/// UDP port of flannel's udp backend (flannel `pkg/backend/udp`); what to give [`Segment::routed`] to talk to it.
pub const FLANNEL_UDP_PORT: u16 = 8285;

/// Longest flood list of a bridge segment, in VTEPs.
pub const MAX_FLOOD: usize = 1024;

/// Names a segment by what tells it apart on the wire: the UDP port, and the VNI of one in VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId {
    /// UDP port on which datagrams of the segment arrive, in host order.
    pub udp_port: u16,
    /// VXLAN network identifier; `None` for a routed segment of bare IP in UDP.
    pub vni: Option<Vni>,
}

impl SegmentId {
    /// As a label of FDB entries, which only bridge segments have.
    pub(crate) fn to_word(self) -> u64 {
        let vni = self.vni.map_or(0, Vni::get);
        u64::from(self.udp_port) << 32 | u64::from(vni)
    }

    /// The segment of which [`SegmentId::to_word`] made this.
    pub(crate) fn from_word(word: u64) -> Self {
        Self { udp_port: (word >> 32) as u16, vni: Vni::new(word as u32).ok() }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vni {
            Some(vni) => write!(f, "VXLAN {vni} on UDP port {}", self.udp_port),
            None => write!(f, "IP in UDP on port {}", self.udp_port),
        }
    }
}

/// Names a port of the dataplane; means no other port before 2,048 more have come and gone in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub(crate) u32);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// Names a VTEP within one dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VtepId(pub(crate) u32);

/// Where the control plane sends a MAC address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To the VTEP at this underlay address and UDP port.
    Vtep(SocketAddr),
    /// To a port of this node in the same segment.
    Port(PortId),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vtep(vtep) => write!(f, "VTEP {vtep}"),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(vtep: SocketAddr) -> Self {
        Self::Vtep(vtep)
    }
}

impl From<PortId> for Destination {
    fn from(port: PortId) -> Self {
        Self::Port(port)
    }
}

/// Marks a location word as a VTEP; clear means a port. Handles leave this bit free.
const VTEP_BIT: u32 = 1 << 31;

/// Where a MAC address is or a prefix leads, by handle: what the FDB and the FIB hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Location {
    /// Behind a port of this node.
    Port(PortId),
    /// Behind another node.
    Vtep(VtepId),
}

impl Location {
    pub(crate) fn to_word(self) -> u32 {
        match self {
            Self::Port(port) => port.0,
            Self::Vtep(vtep) => vtep.0 | VTEP_BIT,
        }
    }

    pub(crate) fn from_word(word: u32) -> Self {
        if word & VTEP_BIT == 0 {
            Self::Port(PortId(word))
        } else {
            Self::Vtep(VtepId(word & !VTEP_BIT))
        }
    }
}

/// How a segment forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ethernet frames in VXLAN, forwarded by MAC address.
    Bridge(Vni),
    /// IP packets in UDP with no header between, forwarded by prefix.
    Routed,
    /// IP packets forwarded by prefix, each in an Ethernet frame from one VTEP to another, in VXLAN: what flannel's vxlan
    /// backend and Calico make of the kernel's VXLAN device.
    RoutedVxlan {
        /// VXLAN network identifier.
        vni: Vni,
        /// MAC address of this node's VTEP: the source of the frames it sends, and the destination of those it takes.
        mac: MacAddr,
    },
}

impl Kind {
    /// Whether the ports of such a segment give and take Ethernet frames; otherwise IP packets.
    #[must_use]
    pub fn is_ethernet(self) -> bool {
        matches!(self, Self::Bridge(_))
    }
}

/// A segment as the control plane wants it: one forwarding domain.
///
/// Make one with [`Segment::bridge`], [`Segment::routed`] or [`Segment::routed_vxlan`] and change the fields that should
/// differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Bridge or routed, and in what.
    pub kind: Kind,
    /// UDP port to receive on, in host order. Segments in VXLAN can share one; one of bare IP in UDP has its own.
    pub udp_port: u16,
    /// Largest IP packet inside, in bytes without the Ethernet header (68 to 65,535).
    ///
    /// `None` means what the underlay leaves, see [`crate::mtu::segment_mtu`]: a dataplane asks its interface and follows
    /// it (`Config::follow_host`); 1,500 bytes are assumed where nothing is known.
    pub mtu: Option<u32>,
    /// What becomes of packets that are too large.
    pub mtu_options: MtuOptions,
    /// Accept datagrams from any underlay address instead of only from known VTEPs.
    pub open: bool,
    /// Bridge: learn MAC addresses from frames.
    pub learning: bool,
    /// Bridge: time after which a learned entry that no frame refreshed is forgotten, in whole seconds from 1 to
    /// [`limits::MAX_AGEING`](crate::limits::MAX_AGEING); `None` means never.
    pub ageing: Option<Duration>,
    /// Bridge: largest number of learned entries, at most [`limits::MAX_FDB_CAPACITY`](crate::limits::MAX_FDB_CAPACITY);
    /// default 8,192. They share the room that all segments have, [`Tables::set_fdb_capacity`](crate::Tables::set_fdb_capacity).
    pub fdb_limit: usize,
    /// Bridge: largest number of learned entries behind one port or one VTEP; `None`, the default, means no limit of its
    /// own.
    pub fdb_port_limit: Option<usize>,
    /// Bridge: what becomes of a new MAC address at a limit, or when there is no room in the table: with `true`, the
    /// default, an entry of the port or VTEP that has the most gives way to it, with `false` it is not learned.
    pub fdb_evict: bool,
    /// Bridge: whether it answers ARP and ND requests for its neighbours. Off by default.
    pub neighbours: Neighbours,
    /// Bridge: whether multicast goes to those alone who listen to it. Off by default.
    pub snooping: Snooping,
    /// Bridge: how far frames go.
    pub scope: Scope,
    /// Bridge: how many frames a second are flooded, whoever sends them.
    pub storm: StormLimits,
    /// Bridge: when MAC addresses that move too fast are held where they are.
    pub loops: LoopGuard,
    /// Bridge: extensions of the VXLAN header.
    pub header: HeaderOptions,
    /// Addresses of this node in the segment, the sources of ICMP errors; the first of each family is used.
    ///
    /// Not an address of a host behind one of the ports: hosts drop what claims to come from themselves. Without one,
    /// an error comes from the address that the packet at fault was going to.
    pub addresses: Vec<IpAddr>,
    /// What the outer IP headers of its datagrams say: congestion marks, DSCP and TTL.
    pub outer: OuterOptions,
}

impl Segment {
    fn new(kind: Kind, udp_port: u16) -> Self {
        Self {
            kind,
            udp_port,
            mtu: None,
            mtu_options: MtuOptions::default(),
            open: false,
            learning: true,
            ageing: Some(DEFAULT_AGEING),
            fdb_limit: DEFAULT_LIMIT,
            fdb_port_limit: None,
            fdb_evict: true,
            neighbours: Neighbours::default(),
            snooping: Snooping::default(),
            scope: Scope::default(),
            storm: StormLimits::default(),
            loops: LoopGuard::default(),
            header: HeaderOptions::default(),
            addresses: Vec::new(),
            outer: OuterOptions::default(),
        }
    }

    /// A bridge segment: Ethernet in VXLAN on the IANA port, 4789.
    #[must_use]
    pub fn bridge(vni: Vni) -> Self {
        Self::new(Kind::Bridge(vni), vxlan::PORT)
    }

    /// A routed segment: bare IP packets in UDP on `udp_port`, as flannel's udp backend does on
    /// [`FLANNEL_UDP_PORT`].
    #[must_use]
    pub fn routed(udp_port: u16) -> Self {
        Self::new(Kind::Routed, udp_port)
    }

    /// A routed segment in VXLAN on the IANA port, 4789, which is Calico's; flannel's is
    /// [`wire::vxlan::PORT_LINUX`](crate::wire::vxlan::PORT_LINUX).
    ///
    /// `mac` is the MAC address of this node's VTEP. Those of the others are given with
    /// [`Change::SetVtepMac`](crate::Change::SetVtepMac); nothing is learned or resolved.
    #[must_use]
    pub fn routed_vxlan(vni: Vni, mac: MacAddr) -> Self {
        Self::new(Kind::RoutedVxlan { vni, mac }, vxlan::PORT)
    }

    /// The name under which the dataplane will know this segment.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        let vni = match self.kind {
            Kind::Bridge(vni) | Kind::RoutedVxlan { vni, .. } => Some(vni),
            Kind::Routed => None,
        };
        SegmentId { udp_port: self.udp_port, vni }
    }

    /// What holds for its learned entries.
    pub(crate) fn fdb_limits(&self) -> Limits {
        Limits {
            entries: self.fdb_limit,
            entries_per_place: self.fdb_port_limit,
            evict: self.fdb_evict,
            ageing: self.ageing,
        }
    }

    pub(crate) fn check(&self) -> Result<(), crate::Error> {
        let wrong = |what, value: String, allowed| Err(crate::Error::invalid(what, value, allowed));
        if self.udp_port == 0 {
            return wrong("UDP port of a segment", "0".into(), "1 to 65535");
        }
        if let Kind::RoutedVxlan { mac, .. } = self.kind
            && !mac.is_individual()
        {
            return wrong(
                "MAC address of this node's VTEP",
                mac.to_string(),
                "an individual address",
            );
        }
        if let Some(mtu) = self.mtu
            && !(68..=65_535).contains(&mtu)
        {
            return wrong("MTU of a segment", mtu.to_string(), "68 to 65535 bytes");
        }
        self.mtu_options.check()?;
        if self.mtu_options.probe && self.kind == Kind::Routed {
            return Err(crate::Error::conflict(
                format_args!("probing the paths of segment {}", self.id()),
                "IP in UDP has no room for probes, only VXLAN has",
            ));
        }
        if let Some(ageing) = self.ageing
            && !(Duration::from_secs(1)..=fdb::MAX_AGEING).contains(&ageing)
        {
            return wrong("ageing time", format!("{ageing:?}"), "1 to 262144 seconds, or never");
        }
        self.scope.check()?;
        self.storm.check()?;
        self.loops.check()?;
        if self.fdb_limit > fdb::MAX_CAPACITY {
            return wrong("FDB limit", self.fdb_limit.to_string(), "0 to 1048576 entries");
        }
        self.neighbours.check()?;
        self.snooping.check()?;
        self.outer.check()
    }
}
