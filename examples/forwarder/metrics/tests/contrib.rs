//! Dashboard and alert rules: that they ask for what there is.

use std::fs;
use std::process::Command;

use overplane::DropReason;
use serde_json::Value;

use super::*;

const DASHBOARD: &str = include_str!("../../../../contrib/grafana/overplane.json");
const ALERTS: &str = include_str!("../../../../contrib/prometheus/alerts.yml");
const ALERTS_TEST: &str = include_str!("../../../../contrib/prometheus/alerts_test.yml");

/// All texts under a key, at whatever depth.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name == key => found.push(text),
                    _ => texts(value, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    texts(dashboard, "expr", &mut found);
    assert!(found.len() > 40, "{}", found.len());
    found
}

/// What stands behind a key in lines of YAML.
fn lines<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    yaml.lines().filter_map(move |line| line.trim_start().strip_prefix(key)).map(str::trim)
}

/// The names between braces in an expression, and before an operator of comparison: labels.
fn matched(expression: &str) -> impl Iterator<Item = (&str, &str)> {
    let blocks = expression.split('{').skip(1).map(move |rest| {
        let end = rest.find('}').unwrap_or_else(|| panic!("{expression}"));
        &rest[..end]
    });
    let before = expression.split('{').map(|part| {
        let start = part.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &part[start.map_or(0, |start| start + 1)..]
    });
    before.zip(blocks).flat_map(|(metric, block)| {
        let labels = block.split("\",").filter_map(|matcher| matcher.split(['=', '!']).next());
        labels.map(move |label| (metric, label))
    })
}

#[test]
fn every_metric_of_dashboard_and_alerts_exists() {
    let dashboard = dashboard();
    let mut asked = expressions(&dashboard);
    texts(&dashboard, "query", &mut asked);
    for (place, text) in [
        ("dashboard", asked.join("\n")),
        ("alerts", ALERTS.into()),
        ("their test", ALERTS_TEST.into()),
    ] {
        let unknown: Vec<String> = named(&text).difference(&names()).cloned().collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?}");
        assert!(named(&text).len() > 5, "{place}");
    }
    // And each is matched by labels that it has, or gets from the scraper.
    for expression in expressions(&dashboard).into_iter().chain(lines(ALERTS, "expr:")) {
        for (metric, label) in matched(expression) {
            let sample = |family: &&families::Family| {
                format!("{}{}", family.name, family.kind.suffix()) == metric
            };
            let family = families::all().find(sample);
            let has = ["instance", "job"].contains(&label);
            let known = has || family.is_some_and(|family| family.labels.contains(&label));
            assert!(known, "{metric} has no label {label}: {expression}");
        }
    }
}

#[test]
fn nothing_that_is_counted_is_missing_from_the_dashboard() {
    let dashboard = dashboard();
    let shown = named(&expressions(&dashboard).join("\n"));
    // Of use where they are looked up, not where they are watched.
    let apart = [
        "overplane_build_info",
        "overplane_segment_info",
        "overplane_frame_chunks_total",
        "overplane_frames_generated_total",
        "overplane_frames_coalesced_total",
        "overplane_probes_sent_total",
        "overplane_probes_answered_total",
        "overplane_segment_packets_total",
        "overplane_segment_dropped_packets_total",
        "overplane_port_group_packets_total",
        "overplane_vtep_group_packets_total",
        "overplane_vteps_left_out",
        "overplane_vtep_probes_sent_total",
        "overplane_vtep_probes_answered_total",
    ];
    let missing: Vec<String> = names().difference(&shown).cloned().collect();
    let missing: Vec<&str> =
        missing.iter().map(String::as_str).filter(|name| !apart.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_dashboard_can_be_imported_and_fits() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<&str> = variables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "node", "segment"]);
    let mut sources = Vec::new();
    texts(&dashboard, "uid", &mut sources);
    assert_eq!(sources.iter().filter(|uid| **uid != "${datasource}").count(), 1, "its own");
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies over another one", panel["title"]);
            }
        }
    }
}

#[test]
fn alerts_and_their_documentation_name_the_same() {
    let alerts: Vec<&str> = lines(ALERTS, "- alert:").collect();
    let unique: BTreeSet<&str> = alerts.iter().copied().collect();
    assert!(alerts.len() > 15 && alerts.len() == unique.len());
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| Overplane"));
    let rows: Vec<String> =
        rows.map(|row| format!("Overplane{}", row.split(' ').next().unwrap())).collect();
    assert_eq!(alerts, rows);
    let runbooks: Vec<&str> = lines(ALERTS, "runbook:").collect();
    let expected: Vec<String> =
        alerts.iter().map(|name| format!("\"docs/operating.md, Alerts: {name}\"")).collect();
    assert_eq!(runbooks, expected);
    for key in ["expr:", "severity:", "summary:", "description:"] {
        assert_eq!(lines(ALERTS, key).count(), alerts.len(), "{key}");
    }
}

#[test]
fn every_drop_reason_alerts_or_is_said_not_to() {
    let mut alerting: Vec<&str> = Vec::new();
    for expression in lines(ALERTS, "expr:") {
        let reasons = expression.split("reason=~\"").nth(1).and_then(|rest| rest.split('"').next());
        alerting.extend(reasons.iter().flat_map(|reasons| reasons.split('|')));
    }
    let quiet = PAGE.split("Some reasons raise no alert").nth(1).unwrap();
    let quiet = quiet.split("\n\n").next().unwrap().split('`').skip(1).step_by(2);
    let mut listed: Vec<&str> = alerting.into_iter().chain(quiet).collect();
    listed.sort_unstable();
    let mut all: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    all.sort_unstable();
    assert_eq!(listed, all);
}

/// The rules, and the expressions of the dashboard as rules, through the tool of Prometheus, where it is installed.
#[test]
fn promtool_takes_rules_and_expressions() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).output().ok()?;
        let out = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out));
        Some(())
    };
    let contrib = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    let dashboard = dashboard();
    for (number, expression) in expressions(&dashboard).into_iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        let expression = Value::String(expression);
        let _ = writeln!(rules, "  - record: dashboard:{number}\n    expr: {expression}");
    }
    let file = std::env::temp_dir().join(format!("overplane-dashboard-{}.yml", std::process::id()));
    fs::write(&file, rules).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
    if checked.is_none() {
        eprintln!("promtool is not installed: its opinion was not asked for");
        return;
    }
    promtool(&["check", "rules", &format!("{contrib}/alerts.yml")]);
    promtool(&["test", "rules", &format!("{contrib}/alerts_test.yml")]);
}
