//! The VXLAN header (RFC 7348 §5) and the network identifier it carries.

use std::fmt;
use std::str::FromStr;

use super::frame::{FrameInfo, L4};
use super::group_policy::GroupPolicy;
use super::{array_at, l4};

/// Length in bytes of the VXLAN header (RFC 7348 §5).
pub const HEADER_LEN: usize = 8;

/// The UDP port that IANA assigned to VXLAN (RFC 7348 §5).
pub const PORT: u16 = 4789;

/// The UDP port that Linux uses unless told otherwise, older than the assignment (kernel
/// `drivers/net/vxlan/vxlan_core.c`, parameter `udp_port`); flannel and Cilium keep it.
pub const PORT_LINUX: u16 = 8472;

// The header as one number: flags, 24 reserved bits, VNI, 8 reserved bits (RFC 7348 §5).

/// The I flag: the VNI is valid (RFC 7348 §5).
const FLAG_VNI: u64 = 0x08 << 56;

/// The bits of the VNI.
const VNI_FIELD: u64 = 0xff_ffff << 8;

/// The P flag of the Generic Protocol Extension: the fourth byte says what follows (draft-ietf-nvo3-vxlan-gpe §3.2).
const FLAG_NEXT_PROTOCOL: u64 = 0x04 << 56;

/// The C flag of remote checksum offload (draft-herbert-vxlan-rco §2; kernel `include/net/vxlan.h`, `VXLAN_HF_RCO`).
const FLAG_REMOTE_CHECKSUM: u64 = 0x20 << 48;

/// A VXLAN network identifier: 24 bits (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier, 2^24 − 1.
    pub const MAX: Vni = Vni(0x00ff_ffff);

    /// An identifier from a number between 0 and 16,777,215.
    ///
    /// # Errors
    ///
    /// [`VniOutOfRange`] where the number needs more than 24 bits.
    pub const fn new(number: u32) -> Result<Vni, VniOutOfRange> {
        if number <= Vni::MAX.0 { Ok(Vni(number)) } else { Err(VniOutOfRange(number)) }
    }

    /// The identifier as a number, below 2^24.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniOutOfRange;

    fn try_from(number: u32) -> Result<Vni, VniOutOfRange> {
        Vni::new(number)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl FromStr for Vni {
    type Err = ParseVniError;

    fn from_str(text: &str) -> Result<Vni, ParseVniError> {
        text.parse().ok().and_then(|number| Vni::new(number).ok()).ok_or(ParseVniError)
    }
}

/// The number, which the error carries, is above the 24 bits of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VniOutOfRange(pub u32);

impl fmt::Display for VniOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VNI {} is above {}", self.0, Vni::MAX)
    }
}

impl std::error::Error for VniOutOfRange {}

/// The text is not a VNI: a decimal number from 0 to 16777215.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseVniError;

impl fmt::Display for ParseVniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a VNI (expected a decimal number from 0 to {})", Vni::MAX)
    }
}

impl std::error::Error for ParseVniError {}

/// What a receiver does with bits that RFC 7348 reserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReservedBits {
    /// Ignore them on receipt, as RFC 7348 §5 asks.
    #[default]
    Ignore,
    /// Refuse the datagram, as Linux does (kernel `vxlan_core.c`, `vxlan_rcv`): such a bit belongs
    /// to an extension that this receiver does not speak, and its meaning may be essential.
    Strict,
}

/// Why a datagram is not VXLAN that this receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer than [`HEADER_LEN`] bytes.
    Truncated,
    /// The I flag is clear, so there is no VNI (RFC 7348 §5).
    NoVni,
    /// A reserved bit is set, and the receiver is told to refuse that.
    ReservedBits,
    /// An extension that changes what comes after the header: something else than an Ethernet frame
    /// may follow (GPE), or a checksum to be finished (remote checksum offload).
    Extension,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Truncated => "datagram shorter than a VXLAN header",
            DecodeError::NoVni => "VXLAN header without a VNI",
            DecodeError::ReservedBits => "VXLAN header with reserved bits set",
            DecodeError::Extension => "VXLAN header of GPE or remote checksum offload",
        })
    }
}

impl std::error::Error for DecodeError {}

/// The header for a VNI: the I flag set and all reserved bits zero (RFC 7348 §5).
#[inline]
pub const fn encode(vni: Vni) -> [u8; HEADER_LEN] {
    (FLAG_VNI | (vni.0 as u64) << 8).to_be_bytes()
}

