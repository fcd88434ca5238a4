//! Reading of when paths are probed.

use std::time::Duration;

use overplane::Probing;

use crate::config::reader::{Problems, Section};
use crate::values;

/// Reads `probing`.
pub fn read(section: &Section<'_>, problems: &mut Problems) -> Probing {
    let mut probing = Probing::default();
    let Some(section) = section.get("probing").and_then(|item| item.section(problems)) else {
        return probing;
    };
    section.only(&["timeout", "max_probes", "interval", "raise", "base"], &[], "", problems);
    for (key, range, time) in [
        ("timeout", values::PROBE_TIMEOUT, &mut probing.timeout),
        ("interval", values::PROBE_INTERVAL, &mut probing.interval),
        ("raise", values::PROBE_RAISE, &mut probing.raise),
    ] {
        if let Some(seconds) = section.get(key).and_then(|item| item.integer(range, problems)) {
            *time = Duration::from_secs(seconds);
        }
    }
    if let Some(n) =
        section.get("max_probes").and_then(|item| item.integer(values::MAX_PROBES, problems))
    {
        probing.max_probes = n as u8;
    }
    if let Some(size) =
        section.get("base").and_then(|item| item.integer(values::PROBE_BASE, problems))
    {
        probing.base = size as u32;
    }
    probing
}
