//! Reading of what a segment does about packets that are too large.

use overplane::Segment;

use crate::config::reader::{Problems, Section};

/// The keys read here.
pub const KEYS: &[&str] = &["mtu", "too_big_errors"];

pub fn read(section: &Section<'_>, segment: &mut Segment, problems: &mut Problems) {
    if let Some(item) = section.get("mtu") {
        segment.mtu = item.integer(68..=65_535, problems).map(|mtu| mtu as u32);
    }
    if let Some(on) = section.get("too_big_errors").and_then(|item| item.boolean(problems)) {
        segment.mtu_options.too_big_errors = on;
    }
}
