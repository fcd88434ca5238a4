//! The answers to requests, and that the documentation names metrics that there are.

mod contrib;

use std::collections::BTreeSet;

use super::exposition::{Format, unit};
use super::families;
use super::reading::Reader;
use super::*;

const PAGE: &str = include_str!("../../../docs/operating.md");

/// The names of all samples.
fn names() -> BTreeSet<String> {
    families::all().map(|family| format!("{}{}", family.name, family.kind.suffix())).collect()
}

/// Words of a text that look like names of metrics.
fn named(text: &str) -> BTreeSet<String> {
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(part).filter(|word| word.starts_with("overplane_")).map(str::to_owned).collect()
}

#[test]
fn names_are_unique_plain_and_in_base_units() {
    assert_eq!(names().len(), families::all().count());
    for family in families::all() {
        let (name, help) = (family.name, family.help);
        assert!(name.starts_with("overplane_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(help.ends_with('.') && !help.contains("  "), "{name}: {help}");
        for scaled in ["_ms", "_us", "_milliseconds", "_kilobytes", "_percent", "_total", "_info"] {
            assert!(!name.ends_with(scaled), "{name}");
        }
    }
    assert_eq!((unit("a_bytes"), unit("bytes"), unit("a_entries")), (Some("bytes"), None, None));
}

#[test]
fn the_table_of_the_documentation_is_the_one_of_the_program() {
    let mut table = String::from("| metric | labels | what it says |\n|---|---|---|\n");
    for family in families::all() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let name = format!("{}{}", family.name, family.kind.suffix());
        let _ = writeln!(table, "| `{name}` | {} | {} |", labels.join(", "), family.help);
    }
    assert!(PAGE.contains(&table), "docs/operating.md should have this table:\n{table}");
    let unknown: Vec<String> = named(PAGE).difference(&names()).cloned().collect();
    assert!(unknown.is_empty(), "docs/operating.md names {unknown:?}");
}

/// A dataplane without devices, for which nobody has to be root.
fn site() -> (overplane::Dataplane, Site) {
    let dataplane = overplane::Dataplane::start(overplane::Config::new([127, 0, 0, 1].into()));
    let dataplane = dataplane.unwrap();
    let reader = Reader::new(dataplane.control(), 7);
    (dataplane, Site::new(reader))
}

fn ask(site: &mut Site, method: &str, path: &str, format: Format) -> Answer {
    let request = Request { method: method.into(), path: path.into(), format };
    site.answer(&Parsed::Whole(request))
}

#[test]
fn every_drop_reason_is_there_before_anything_is_dropped() {
    let (dataplane, mut site) = site();
    let answer = ask(&mut site, "GET", "/metrics", Format::Text);
    for reason in overplane::DropReason::ALL {
        let drops = format!("\noverplane_drops_total{{reason=\"{reason}\",");
        assert!(answer.body.contains(&drops), "{reason}");
        assert!(answer.body.contains(&reason.meaning().replace('"', "\\\"")), "{reason}");
    }
    assert!(answer.body.contains("\noverplane_fdb_capacity 7\n"));
    dataplane.stop().unwrap();
}

#[test]
fn clients_of_one_moment_share_a_reading() {
    let (dataplane, mut site) = site();
    let [first, second] = [0, 1].map(|_| ask(&mut site, "GET", "/metrics", Format::Text).body);
    assert!(Arc::ptr_eq(&first, &second));
    let other = ask(&mut site, "GET", "/metrics", Format::OpenMetrics).body;
    assert!(other.ends_with("# EOF\n") && !first.ends_with("# EOF\n"));
    thread::sleep(FRESH);
    assert!(!Arc::ptr_eq(&first, &ask(&mut site, "GET", "/metrics", Format::Text).body));
    dataplane.stop().unwrap();
}

#[test]
fn workers_that_nobody_runs_are_not_healthy() {
    let (dataplane, mut running) = site();
    assert_eq!(&*ask(&mut running, "GET", "/healthz", Format::Text).body, "ok\n");
    // As if they had ended or hung: nobody runs these.
    let (built, workers) =
        overplane::Dataplane::build(overplane::Config::new([127, 0, 0, 1].into())).unwrap();
    let mut hung = Site::new(Reader::new(built.control(), 7));
    assert!(ask(&mut hung, "GET", "/healthz", Format::Text).head.starts_with("HTTP/1.1 200 "));
    thread::sleep(reading::SILENCE + Duration::from_millis(20));
    let answer = ask(&mut hung, "GET", "/healthz", Format::Text);
    assert!(answer.head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{}", answer.head);
    assert!(answer.body.starts_with("worker 0 has not been heard of for 4 s"), "{}", answer.body);
    // Idle ones have been.
    let answer = ask(&mut running, "HEAD", "/healthz", Format::Text);
    assert!(answer.head.starts_with("HTTP/1.1 200 ") && answer.body.is_empty());
    drop(workers);
    dataplane.stop().unwrap();
}
