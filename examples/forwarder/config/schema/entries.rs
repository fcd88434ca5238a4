//! Reading of `[[segment.fdb]]`, `[[segment.route]]` and `[[segment.vtep]]`.

use std::hash::Hash;
use std::net::SocketAddr;

use overplane::limits::{MAX_MEMBERS, MAX_WEIGHT};
use overplane::{MacAddr, Prefix, Vni};

use super::segment::Vteps;
use crate::config::reader::{Item, Once, Problems, Section};
use crate::plan::{self, PortPlan, Target, VTEP, Via};

/// What a segment has that entries can lead to.
pub struct Places<'a> {
    pub ports: &'a [PortPlan],
    pub vteps: &'a mut Vteps,
}

/// Reads the static FDB entries of a bridge segment.
pub fn fdb(
    section: &Section<'_>,
    places: &mut Places<'_>,
    problems: &mut Problems,
) -> Vec<(MacAddr, Target)> {
    let allowed = "a MAC address as in 02:00:00:00:00:01, and not zero";
    let read = |text: &str| text.parse().ok().filter(|mac: &MacAddr| !mac.is_zero());
    let lead = |section: &Section<'_>, problems: &mut Problems| {
        section.only(&["mac", "vtep", "port"], &[], "", problems);
        target(section, places, problems)
    };
    // The address of a group has several destinations, others have one.
    let same = |mac: &MacAddr, target: Option<&Target>| {
        (*mac, target.copied().filter(|_| mac.is_multicast()))
    };
    entries(section.get("fdb"), "mac", allowed, (read, same), lead, problems)
}

/// Reads the VNIs of VTEPs that are not the segment's.
pub fn remote_vnis(
    section: &Section<'_>,
    places: &mut Places<'_>,
    problems: &mut Problems,
) -> Vec<(SocketAddr, Vni)> {
    let Some(list) = section.get("remote_vni") else { return Vec::new() };
    let tables = "a list of tables, each under [[segment.remote_vni]]";
    let mut seen = Once::new();
    let mut vnis = Vec::new();
    for item in list.list(tables, problems) {
        let Some(section) = item.section(problems) else { continue };
        section.only(&["vtep", "vni"], &[], "", problems);
        let vni = vni(&section, problems);
        let Some(item) = section.need("vtep", VTEP, problems) else { continue };
        let Some(vtep) = places.vteps.read(&item, problems) else { continue };
        if seen.is_first(vtep, &item, problems)
            && let Some(vni) = vni
        {
            vnis.push((vtep, vni));
        }
    }
    vnis
}

/// Reads the VNI that a table needs.
pub fn vni(section: &Section<'_>, problems: &mut Problems) -> Option<Vni> {
    let max = Vni::MAX.get();
    let item = section.need("vni", &format!("0 to {max}"), problems)?;
    let number = item.integer(0..=max.into(), problems)?;
    Vni::new(number as u32).ok()
}

/// Reads the routes of a routed segment.
pub fn routes(
    section: &Section<'_>,
    places: &mut Places<'_>,
    problems: &mut Problems,
) -> Vec<(Prefix, Via)> {
    let allowed = "ADDRESS/LENGTH as in 10.7.2.0/24";
    let read = |text: &str| text.parse().ok();
    let lead = |section: &Section<'_>, problems: &mut Problems| {
        section.only(&["prefix", "vtep", "port", "via", "type"], &[], "", problems);
        via(section, places, problems)
    };
    let same = |prefix: &Prefix, _: Option<&Via>| *prefix;
    entries(section.get("route"), "prefix", allowed, (read, same), lead, problems)
}

/// Reads the MAC addresses of the VTEPs of a routed segment in VXLAN.
pub fn vtep_macs(
    section: &Section<'_>,
    vteps: &mut Vteps,
    problems: &mut Problems,
) -> Vec<(SocketAddr, MacAddr)> {
    let list = section.get("vtep");
    let tables = list.as_ref().map(|list| format!("a list of tables, each under [[{}]]", list.key));
    let items = list.zip(tables).map(|(list, tables)| list.list(&tables, problems));
    let mut seen = Once::new();
    let mut macs = Vec::new();
    for item in items.unwrap_or_default() {
        let Some(section) = item.section(problems) else { continue };
        section.only(&["address", "mac"], &[], "", problems);
        let mac = section.need("mac", plan::MAC, problems);
        let mac = mac.and_then(|item| item.text(plan::MAC, plan::mac, problems));
        let Some(item) = section.need("address", VTEP, problems) else { continue };
        let Some(vtep) = vteps.read(&item, problems) else { continue };
        if let (true, Some(mac)) = (seen.is_first(vtep, &item, problems), mac) {
            macs.push((vtep, mac));
        }
    }
    macs
}

