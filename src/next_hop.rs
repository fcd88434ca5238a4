//! Where the packets of a route go.

mod buckets;
mod table;

use std::fmt;
use std::net::SocketAddr;

use crate::segment::{Destination, PortId};

pub(crate) use table::{Group, Hop, NextHops, Share};

/// Largest number of next-hop groups of one segment.
pub const MAX_GROUPS: usize = 4096;

/// Largest number of members of a next-hop group.
pub const MAX_MEMBERS: usize = 256;

/// Largest weight of a member of a next-hop group.
pub const MAX_WEIGHT: u16 = 256;

/// Where the packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextHop {
    /// To one VTEP or port.
    To(Destination),
    /// To one member of a group for each flow; see [`Change::SetGroup`](crate::Change::SetGroup).
    Group(GroupId),
    /// Nowhere: they are dropped, and nobody is told ([`DropReason::Blackhole`](crate::DropReason::Blackhole)).
    Blackhole,
    /// Nowhere, and the sender is told by ICMP ([`DropReason::Unreachable`](crate::DropReason::Unreachable)): host
    /// unreachable in IPv4, no route in IPv6, as Linux answers for routes of this type (kernel `net/ipv4/route.c`,
    /// `ip_error`; `net/ipv6/route.c`, `ip6_rt_init_dst_reject`).
    Unreachable,
    /// To this node's own host: the port of the segment that was attached first of those that are. Without a port they
    /// are dropped, and it need not be there yet when the route is added.
    Local,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(destination) => destination.fmt(f),
            Self::Group(group) => group.fmt(f),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Local => f.write_str("local"),
        }
    }
}

impl From<Destination> for NextHop {
    fn from(destination: Destination) -> Self {
        Self::To(destination)
    }
}

impl From<SocketAddr> for NextHop {
    fn from(vtep: SocketAddr) -> Self {
        Self::To(vtep.into())
    }
}

impl From<PortId> for NextHop {
    fn from(port: PortId) -> Self {
        Self::To(port.into())
    }
}

impl From<GroupId> for NextHop {
    fn from(group: GroupId) -> Self {
        Self::Group(group)
    }
}

/// Names a group of next hops within a segment: a number that the embedder chooses, as with `ip nexthop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// A member of a next-hop group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The VTEP, or the port of the same segment.
    pub destination: Destination,
    /// Its part of the flows, beside those of the other members: 1 to
    /// [`limits::MAX_WEIGHT`](crate::limits::MAX_WEIGHT).
    pub weight: u16,
}

impl Member {
    /// A member of a weight.
    pub fn new(destination: impl Into<Destination>, weight: u16) -> Self {
        Self { destination: destination.into(), weight }
    }
}
