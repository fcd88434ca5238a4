//! Control messages: what goes with a datagram besides its bytes.
//!
//! Each has a header (`struct cmsghdr`: its length with this header as `size_t`, level and type as `int`), and the
//! next one is aligned to `size_t` (kernel `include/linux/socket.h`, `CMSG_ALIGN`, `CMSG_NXTHDR`).

use crate::segment::OuterHeader;

/// Bytes to which control messages are aligned.
const WORD: usize = size_of::<usize>();

const HEADER: usize = WORD + 8;
const _: () = assert!(HEADER.is_multiple_of(WORD));

/// Length of the datagrams that one send is cut into, a `u16` (kernel `include/uapi/linux/udp.h`).
const UDP_SEGMENT: i32 = 103;

/// Length of the datagrams that one receive has joined, an `int` (same file); also the socket option.
pub(super) const UDP_GRO: i32 = 104;

/// The control messages of one message to be sent: what the outer IP header is to say, then where it is cut.
///
/// A message that is not to be cut after all does without the last one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct SendControl {
    bytes: [u8; Self::LEN],
    /// Bytes in front of `UDP_SEGMENT`.
    header: u8,
}

/// What `CMSG_SPACE` gives for an `int` or less: what `msg_controllen` has to count for each.
const INT_SPACE: usize = (HEADER + 4).next_multiple_of(WORD);

impl SendControl {
    /// TOS, TTL and stride.
    const LEN: usize = 3 * INT_SPACE;

    pub(super) const EMPTY: Self = Self { bytes: [0; Self::LEN], header: 0 };

    /// Writes what datagrams of one family are to have in their IP header, as far as it is not what the socket says.
    pub(super) fn set_header(&mut self, v6: bool, OuterHeader { tos, ttl, .. }: OuterHeader) {
        self.header = 0;
        let (level, tos_kind, ttl_kind) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT)
        } else {
            (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL)
        };
        for (kind, value) in [(tos_kind, tos), (ttl_kind, ttl)].into_iter().filter(|(_, v)| *v > 0)
        {
            self.put(self.header_len(), level, kind, &i32::from(value).to_ne_bytes());
            self.header += INT_SPACE as u8;
        }
    }

    /// Writes that a message is to be cut into datagrams of `stride` bytes; returns the bytes of all control messages.
    pub(super) fn set_stride(&mut self, stride: u16) -> usize {
        self.put(self.header_len(), libc::SOL_UDP, UDP_SEGMENT, &stride.to_ne_bytes());
        self.header_len() + INT_SPACE
    }

    /// Bytes of the control messages of a datagram that is not to be cut.
    pub(super) fn header_len(&self) -> usize {
        usize::from(self.header)
    }

    fn put(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) {
        let Some(room) = self.bytes.get_mut(at..at + INT_SPACE) else { return };
        // What `CMSG_LEN` gives; the bytes after the data are padding.
        room[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..HEADER + data.len()].copy_from_slice(data);
    }
}

/// Room for the control messages of one received datagram.
///
/// `UDP_GRO` and `IP_TOS` or `IPV6_TCLASS` take 24 bytes each; the rest is for what somebody may have switched on for a
/// socket from outside.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer {
    bytes: [u8; Self::LEN],
}

impl ControlBuffer {
    pub(super) const LEN: usize = 96;

    pub(super) const EMPTY: Self = Self { bytes: [0; Self::LEN] };

    /// What is in the first `len` bytes; see [`notes`].
    #[inline]
    pub(super) fn notes(&self, len: usize) -> Notes {
        notes(&self.bytes[..len.min(Self::LEN)])
    }
}

/// What the kernel says of a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Length of the datagrams that it has joined; `None` if it has joined none.
    pub(super) stride: Option<usize>,
    /// TOS byte or traffic class of the IP header; 0 if it does not say.
    pub(super) tos: u8,
}

#[inline]
fn int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

/// Reads the control messages that came with a datagram. Of several that say the same, the first counts.
#[inline]
fn notes(control: &[u8]) -> Notes {
    let mut notes = Notes::default();
    let mut rest = control;
    while let Some((message, next)) = split(rest) {
        rest = next;
        match (int(message, WORD), int(message, WORD + 4)) {
            (Some(libc::SOL_UDP), Some(UDP_GRO)) if notes.stride.is_none() => {
                let stride = int(message, HEADER).and_then(|stride| usize::try_from(stride).ok());
                notes.stride = stride.filter(|stride| *stride > 0);
            }
            // One byte here, an `int` there (kernel `net/ipv4/ip_sockglue.c`, `ip_cmsg_recv_tos`, and
            // `net/ipv6/datagram.c`, `ip6_datagram_recv_specific_ctl`).
            (Some(libc::IPPROTO_IP), Some(libc::IP_TOS)) => {
                notes.tos = message.get(HEADER).copied().unwrap_or(0);
            }
            (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_TCLASS)) => {
                notes.tos = int(message, HEADER).map_or(0, |class| class as u8);
            }
            _ => {}
        }
    }
    notes
}

/// The first control message, and those after it; `None` when there is none, or its length leads nowhere.
#[inline]
pub(super) fn split(control: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from_ne_bytes(*control.first_chunk::<WORD>()?);
    let message = control.get(..len).filter(|message| message.len() >= HEADER)?;
    // The last one needs no padding.
    Some((message, control.get(len.next_multiple_of(WORD)..).unwrap_or_default()))
}

