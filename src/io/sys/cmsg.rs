//! Control messages: what goes with a datagram besides its bytes.
//!
//! Each has a header (`struct cmsghdr`: its length with this header as `size_t`, level and type as `int`), and the
//! next one is aligned to `size_t` (kernel `include/linux/socket.h`, `CMSG_ALIGN`, `CMSG_NXTHDR`).

/// Bytes to which control messages are aligned.
const WORD: usize = size_of::<usize>();

const HEADER: usize = WORD + 8;
const _: () = assert!(HEADER.is_multiple_of(WORD));

/// Length of the datagrams that one send is cut into, a `u16` (kernel `include/uapi/linux/udp.h`).
const UDP_SEGMENT: i32 = 103;

/// Length of the datagrams that one receive has joined, an `int` (same file); also the socket option.
pub(super) const UDP_GRO: i32 = 104;

/// A control message `UDP_SEGMENT`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct SegmentSize {
    bytes: [u8; Self::SPACE],
}

impl SegmentSize {
    /// What `CMSG_LEN` gives for two bytes of data.
    const LEN: usize = HEADER + 2;

    /// What `CMSG_SPACE` gives for two bytes of data: what `msg_controllen` has to say.
    pub(super) const SPACE: usize = Self::LEN.next_multiple_of(WORD);

    pub(super) fn new(stride: u16) -> Self {
        let mut bytes = [0; Self::SPACE];
        bytes[..WORD].copy_from_slice(&Self::LEN.to_ne_bytes());
        bytes[WORD..WORD + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        bytes[WORD + 4..HEADER].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
        bytes[HEADER..Self::LEN].copy_from_slice(&stride.to_ne_bytes());
        Self { bytes }
    }
}

/// Room for the control messages of one received datagram.
///
/// `UDP_GRO` takes 24 bytes; the rest is for what somebody may have switched on for a socket from outside.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer {
    bytes: [u8; Self::LEN],
}

impl ControlBuffer {
    pub(super) const LEN: usize = 64;

    pub(super) const EMPTY: Self = Self { bytes: [0; Self::LEN] };

    /// The stride that is in the first `len` bytes; see [`stride`].
    #[inline]
    pub(super) fn stride(&self, len: usize) -> Option<usize> {
        // Mostly there is no control message at all.
        if len == 0 { None } else { stride(&self.bytes[..len.min(Self::LEN)]) }
    }
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

/// The length of the datagrams that the kernel has joined, from the control messages that came with them; `None` if
/// it has joined none.
fn stride(control: &[u8]) -> Option<usize> {
    let mut rest = control;
    loop {
        let len = usize::from_ne_bytes(*rest.first_chunk::<WORD>()?);
        let message = rest.get(..len)?;
        if (int(message, WORD)?, int(message, WORD + 4)?) == (libc::SOL_UDP, UDP_GRO) {
            return usize::try_from(int(message, HEADER)?).ok().filter(|stride| *stride > 0);
        }
        rest = rest.get(len.next_multiple_of(WORD)..)?;
    }
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
        let (len, space) = unsafe { (libc::CMSG_LEN(2), libc::CMSG_SPACE(2)) };
        assert_eq!((SegmentSize::LEN, SegmentSize::SPACE), (len as usize, space as usize));
        let sent = SegmentSize::new(1450).bytes;
        let same = message(libc::SOL_UDP, UDP_SEGMENT, &1450_u16.to_ne_bytes());
        assert_eq!(sent[..SegmentSize::LEN], same[..SegmentSize::LEN]);
        // SAFETY: as above.
        let room = unsafe { libc::CMSG_SPACE(4) };
        assert!(room as usize <= ControlBuffer::LEN);
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
        for len in [0, 1, HEADER - 1, HEADER + 3, 1000, usize::MAX, usize::MAX - 3] {
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
        assert_eq!(buffer.stride(joined.len()), Some(1450));
        assert_eq!(buffer.stride(0), None);
        assert_eq!(buffer.stride(HEADER), None);
        assert_eq!(buffer.stride(usize::MAX), Some(1450));
    }
}
