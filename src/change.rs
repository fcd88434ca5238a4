//! The verbs of the control plane, as plain data. [`Tables::apply`](crate::Tables::apply) carries them out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::fib::Prefix;
use crate::next_hop::{GroupId, Member, NextHop};
use crate::path::PathSource;
use crate::segment::{Destination, PortId, PortOptions, Segment, SegmentId};
use crate::wire::{MacAddr, Vni};

/// Largest number of static FDB entries or of routes of one segment.
pub const MAX_ENTRIES: usize = 1 << 20;

/// Largest number of segments of one dataplane.
pub const MAX_SEGMENTS: usize = 4096;

/// Largest number of VTEPs that an open segment discovers.
pub const MAX_DISCOVERED: usize = 1024;

/// Largest number of multicast groups of the underlay that a dataplane is a member of.
pub const MAX_UNDERLAY_GROUPS: usize = 256;

/// Which learned FDB entries to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All of them.
    All,
    /// Those behind a port.
    Port(PortId),
    /// Those behind a VTEP.
    Vtep(SocketAddr),
    /// Those that no frame has refreshed for this long (whole seconds).
    OlderThan(Duration),
}

/// One verb of the control plane, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Adds a segment. Its name, [`Segment::id`], must be new; one of bare IP in UDP shares its UDP port with none.
    AddSegment(Segment),
    /// Removes a segment with its ports, entries and routes.
    RemoveSegment(SegmentId),
    /// Attaches a port to a segment. [`Tables::apply`](crate::Tables::apply) returns the names of new ports, in order.
    AddPort {
        /// The segment.
        segment: SegmentId,
        /// Name of the device, for people.
        name: String,
        /// Whether the device takes a vnet header with each frame, and so unfinished checksums and super-frames.
        offload: bool,
        /// How it takes part in the segment.
        options: PortOptions,
    },
    /// Gives a port other options; what was learned behind it stays.
    SetPort {
        /// The port.
        port: PortId,
        /// All of its options, those that stay as they are included.
        options: PortOptions,
    },
    /// Detaches a port; static FDB entries and routes to it go with it, and it leaves next-hop groups. A segment with
    /// such entries or routes is searched for them, so this takes longer the more it has.
    RemovePort(PortId),
    /// Accepts datagrams of the segment from this VTEP. Naming a VTEP in any other verb does so too.
    AddPeer {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
    },
    /// Takes back [`Change::AddPeer`], also for a discovered VTEP; what else names the VTEP stays.
    RemovePeer {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
    },
    /// Gives a VTEP another split horizon group than that of the segment's [`Scope`](crate::Scope), or takes that back.
    /// It has to be named in the segment, and loses the group when nothing names it any more.
    SetVtepGroup {
        /// The segment, a bridge.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
        /// 0 (none) to [`MAX_HORIZON_GROUP`](crate::limits::MAX_HORIZON_GROUP); `None` for that of the segment.
        group: Option<u8>,
    },
    /// Adds a VTEP to the flood list of a bridge segment; it gets a copy of every frame for everybody.
    ///
    /// A multicast address stands for all VTEPs that are members of the group, as with `group` of a Linux VXLAN
    /// device: this node becomes a member of it, on the interface that has the dataplane's address, as long as a flood
    /// list has it, and hears what its peers send to the group on the segment's UDP port. Peers are not known by it:
    /// name them ([`Change::AddPeer`]) or make the segment [open](Segment::open). One dataplane is a member of up to
    /// 256 groups.
    AddFlood {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
    },
    /// Removes a VTEP from the flood list.
    RemoveFlood {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
    },
    /// Adds or replaces a static FDB entry, which learning never overwrites.
    InsertFdb {
        /// The segment.
        segment: SegmentId,
        /// Individual MAC address.
        mac: MacAddr,
        /// Where its frames go.
        destination: Destination,
    },
    /// The same for an entry that a control plane has learned, which is listed as such. It is neither aged nor
    /// overwritten by learning either. As `bridge fdb replace ... extern_learn`.
    InsertExternFdb {
        /// The segment.
        segment: SegmentId,
        /// Individual MAC address.
        mac: MacAddr,
        /// Where its frames go.
        destination: Destination,
    },
    /// Adds a destination for a group address, of up to 1,024; one that is there already is left as it is. As
    /// `bridge fdb append`.
    ///
    /// The VTEPs of a group address take the place of the flood list for its frames, and its ports, if it has any, that
    /// of all ports. `00:00:00:00:00:00` stands for the flood list itself, which has VTEPs only:
    /// [`Change::AddFlood`].
    AppendFdb {
        /// The segment.
        segment: SegmentId,
        /// The address of a group, or zero.
        mac: MacAddr,
        /// Where its frames go, too.
        destination: Destination,
    },
    /// Removes the FDB entry of a MAC address, static or learned; of the address of a group with all its destinations,
    /// of `00:00:00:00:00:00` the flood list.
    RemoveFdb {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
    },
    /// Removes one destination of a static FDB entry, and the entry with its last one.
    RemoveFdbDestination {
        /// The segment.
        segment: SegmentId,
        /// The MAC address, zero for the flood list.
        mac: MacAddr,
        /// The destination that it has no longer.
        destination: Destination,
    },
    /// Sets the VNI under which datagrams go to a VTEP, where that is not the segment's own, or takes that back; also
    /// those of the flood list and of learned addresses. As `vni` of `bridge fdb`, for all entries of the VTEP.
    ///
    /// What comes from the VTEP still has to come under the segment's VNI.
    SetVtepVni {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
        /// The VNI; `None` for the segment's.
        vni: Option<Vni>,
    },
    /// Forgets learned FDB entries; static ones stay.
    FlushFdb {
        /// The segment.
        segment: SegmentId,
        /// Which entries.
        which: Flush,
    },
    /// Adds a route to a routed segment, or replaces the one for the same prefix.
    InsertRoute {
        /// The segment.
        segment: SegmentId,
        /// Destinations.
        prefix: Prefix,
        /// Where their packets go.
        next_hop: NextHop,
    },
    /// Removes the route for exactly this prefix.
    RemoveRoute {
        /// The segment.
        segment: SegmentId,
        /// Destinations.
        prefix: Prefix,
    },
    /// Adds a group of next hops to a routed segment, or gives it other members.
    ///
    /// Its flows are spread over the members by weight: a flow is the inner addresses, protocol and ports, or the
    /// addresses alone for fragments. They are spread by resilient hashing: when members come, go or change their
    /// weights, the fewest flows move, and when one goes, only its own. A port that is detached leaves its groups by
    /// itself; the packets for a group without any member left are dropped as unreachable. A packet whose member is
    /// where it came from is dropped, as with a route to there: to its own port, or from the underlay to a VTEP.
    SetGroup {
        /// The segment.
        segment: SegmentId,
        /// The name of the group, for routes.
        group: GroupId,
        /// Its members: at least one, each destination once.
        members: Vec<Member>,
    },
    /// Removes a group, to which no route may lead any more.
    RemoveGroup {
        /// The segment.
        segment: SegmentId,
        /// The group.
        group: GroupId,
    },
    /// Binds an IP address to a MAC address in a bridge segment that answers for its neighbours
    /// ([`Neighbours::suppress`](crate::Neighbours)), or binds it to another one. What is heard of the address does not
    /// matter then; a station that claims it is reported as [`Event::NeighbourConflict`](crate::Event).
    SetNeighbour {
        /// The segment.
        segment: SegmentId,
        /// Address of one host, IPv4 or IPv6.
        address: IpAddr,
        /// Individual MAC address.
        mac: MacAddr,
        /// IPv6: whether the neighbour is a router, which answers have to say (RFC 4861 §4.4).
        router: bool,
    },
    /// Forgets the binding of an IP address, static or learned.
    RemoveNeighbour {
        /// The segment.
        segment: SegmentId,
        /// The address.
        address: IpAddr,
    },
    /// Adds a destination for a multicast group in a segment that [snoops](crate::Snooping), which it does not have to report; one
    /// that was learned becomes static. As `bridge mdb add`, and without a group as `mcast_router 2` of a bridge port.
    InsertMdb {
        /// The segment.
        segment: SegmentId,
        /// The group, one that hosts report (not in 224.0.0.0/24, nor ff02::1); `None` for all of them: the destination is that of
        /// a multicast router.
        group: Option<IpAddr>,
        /// Who gets its frames. A VTEP that is not in the flood list gets none all the same.
        destination: Destination,
    },
    /// Removes a destination of a multicast group, static or learned.
    RemoveMdb {
        /// The segment.
        segment: SegmentId,
        /// The group; `None` for a multicast router.
        group: Option<IpAddr>,
        /// The destination that it has no longer.
        destination: Destination,
    },
    /// Takes into account that somebody at a destination has joined a group, or that a multicast router is there: what forwarding
    /// has heard, see [`Output::heard`](crate::Output::heard). An open segment takes the VTEP into account as well
    /// ([`Change::Discover`]); otherwise nothing happens if the destination is not there any more.
    LearnMdb {
        /// The segment; ignored unless it snoops.
        segment: SegmentId,
        /// The group; `None` for a multicast router.
        group: Option<IpAddr>,
        /// Where it was heard from.
        destination: Destination,
        /// When it is forgotten unless it is heard again, on the clock of [`Tables::apply`](crate::Tables::apply).
        until: Duration,
    },
    /// Forgets learned destinations of multicast groups whose time is over; see
    /// [`Tables::expired_mdb`](crate::Tables::expired_mdb).
    AgeMdb {
        /// The segment; ignored unless it snoops.
        segment: SegmentId,
        /// The time, on the clock of [`Tables::apply`](crate::Tables::apply).
        now: Duration,
    },
    /// Gives the MAC address of a VTEP of a routed segment in VXLAN, or another one: the destination of the frames to it. What
    /// is the permanent neighbour and the FDB entry of the kernel's VXLAN device in one.
    SetVtepMac {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
        /// Individual MAC address, not this node's.
        mac: MacAddr,
    },
    /// Takes [`Change::SetVtepMac`] back; packets for that VTEP are dropped then.
    RemoveVtepMac {
        /// The segment.
        segment: SegmentId,
        /// Underlay address and UDP port.
        vtep: SocketAddr,
    },
    /// Sets the MTU of the underlay's interface in bytes, 68 to 65,535, from which segments without an MTU of their own
    /// have theirs; [`mtu::DEFAULT_UNDERLAY_MTU`](crate::mtu::DEFAULT_UNDERLAY_MTU) at first.
    SetUnderlayMtu(u32),
    /// Says how large packets to a VTEP may be, or takes that back: the smallest that anybody says counts, for all
    /// segments that have the VTEP.
    SetPathMtu {
        /// Underlay address and UDP port.
        vtep: SocketAddr,
        /// Who says so. What is not [`PathSource::Configured`] is ignored for VTEPs that nothing names.
        source: PathSource,
        /// Largest outer IP packet in bytes, 68 to 65,535, or `None` for no opinion. What is learned is not brought
        /// below [`limits::MIN_LEARNED_MTU`](crate::limits::MIN_LEARNED_MTU), and only lowers what was learned before.
        mtu: Option<u32>,
        /// When a learned one is to be given up, on the clock of [`Tables::apply`](crate::Tables::apply); of no meaning
        /// for others.
        until: Duration,
    },
    /// Takes a VTEP that an open segment heard from into account, so that MAC addresses can be learned behind it.
    /// Its UDP port is the segment's own; without room left, nothing happens.
    Discover {
        /// The segment; ignored unless it is open.
        segment: SegmentId,
        /// Underlay address.
        address: IpAddr,
    },
}
