//! Probes of the paths between VTEPs: an echo inside VXLAN, padded to the size that is asked about.
//!
//! A probe is an Ethernet frame that ends at the VTEP, whoever made it. Its destination, 01:80:C2:00:00:01, is one of those
//! that no bridge forwards (IEEE 802.1Q §8.6.3), and of these the one that Linux's bridge drops whatever its
//! `group_fwd_mask` says (kernel `net/bridge/br_input.c`, `br_handle_frame`); its type is one of those for local experiments
//! (IANA "IEEE 802 Numbers"), which no stack has a use for.
//!
//! ```text
//!  0: destination 01:80:C2:00:00:01, source (the node's own)     12: type 0x88B5
//! 14: "OVPP"      18: version 1      19: request 1, answer 2     20: size of the request's outer IP packet
//! 22: zero        24: sequence       28: token of the asker      36: zeros, up to the size; an answer is 60 bytes
//! ```

use super::eth::{self, MacAddr};
use super::{array_at, u16_at};

/// Destination of probes: "IEEE MAC-specific control protocols" (IEEE 802.1Q Table 8-1).
pub const DESTINATION: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x01]);

/// EtherType of probes: the first of those for local experiments (IANA "IEEE 802 Numbers").
pub const TYPE: u16 = 0x88b5;

/// Length in bytes of an answer, and the least of a request: the shortest Ethernet frame without its check sequence
/// (IEEE 802.3 §4A.4.2).
pub const MIN_LEN: usize = 60;

const MAGIC: [u8; 4] = *b"OVPP";
const VERSION: u8 = 1;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

/// Bytes that say anything.
const MESSAGE_LEN: usize = 36;

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be answered.
    Request,
    /// The answer.
    Answer,
}

/// A probe, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which of both.
    pub kind: Kind,
    /// Length in bytes of the outer IP packet of the request.
    pub size: u16,
    /// Tells the requests of one asker apart.
    pub sequence: u32,
    /// What shows the asker that it has asked: it comes back as it was.
    pub token: u64,
}

impl Probe {
    /// The bytes of the frame that say anything; zeros follow up to its length, which is at least [`MIN_LEN`].
    #[must_use]
    pub fn encode(&self, source: MacAddr) -> [u8; MIN_LEN] {
        let mut frame = [0; MIN_LEN];
        frame[..eth::HEADER_LEN].copy_from_slice(&eth::header(
            DESTINATION.into(),
            source.into(),
            TYPE,
        ));
        frame[14..18].copy_from_slice(&MAGIC);
        frame[18] = VERSION;
        frame[19] = match self.kind {
            Kind::Request => REQUEST,
            Kind::Answer => ANSWER,
        };
        frame[20..22].copy_from_slice(&self.size.to_be_bytes());
        frame[24..28].copy_from_slice(&self.sequence.to_be_bytes());
        frame[28..MESSAGE_LEN].copy_from_slice(&self.token.to_be_bytes());
        frame
    }

    /// Reads a frame; `None` where it is none of these, or of a version that is not known.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if frame.len() < MIN_LEN || !is_for_probes(frame) {
            return None;
        }
        if *array_at(frame, 14)? != MAGIC || frame[18] != VERSION {
            return None;
        }
        let kind = match frame[19] {
            REQUEST => Kind::Request,
            ANSWER => Kind::Answer,
            _ => return None,
        };
        let size = u16_at(frame, 20)?;
        let sequence = u32::from_be_bytes(*array_at(frame, 24)?);
        let token = u64::from_be_bytes(*array_at(frame, 28)?);
        Some(Self { kind, size, sequence, token })
    }
}

/// Whether destination and type of a frame are those of probes.
#[must_use]
pub fn is_for_probes(frame: &[u8]) -> bool {
    frame.starts_with(&DESTINATION.0) && u16_at(frame, eth::TAG_OFFSET) == Some(TYPE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_probe() -> impl Strategy<Value = Probe> {
        let kind = prop_oneof![Just(Kind::Request), Just(Kind::Answer)];
        (kind, any::<u16>(), any::<u32>(), any::<u64>())
            .prop_map(|(kind, size, sequence, token)| Probe { kind, size, sequence, token })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(probe in any_probe(), padding in 0..2000_usize) {
            let mut frame = probe.encode(MacAddr([2, 0, 0, 0, 0, 1])).to_vec();
            frame.resize(MIN_LEN + padding, 0);
            prop_assert_eq!(Probe::parse(&frame), Some(probe));
        }

        #[test]
        fn what_differs_in_the_first_twenty_bytes_is_none(
            probe in any_probe(), at in 0..20_usize, bit in 0..8_u8
        ) {
            let mut frame = probe.encode(MacAddr([2, 0, 0, 0, 0, 1]));
            frame[at] ^= 1 << bit;
            // Whoever sent it.
            let expected = (6..12).contains(&at).then_some(probe);
            prop_assert_eq!(Probe::parse(&frame), expected);
        }

        #[test]
        fn bytes_are_read_as_far_as_they_go(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Probe::parse(&bytes);
        }
    }

    #[test]
    fn every_layout_has_one_version() {
        let probe = Probe { kind: Kind::Answer, size: 1500, sequence: 7, token: 0x0102_0304 };
        let frame = probe.encode(MacAddr([2, 0, 0, 0, 0, 1]));
        let mut expected = vec![0x01, 0x80, 0xc2, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        expected.extend(b"OVPP\x01\x02\x05\xdc\0\0\0\0\0\x07\0\0\0\0\x01\x02\x03\x04");
        expected.resize(MIN_LEN, 0);
        assert_eq!(frame[..], expected);
        assert!(DESTINATION.is_link_local_control());
    }
}
