//! Reading of `[segment.neighbours]` and `[[segment.neighbours.static]]`.

use std::net::IpAddr;

use overplane::{MacAddr, Neighbours};

use crate::config::reader::{Once, Problems, Section};
use crate::{plan, values};

/// A binding of an IP address, and whether it is a router's.
pub type Static = (IpAddr, MacAddr, bool);

/// Reads whether a bridge segment answers for its neighbours, and which of them it is told.
pub fn read(section: &Section<'_>, problems: &mut Problems) -> (Neighbours, Vec<Static>) {
    let mut options = Neighbours::default();
    let section = section.get("neighbours").and_then(|item| item.section(problems));
    let Some(section) = section else { return (options, Vec::new()) };
    section.only(&["suppress", "snoop", "limit", "ageing", "static"], &[], "", problems);
    let boolean = |key, problems: &mut Problems| section.get(key)?.boolean(problems);
    options.suppress = boolean("suppress", problems).unwrap_or(options.suppress);
    options.snoop = boolean("snoop", problems).unwrap_or(options.snoop);
    if let Some(item) = section.get("limit")
        && let Some(limit) = item.integer(values::NEIGHBOURS, problems)
    {
        options.limit = limit as usize;
    }
    if let Some(item) = section.get("ageing")
        && let Some(ageing) = item.word(values::AGEING_OR_NEVER, values::ageing, problems)
    {
        options.ageing = ageing;
    }
    let statics = statics(&section, problems);
    if let Some(item) = section.get("static").filter(|_| !options.suppress && !statics.is_empty()) {
        item.problem("of no use unless suppress is true", problems);
    }
    (options, statics)
}

fn statics(section: &Section<'_>, problems: &mut Problems) -> Vec<Static> {
    let allowed = "a list of tables, each under [[segment.neighbours.static]]";
    let list = section.get("static").map_or(Vec::new(), |list| list.list(allowed, problems));
    let (mut statics, mut seen) = (Vec::new(), Once::new());
    for item in list {
        let Some(section) = item.section(problems) else { continue };
        section.only(&["address", "mac", "router"], &[], "", problems);
        let mac = section.need("mac", plan::MAC, problems);
        let mac = mac.and_then(|item| item.text(plan::MAC, plan::mac, problems));
        let router = section.get("router").and_then(|item| item.boolean(problems));
        let allowed = "an address of one host, as in 10.8.0.9";
        let Some(item) = section.need("address", allowed, problems) else { continue };
        let read = |text: &str| text.parse().ok().filter(|ip| plan::is_host(*ip));
        let Some(address) = item.text(allowed, read, problems) else { continue };
        if let (true, Some(mac)) = (seen.is_first(address, &item, problems), mac) {
            statics.push((address, mac, router.unwrap_or(false)));
        }
    }
    statics
}
