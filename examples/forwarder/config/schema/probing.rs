//! Reading of when paths are probed.

use std::time::Duration;

use overplane::Probing;

use crate::config::reader::{Problems, Section};

/// Reads `probing`.
pub fn read(section: &Section<'_>, problems: &mut Problems) -> Probing {
    let mut probing = Probing::default();
    let Some(section) = section.get("probing").and_then(|item| item.section(problems)) else {
        return probing;
    };
    section.only(&["timeout", "max_probes", "interval", "raise", "base"], &[], "", problems);
    for (key, most, time) in [
        ("timeout", 60, &mut probing.timeout),
        ("interval", 3600, &mut probing.interval),
        ("raise", 86_400, &mut probing.raise),
    ] {
        if let Some(seconds) = section.get(key).and_then(|item| item.integer(1..=most, problems)) {
            *time = Duration::from_secs(seconds);
        }
    }
    if let Some(n) = section.get("max_probes").and_then(|item| item.integer(1..=10, problems)) {
        probing.max_probes = n as u8;
    }
    if let Some(size) = section.get("base").and_then(|item| item.integer(552..=9000, problems)) {
        probing.base = size as u32;
    }
    probing
}
