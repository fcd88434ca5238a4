//! What the outer IP headers of a segment's datagrams say.

use crate::wire::eth::Cast;
use crate::wire::{FrameInfo, ecn};

/// How congestion marks of the underlay and of inner packets are merged (RFC 6040).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// The outer ECN field is a copy of the inner one (RFC 6040 §4.1, "normal mode"), and marks that the underlay made are
    /// handed on (§4.2).
    #[default]
    Normal,
    /// The outer field is Not-ECT ("compatibility mode"), for a peer that would lose marks; marks that arrive are handed
    /// on.
    Compatibility,
    /// The outer field is Not-ECT and not looked at on arrival: for an underlay that uses these bits for something else.
    Off,
}

/// Where the outer DSCP, the upper six bits of the TOS byte or traffic class, comes from (RFC 2983).
///
/// The inner one never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dscp {
    /// Always this one, 0 to 63.
    Fixed(u8),
    /// That of the inner packet; 0 for frames without IP.
    Inherit,
}

/// Where the outer TTL or hop limit comes from. The inner one never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The system's: `net.ipv4.ip_default_ttl`, or the hop limit of the route; 64 on most systems.
    #[default]
    System,
    /// Always this one, 1 to 255.
    Fixed(u8),
    /// That of the inner packet, after routing; the system's for frames without IP.
    Inherit,
}

/// What the outer IP headers of a segment's datagrams say; a field of [`Segment`](crate::Segment).
///
/// What inner frames without IP are worth does not show outside: these have no ECN field. VLAN tags, up to two, are looked
/// behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OuterOptions {
    /// Congestion marks; default [`Ecn::Normal`].
    pub ecn: Ecn,
    /// DSCP; default 0.
    pub dscp: Dscp,
    /// TTL or hop limit; default that of the system.
    pub ttl: Ttl,
}

impl Default for OuterOptions {
    fn default() -> Self {
        Self { ecn: Ecn::Normal, dscp: Dscp::Fixed(0), ttl: Ttl::System }
    }
}

impl OuterOptions {
    pub(super) fn check(&self) -> Result<(), crate::Error> {
        match (self.dscp, self.ttl) {
            (Dscp::Fixed(dscp @ 64..), _) => {
                Err(crate::Error::invalid("outer DSCP", dscp.to_string(), "0 to 63"))
            }
            (_, Ttl::Fixed(0)) => {
                Err(crate::Error::invalid("outer TTL", "0".to_owned(), "1 to 255"))
            }
            _ => Ok(()),
        }
    }
}

/// What the outer IP header of a datagram is to say where it is not what the socket says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OuterHeader {
    /// The TOS byte or traffic class: DSCP and ECN field.
    pub tos: u8,
    /// The TTL or hop limit; 0 leaves it to the socket.
    pub ttl: u8,
    /// Whether the underlay may fragment it although datagrams are mostly not to be; see
    /// [`Tables::inherit_dont_fragment`](crate::Tables::inherit_dont_fragment).
    pub may_fragment: bool,
    /// For how many stations the frame inside is: no part of the header, but counted with it.
    pub cast: Cast,
}

/// The options, ready to be used for each frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OuterRule {
    /// Bits of the inner TOS byte that are copied, and those that are set.
    copied: u8,
    set: u8,
    ttl: u8,
    inherits_ttl: bool,
    /// Whether what may be fragmented inside may be so outside.
    inherits_df: bool,
    /// Whether marks that arrive are handed on.
    pub(crate) merges_ecn: bool,
}

impl OuterRule {
    pub(crate) fn new(options: OuterOptions, inherits_df: bool) -> Self {
        let (copied, set) = match options.dscp {
            Dscp::Fixed(dscp) => (0, dscp << 2),
            Dscp::Inherit => (!ecn::MASK, 0),
        };
        Self {
            // A copy of these bits is what `ecn::encapsulate` returns.
            copied: copied | if options.ecn == Ecn::Normal { ecn::MASK } else { 0 },
            set,
            ttl: if let Ttl::Fixed(ttl) = options.ttl { ttl } else { 0 },
            inherits_ttl: options.ttl == Ttl::Inherit,
            inherits_df,
            merges_ecn: options.ecn != Ecn::Off,
        }
    }

    /// The outer header for a frame.
    #[inline(always)]
    pub(crate) fn header(&self, frame: &[u8], info: &FrameInfo) -> OuterHeader {
        OuterHeader {
            tos: info.tos(frame) & self.copied | self.set,
            ttl: if self.inherits_ttl { info.ttl(frame) } else { self.ttl },
            may_fragment: self.inherits_df && info.may_be_fragmented(frame),
            cast: Cast::Unicast,
        }
    }
}
