//! The group policy extension of VXLAN (draft-smith-vxlan-group-policy-05).

/// The G flag: the header has a group policy (§2.1).
const FLAG_POLICY: u64 = 0x80 << 56;

/// The D bit, in the byte after the flags.
const DONT_LEARN: u64 = 0x40 << 48;

/// The A bit.
const APPLIED: u64 = 0x08 << 48;

/// What a VXLAN header says of the group that its frame's sender belongs to (draft-smith-vxlan-group-policy-05 §2.1).
///
/// Linux shows it as the mark of the packet: the identifier in the lower 16 bits, `0x40_0000` for don't learn,
/// `0x8_0000` for applied (kernel `include/net/vxlan.h`, `VXLAN_GBP_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupPolicy {
    /// Identifier of the group.
    pub id: u16,
    /// The D bit: the receiver must not learn the source address.
    pub dont_learn: bool,
    /// The A bit: the policy has been applied already, and is not to be applied once more.
    pub applied: bool,
}

impl GroupPolicy {
    /// The bits of a VXLAN header that are its own: the G flag and the 24 bits behind the flags.
    pub(crate) const FIELD: u64 = FLAG_POLICY | 0xff_ffff << 32;

    /// The policy of a group, to be learned and not applied yet.
    #[must_use]
    pub const fn new(id: u16) -> Self {
        Self { id, dont_learn: false, applied: false }
    }

    /// As it stands in a VXLAN header.
    pub(crate) const fn to_bits(self) -> u64 {
        let dont_learn = if self.dont_learn { DONT_LEARN } else { 0 };
        let applied = if self.applied { APPLIED } else { 0 };
        FLAG_POLICY | dont_learn | applied | (self.id as u64) << 32
    }

    /// That of a VXLAN header, if it has one.
    pub(crate) const fn from_bits(header: u64) -> Option<Self> {
        if header & FLAG_POLICY == 0 {
            return None;
        }
        Some(Self {
            id: (header >> 32) as u16,
            dont_learn: header & DONT_LEARN != 0,
            applied: header & APPLIED != 0,
        })
    }
}
