//! The header that TUN/TAP puts before a frame when it does offloads: the legacy `virtio_net_hdr`.
//!
//! Ten bytes, numbers in native byte order (kernel `include/uapi/linux/virtio_net.h`,
//! `drivers/net/tun_vnet.h`). All offsets count from the first byte of the frame.

use std::fmt;

use super::ip::{V4_HEADER_LEN, V6_HEADER_LEN};
use super::l4::{TCP_MIN_HEADER_LEN, UDP_HEADER_LEN};

/// Length in bytes of the header, the kernel's default (kernel `tun.c`, `TUNSETVNETHDRSZ`).
pub const LEN: usize = 10;

/// Flag: the checksum field holds the pseudo-header sum and is to be completed
/// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CSUM: u8 = 1;

/// Flag: the checksum was verified (`VIRTIO_NET_HDR_F_DATA_VALID`).
pub const DATA_VALID: u8 = 2;

/// `gso_type` of a frame that is no super-frame (`VIRTIO_NET_HDR_GSO_NONE`).
pub const GSO_NONE: u8 = 0;

/// `gso_type` of a super-frame of TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const GSO_TCPV4: u8 = 1;

/// `gso_type` of one large UDP datagram to be cut into IP fragments, UFO
/// (`VIRTIO_NET_HDR_GSO_UDP`).
pub const GSO_UDP: u8 = 3;

/// `gso_type` of a super-frame of TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const GSO_TCPV6: u8 = 4;

/// `gso_type` of a super-frame of equal UDP datagrams, over IPv4 or IPv6
/// (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;

/// Bit in `gso_type`: the TCP super-frame has CWR set (`VIRTIO_NET_HDR_GSO_ECN`).
pub const GSO_ECN: u8 = 0x80;

/// The most chunks of one UDP super-frame, be it a device's or a socket's (kernel `include/linux/udp.h`,
/// `UDP_MAX_SEGMENTS`).
pub const UDP_MAX_CHUNKS: usize = 128;

/// The most chunks of one UDP super-frame that every kernel takes: the limit before Linux 6.9.
pub const UDP_SAFE_CHUNKS: usize = 64;

/// The `gso_size` that the kernel keeps for itself (kernel `include/linux/skbuff.h`,
/// `GSO_BY_FRAGS`).
const GSO_BY_FRAGS: u16 = 0xffff;

/// One `virtio_net_hdr`; all zero means a plain frame with nothing left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`] and [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` types, with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers in bytes, a hint: the kernel also puts the length of its linear
    /// buffer there.
    pub hdr_len: u16,
    /// Payload bytes of each chunk of a super-frame, the last one excepted.
    pub gso_size: u16,
    /// Where the checksummed bytes start; they run to the end of the frame.
    pub csum_start: u16,
    /// Where the checksum field stands, counted from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// A frame whose checksum is to be completed by whoever receives it.
    #[inline]
    pub const fn partial(csum_start: u16, csum_offset: u16) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start,
            csum_offset,
        }
    }

    /// The header of the same frame with `bytes` more bytes in front.
    #[inline]
    pub(crate) const fn behind(mut self, bytes: u16) -> VnetHeader {
        if self.needs_checksum() {
            self.csum_start = self.csum_start.saturating_add(bytes);
        }
        if self.hdr_len > 0 {
            self.hdr_len = self.hdr_len.saturating_add(bytes);
        }
        self
    }

    /// The header of the same frame without its first `bytes` bytes.
    #[inline]
    pub(crate) const fn without(mut self, bytes: u16) -> VnetHeader {
        self.csum_start = self.csum_start.saturating_sub(bytes);
        self.hdr_len = self.hdr_len.saturating_sub(bytes);
        self
    }

    /// Reads the header that `bytes` starts with; `None` under [`LEN`] bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<VnetHeader> {
        let &[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes.first_chunk::<LEN>()?;
        Some(VnetHeader {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// The header as the kernel reads it.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Whether the header says nothing: a plain frame, from a device that does no offloads or made no use of them.
    #[inline]
    pub const fn is_zero(&self) -> bool {
        // Without a branch for each field.
        (self.flags | self.gso_type) as u16
            | self.hdr_len
            | self.gso_size
            | self.csum_start
            | self.csum_offset
            == 0
    }

    /// Whether the checksum is still to be completed.
    #[inline]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Whether the frame is a super-frame; [`GSO_ECN`] alone does not make one.
    #[inline]
    pub const fn is_gso(&self) -> bool {
        self.gso_type & !GSO_ECN != GSO_NONE
    }

    /// Checks the header against the length in bytes of the frame that follows it.
    ///
    /// The rules are the kernel's for a frame written to it (kernel `include/linux/virtio_net.h`,
    /// `__virtio_net_hdr_to_skb`; `drivers/net/tun_vnet.h`, `tun_vnet_hdr_get`) and one more: a
    /// super-frame needs [`NEEDS_CSUM`], for without it nobody can tell where its L4 header is
    /// unless they parse it again.
    ///
    /// # Errors
    ///
    /// The first [`VnetError`] that applies, in the order of that enum.
    pub fn validate(&self, frame_len: usize) -> Result<(), VnetError> {
        if usize::from(self.hdr_len) > frame_len {
            return Err(VnetError::HeaderLength);
        }
        let start = usize::from(self.csum_start);
        let offset = usize::from(self.csum_offset);
        if self.needs_checksum() && (start < V4_HEADER_LEN || start + offset + 2 > frame_len) {
            return Err(VnetError::ChecksumBounds);
        }
        if self.gso_type == GSO_NONE {
            return Ok(());
        }
        let ecn = self.gso_type & GSO_ECN != 0;
        let (l3_len, l4_len, field) = match self.gso_type & !GSO_ECN {
            GSO_TCPV4 => (V4_HEADER_LEN, TCP_MIN_HEADER_LEN, 16),
            GSO_TCPV6 => (V6_HEADER_LEN, TCP_MIN_HEADER_LEN, 16),
            GSO_UDP | GSO_UDP_L4 if !ecn => (V4_HEADER_LEN, UDP_HEADER_LEN, 6),
            _ => return Err(VnetError::GsoType),
        };
        if !self.needs_checksum() {
            return Err(VnetError::GsoWithoutChecksum);
        }
        if offset != field || start < l3_len || start + l4_len > frame_len {
            return Err(VnetError::ChecksumBounds);
        }
        if self.gso_size == 0 || self.gso_size == GSO_BY_FRAGS {
            return Err(VnetError::GsoSize);
        }
        // `GSO_UDP` is one datagram and has no such limit.
        let payload = frame_len - start - l4_len;
        if self.gso_type == GSO_UDP_L4 && payload > usize::from(self.gso_size) * UDP_MAX_CHUNKS {
            return Err(VnetError::GsoSize);
        }
        Ok(())
    }
}

/// Why a header contradicts itself or its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VnetError {
    /// `hdr_len` is beyond the frame.
    HeaderLength,
    /// The checksum field is beyond the frame, or not where this GSO type has it, or there is no
    /// room for an IP header before `csum_start` or for the L4 header after it.
    ChecksumBounds,
    /// `gso_type` is unknown, or [`GSO_ECN`] goes with something that is not TCP.
    GsoType,
    /// A super-frame without [`NEEDS_CSUM`].
    GsoWithoutChecksum,
    /// `gso_size` is 0, is reserved (0xffff), or makes more than 128 chunks of a UDP super-frame.
    GsoSize,
}

impl fmt::Display for VnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VnetError::HeaderLength => "vnet header: hdr_len beyond the frame",
            VnetError::ChecksumBounds => "vnet header: checksum field out of place",
            VnetError::GsoType => "vnet header: unknown gso_type",
            VnetError::GsoWithoutChecksum => "vnet header: super-frame without NEEDS_CSUM",
            VnetError::GsoSize => "vnet header: gso_size out of range",
        })
    }
}

