//! The counters, for people and for programs.

use clap::ValueEnum;
use overplane::{Destination, DropReason, Mdb, PortId, SegmentId, Stats, Totals, Traffic};
use serde_json::{Map, Value, json};

/// How counters are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One line of JSON each time.
    Json,
}

/// A segment with its multicast database.
pub type Groups = (SegmentId, Mdb);

/// The number of the layout of the JSON: it changes when a key goes or gets another meaning, not when one is added.
const LAYOUT: u32 = 1;

impl Format {
    /// The counters and multicast databases, with a line break at their end.
    pub fn print(self, stats: &Stats, groups: &[Groups]) -> String {
        match self {
            Self::Text => format!("{stats}{}", members(stats, groups)),
            Self::Json => format!("{}\n", document(stats, groups)),
        }
    }
}

/// Who listens to what, a line for each place.
fn members(stats: &Stats, groups: &[Groups]) -> String {
    let mut lines = String::new();
    for (segment, mdb) in groups {
        for entry in &mdb.entries {
            let what = match entry.group {
                Some(group) => format!("group {group}"),
                None => "multicast router".into(),
            };
            let place = match entry.destination {
                Destination::Vtep(vtep) => format!("VTEP {vtep}"),
                Destination::Port(port) => format!("port {}", device(stats, port)),
            };
            let time =
                entry.expires.map_or("static".into(), |left| format!("{} s", left.as_secs()));
            lines.push_str(&format!("segment {segment}: {what} at {place}, {time}\n"));
        }
    }
    lines
}

/// The name of a port's device.
pub fn device(stats: &Stats, port: PortId) -> &str {
    let port = stats.ports.iter().find(|stats| stats.id == port);
    port.map_or("that is gone", |port| &port.name)
}

/// A multicast database; nothing for a segment that does not snoop.
fn multicast(stats: &Stats, (segment, mdb): &Groups) -> Option<Value> {
    let entries = mdb.entries.iter().map(|entry| {
        let (vtep, port) = match entry.destination {
            Destination::Vtep(vtep) => (Some(vtep.to_string()), None),
            Destination::Port(port) => (None, Some(device(stats, port))),
        };
        json!({
            "group": entry.group.map(|group| group.to_string()),
            "vtep": vtep,
            "port": port,
            "expires": entry.expires.map(|left| left.as_secs()),
        })
    });
    (*mdb != Mdb::default()).then(|| {
        json!({
            "segment": name(*segment),
            "active_v4": mdb.active_v4,
            "active_v6": mdb.active_v6,
            "entries": entries.collect::<Value>(),
        })
    })
}

/// Everything there is to say; `docs/vtep.md` describes the keys.
pub fn document(stats: &Stats, groups: &[Groups]) -> Value {
    let segments = stats.segments.iter().map(|segment| {
        json!({
            "segment": name(segment.id),
            "traffic": traffic(&segment.traffic),
            "drops": drops(segment.drops.iter()),
            "learned": segment.learned,
            "fdb_limit": segment.fdb_limit,
            "memberships": segment.memberships,
        })
    });
    let ports = stats.ports.iter().map(|port| {
        json!({
            "name": port.name,
            "segment": name(port.segment),
            "traffic": traffic(&port.traffic),
        })
    });
    let vteps = stats.vteps.iter().map(|vtep| {
        json!({
            "address": vtep.address.to_string(),
            "traffic": traffic(&vtep.traffic),
            "path_mtu": {
                "configured": vtep.path.configured,
                "route": vtep.path.route,
                "learned": vtep.path.learned,
                "verified": vtep.path.verified,
            },
            "probe": vtep.probe.map(|probe| json!({
                "state": probe.state.name(),
                "verified": probe.verified,
                "last_answer_ms": probe.last_answer.map(|age| age.as_millis() as u64),
                "round_trip_us": probe.round_trip.map(|time| time.as_micros() as u64),
                "sent": probe.sent,
                "answered": probe.answered,
                "black_holes": probe.black_holes,
            })),
        })
    });
    let offloads = stats.offloads.iter().map(|info| {
        json!({
            "name": info.offload.name(),
            "state": info.state.to_string(),
            "failures": info.failures,
        })
    });
    json!({
        "layout": LAYOUT,
        "totals": totals(&stats.totals),
        "workers": stats.workers.iter().map(totals).collect::<Value>(),
        "segments": segments.collect::<Value>(),
        "ports": ports.collect::<Value>(),
        "vteps": vteps.collect::<Value>(),
        "multicast": groups.iter().filter_map(|of| multicast(stats, of)).collect::<Value>(),
        "socket_overflows": stats.socket_overflows,
        "events_lost": stats.events_lost,
        "offloads": offloads.collect::<Value>(),
    })
}

pub fn name(segment: SegmentId) -> Value {
    json!({ "udp_port": segment.udp_port, "vni": segment.vni.map(|vni| vni.get()) })
}