/// The header for a VNI and a group policy (draft-smith-vxlan-group-policy §2.1).
#[must_use]
pub const fn encode_with_policy(vni: Vni, policy: GroupPolicy) -> [u8; HEADER_LEN] {
    (u64::from_be_bytes(encode(vni)) | policy.to_bits()).to_be_bytes()
}

/// A header that has a VNI, and perhaps more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(u64);

impl Header {
    /// The VNI.
    #[inline]
    #[must_use]
    pub const fn vni(self) -> Vni {
        Vni((self.0 >> 8) as u32 & Vni::MAX.0)
    }

    /// Whether there is nothing in it but a VNI.
    #[inline]
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 & !VNI_FIELD == FLAG_VNI
    }

    /// What a header that is not [plain](Header::is_plain) says beside the VNI, for a receiver that speaks the group
    /// policy extension or not.
    ///
    /// The receiver that speaks it leaves the 24 bits behind the flags to it, also where the G flag is clear (kernel
    /// `vxlan_core.c`, `vxlan_parse_gbp_hdr`).
    ///
    /// # Errors
    ///
    /// [`DecodeError::Extension`] for GPE and remote checksum offload, whatever `reserved` says: without knowing them
    /// what follows cannot be read. [`DecodeError::ReservedBits`] for other bits, if `reserved` refuses them.
    pub const fn extensions(
        self,
        reserved: ReservedBits,
        group_policy: bool,
    ) -> Result<Option<GroupPolicy>, DecodeError> {
        if self.0 & (FLAG_NEXT_PROTOCOL | FLAG_REMOTE_CHECKSUM) != 0 {
            return Err(DecodeError::Extension);
        }
        let policy = if group_policy { GroupPolicy::from_bits(self.0) } else { None };
        let understood = if group_policy { GroupPolicy::FIELD } else { 0 };
        let left = self.0 & !(VNI_FIELD | FLAG_VNI | understood);
        match reserved {
            ReservedBits::Strict if left != 0 => Err(DecodeError::ReservedBits),
            _ => Ok(policy),
        }
    }
}

/// The header that `bytes` starts with; what it announces follows it.
///
/// # Errors
///
/// [`DecodeError::Truncated`] where the header is short, [`DecodeError::NoVni`] where it has no VNI.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Header, DecodeError> {
    let header = array_at::<HEADER_LEN>(bytes, 0).ok_or(DecodeError::Truncated)?;
    let header = u64::from_be_bytes(*header);
    if header & FLAG_VNI == 0 { Err(DecodeError::NoVni) } else { Ok(Header(header)) }
}

