//! Reading of `[[segment.fdb]]` and `[[segment.route]]`.

use overplane::{MacAddr, Prefix};

use super::segment::Vteps;
use crate::config::reader::{Item, Once, Problems, Section};
use crate::plan::{PortPlan, Target, VTEP};

/// Reads the static FDB entries of a bridge segment.
pub fn fdb(
    section: &Section<'_>,
    ports: &[PortPlan],
    vteps: &mut Vteps,
    problems: &mut Problems,
) -> Vec<(MacAddr, Target)> {
    let allowed = "an individual MAC address as in 02:00:00:00:00:01";
    let individual = |mac: &MacAddr| !mac.is_multicast() && !mac.is_zero();
    let read = |text: &str| text.parse().ok().filter(individual);
    entries(section.get("fdb"), "mac", allowed, read, ports, vteps, problems)
}

/// Reads the routes of a routed segment.
pub fn routes(
    section: &Section<'_>,
    ports: &[PortPlan],
    vteps: &mut Vteps,
    problems: &mut Problems,
) -> Vec<(Prefix, Target)> {
    let allowed = "ADDRESS/LENGTH as in 10.7.2.0/24";
    entries(
        section.get("route"),
        "prefix",
        allowed,
        |text| text.parse().ok(),
        ports,
        vteps,
        problems,
    )
}

/// Reads a list of tables that say where something leads, each thing once.
fn entries<T: Copy + Eq + std::hash::Hash>(
    list: Option<Item<'_>>,
    key: &str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
    ports: &[PortPlan],
    vteps: &mut Vteps,
    problems: &mut Problems,
) -> Vec<(T, Target)> {
    let Some(list) = list else { return Vec::new() };
    let tables = format!("a list of tables, each under [[{}]]", list.key);
    let mut seen = Once::new();
    let mut entries = Vec::new();
    for item in list.list(&tables, problems) {
        let Some(section) = item.section(problems) else { continue };
        section.only(&[key, "vtep", "port"], &[], "", problems);
        let target = target(&section, ports, vteps, problems);
        let Some(item) = section.need(key, allowed, problems) else { continue };
        let Some(thing) = item.text(allowed, &read, problems) else { continue };
        if seen.is_first(thing, &item, problems)
            && let Some(target) = target
        {
            entries.push((thing, target));
        }
    }
    entries
}

fn target(
    section: &Section<'_>,
    ports: &[PortPlan],
    vteps: &mut Vteps,
    problems: &mut Problems,
) -> Option<Target> {
    match (section.get("vtep"), section.get("port")) {
        (Some(vtep), None) => vteps.read(&vtep, problems).map(Target::Vtep),
        (None, Some(port)) => {
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
