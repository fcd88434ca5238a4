//! The VXLAN header (RFC 7348 §5) and the network identifier it carries.

use std::fmt;
use std::str::FromStr;

use super::frame::{FrameInfo, L4};
use super::{array_at, l4};

/// Length in bytes of the VXLAN header (RFC 7348 §5).
pub const HEADER_LEN: usize = 8;

/// The UDP port that IANA assigned to VXLAN (RFC 7348 §5).
pub const PORT: u16 = 4789;

/// The UDP port that Linux uses unless told otherwise, older than the assignment (kernel
/// `drivers/net/vxlan/vxlan_core.c`, parameter `udp_port`); flannel and Cilium keep it.
pub const PORT_LINUX: u16 = 8472;

/// The I flag, "the VNI is valid", as the first byte of the header (RFC 7348 §5).
const FLAG_VNI: u8 = 0x08;

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
    /// Refuse the datagram, as Linux does (kernel `vxlan_core.c`, `vxlan_rcv`): such a bit belongs
    /// to an extension that this segment does not speak, and its meaning may be essential.
    #[default]
    Refuse,
    /// Ignore them on receipt, as RFC 7348 §5 asks.
    Ignore,
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
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Truncated => "datagram shorter than a VXLAN header",
            DecodeError::NoVni => "VXLAN header without a VNI",
            DecodeError::ReservedBits => "VXLAN header with reserved bits set",
        })
    }
}

impl std::error::Error for DecodeError {}

/// The header for a VNI: the I flag set and all reserved bits zero (RFC 7348 §5).
#[inline]
pub const fn encode(vni: Vni) -> [u8; HEADER_LEN] {
    ((FLAG_VNI as u64) << 56 | (vni.0 as u64) << 8).to_be_bytes()
}

/// The VNI from the header that `bytes` starts with; the frame follows it.
///
/// # Errors
///
/// [`DecodeError`] where the header is short, has no VNI, or has reserved bits set and `reserved`
/// refuses them.
#[inline]
pub fn decode(bytes: &[u8], reserved: ReservedBits) -> Result<Vni, DecodeError> {
    // The header as one number: flags, 24 reserved bits, VNI, 8 reserved bits.
    let header = array_at::<HEADER_LEN>(bytes, 0).ok_or(DecodeError::Truncated)?;
    let header = u64::from_be_bytes(*header);
    let flag = u64::from(FLAG_VNI) << 56;
    let vni = header >> 8 & u64::from(Vni::MAX.0);
    if header & flag == 0 {
        return Err(DecodeError::NoVni);
    }
    if reserved == ReservedBits::Refuse && header != flag | vni << 8 {
        return Err(DecodeError::ReservedBits);
    }
    Ok(Vni(vni as u32))
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
    let is_vxlan = |first: &u8| first & FLAG_VNI != 0 && !matches!(first >> 4, 4 | 6);
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

    #[test]
    fn the_header_is_that_of_rfc_7348() {
        let vni = Vni::new(0x12_34_56).expect("in range");
        let header = [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0];
        assert_eq!(encode(vni), header);
        assert_eq!(decode(&header, ReservedBits::Refuse), Ok(vni));
        assert_eq!(decode(&[&header[..], b"frame"].concat(), ReservedBits::Refuse), Ok(vni));
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
            let header = header.to_be_bytes();
            assert_eq!(
                decode(&header, ReservedBits::Refuse),
                Err(DecodeError::ReservedBits),
                "bit {bit}"
            );
            assert_eq!(decode(&header, ReservedBits::Ignore), Ok(vni), "bit {bit}");
        }
    }

    #[test]
    fn a_header_needs_eight_bytes_and_the_flag() {
        let header = encode(Vni::MAX);
        for len in 0..HEADER_LEN {
            assert_eq!(decode(&header[..len], ReservedBits::Ignore), Err(DecodeError::Truncated));
        }
        let clear = [0xf7, 0xff, 0xff, 0xff, 0, 0, 1, 0xff];
        assert_eq!(decode(&clear, ReservedBits::Ignore), Err(DecodeError::NoVni));
        assert_eq!(decode(&clear, ReservedBits::Refuse), Err(DecodeError::NoVni));
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
