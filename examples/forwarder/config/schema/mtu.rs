//! Reading of what a segment does about packets that are too large.

use overplane::Segment;

use crate::config::reader::{Problems, Section};
use crate::values;

/// The keys that every segment has; `probe` and `answer_probes` are of those in VXLAN.
pub const KEYS: &[&str] = &["mtu", "too_big_errors", "clamp_mss"];

pub fn read(section: &Section<'_>, segment: &mut Segment, problems: &mut Problems) {
    if let Some(item) = section.get("mtu") {
        segment.mtu = item.integer(values::MTU, problems).map(|mtu| mtu as u32);
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
    if let Some(item) = section.get("clamp_mss")
        && let Some(clamp) = item.word(values::CLAMP_MSS, values::clamp_mss, problems)
    {
        segment.mtu_options.clamp_mss = clamp;
    }
}
