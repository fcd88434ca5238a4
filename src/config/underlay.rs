//! How underlay sockets send, and what they accept.

/// Which datagrams the underlay may fragment: the DF bit of the outer IPv4 header, or the same for IPv6, where only the
/// sender fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DontFragment {
    /// None, as a VTEP must not fragment (RFC 7348 §4.3): what does not fit is refused, counted, and makes the path MTU
    /// known.
    #[default]
    Set,
    /// All, as Linux's VXLAN device unless told otherwise.
    ///
    /// A VTEP whose path is narrower than the segment's MTU allows has its trains refused, because trains are never
    /// fragmented: every datagram then costs a call of its own, and before Linux 6.14 `udp-gso` is taken out for all
    /// VTEPs.
    Unset,
    /// Those whose inner packet is IPv4 without DF, and those of frames without IP, as `df inherit` of Linux's device.
    ///
    /// There are twice as many sockets to send from then, and a flow whose packets differ in DF has two source ports.
    Inherit,
}

/// UDP datagrams without checksum, which RFC 7348 §5 recommends; none by default, as on Linux.
///
/// The checksum costs nothing where the network card computes it, and without it neither this node nor the receiver can
/// handle trains: `udp-gso` and `udp-gro` are without effect on such datagrams (kernel `net/ipv4/udp.c`, `udp_send_skb`;
/// `udp_offload.c`, `udp_gro_receive_segment`). Leave it out only for a card or a peer that gets it wrong. Datagrams
/// without checksum that come over IPv4 are always accepted; where there is one, it is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZeroChecksums {
    /// Send without checksum over IPv4, as `noudpcsum` of Linux's device.
    pub send_v4: bool,
    /// Send without checksum over IPv6, as `udp6zerocsumtx`.
    ///
    /// Nothing else protects addresses and ports of IPv6 datagrams: read RFC 6936 §5 before. Peers have to be told, too.
    pub send_v6: bool,
    /// Accept datagrams without checksum over IPv6, as `udp6zerocsumrx` (RFC 6935 §5). Otherwise the kernel drops them, and
    /// counts them as `Udp6InCsumErrors`.
    pub accept_v6: bool,
}
