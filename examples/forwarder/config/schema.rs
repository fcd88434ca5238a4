//! What the configuration file can say.

mod capture;
mod entries;
mod gateway;
mod limits;
mod mtu;
mod neighbours;
mod port;
mod privileges;
mod probing;
mod segment;
mod snooping;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use overplane::{Config, DontFragment, ParseOffloadsError};
use toml::Spanned;
use toml::de::DeTable;

use super::reader::{Item, Once, Problems, Section};
use crate::plan::{self, Plan};
use crate::report::Format;
use crate::{outer, values};

const DATAPLANE: &[&str] = &[
    "local",
    "second_local",
    "workers",
    "fdb_capacity",
    "batch",
    "source_ports",
    "source_port_range",
    "receive_buffer",
    "send_buffer",
    "dont_fragment",
    "zero_checksums",
    "path_mtu_expiry",
    "probing",
    "follow_host",
    "reserved_bits",
    "offload",
    "spin",
];

/// Reads the whole file. What it returns is to be used only if no problem was found.
pub fn plan(table: &Spanned<DeTable<'_>>, problems: &mut Problems) -> Plan {
    let root = Section::new("", 1, table.get_ref(), problems);
    root.only(
        &["stats", "control", "metrics", "privileges", "capture", "dataplane", "segment"],
        &[],
        "",
        problems,
    );
    let stats = root.get("stats").and_then(|item| {
        item.text("\"text\" or \"json\"", |text| Format::from_str(text, false).ok(), problems)
    });
    let metrics = root.get("metrics").and_then(|item| {
        let section = item.section(problems)?;
        section.only(&["address"], &[], "", problems);
        let address = section.need("address", values::LISTENER, problems)?;
        address.text(values::LISTENER, values::listener, problems)
    });
    let privileges = privileges::read(&root, problems);
    let control = root.get("control").and_then(|item| {
        let read = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        item.text("an absolute path of a socket", read, problems)
    });
    let capture = capture::read(&root, problems);
    let config = root
        .need("dataplane", "a table with the key local", problems)
        .and_then(|item| item.section(problems))
        .map(|section| dataplane(&section, problems));
    let segments = root.need("segment", "one [[segment]] or more", problems);
    let segments = segments.map(|item| {
        let list = item.list("a list of tables, each under [[segment]]", problems);
        if item.is_empty_list() {
            item.problem("empty; allowed: one [[segment]] or more", problems);
        }
        list
    });
    let mut devices = Once::new();
    let mut names = segment::Names::default();
    // Without a local address there is nothing to compare VTEPs with.
    let locals = config.as_ref().map_or(Vec::new(), |(_, locals)| locals.clone());
    let mut planned = Vec::new();
    for item in segments.unwrap_or_default() {
        let Some(section) = item.section(problems) else { continue };
        let mut reader =
            segment::Reader { locals: locals.clone(), devices: &mut devices, names: &mut names };
        planned.extend(reader.read(&section, problems));
        let fragments = |(config, _): &(Config, _)| config.dont_fragment == DontFragment::Unset;
        if let Some(item) = section.get("probe").filter(|item| item.is(true))
            && config.as_ref().is_some_and(fragments)
        {
            item.problem(
                "true is not allowed where dataplane.dont_fragment is \"unset\"",
                problems,
            );
        }
    }
    let config = config.map(|(config, _)| config);
    Plan {
        config: config.unwrap_or_else(|| Config::new(NOWHERE)),
        stats: stats.unwrap_or_default(),
        metrics,
        privileges,
        control,
        capture,
        segments: planned,
    }
}

/// Stands for the address that a broken file does not have.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Reads `[dataplane]`; returns the local addresses once more, as far as there are any.
fn dataplane(section: &Section<'_>, problems: &mut Problems) -> (Config, Vec<IpAddr>) {
    section.only(DATAPLANE, &[], "", problems);
    let local = section
        .need("local", values::LOCAL, problems)
        .and_then(|item| item.text(values::LOCAL, values::local, problems));
    let mut config = Config::new(local.unwrap_or(NOWHERE));
    if let (Some(item), Some(first)) = (section.get("second_local"), local) {
        let read = |text: &str| plan::second_local(first, values::local(text)?);
        config.second_local = item.text(plan::SECOND_LOCAL, read, problems);
    }
    let mut number = |key: &str, range, target: &mut usize| {
        let value = section.get(key).and_then(|item: Item<'_>| item.integer(range, problems));
        *target = value.map_or(*target, |value| value as usize);
    };
    number("workers", values::WORKERS, &mut config.workers);
    number("fdb_capacity", values::FDB_CAPACITY, &mut config.fdb_capacity);
    number("batch", values::BATCH, &mut config.batch);
    number("source_ports", values::SOURCE_PORTS, &mut config.source_ports);
    number("receive_buffer", values::BUFFER, &mut config.receive_buffer);
    number("send_buffer", values::BUFFER, &mut config.send_buffer);
    let mut spin = config.spin.as_micros() as usize;
    number("spin", values::SPIN, &mut spin);
    config.spin = Duration::from_micros(spin as u64);
    let mut expiry = config.path_mtu_expiry.as_secs() as usize;
    number("path_mtu_expiry", values::PATH_MTU_EXPIRY, &mut expiry);
    config.path_mtu_expiry = Duration::from_secs(expiry as u64);
    config.probing = probing::read(section, problems);
    if let Some(item) = section.get("source_port_range")
        && let Some(range) = item.text(outer::PORT_RANGE, outer::port_range, problems)
    {
        config.source_port_range = range;
    }
    if let Some(item) = section.get("dont_fragment")
        && let Some(value) = item.text(outer::DONT_FRAGMENT, outer::dont_fragment, problems)
    {
        config.dont_fragment = value;
    }
    if let Some(item) = section.get("zero_checksums")
        && let Some(value) = item.text(outer::ZERO_CHECKSUMS, outer::zero_checksums, problems)
    {
        config.zero_checksums = value;
    }
    if let Some(value) = section.get("follow_host").and_then(|item| item.boolean(problems)) {
        config.follow_host = value;
    }
    if let Some(item) = section.get("reserved_bits")
        && let Some(value) = item.text(values::RESERVED_BITS, values::reserved_bits, problems)
    {
        config.reserved_bits = value;
    }
    if let Some(item) = section.get("offload") {
        match item.as_text().map(str::parse) {
            Some(Ok(offloads)) => config.offloads = offloads,
            Some(Err(error)) => {
                let error: ParseOffloadsError = error;
                item.problem(error, problems);
            }
            None => item.refuse("\"auto\", \"off\", or names joined by commas", problems),
        }
    }
    let locals = local.into_iter().chain(config.second_local).collect();
    (config, locals)
}