/// Whether a datagram that the kernel says to consist of chunks of `size` bytes is a single one, with a super-frame of UDP
/// datagrams of that much payload each in it.
///
/// A kernel VXLAN device hands a UDP super-frame to its underlay as one datagram with the inner chunk size, and a socket
/// on the same host gets it like that (kernel `include/linux/udp.h`, `udp_cmsg_recv`): the size looks like that of datagrams
/// joined on reception. They are told apart by the inner IP packet, which here goes to the end, and whose UDP checksum
/// is partial.
#[must_use]
pub fn holds_super_frame(datagram: &[u8], size: u16) -> bool {
    // Bare IP in UDP never begins like this.
    let is_vxlan =
        |first: &u8| u64::from(*first) << 56 & FLAG_VNI != 0 && !matches!(first >> 4, 4 | 6);
    let frame = datagram.first().filter(|first| is_vxlan(first)).and(datagram.get(HEADER_LEN..));
    let Some((frame, info)) = frame.and_then(|frame| Some((frame, FrameInfo::parse(frame)?)))
    else {
        return false;
    };
    info.l4 == L4::Udp
        && info.ip_end as usize == frame.len()
        && frame.len() - usize::from(info.payload_offset) > size.into()
        && l4::is_partial(frame, &info)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a receiver makes of a header.
    fn read(
        header: &[u8],
        reserved: ReservedBits,
        group_policy: bool,
    ) -> Result<(Vni, Option<GroupPolicy>), DecodeError> {
        let header = decode(header)?;
        let policy = header.extensions(reserved, group_policy)?;
        assert!(!header.is_plain() || policy.is_none());
        Ok((header.vni(), policy))
    }

    #[test]
    fn the_header_is_that_of_rfc_7348() {
        let vni = Vni::new(0x12_34_56).expect("in range");
        let header = [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0];
        assert_eq!(encode(vni), header);
        for bytes in [&header[..], &[&header[..], b"frame"].concat()] {
            assert_eq!(decode(bytes).map(Header::vni), Ok(vni));
            assert_eq!(decode(bytes).map(Header::is_plain), Ok(true));
            assert_eq!(read(bytes, ReservedBits::Strict, false), Ok((vni, None)));
        }
    }

    #[test]
    fn refuses_or_ignores_each_reserved_bit() {
        let vni = Vni::new(7).expect("in range");
        for bit in 0..64 {
            let mut header = u64::from_be_bytes(encode(vni));
            if header & (1 << bit) != 0 || (8..32).contains(&bit) {
                continue;
            }
            header |= 1 << bit;
            let extension = header & (FLAG_NEXT_PROTOCOL | FLAG_REMOTE_CHECKSUM) != 0;
            let header = header.to_be_bytes();
            assert_eq!(decode(&header).map(Header::is_plain), Ok(false), "bit {bit}");
            let (strict, ignored) = if extension {
                (DecodeError::Extension, Err(DecodeError::Extension))
            } else {
                (DecodeError::ReservedBits, Ok((vni, None)))
            };
            assert_eq!(read(&header, ReservedBits::Strict, false), Err(strict), "bit {bit}");
            assert_eq!(read(&header, ReservedBits::Ignore, false), ignored, "bit {bit}");
        }
    }

    #[test]
    fn gpe_is_refused_whatever_follows() {
        // Next protocols 0 (none), 1 (IPv4), 3 (Ethernet), 4 (NSH): draft-ietf-nvo3-vxlan-gpe §3.2.
        for protocol in [0, 1, 3, 4] {
            let header = [0x0c, 0, 0, protocol, 0, 0, 1, 0];
            for reserved in [ReservedBits::Ignore, ReservedBits::Strict] {
                for gbp in [false, true] {
                    assert_eq!(read(&header, reserved, gbp), Err(DecodeError::Extension));
                }
            }
        }
    }

    #[test]
    fn a_group_policy_is_read_where_it_is_spoken() {
        let vni = Vni::new(9).expect("in range");
        let policy = GroupPolicy { dont_learn: true, applied: true, ..GroupPolicy::new(0xabcd) };
        let header = encode_with_policy(vni, policy);
        // Draft-smith-vxlan-group-policy §2.1: G and I, D and A, the identifier.
        assert_eq!(header, [0x88, 0x48, 0xab, 0xcd, 0, 0, 9, 0]);
        assert_eq!(read(&header, ReservedBits::Strict, true), Ok((vni, Some(policy))));
        assert_eq!(read(&header, ReservedBits::Ignore, false), Ok((vni, None)));
        assert_eq!(read(&header, ReservedBits::Strict, false), Err(DecodeError::ReservedBits));
        let without_g = [0x08, 0x48, 0xab, 0xcd, 0, 0, 9, 0];
        assert_eq!(read(&without_g, ReservedBits::Strict, true), Ok((vni, None)), "as in Linux");
        let more = [0x88, 0, 0, 1, 0, 0, 9, 1];
        assert_eq!(read(&more, ReservedBits::Strict, true), Err(DecodeError::ReservedBits));
    }

    #[test]
    fn a_header_needs_eight_bytes_and_the_flag() {
        let header = encode(Vni::MAX);
        for len in 0..HEADER_LEN {
            assert_eq!(decode(&header[..len]), Err(DecodeError::Truncated));
        }
        assert_eq!(decode(&[0xf7, 0xff, 0xff, 0xff, 0, 0, 1, 0xff]), Err(DecodeError::NoVni));
    }

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::new(0x0100_0000), Err(VniOutOfRange(0x0100_0000)));
        assert_eq!(Vni::try_from(0xff_ffff), Ok(Vni::MAX));
        assert_eq!("16777215".parse(), Ok(Vni::MAX));
        assert_eq!("16777216".parse::<Vni>(), Err(ParseVniError));
        assert_eq!("-1".parse::<Vni>(), Err(ParseVniError));
        assert_eq!(format!("{:>6}", Vni::new(42).expect("in range")), "    42");
    }
}