/// Reads a list of tables that say where something leads; no two of them may be the `same`.
pub fn entries<T, L, S: Eq + Hash>(
    list: Option<Item<'_>>,
    key: &str,
    allowed: &str,
    (read, same): (impl Fn(&str) -> Option<T>, impl Fn(&T, Option<&L>) -> S),
    mut lead: impl FnMut(&Section<'_>, &mut Problems) -> Option<L>,
    problems: &mut Problems,
) -> Vec<(T, L)> {
    let Some(list) = list else { return Vec::new() };
    let tables = format!("a list of tables, each under [[{}]]", list.key);
    let mut seen = Once::new();
    let mut entries = Vec::new();
    for item in list.list(&tables, problems) {
        let Some(section) = item.section(problems) else { continue };
        let lead = lead(&section, problems);
        let Some(item) = section.need(key, allowed, problems) else { continue };
        let Some(thing) = item.text(allowed, &read, problems) else { continue };
        if seen.is_first(same(&thing, lead.as_ref()), &item, problems)
            && let Some(lead) = lead
        {
            entries.push((thing, lead));
        }
    }
    entries
}

/// Reads where a route leads: one target, several, or none for a reason.
fn via(section: &Section<'_>, places: &mut Places<'_>, problems: &mut Problems) -> Option<Via> {
    let given: Vec<Item<'_>> =
        ["vtep", "port", "via", "type"].iter().filter_map(|key| section.get(key)).collect();
    if let [_, extra, ..] = &given[..]
        && (section.get("via").is_some() || section.get("type").is_some())
    {
        extra.problem("too much; allowed: one of vtep, port, via and type", problems);
        return None;
    }
    if let Some(item) = section.get("type") {
        let read = |text: &str| match text {
            "blackhole" => Some(Via::Blackhole),
            "unreachable" => Some(Via::Unreachable),
            "local" => Some(Via::Local),
            _ => None,
        };
        return item.text("\"blackhole\", \"unreachable\" or \"local\"", read, problems);
    }
    match section.get("via") {
        Some(list) => members(&list, places, problems),
        None if given.is_empty() => {
            section.problem(format_args!("vtep, port, via and type are missing; allowed: one of vtep ({VTEP}), port (a device of the segment), via (a list of these) and type"), problems);
            None
        }
        None => target(section, places, problems).map(Via::One),
    }
}

/// Reads the next hops that share the flows of a route.
fn members(list: &Item<'_>, places: &mut Places<'_>, problems: &mut Problems) -> Option<Via> {
    let allowed =
        format!("a list of 1 to {MAX_MEMBERS} tables, each with vtep or port, and weight or not");
    let items = list.list(&allowed, problems);
    if list.is_empty_list() || items.len() > MAX_MEMBERS {
        list.refuse(&allowed, problems);
    }
    let mut members: Vec<(Target, u16)> = Vec::new();
    let mut complete = true;
    for item in &items {
        let member = item.section(problems).and_then(|section| {
            section.only(&["vtep", "port", "weight"], &[], "", problems);
            let weight = match section.get("weight") {
                Some(weight) => weight.integer(1..=MAX_WEIGHT.into(), problems)? as u16,
                None => 1,
            };
            Some((target(&section, places, problems)?, weight))
        });
        match member {
            Some((target, _)) if members.iter().any(|(known, _)| *known == target) => {
                item.problem("the same next hop twice; give it the sum of the weights", problems);
                complete = false;
            }
            Some(member) => members.push(member),
            None => complete = false,
        }
    }
    (complete && !members.is_empty()).then_some(Via::Group(members))
}

/// Reads where one thing leads.
pub fn target(
    section: &Section<'_>,
    places: &mut Places<'_>,
    problems: &mut Problems,
) -> Option<Target> {
    match (section.get("vtep"), section.get("port")) {
        (Some(vtep), None) => places.vteps.read(&vtep, problems).map(Target::Vtep),
        (None, Some(port)) => {
            let ports = places.ports;
            let place = |name: &str| ports.iter().position(|port| port.device == name);
            let devices: Vec<String> =
                ports.iter().map(|port| format!("{:?}", port.device)).collect();
            let allowed = match devices.as_slice() {
                [] => "nothing, as the segment has no port".into(),
                _ => format!("a device of the segment: {}", devices.join(", ")),
            };
            port.text(allowed, place, problems).map(Target::Port)
        }
        (Some(_), Some(port)) => {
            port.problem("not allowed beside vtep; allowed: one of vtep and port", problems);
            None
        }
        (None, None) => {
            section.problem(format_args!("vtep and port are missing; allowed: one of vtep ({VTEP}) and port (a device of the segment)"), problems);
            None
        }
    }
}
