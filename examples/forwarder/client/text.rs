//! Answers as people read them.

use std::io::{self, Write};

use serde_json::Value;

use super::{Asked, page, repeat};
use crate::control::{Fdb, Offload, Ports, Routes, Segments, Verb, Vteps};
use crate::failure::Failure;
use crate::table::Table;

/// Asks, and prints the answer.
pub fn print(asked: &mut Asked, verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    let mut entries = Vec::new();
    match verb {
        Verb::Show {} => {
            asked.ask(verb, &mut |page| write!(out, "{}", page::overview(&page)))?;
        }
        Verb::Fdb(Fdb::Show { .. }) => {
            asked.ask(verb, &mut |entry| writeln!(out, "{}", fdb_entry(&entry)))?;
        }
        Verb::Reload { .. } => asked.ask(verb, &mut |step| {
            let segment = match &step["segment"] {
                Value::Null => String::new(),
                name => format!(" segment {}", segment(name)),
            };
            writeln!(out, "{} {}{segment}", word(&step["change"]), word(&step["what"]))
        })?,
        Verb::Route(Routes::Show { .. } | Routes::Get { .. }) => {
            asked.ask(verb, &mut |entry| writeln!(out, "{}", route(&entry)))?;
        }
        Verb::Monitor {} => asked.ask(verb, &mut |event| {
            writeln!(out, "{}  {}", clock(&event["time"]), word(&event["text"]))?;
            out.flush()
        })?,
        Verb::Stats { watch } => {
            let mut before = None;
            repeat(*watch, || {
                asked.ask(verb, &mut |stats| {
                    write!(out, "{}", page::counters(&stats, before.as_ref()))?;
                    before = Some(stats);
                    out.flush()
                })
            })?;
        }
        _ => asked.ask(verb, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?,
    }
    let table = match verb {
        Verb::Segment(Segments::Show {}) => page::segments(&entries),
        Verb::Port(Ports::Show {}) => page::ports(&entries),
        Verb::Vtep(Vteps::Show {}) => page::vteps(&entries),
        Verb::Offload(Offload::Show {} | Offload::Set { .. }) => page::offloads(&entries),
        Verb::Drops { .. } => return Ok(drops(&entries, out)?),
        _ => return Ok(()),
    };
    Ok(write!(out, "{table}")?)
}

/// A string without its quotes.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Hours, minutes, seconds and milliseconds of a day in UTC.
fn clock(time: &Value) -> String {
    let millis = (time.as_f64().unwrap_or_default() * 1000.0) as u64 % 86_400_000;
    let (second, minute, hour) = (millis / 1000 % 60, millis / 60_000 % 60, millis / 3_600_000);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
}

/// As segments are named in requests.
pub fn segment(name: &Value) -> String {
    match name["vni"].as_u64() {
        Some(vni) => format!("{vni}@{}", name["udp_port"]),
        None => format!("udp:{}", name["udp_port"]),
    }
}

/// Where something leads.
fn place(entry: &Value) -> String {
    match (entry["vtep"].as_str(), entry["port"].as_str()) {
        (Some(vtep), _) => format!("vtep {vtep}"),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "port that is gone".into(),
    }
}

fn fdb_entry(entry: &Value) -> String {
    let vni = entry["vni"].as_u64().map(|vni| format!(" vni {vni}")).unwrap_or_default();
    let age = entry["age"].as_u64().map(|age| format!(" {age} s ago")).unwrap_or_default();
    let (mac, place, origin) = (word(&entry["mac"]), place(entry), word(&entry["origin"]));
    format!("{mac} {place}{vni} segment {} {origin}{age}", segment(&entry["segment"]))
}

fn route(entry: &Value) -> String {
    let via = entry["via"].as_array().map(Vec::as_slice).unwrap_or_default();
    let to: Vec<String> = match via {
        [one] => vec![place(one)],
        several => {
            several.iter().map(|to| format!("{} weight {}", place(to), to["weight"])).collect()
        }
    };
    let kind = match word(&entry["type"]) {
        "unicast" => String::new(),
        kind => format!("{kind} "),
    };
    let to = if to.is_empty() { String::new() } else { format!(" {}", to.join(", ")) };
    format!("{kind}{}{to} segment {}", word(&entry["prefix"]), segment(&entry["segment"]))
}

fn drops(entries: &[Value], out: &mut impl Write) -> io::Result<()> {
    if entries.is_empty() {
        return writeln!(out, "nothing was dropped");
    }
    let mut counts = Table::new(["reason", "dropped"]);
    for entry in entries {
        counts.row([word(&entry["reason"]).into(), entry["count"].to_string()]);
    }
    writeln!(out, "{counts}")?;
    for entry in entries {
        let (reason, meaning) = (word(&entry["reason"]), word(&entry["meaning"]));
        writeln!(out, "{reason}: {meaning}\n    {}", word(&entry["advice"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_lines_that_scripts_can_cut() {
        let segment = json!({ "udp_port": 4789, "vni": 42 });
        let entry = json!({
            "segment": segment, "mac": "02:00:00:00:00:01", "vtep": "10.9.0.2:4789", "port": null,
            "vni": null, "origin": "learned", "age": 3,
        });
        let line = "02:00:00:00:00:01 vtep 10.9.0.2:4789 segment 42@4789 learned 3 s ago";
        assert_eq!(fdb_entry(&entry), line);
        let to = |vtep: &str, weight: u32| json!({ "vtep": vtep, "port": null, "weight": weight });
        let several = [to("10.9.0.2:8285", 1), to("10.9.0.3:8285", 2)];
        let segment = json!({ "udp_port": 8285, "vni": null });
        for (kind, via, line) in [
            ("unicast", json!([several[0]]), "10.7.2.0/24 vtep 10.9.0.2:8285 segment udp:8285"),
            (
                "unicast",
                json!(several),
                "10.7.2.0/24 vtep 10.9.0.2:8285 weight 1, vtep 10.9.0.3:8285 weight 2 segment udp:8285",
            ),
            ("blackhole", json!([]), "blackhole 10.7.2.0/24 segment udp:8285"),
        ] {
            let entry =
                json!({ "segment": segment, "prefix": "10.7.2.0/24", "type": kind, "via": via });
            assert_eq!(route(&entry), line);
        }
        assert_eq!(clock(&json!(1_800_000_000.25)), "08:00:00.250Z");
    }
}
