//! What the VXLAN header of a segment's datagrams carries beside the VNI.

/// Extensions of the VXLAN header that a bridge segment speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderOptions {
    /// Speak the group policy extension (draft-smith-vxlan-group-policy-05), as `gbp` of Linux; default `false`.
    ///
    /// The policy that a datagram carries comes with the frame, as [`Metadata::policy`](crate::Metadata::policy), and
    /// one that a frame is given leaves with it. Addresses are not learned from frames whose D bit is set. Without
    /// this option the extension's bits are reserved ones, see [`Config::reserved_bits`](crate::Config::reserved_bits).
    pub gbp: bool,
    /// Take every VNI on the segment's UDP port that no other segment has; default `false`. One segment of a UDP port
    /// can.
    ///
    /// For peers to whom the VNI is no segment, such as Cilium's, to whom it is the identity of the sender. The VNI of a
    /// datagram comes with the frame, as [`Metadata::vni`](crate::Metadata::vni), and one that a frame is given leaves
    /// with it; without one it is that of the VTEP ([`Change::SetVtepVni`](crate::Change::SetVtepVni)) or the segment's
    /// own. All of them share one FDB.
    pub any_vni: bool,
}
