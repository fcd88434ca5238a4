//! Frames with their fates, for whoever looks: what is captured of a frame, and which frames are.

mod filter;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod oracle;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::drop_reason::{DropReason, Stage};
use crate::segment::{PortId, SegmentId};
use crate::wire::Vni;
#[cfg(all(feature = "io", target_os = "linux"))]
pub(crate) use filter::LOOKED_AT;
pub use filter::{CaptureFilter, FateFilter};
pub use text::ParseFilterError;

/// What became of a frame, or of one copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// A received frame has one destination, and was sent or delivered there: see the copy.
    Forwarded,
    /// A received frame has many destinations: see the copies.
    Flooded,
    /// A received frame was for this node, or was answered in place of whoever it asks for.
    Answered,
    /// The copy was written to a port.
    Delivered,
    /// The copy was sent to a VTEP.
    Sent,
    /// The received frame was dropped if the reason is one of [`Stage::Decision`], otherwise one copy of a frame.
    Dropped(DropReason),
}

impl Fate {
    /// All fates but drops.
    const OTHERS: [Self; 5] =
        [Self::Forwarded, Self::Flooded, Self::Answered, Self::Delivered, Self::Sent];

    /// Its name: one lower-case word, for a drop that of the reason.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Flooded => "flooded",
            Self::Answered => "answered",
            Self::Delivered => "delivered",
            Self::Sent => "sent",
            Self::Dropped(reason) => reason.name(),
        }
    }

    /// Whether it is that of a received frame or of one that leaves.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Self::Forwarded | Self::Flooded | Self::Answered => Direction::Received,
            Self::Delivered | Self::Sent => Direction::Sent,
            Self::Dropped(reason) => match reason.stage() {
                Stage::Decision => Direction::Received,
                Stage::Output => Direction::Sent,
            },
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
            other => f.write_str(other.name()),
        }
    }
}

/// Which way a frame passes the place where it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into the dataplane: from a port or from the underlay.
    Received,
    /// Out of it: to a port or to a VTEP.
    Sent,
}

/// What the bytes of a captured frame begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// An Ethernet header, without frame check sequence.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
    /// What should have been a VXLAN header: a datagram of which nothing else is known.
    Datagram,
}

/// Where a frame was captured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CapturePoint {
    /// At a port.
    Port {
        /// Its handle.
        id: PortId,
        /// The name of its device.
        name: Arc<str>,
    },
    /// On its way from or to an underlay address, which need not be that of a known VTEP. The frame is what the datagram
    /// holds.
    Vtep(IpAddr),
}

impl fmt::Display for CapturePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { name, .. } => f.write_str(name),
            Self::Vtep(address) => address.fmt(f),
        }
    }
}

/// A frame, or a copy of one, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// When, since the start of the dataplane.
    pub time: Duration,
    /// The worker that forwarded it, counted from 0.
    pub worker: usize,
    /// Where it passed.
    pub at: CapturePoint,
    /// Its segment, if there is one.
    pub segment: Option<SegmentId>,
    /// The VNI of its datagram, at a VTEP of VXLAN; mostly that of the segment.
    pub vni: Option<Vni>,
    /// What became of it.
    pub fate: Fate,
    /// What its bytes begin with.
    pub layer: Layer,
    /// Its length, in bytes; above that of `bytes` if it was cut.
    pub len: usize,
    /// Its first bytes. Checksums that a device has left to the dataplane are unfinished in a received frame.
    pub bytes: Box<[u8]>,
}

impl Captured {
    /// Which way it passed.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.fate.direction()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fates_differ_from_those_of_reasons() {
        for fate in Fate::OTHERS {
            assert!(DropReason::ALL.iter().all(|reason| reason.name() != fate.name()));
        }
        let received = Fate::Dropped(DropReason::NoRoute).direction();
        let sent = Fate::Dropped(DropReason::PortDown).direction();
        assert_eq!((received, sent), (Direction::Received, Direction::Sent));
    }
}