/// Level, type and data of a control message.
pub(super) fn parts(message: &[u8]) -> Option<(i32, i32, &[u8])> {
    Some((int(message, WORD)?, int(message, WORD + 4)?, message.get(HEADER..)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A control message, padded to where the next one begins.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0xee);
        bytes
    }

    fn joined(stride: i32) -> Vec<u8> {
        message(libc::SOL_UDP, UDP_GRO, &stride.to_ne_bytes())
    }

    #[test]
    fn the_layout_is_that_of_the_c_macros() {
        // SAFETY: these only compute.
        let (short, int) = unsafe { (libc::CMSG_SPACE(2) as usize, libc::CMSG_SPACE(4) as usize) };
        assert_eq!([short, int], [INT_SPACE; 2]);
        assert!(2 * int <= ControlBuffer::LEN);
        let stride = 1450_u16.to_ne_bytes();
        let mut sent = SendControl::EMPTY;
        let segment = message(libc::SOL_UDP, UDP_SEGMENT, &stride);
        let len = sent.set_stride(1450);
        // Padding may say anything.
        assert_eq!(sent.bytes[..HEADER + 2], segment[..HEADER + 2]);
        assert_eq!((len, sent.header_len()), (segment.len(), 0));
        for (v6, level, tos, ttl) in [
            (false, libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
            (true, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
        ] {
            sent.set_header(
                v6,
                OuterHeader { tos: 0xb9, ttl: 3, may_fragment: true, ..OuterHeader::default() },
            );
            let len = sent.set_stride(1450);
            let mut same = message(level, tos, &0xb9_i32.to_ne_bytes());
            same.extend(message(level, ttl, &3_i32.to_ne_bytes()));
            let header = same.len();
            same.extend(&segment);
            assert_eq!((sent.header_len(), len), (header, same.len()));
            let alike = |at: usize| (0..HEADER + 2).all(|n| sent.bytes[at + n] == same[at + n]);
            assert!((0..3).all(|place| alike(place * INT_SPACE)), "{:?}", sent.bytes);
            sent.set_header(v6, OuterHeader { ttl: 3, ..OuterHeader::default() });
            assert_eq!(sent.header_len(), INT_SPACE);
            assert_eq!(
                sent.bytes[..HEADER + 4],
                message(level, ttl, &3_i32.to_ne_bytes())[..HEADER + 4]
            );
            sent.set_header(v6, OuterHeader::default());
            assert_eq!(sent.header_len(), 0, "nothing to say");
        }
    }

    fn stride(control: &[u8]) -> Option<usize> {
        notes(control).stride
    }

    #[test]
    fn the_tos_byte_is_found_beside_the_stride() {
        let v4 = message(libc::IPPROTO_IP, libc::IP_TOS, &[0xb9]);
        let v6 = message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0xb9_i32.to_ne_bytes());
        for tos in [v4, v6] {
            let alone = Notes { stride: None, tos: 0xb9 };
            let both = Notes { stride: Some(1450), tos: 0xb9 };
            assert_eq!(notes(&tos), alone);
            assert_eq!(notes(&tos[..HEADER]).tos, 0, "cut short");
            assert_eq!(notes(&[&tos[..], &joined(1450)].concat()), both);
            assert_eq!(notes(&[&joined(1450)[..], &tos].concat()), both);
        }
        // Of another level, of another kind, and of no bytes.
        for (level, kind, data) in [
            (libc::IPPROTO_IPV6, libc::IP_TOS, &[9; 4][..]),
            (libc::IPPROTO_IP, libc::IP_TTL, &[9; 4]),
            (libc::IPPROTO_IP, libc::IP_TOS, &[]),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &[9; 3]),
        ] {
            assert_eq!(notes(&message(level, kind, data)), Notes::default());
        }
    }

    #[test]
    fn the_stride_is_found_wherever_it_is() {
        assert_eq!(stride(&joined(1450)), Some(1450));
        let mut several = message(libc::SOL_SOCKET, 29, &[7; 16]);
        several.extend(message(libc::SOL_UDP, UDP_SEGMENT, &[1; 2]));
        several.extend(message(libc::IPPROTO_IP, UDP_GRO, &[2; 4]));
        several.extend(message(libc::SOL_SOCKET, 1, &[]));
        assert_eq!(stride(&several), None);
        several.extend(joined(9));
        several.extend(joined(10));
        assert_eq!(stride(&several), Some(9));
        // The last one needs no padding.
        assert_eq!(stride(&joined(3)[..HEADER + 4]), Some(3));
    }

    #[test]
    fn what_is_short_or_senseless_tells_no_stride() {
        let whole = joined(1450);
        for len in 0..HEADER + 4 {
            assert_eq!(stride(&whole[..len]), None, "{len} bytes");
        }
        for value in [0, -1, i32::MIN] {
            assert_eq!(stride(&joined(value)), None);
        }
        // A length shorter than its own header, or near the largest there is, leads nowhere.
        for len in [0, 1, HEADER - 1, 1000, usize::MAX, usize::MAX - 3] {
            let mut bent = joined(1450);
            bent[..WORD].copy_from_slice(&len.to_ne_bytes());
            bent.extend(joined(5));
            assert_eq!(stride(&bent), None, "a length of {len}");
            let mut other = message(1, 1, &[0; 4]);
            other[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(stride(&other), None, "a length of {len}");
        }
        // Data of another size than an int.
        assert_eq!(stride(&message(libc::SOL_UDP, UDP_GRO, &[1; 2])), None);
    }

    #[test]
    fn a_buffer_is_read_as_far_as_the_kernel_wrote() {
        let mut buffer = ControlBuffer::EMPTY;
        let joined = joined(1450);
        buffer.bytes[..joined.len()].copy_from_slice(&joined);
        assert_eq!(buffer.notes(joined.len()).stride, Some(1450));
        assert_eq!(buffer.notes(0).stride, None);
        assert_eq!(buffer.notes(HEADER).stride, None);
        assert_eq!(buffer.notes(usize::MAX).stride, Some(1450));
    }
}