fn totals(totals: &Totals) -> Value {
    json!({
        "received": totals.received,
        "forwarded": totals.forwarded,
        "chunks": totals.chunks,
        "flooded": totals.flooded,
        "copies": totals.copies,
        "generated": totals.generated,
        "sent": totals.sent,
        "delivered": totals.delivered,
        "coalesced": totals.coalesced,
        "learning_refused": totals.learning_refused,
        "moves_refused": totals.moves_refused,
        "evicted": totals.evicted,
        "answers_withheld": totals.answers_withheld,
        "answered": totals.answered,
        "neighbour_conflicts": totals.neighbour_conflicts,
        "probes": totals.probes,
        "probes_answered": totals.probes_answered,
        "memberships_refused": totals.memberships_refused,
        "drops": drops(totals.drop_reasons()),
    })
}

pub fn traffic(traffic: &Traffic) -> Value {
    let direction = |packets: u64, bytes: u64, unicast: u64, groups: [u64; 2], dropped: u64| {
        json!({
            "packets": packets,
            "bytes": bytes,
            "unicast": unicast,
            "multicast": groups[0],
            "broadcast": groups[1],
            "dropped": dropped,
        })
    };
    let t = traffic;
    json!({
        "received": direction(
            t.received_packets,
            t.received_bytes,
            t.received_unicast(),
            [t.received_multicast, t.received_broadcast],
            t.received_dropped,
        ),
        "sent": direction(
            t.sent_packets,
            t.sent_bytes,
            t.sent_unicast(),
            [t.sent_multicast, t.sent_broadcast],
            t.sent_dropped,
        ),
    })
}

/// By the name of the reason; those for which nothing was dropped are left out.
fn drops(drops: impl Iterator<Item = (DropReason, u64)>) -> Value {
    let by_name = drops.map(|(reason, n)| (reason.name().to_owned(), n.into()));
    Value::Object(by_name.collect::<Map<String, Value>>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overplane::wire::VnetHeader;
    use overplane::{Batch, Change, Forwarder, Output, PortOptions, Segment, Tables, Vni};

    use super::*;

    /// All paths of keys, with lists as their first element.
    fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    paths(value, &path, found);
                }
            }
            Value::Array(list) if !list.is_empty() => paths(&list[0], path, found),
            _ => found.push(path.to_owned()),
        }
    }

    #[test]
    fn the_documentation_names_every_key() {
        let mut tables = Tables::new([192, 0, 2, 1].into(), 1).unwrap();
        let mut segment = Segment::bridge(Vni::new(42).unwrap());
        segment.snooping.enabled = true;
        let id = segment.id();
        let port = Change::AddPort {
            segment: id,
            name: "ovl0".into(),
            offload: false,
            options: PortOptions::default(),
        };
        let vtep = Change::AddFlood { segment: id, vtep: "192.0.2.2:4789".parse().unwrap() };
        let ports =
            tables.apply(Duration::ZERO, [Change::AddSegment(segment), port, vtep]).unwrap();
        let (mut batch, mut output) = (Batch::new(1), Output::new());
        assert!(batch.push(&[0; 20], VnetHeader::default()));
        Forwarder::new(0).from_port(&tables, Duration::ZERO, ports[0], &mut batch, &mut output);
        let group = Some("239.1.1.1".parse().unwrap());
        let routers = Change::InsertMdb { segment: id, group: None, destination: ports[0].into() };
        let to = "192.0.2.2:4789".parse::<std::net::SocketAddr>().unwrap();
        let listens = Change::InsertMdb { segment: id, group, destination: to.into() };
        tables.apply(Duration::ZERO, [routers, listens]).unwrap();
        let groups = [(id, tables.mdb(id, Duration::ZERO).unwrap())];
        let text = Format::Text.print(&tables.stats(), &groups);
        assert!(text.ends_with(
            "segment VXLAN 42 on UDP port 4789: multicast router at port ovl0, static\n\
             segment VXLAN 42 on UDP port 4789: group 239.1.1.1 at VTEP 192.0.2.2:4789, static\n"
        ));
        let value = document(&tables.stats(), &groups);
        assert_eq!(value["multicast"][0]["entries"][0]["port"], "ovl0");
        assert_eq!(value["multicast"][0]["entries"][1]["group"], "239.1.1.1");
        assert_eq!(value["segments"][0]["drops"]["invalid_source"], 1);
        assert_eq!(value["ports"][0]["traffic"]["received"]["dropped"], 1);
        let mut found = Vec::new();
        paths(&value, "", &mut found);
        let page = include_str!("../../docs/vtep.md");
        for path in found {
            for key in path.split('.') {
                assert!(page.contains(&format!("`{key}`")), "{key} of {path} is not documented");
            }
        }
    }
}
