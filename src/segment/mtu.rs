//! What a segment does about packets that are too large.

/// What a segment does about packets that are too large for it or for the path to their VTEP.
///
/// How large they may be is [`Segment::mtu`](crate::Segment::mtu).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MtuOptions {
    /// Tell the sender of a packet that is too large for a VTEP how large it may be: with ICMP "fragmentation needed"
    /// about IPv4 packets that must not be fragmented (RFC 1191 §4), with ICMPv6 "packet too big" about IPv6 ones
    /// (RFC 4443 §3.2); default `true`.
    ///
    /// The error comes from [`Segment::addresses`](crate::Segment::addresses), or else from where the packet was going,
    /// and in a bridge segment from the MAC address it was going to. Nobody is told of what was flooded, and nobody more
    /// often than 100 times a second and worker, with bursts of 50, all ICMP errors together.
    pub too_big_errors: bool,
}

impl Default for MtuOptions {
    fn default() -> Self {
        Self { too_big_errors: true }
    }
}
