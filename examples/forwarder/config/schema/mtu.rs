//! Reading of what a segment does about packets that are too large.

use std::ops::RangeInclusive;

use overplane::mtu::MIN_MSS;
use overplane::{MssClamp, Segment};

use crate::config::reader::{Problems, Section};

/// The keys that every segment has; `probe` and `answer_probes` are of those in VXLAN.
pub const KEYS: &[&str] = &["mtu", "too_big_errors", "clamp_mss"];

/// What TCP can be told.
const MSS: RangeInclusive<u64> = MIN_MSS as u64..=u16::MAX as u64;

pub fn read(section: &Section<'_>, segment: &mut Segment, problems: &mut Problems) {
    if let Some(item) = section.get("mtu") {
        segment.mtu = item.integer(68..=65_535, problems).map(|mtu| mtu as u32);
    }
    if let Some(on) = section.get("too_big_errors").and_then(|item| item.boolean(problems)) {
        segment.mtu_options.too_big_errors = on;
    }
    if let Some(on) = section.get("probe").and_then(|item| item.boolean(problems)) {
        segment.mtu_options.probe = on;
    }
    if let Some(on) = section.get("answer_probes").and_then(|item| item.boolean(problems)) {
        segment.mtu_options.answer_probes = on;
    }
    if let Some(item) = section.get("clamp_mss") {
        segment.mtu_options.clamp_mss = match (item.as_text(), item.as_integer(&MSS)) {
            (Some("off"), _) => MssClamp::Off,
            (Some("mtu"), _) => MssClamp::ToMtu,
            (_, Some(most)) => MssClamp::To(most as u16),
            _ => {
                item.refuse("\"off\", \"mtu\", or 48 to 65535 bytes", problems);
                MssClamp::Off
            }
        };
    }
}
