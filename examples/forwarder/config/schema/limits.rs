//! Reading of what limits frames that are flooded and addresses that move.

use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::{LoopGuard, StormLimits};

use crate::config::reader::{Item, Problems, Section};
use crate::values::{self, Numbers};

/// The allowed rate limits, for messages.
const RATE: &str =
    "frames a second, 1 to 10000000, or \"none\", or a table with per_second and burst";

/// Reads `storm`.
pub fn storm(section: &Section<'_>, problems: &mut Problems) -> StormLimits {
    let mut storm = StormLimits::default();
    let Some(section) = section.get("storm").and_then(|item| item.section(problems)) else {
        return storm;
    };
    section.only(&["broadcast", "multicast", "unknown_unicast"], &[], "", problems);
    for (key, limit) in [
        ("broadcast", &mut storm.broadcast),
        ("multicast", &mut storm.multicast),
        ("unknown_unicast", &mut storm.unknown_unicast),
    ] {
        *limit = section.get(key).and_then(|item| rate(&item, problems));
    }
    storm
}

fn rate(item: &Item<'_>, problems: &mut Problems) -> Option<RateLimit> {
    if !item.is_table() {
        return item.word(RATE, values::rate, problems).flatten();
    }
    let section = item.section(problems)?;
    section.only(&["per_second", "burst"], &[], "", problems);
    let number = |key, range: Numbers, problems: &mut Problems| {
        let allowed = format!("{} to {} frames", range.start(), range.end());
        let item = section.need(key, &allowed, problems)?;
        item.integer(range, problems).map(|number| number as u32)
    };
    let per_second = number("per_second", values::PER_SECOND, problems);
    let burst = number("burst", values::BURST, problems);
    Some(RateLimit { per_second: per_second?, burst: burst? })
}

/// Reads `loops`.
pub fn loops(section: &Section<'_>, problems: &mut Problems) -> LoopGuard {
    let mut guard = LoopGuard::default();
    let Some(section) = section.get("loops").and_then(|item| item.section(problems)) else {
        return guard;
    };
    section.only(&["moves", "window", "hold"], &[], "", problems);
    if let Some(moves) =
        section.get("moves").and_then(|item| item.integer(values::LOOP_MOVES, problems))
    {
        guard.moves = moves as u8;
    }
    for (key, time) in [("window", &mut guard.window), ("hold", &mut guard.hold)] {
        if let Some(seconds) =
            section.get(key).and_then(|item| item.integer(values::LOOP_TIME, problems))
        {
            *time = Duration::from_secs(seconds);
        }
    }
    guard
}
