//! Reading of `[segment.snooping]`, `[[segment.snooping.static]]` and `[[segment.snooping.router]]`.

use std::net::IpAddr;
use std::time::Duration;

use overplane::wire::multicast::is_tracked;
use overplane::{Querier, Snooping};

use super::entries::{Places, entries, target};
use crate::config::reader::{Once, Problems, Section};
use crate::plan::{self, Target};
use crate::values::{self, Numbers};

/// A destination of a group; without one, that of a multicast router.
pub type Static = (Option<IpAddr>, Target);

const KEYS: &[&str] = &[
    "enabled",
    "flood_unregistered",
    "membership_interval",
    "querier_interval",
    "limit",
    "querier",
    "static",
    "router",
];
const GROUP: &str =
    "a multicast address as in 239.1.1.1 or ff05::1, not in 224.0.0.0/24 and not ff02::1";

/// Reads whether a bridge segment snoops, and what it is told of who listens.
pub fn read(
    section: &Section<'_>,
    places: &mut Places<'_>,
    problems: &mut Problems,
) -> (Snooping, Vec<Static>) {
    let mut options = Snooping::default();
    let section = section.get("snooping").and_then(|item| item.section(problems));
    let Some(section) = section else { return (options, Vec::new()) };
    section.only(KEYS, &[], "", problems);
    let boolean = |key, problems: &mut Problems| section.get(key)?.boolean(problems);
    options.enabled = boolean("enabled", problems).unwrap_or(options.enabled);
    options.flood_unregistered =
        boolean("flood_unregistered", problems).unwrap_or(options.flood_unregistered);
    for (key, interval) in [
        ("membership_interval", &mut options.membership_interval),
        ("querier_interval", &mut options.querier_interval),
    ] {
        seconds(&section, key, values::AGEING, interval, problems);
    }
    if let Some(item) = section.get("limit")
        && let Some(limit) = item.integer(values::MEMBERSHIPS, problems)
    {
        options.limit = limit as usize;
    }
    options.querier = querier(&section, options.querier_interval, problems);
    let statics = statics(&section, places, problems);
    for key in ["querier", "static", "router"] {
        if let Some(item) = section.get(key).filter(|_| !options.enabled) {
            item.problem("of no use unless enabled is true", problems);
        }
    }
    (options, statics)
}

fn seconds(
    section: &Section<'_>,
    key: &str,
    range: Numbers,
    time: &mut Duration,
    problems: &mut Problems,
) {
    if let Some(item) = section.get(key)
        && let Some(seconds) = item.integer(range, problems)
    {
        *time = Duration::from_secs(seconds);
    }
}

fn querier(section: &Section<'_>, longest: Duration, problems: &mut Problems) -> Option<Querier> {
    let section = section.get("querier")?.section(problems)?;
    section.only(&["v4", "v6", "mac", "interval", "response_interval"], &[], "", problems);
    let v4 = section
        .get("v4")
        .and_then(|item| item.text(values::QUERIER_V4, values::querier_v4, problems));
    let v6 = section
        .get("v6")
        .and_then(|item| item.text(values::QUERIER_V6, values::querier_v6, problems));
    if section.get("v4").is_none() && section.get("v6").is_none() {
        section.problem("v4 and v6 are missing; allowed: one of them or both", problems);
    }
    let mut querier = Querier::new(v4, v6);
    if let Some(item) = section.get("mac") {
        querier.mac = item.text(plan::MAC, plan::mac, problems);
    }
    let range = values::query_interval(longest);
    seconds(&section, "interval", range, &mut querier.interval, problems);
    let range = values::response_interval(querier.interval);
    seconds(&section, "response_interval", range, &mut querier.response_interval, problems);
    if querier.interval >= longest || querier.response_interval >= querier.interval {
        let rule =
            "allowed: response_interval less than interval, and that less than querier_interval";
        section.problem(rule, problems);
    }
    (v4.is_some() || v6.is_some()).then_some(querier)
}

fn statics(section: &Section<'_>, places: &mut Places<'_>, problems: &mut Problems) -> Vec<Static> {
    let read = |text: &str| text.parse().ok().filter(|group| is_tracked(*group));
    let same = |group: &IpAddr, target: Option<&Target>| (*group, target.copied());
    let lead = |section: &Section<'_>, problems: &mut Problems| {
        section.only(&["group", "vtep", "port"], &[], "", problems);
        target(section, places, problems)
    };
    let groups = entries(section.get("static"), "group", GROUP, (read, same), lead, problems);
    let mut statics: Vec<Static> =
        groups.into_iter().map(|(group, target)| (Some(group), target)).collect();
    let list = section.get("router");
    let allowed = "a list of tables, each under [[segment.snooping.router]]";
    let mut seen = Once::new();
    for item in list.map_or(Vec::new(), |list| list.list(allowed, problems)) {
        let Some(section) = item.section(problems) else { continue };
        section.only(&["vtep", "port"], &[], "", problems);
        if let Some(router) = target(&section, places, problems)
            && seen.is_first(router, &item, problems)
        {
            statics.push((None, router));
        }
    }
    statics
}
