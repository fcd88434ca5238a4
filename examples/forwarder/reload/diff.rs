//! What is different in a plan.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::net::Ipv4Addr;

use overplane::{Config, SegmentId};

use crate::entry::{Entry, entries};
use crate::plan::{Plan, PortPlan, SegmentPlan};

/// What is different in a plan, in parts that can be changed while it is carried out.
#[derive(Debug, Default)]
pub struct Diff<'a> {
    pub segments_removed: Vec<&'a SegmentPlan>,
    pub segments_added: Vec<&'a SegmentPlan>,
    pub ports_removed: Vec<(SegmentId, &'a PortPlan)>,
    pub ports_added: Vec<(SegmentId, &'a PortPlan)>,
    /// Before and after.
    pub ports_changed: Vec<(&'a PortPlan, &'a PortPlan)>,
    /// The last one first: what was added later may lean on what was added before.
    pub entries_removed: Vec<(SegmentId, Entry)>,
    pub entries_added: Vec<(SegmentId, Entry)>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether something comes, goes, or stays and is changed.
    pub kind: Kind,
    pub segment: Option<SegmentId>,
    /// What it is about.
    pub what: String,
}

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Removed,
    Changed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        })
    }
}

impl<'a> Diff<'a> {
    /// The differences; or what stands against making them, if something differs that cannot be changed.
    pub fn between(before: &'a Plan, after: &'a Plan) -> Result<Self, String> {
        let mut refused = Vec::new();
        let mut fixed = |place: &str, difference: Option<String>| {
            refused.extend(difference.map(|name| format!("{place}{name}")));
        };
        let without = |plan: &Plan| Plan {
            config: Config::new(Ipv4Addr::UNSPECIFIED.into()),
            segments: Vec::new(),
            ..plan.clone()
        };
        fixed("", differing(&without(before), &without(after)));
        fixed("dataplane: ", differing(&before.config, &after.config));
        let mut diff = Self::default();
        let find = |plan: &'a Plan, id: SegmentId| {
            plan.segments.iter().find(move |planned| planned.segment.id() == id)
        };
        diff.segments_removed.extend(
            before.segments.iter().filter(|planned| find(after, planned.segment.id()).is_none()),
        );
        for planned in &after.segments {
            let id = planned.segment.id();
            match find(before, id) {
                None => diff.segments_added.push(planned),
                Some(known) => {
                    fixed(&format!("{id}: "), differing(&known.segment, &planned.segment));
                    diff.ports(id, known, planned);
                    diff.entries(id, known, planned);
                }
            }
        }
        match refused.is_empty() {
            true => Ok(diff),
            false => Err(format!(
                "nothing was changed: what differs here cannot be changed while it forwards; start the forwarder anew for it, \
                 or put it back:\n{}",
                refused.join("\n")
            )),
        }
    }

    fn ports(&mut self, id: SegmentId, before: &'a SegmentPlan, after: &'a SegmentPlan) {
        let find = |planned: &'a SegmentPlan, device: &str| {
            planned.ports.iter().find(|port| port.device == *device)
        };
        let gone = before.ports.iter().filter(|port| find(after, &port.device).is_none());
        self.ports_removed.extend(gone.map(|port| (id, port)));
        for port in &after.ports {
            match find(before, &port.device) {
                None => self.ports_added.push((id, port)),
                Some(known) if known != port => self.ports_changed.push((known, port)),
                Some(_) => {}
            }
        }
    }

    fn entries(&mut self, id: SegmentId, before: &SegmentPlan, after: &SegmentPlan) {
        let (before, after) = (entries(before), entries(after));
        let missing = |of: &[Entry], list: &[Entry]| -> Vec<(SegmentId, Entry)> {
            let known: HashSet<&Entry> = of.iter().collect();
            let missing = list.iter().filter(|entry| !known.contains(entry));
            missing.map(|entry| (id, entry.clone())).collect()
        };
        self.entries_removed.extend(missing(&after, &before).into_iter().rev());
        self.entries_added.extend(missing(&before, &after));
    }

    /// Each difference with its segment.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut add = |kind, segment, what| steps.push(Step { kind, segment, what });
        for (kind, segments) in
            [(Kind::Removed, &self.segments_removed), (Kind::Added, &self.segments_added)]
        {
            for planned in segments {
                add(kind, Some(planned.segment.id()), "segment with its ports and entries".into());
            }
        }
        for (kind, ports) in
            [(Kind::Removed, &self.ports_removed), (Kind::Added, &self.ports_added)]
        {
            for (segment, port) in ports {
                add(kind, Some(*segment), format!("port {}", port.device));
            }
        }
        for (before, after) in &self.ports_changed {
            let options = differing(&before.options, &after.options);
            let what = options.unwrap_or_else(|| "addresses".into());
            add(Kind::Changed, None, format!("port {}: {what}", after.device));
        }
        for (kind, entries) in
            [(Kind::Removed, &self.entries_removed), (Kind::Added, &self.entries_added)]
        {
            for (segment, entry) in entries {
                add(kind, Some(*segment), entry.to_string());
            }
        }
        steps
    }
}