impl std::error::Error for VnetError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TSO: VnetHeader = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 66,
        gso_size: 1398,
        csum_start: 34,
        csum_offset: 16,
    };
    const USO: VnetHeader =
        VnetHeader { gso_type: GSO_UDP_L4, hdr_len: 42, gso_size: 100, csum_offset: 6, ..TSO };

    #[test]
    fn survives_the_trip_through_bytes() {
        let bytes = TSO.to_bytes();
        assert_eq!(VnetHeader::parse(&bytes), Some(TSO));
        assert_eq!(bytes[..2], [1, 1]);
        assert_eq!(bytes[6..8], 34u16.to_ne_bytes());
        assert_eq!(VnetHeader::parse(&bytes[..LEN - 1]), None);
        assert_eq!(VnetHeader::default().to_bytes(), [0; LEN]);
        assert!(VnetHeader::default().is_zero() && !TSO.is_zero());
    }

    #[test]
    fn takes_what_the_kernel_writes() {
        assert_eq!(VnetHeader::default().validate(0), Ok(()));
        assert_eq!(TSO.validate(66 + 44 * 1398), Ok(()));
        assert_eq!(
            VnetHeader { gso_type: GSO_TCPV6 | GSO_ECN, csum_start: 54, ..TSO }.validate(3000),
            Ok(())
        );
        assert_eq!(USO.validate(42 + 128 * 100), Ok(()));
        assert_eq!(VnetHeader { gso_type: GSO_UDP, gso_size: 8, ..USO }.validate(5000), Ok(()));
        assert_eq!(VnetHeader::partial(34, 6).validate(42), Ok(()));
        assert!(TSO.is_gso() && TSO.needs_checksum());
        assert!(!VnetHeader::default().is_gso() && !VnetHeader::default().needs_checksum());
    }

    #[test]
    fn names_each_contradiction() {
        let cases = [
            (VnetHeader { hdr_len: 3001, ..TSO }, VnetError::HeaderLength),
            (VnetHeader::partial(2994, 5), VnetError::ChecksumBounds),
            (VnetHeader::partial(19, 16), VnetError::ChecksumBounds),
            (VnetHeader { gso_type: GSO_TCPV6, csum_start: 39, ..TSO }, VnetError::ChecksumBounds),
            (VnetHeader::partial(u16::MAX, u16::MAX), VnetError::ChecksumBounds),
            (VnetHeader { csum_offset: 6, ..TSO }, VnetError::ChecksumBounds),
            (VnetHeader { csum_offset: 16, ..USO }, VnetError::ChecksumBounds),
            (VnetHeader { csum_start: 2981, ..TSO }, VnetError::ChecksumBounds),
            (VnetHeader { gso_type: 2, ..TSO }, VnetError::GsoType),
            (VnetHeader { gso_type: 0x21, ..TSO }, VnetError::GsoType),
            (VnetHeader { gso_type: GSO_ECN, ..TSO }, VnetError::GsoType),
            (VnetHeader { gso_type: GSO_UDP_L4 | GSO_ECN, ..USO }, VnetError::GsoType),
            (VnetHeader { flags: 0, ..TSO }, VnetError::GsoWithoutChecksum),
            (VnetHeader { gso_size: 0, ..TSO }, VnetError::GsoSize),
            (VnetHeader { gso_size: 0xffff, ..TSO }, VnetError::GsoSize),
            (VnetHeader { gso_size: 23, ..USO }, VnetError::GsoSize),
        ];
        for (header, error) in cases {
            assert_eq!(header.validate(3000), Err(error), "{header:?}");
        }
    }
}
