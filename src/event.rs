//! What happened that an agent may want to act on.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::drop_reason::DropReason;
use crate::offload::Offload;
use crate::segment::{Destination, PortId, SegmentId};
use crate::wire::MacAddr;

/// Something that happened in the dataplane.
///
/// Events wait in a bounded queue; what did not fit is counted in [`Stats::events_lost`](crate::Stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A MAC address was seen for the first time, or again after its entry aged out.
    Learned {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
        /// Where it is.
        at: Destination,
    },
    /// A known MAC address was seen elsewhere.
    Moved {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
        /// Where it was; `None` when that place itself is gone.
        from: Option<Destination>,
        /// Where it is.
        to: Destination,
    },
    /// A MAC address moved too fast and is held where it is for the time of the segment's
    /// [`LoopGuard`](crate::LoopGuard): frames loop, or two stations use it.
    Damped {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
        /// Where it is held.
        at: Destination,
        /// Where it was seen, too.
        elsewhere: Destination,
    },
    /// More frames are flooded than a rate limit allows. Reported once until ten seconds have passed without it.
    Storm {
        /// The segment.
        segment: SegmentId,
        /// The port whose limit it is; `None` for that of the segment.
        port: Option<PortId>,
        /// Which frames: the reason under which those above the limit are counted.
        reason: DropReason,
    },
    /// A MAC address was not seen for the ageing time and is forgotten.
    Aged {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
    },
    /// A MAC address is forgotten because there was no room for another one: its port or VTEP had the most entries.
    Evicted {
        /// The segment.
        segment: SegmentId,
        /// The MAC address.
        mac: MacAddr,
    },
    /// A station claims an IP address that [`Change::SetNeighbour`](crate::Change) binds to another MAC address; the binding
    /// holds. At most 32 a batch and sender are reported, all are counted.
    NeighbourConflict {
        /// The segment.
        segment: SegmentId,
        /// The IP address.
        address: IpAddr,
        /// The MAC address of the station.
        claimed_by: MacAddr,
        /// Where it is.
        at: Destination,
    },
    /// A segment that snoops has heard of more memberships of multicast groups than it may learn, or of too many at once: the
    /// groups concerned are flooded. Reported once until a membership interval has passed without it.
    MdbFull {
        /// The segment.
        segment: SegmentId,
        /// The first group.
        group: IpAddr,
    },
    /// The path to a VTEP takes smaller or larger packets than before: the underlay has taught so, or it was so long ago
    /// that it is tried anew, or probes have shown it.
    PathMtu {
        /// The VTEP.
        vtep: SocketAddr,
        /// Largest outer IP packet in bytes; `None` when nothing is known of the path any more.
        mtu: Option<u32>,
    },
    /// Packets to a VTEP vanish without a word if they are large: it answers small probes and none of this size. Packets
    /// are limited to what is verified from now on, and larger ones are tried time and again; reported once.
    BlackHole {
        /// The VTEP.
        vtep: SocketAddr,
        /// Size of the outer IP packets that vanish, in bytes.
        size: u32,
        /// Size of the outer IP packets that get there, in bytes, as far as is known now.
        verified: u32,
    },
    /// A segment without an MTU of its own has got another one, for that of the underlay has changed; devices should
    /// be given the same.
    MtuChanged {
        /// The segment.
        segment: SegmentId,
        /// Largest IP packet inside, in bytes.
        mtu: u32,
    },
    /// A device was brought down: what was learned behind its port is forgotten, and static entries stay.
    LinkDown {
        /// The port.
        port: PortId,
        /// Name of the device.
        name: String,
    },
    /// A device was brought up again.
    LinkUp {
        /// The port.
        port: PortId,
        /// Name of the device.
        name: String,
    },
    /// A device is gone; its port stays attached, without carrying frames, until it is detached.
    DeviceLost {
        /// The port.
        port: PortId,
        /// Name of the device.
        name: String,
    },
    /// The kernel granted a smaller buffer than was asked for to the sockets of a UDP port: bursts may be lost.
    SmallBuffer {
        /// UDP port, in host order.
        udp_port: u16,
        /// Bytes asked for.
        wanted: usize,
        /// Bytes granted; raise `net.core.rmem_max` and `net.core.wmem_max`, or give the process CAP_NET_ADMIN.
        granted: usize,
    },
    /// Frames are being dropped for a reason outside the dataplane. Reported once per place and reason until a
    /// second has passed without it.
    Trouble {
        /// Where: a device, a VTEP or an underlay socket.
        place: String,
        /// Under which reason the frames are counted.
        reason: DropReason,
        /// What the operating system said.
        error: String,
    },
    /// An offload failed and is out of use until it is switched on again: what it did is done without it, which is
    /// slower. See [`Stats::offloads`](crate::Stats).
    OffloadFailed {
        /// The offload.
        offload: Offload,
        /// What the operating system said, and to what.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learned { segment, mac, at } => write!(f, "{segment}: {mac} is at {at}"),
            Self::Moved { segment, mac, from: Some(from), to } => {
                write!(f, "{segment}: {mac} moved from {from} to {to}")
            }
            Self::Moved { segment, mac, from: None, to } => {
                write!(f, "{segment}: {mac} moved to {to}")
            }
            Self::Damped { segment, mac, at, elsewhere } => {
                write!(
                    f,
                    "{segment}: {mac} moves too fast: it is held at {at}, and seen at {elsewhere}"
                )
            }
            Self::Storm { segment, port: Some(port), reason } => {
                write!(f, "{segment}: {port} floods more than its limit ({reason})")
            }
            Self::Storm { segment, port: None, reason } => {
                write!(f, "{segment}: more is flooded than the segment's limit ({reason})")
            }
            Self::Aged { segment, mac } => write!(f, "{segment}: {mac} aged out"),
            Self::Evicted { segment, mac } => write!(f, "{segment}: {mac} made room"),
            Self::NeighbourConflict { segment, address, claimed_by, at } => {
                write!(f, "{segment}: {claimed_by} at {at} claims {address}, which is another's")
            }
            Self::MdbFull { segment, group } => {
                write!(f, "{segment}: no room for another member of {group}: it is flooded")
            }
            Self::PathMtu { vtep, mtu: Some(mtu) } => write!(f, "VTEP {vtep}: path MTU {mtu}"),
            Self::PathMtu { vtep, mtu: None } => {
                write!(f, "VTEP {vtep}: path MTU not known any more")
            }
            Self::BlackHole { vtep, size, verified } => write!(
                f,
                "VTEP {vtep}: packets of {size} bytes vanish without a word, those of {verified} arrive"
            ),
            Self::MtuChanged { segment, mtu } => write!(f, "{segment}: MTU {mtu}"),
            Self::LinkDown { port, name } => write!(f, "device {name} ({port}) is down"),
            Self::LinkUp { port, name } => write!(f, "device {name} ({port}) is up"),
            Self::DeviceLost { port, name } => write!(f, "device {name} ({port}) is gone"),
            Self::SmallBuffer { udp_port, wanted, granted } => write!(
                f,
                "UDP port {udp_port}: buffers of {granted} bytes instead of {wanted}; raise net.core.rmem_max and \
                 net.core.wmem_max, or give the process CAP_NET_ADMIN"
            ),
            Self::Trouble { place, reason, error } => write!(f, "{place}: {error} ({reason})"),
            Self::OffloadFailed { offload, error } => {
                write!(f, "offload {offload} failed and is not used any more: {error}")
            }
        }
    }
}
