//! The maximum segment size that TCP hosts tell each other in their first segments.

use super::checksum;
use super::frame::{FrameInfo, L4};
use super::{put_u16, u16_at};

// Options (RFC 9293 §3.2): kinds and the length of the one looked for, in bytes.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// In the fourteenth byte of a TCP header (RFC 9293 §3.1).
const SYN: u8 = 0x02;

/// Offset of the checksum in a TCP header, in bytes.
const CHECKSUM: usize = 16;

/// Lowers the maximum segment size in a TCP segment with SYN to `most` bytes, and returns whether it was larger.
///
/// The checksum is brought in step (RFC 1624), unless it is `partial`: what is left of it to sum up includes the options.
/// One without the option is left alone: the other end assumes what every path carries (RFC 9293 §3.7.1).
pub fn clamp(frame: &mut [u8], info: &FrameInfo, most: u16, partial: bool) -> bool {
    if info.l4 != L4::Tcp {
        return false;
    }
    let (start, end) = (usize::from(info.l4_offset), usize::from(info.payload_offset));
    let Some(header) = frame.get_mut(start..end) else { return false };
    if header.get(13).is_none_or(|flags| flags & SYN == 0) {
        return false;
    }
    let mut at = super::l4::TCP_MIN_HEADER_LEN;
    let mut lowered = false;
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            END => break,
            NO_OPERATION => 1,
            // A length below two would turn in circles.
            _ => match header.get(at + 1).map(|len| usize::from(*len)) {
                Some(len) if len >= 2 => len,
                _ => break,
            },
        };
        if kind == MSS
            && len == MSS_LEN
            && let Some(old) = u16_at(header, at + 2)
            && old > most
        {
            put_u16(header, at + 2, most);
            if !partial && let Some(check) = u16_at(header, CHECKSUM) {
                // At an odd place its bytes belong to two words of the sum, the other way round.
                let word =
                    |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
                put_u16(header, CHECKSUM, checksum::update(check, word(old), word(most)));
            }
            lowered = true;
        }
        at += len;
    }
    lowered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::l4::{self, L4Checksum};
    use super::*;

    /// An Ethernet frame with a TCP header of these flags and options, and a right checksum.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[13] = flags;
        tcp.extend_from_slice(options);
        tcp.resize(tcp.len().next_multiple_of(4), 0);
        tcp[12] = (tcp.len() as u8 / 4) << 4;
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, (20 + tcp.len()) as u8, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(tcp);
        let info = FrameInfo::parse(&frame).unwrap();
        assert!(l4::set_partial(&mut frame, &info));
        assert!(l4::complete(&mut frame, info.l4_offset.into(), CHECKSUM));
        frame
    }

    fn mss(value: u16) -> [u8; 4] {
        let [high, low] = value.to_be_bytes();
        [MSS, 4, high, low]
    }

    #[test]
    fn only_larger_ones_of_first_segments_are_lowered() {
        for (flags, before, after) in [
            (2, 1460, 1410),
            (0x12, 1460, 1410),
            (2, 1410, 1410),
            (2, 536, 536),
            (0x10, 1460, 1460),
        ] {
            for odd in [&[][..], &[NO_OPERATION]] {
                let mut frame = segment(flags, &[odd, &mss(before)].concat());
                let info = FrameInfo::parse(&frame).unwrap();
                assert_eq!(clamp(&mut frame, &info, 1410, false), before != after);
                assert_eq!(frame, segment(flags, &[odd, &mss(after)].concat()));
            }
        }
    }

    #[test]
    fn a_partial_checksum_stays_as_it_is() {
        let mut frame = segment(2, &mss(1460));
        let info = FrameInfo::parse(&frame).unwrap();
        assert!(l4::set_partial(&mut frame, &info));
        assert!(clamp(&mut frame, &info, 1000, true));
        assert!(l4::is_partial(&frame, &info));
        assert!(l4::complete(&mut frame, info.l4_offset.into(), CHECKSUM));
        assert_eq!(frame, segment(2, &mss(1000)));
    }

    #[test]
    fn options_that_lead_nowhere_end_the_walk() {
        for options in [
            &[MSS][..],
            &[MSS, 0, 5, 180],
            &[MSS, 1, 5, 180],
            &[8, 0],
            &[8, 255, MSS, 4],
            &[MSS, 3, 5, 5],
            &[END, MSS, 4, 255, 255],
        ] {
            let mut frame = segment(2, options);
            let before = frame.clone();
            let info = FrameInfo::parse(&frame).unwrap();
            assert!(!clamp(&mut frame, &info, 500, false), "{options:?}");
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn a_right_checksum_stays_right(
            flags: u8,
            options in prop::collection::vec(prop_oneof![Just(1u8), Just(2), Just(4), any::<u8>()], 0..40),
            most: u16,
        ) {
            let mut frame = segment(flags, &options);
            let info = FrameInfo::parse(&frame).unwrap();
            clamp(&mut frame, &info, most, false);
            prop_assert_eq!(l4::checksum_state(&frame, &info), L4Checksum::Correct);
        }
    }
}
