//! The overview, counters and listings as tables.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value};

use super::text::{segment, word};
use crate::table::Table;

/// A number with a unit of a thousand that leaves three digits or more.
fn short(n: u64) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match units.iter().find(|(unit, _)| n >= 10 * unit) {
        Some((unit, name)) => format!("{:.1} {name}", n as f64 / *unit as f64),
        None => n.to_string(),
    }
}

fn number(value: &Value) -> String {
    value.as_u64().map_or("-".into(), short)
}

/// Packets and bytes of both directions, and what of them was dropped.
fn traffic(traffic: &Value) -> [String; 5] {
    let count = |direction: &str, key: &str| number(&traffic[direction][key]);
    let dropped = ["received", "sent"].map(|way| traffic[way]["dropped"].as_u64().unwrap_or(0));
    [
        count("received", "packets"),
        format!("{}B", bytes(&traffic["received"]["bytes"])),
        count("sent", "packets"),
        format!("{}B", bytes(&traffic["sent"]["bytes"])),
        short(dropped.iter().sum()),
    ]
}

/// A number of bytes, up to its unit.
fn bytes(value: &Value) -> String {
    let short = number(value);
    if short.contains(' ') { short } else { format!("{short} ") }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn words(value: &Value) -> String {
    let words: Vec<&str> = list(value).iter().map(word).collect();
    if words.is_empty() { "-".into() } else { words.join(" ") }
}

pub fn segments(entries: &[Value]) -> Table {
    let head = ["segment", "kind", "ports", "VTEPs", "MTU", "MACs", "received", "sent", "dropped"];
    let mut table = Table::new(head).left(3);
    for entry in entries {
        let [received, _, sent, _, _] = traffic(&entry["traffic"]);
        let macs = match word(&entry["kind"]) {
            "bridge" => format!("{} of {}", entry["learned"], entry["fdb_limit"]),
            _ => "-".into(),
        };
        table.row([
            segment(&entry["segment"]),
            word(&entry["kind"]).into(),
            words(&entry["ports"]),
            list(&entry["peers"]).len().to_string(),
            entry["mtu"].to_string(),
            macs,
            received,
            sent,
            number(&entry["dropped"]),
        ]);
    }
    table
}

pub fn ports(entries: &[Value]) -> Table {
    let head = ["port", "segment", "MAC", "received", "bytes", "sent", "bytes", "dropped"];
    let mut table = Table::new(head).left(3);
    for entry in entries {
        let [received, received_bytes, sent, sent_bytes, dropped] = traffic(&entry["traffic"]);
        table.row([
            word(&entry["device"]).into(),
            segment(&entry["segment"]),
            entry["mac"].as_str().unwrap_or("-").into(),
            received,
            received_bytes,
            sent,
            sent_bytes,
            dropped,
        ]);
    }
    table
}

pub fn vteps(entries: &[Value]) -> Table {
    let head = [
        "VTEP",
        "segments",
        "received",
        "bytes",
        "sent",
        "bytes",
        "dropped",
        "path MTU",
        "answers in",
    ];
    let mut table = Table::new(head).left(2);
    for entry in entries {
        let [received, received_bytes, sent, sent_bytes, dropped] = traffic(&entry["traffic"]);
        let segments: Vec<String> = list(&entry["segments"]).iter().map(segment).collect();
        let micros = entry["round_trip_us"].as_u64();
        table.row([
            word(&entry["vtep"]).into(),
            segments.join(" "),
            received,
            received_bytes,
            sent,
            sent_bytes,
            dropped,
            entry["path_mtu"].as_u64().map_or("-".into(), |mtu| mtu.to_string()),
            micros.map_or("-".into(), |micros| format!("{micros} µs")),
        ]);
    }
    table
}

pub fn offloads(entries: &[Value]) -> Table {
    let mut table = Table::new(["offload", "state", "why", "failures"]).left(3);
    for entry in entries {
        table.row([
            word(&entry["offload"]).into(),
            word(&entry["state"]).into(),
            word(&entry["why"]).into(),
            entry["failures"].to_string(),
        ]);
    }
    table
}

/// A time as people say it.
fn lasting(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Everything on one page.
pub fn overview(page: &Value) -> String {
    let up = Duration::from_secs(page["uptime"].as_u64().unwrap_or(0));
    let mut text = format!(
        "forwarder {}, process {}, up {}, at {}, workers: {}\n",
        word(&page["version"]),
        page["pid"],
        lasting(up.as_secs()),
        words(&page["local"]),
        page["workers"],
    );
    for table in [
        segments(list(&page["segments"])),
        ports(list(&page["ports"])),
        vteps(list(&page["vteps"])),
    ] {
        if !table.is_empty() {
            let _ = write!(text, "\n{table}");
        }
    }
    let totals = &page["totals"];
    let counts = ["received", "forwarded", "flooded", "answered", "generated", "sent", "delivered"];
    let counts = counts.map(|key| format!("{} {key}", number(&totals[key])));
    let _ = write!(text, "\nframes: {}\n", counts.join(", "));
    if let Some(drops) = totals["drops"].as_object().filter(|drops| !drops.is_empty()) {
        let _ = writeln!(text, "dropped: {} (\"forwarder drops\" says why)", reasons(drops));
    }
    if let Some(lost) = page["receive_buffer_overflows"].as_u64().filter(|n| *n > 0) {
        let _ = writeln!(text, "lost in full receive buffers: {}", short(lost));
    }
    let of_state = |on: bool| {
        let names = list(&page["offloads"]).iter().filter(|entry| (entry["state"] == "on") == on);
        names.map(|entry| word(&entry["offload"])).collect::<Vec<_>>().join(", ")
    };
    for (state, names) in [("on", of_state(true)), ("not in use", of_state(false))] {
        if !names.is_empty() {
            let _ = writeln!(text, "offloads {state}: {names}");
        }
    }
    text
}

/// Reasons with their counts, the most frequent one first.
fn reasons(drops: &Map<String, Value>) -> String {
    let mut drops: Vec<(u64, &str)> =
        drops.iter().map(|(name, n)| (n.as_u64().unwrap_or(0), name.as_str())).collect();
    drops.sort_by_key(|(n, name)| (std::cmp::Reverse(*n), *name));
    let drops: Vec<String> =
        drops.iter().map(|(n, name)| format!("{} {name}", short(*n))).collect();
    drops.join(", ")
}

/// The counters; with those of the time before, what was added since.
pub fn counters(stats: &Value, before: Option<&Value>) -> String {
    let stats = before.map_or_else(|| stats.clone(), |before| since(stats, before));
    let mut totals = Table::new(["frames", ""]);
    let all = stats["totals"].as_object().into_iter().flatten();
    for (key, n) in
        all.filter_map(|(key, value)| Some((key, value.as_u64()?))).filter(|(_, n)| *n > 0)
    {
        totals.row([key.replace('_', " "), n.to_string()]);
    }
    for (reason, n) in stats["totals"]["drops"].as_object().into_iter().flatten() {
        if n.as_u64().is_some_and(|n| n > 0) {
            totals.row([format!("dropped: {reason}"), n.to_string()]);
        }
    }
    let mut places = Table::new(["", "received", "bytes", "sent", "bytes", "dropped"]);
    for (kind, name) in [("segments", "segment"), ("ports", "name"), ("vteps", "address")] {
        for entry in list(&stats[kind]) {
            let label = match kind {
                "segments" => format!("segment {}", segment(&entry[name])),
                "ports" => format!("port {}", word(&entry[name])),
                _ => format!("VTEP {}", word(&entry[name])),
            };
            let [received, received_bytes, sent, sent_bytes, dropped] = traffic(&entry["traffic"]);
            places.row([label, received, received_bytes, sent, sent_bytes, dropped]);
        }
    }
    format!("{totals}\n{places}\n")
}

/// What of `now` was not there `before`. What is named by more than its place in a list is found by its name.
fn since(now: &Value, before: &Value) -> Value {
    match (now, before) {
        (Value::Number(_), Value::Number(_)) => {
            let [now, before] = [now, before].map(|n| n.as_u64().unwrap_or(0));
            now.saturating_sub(before).into()
        }
        (Value::Object(now), Value::Object(before)) => {
            let is_name = |key: &str| matches!(key, "segment" | "name" | "address");
            let entry = |(key, value): (&String, &Value)| {
                let value = match before.get(key) {
                    Some(before) if !is_name(key) => since(value, before),
                    _ => value.clone(),
                };
                (key.clone(), value)
            };
            Value::Object(now.iter().map(entry).collect())
        }
        (Value::Array(now), Value::Array(before)) => {
            let same = |a: &Value, b: &Value| {
                ["segment", "name", "address"].iter().all(|key| a[*key] == b[*key])
            };
            let known = |value: &Value| before.iter().find(|before| same(value, before));
            now.iter()
                .map(|value| {
                    known(value).map_or_else(|| value.clone(), |before| since(value, before))
                })
                .collect()
        }
        _ => now.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_short_and_times_readable() {
        for (n, text) in [(0, "0"), (9_999, "9999"), (10_000, "10.0 k"), (12_345_678, "12.3 M")] {
            assert_eq!(short(n), text);
        }
        for (n, text) in
            [(59, "59 s"), (61, "1 min 1 s"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(lasting(n), text);
        }
        assert_eq!((bytes(&json!(90)), bytes(&json!(90_000))), ("90 ".into(), "90.0 k".into()));
    }

    #[test]
    fn what_is_new_is_found_by_name() {
        let before = json!({ "totals": { "sent": 3 }, "ports": [{ "name": "a", "n": 1 }, { "name": "b", "n": 5 }] });
        let now = json!({ "totals": { "sent": 7 }, "ports": [{ "name": "b", "n": 6 }, { "name": "c", "n": 2 }] });
        let new = json!({ "totals": { "sent": 4 }, "ports": [{ "name": "b", "n": 1 }, { "name": "c", "n": 2 }] });
        assert_eq!(since(&now, &before), new);
    }
}