/// The names of the fields that differ.
fn differing(before: &impl Debug, after: &impl Debug) -> Option<String> {
    let [before, after] = [format!("{before:#?}"), format!("{after:#?}")];
    if before == after {
        return None;
    }
    let (before, after) = (fields(&before), fields(&after));
    let differ = after.iter().filter(|field| !before.contains(field));
    let mut names: Vec<&str> = differ.map(|(name, _)| *name).collect();
    names.dedup();
    Some(names.join(", "))
}

/// The fields of a struct in its printed form, each with what is in it: they are four columns in, and theirs are further in.
fn fields(printed: &str) -> Vec<(&str, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in printed.lines() {
        let own = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '}', ']', ')']));
        match (own.and_then(|rest| rest.split_once(": ")), fields.last_mut()) {
            (Some((name, value)), _) => fields.push((name, value.into())),
            (None, Some((_, value))) => value.push_str(line),
            (None, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const FILE: &str = r#"
        [dataplane]
        local = "10.9.0.1"
        [[segment]]
        kind = "bridge"
        vni = 42
        flood = ["10.9.0.2", "10.9.0.3"]
        port = [{ device = "a" }, { device = "b" }]
        fdb = [{ mac = "02:00:00:00:00:01", port = "b" }]
        [[segment]]
        kind = "routed"
        udp_port = 8285
        port = [{ device = "t", addresses = ["10.7.1.0/16"] }]
        route = [
            { prefix = "10.7.2.0/24", vtep = "10.9.0.2" },
            { prefix = "10.7.3.0/24", via = [{ vtep = "10.9.0.2" }, { vtep = "10.9.0.3", weight = 2 }] },
        ]
    "#;

    fn steps(change: [&str; 2]) -> Result<Vec<String>, String> {
        let [before, after] = [FILE.to_owned(), FILE.replace(change[0], change[1])];
        assert!(before != after || change[0] == change[1], "{}", change[0]);
        let [before, after] = [before, after].map(|text| parse("a", &text).unwrap());
        let steps = Diff::between(&before, &after)?.steps();
        Ok(steps.iter().map(|step| format!("{} {}", step.kind, step.what)).collect())
    }

    #[test]
    fn only_what_differs_is_changed() {
        assert_eq!(steps(["", ""]).unwrap(), [""; 0]);
        for (change, lines) in [
            (
                ["\"10.9.0.3\"]", "\"10.9.0.4\"]"],
                &["removed flood 10.9.0.3:4789", "added flood 10.9.0.4:4789"][..],
            ),
            (
                ["port = \"b\"", "port = \"a\""],
                &["removed fdb 02:00:00:00:00:01 port b", "added fdb 02:00:00:00:00:01 port a"],
            ),
            (
                ["{ device = \"a\" }", "{ device = \"a\", isolated = true }"],
                &["changed port a: isolated"],
            ),
            (["{ device = \"a\" }", "{ device = \"c\" }"], &["removed port a", "added port c"]),
            (
                ["weight = 2", "weight = 3"],
                &[
                    "removed route 10.7.3.0/24 vtep 10.9.0.2:8285 weight 1 vtep 10.9.0.3:8285 weight 2",
                    "added route 10.7.3.0/24 vtep 10.9.0.2:8285 weight 1 vtep 10.9.0.3:8285 weight 3",
                ],
            ),
            (
                ["vni = 42", "vni = 43"],
                &[
                    "removed segment with its ports and entries",
                    "added segment with its ports and entries",
                ],
            ),
            (["10.7.1.0/16", "10.7.1.1/16"], &["changed port t: addresses"]),
        ] {
            assert_eq!(steps(change).unwrap(), lines, "{change:?}");
        }
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        for (change, why) in [
            (["local = \"10.9.0.1\"", "local = \"10.9.0.1\"\nworkers = 2"], "dataplane: workers"),
            (
                ["vni = 42", "vni = 42\nageing = 5\nopen = true"],
                "VXLAN 42 on UDP port 4789: open, ageing",
            ),
            (["[dataplane]", "stats = \"json\"\n[dataplane]"], "stats"),
        ] {
            let said = steps(change).unwrap_err();
            assert!(
                said.starts_with("nothing was changed") && said.ends_with(&format!("\n{why}")),
                "{said}"
            );
        }
    }
}
