//! What the configuration file can say.

mod entries;
mod gateway;
mod limits;
mod mtu;
mod neighbours;
mod port;
mod probing;
mod segment;
mod snooping;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::ValueEnum;
use overplane::limits::{MAX_FDB_CAPACITY, MAX_SLOTS, MAX_WORKERS};
use overplane::wire::vxlan::ReservedBits;
use overplane::{Config, DontFragment, ParseOffloadsError};
use toml::Spanned;
use toml::de::DeTable;

use super::reader::{Item, Once, Problems, Section};
use crate::outer;
use crate::plan::{self, Plan};
use crate::report::Format;

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

/// Largest socket buffer that can be asked for, in bytes.
const MAX_BUFFER: u64 = 1 << 30;

/// Longest time for which a path MTU is remembered, in seconds.
const MAX_PATH_MTU_EXPIRY: u64 = 86_400;

/// Longest spin, in microseconds.
const MAX_SPIN: u64 = 10_000;

/// Largest number of source ports.
const MAX_SOURCE_PORTS: u64 = 64;

/// Reads the whole file. What it returns is to be used only if no problem was found.
pub fn plan(table: &Spanned<DeTable<'_>>, problems: &mut Problems) -> Plan {
    let root = Section::new("", 1, table.get_ref(), problems);
    root.only(&["stats", "dataplane", "segment"], &[], "", problems);
    let stats = root.get("stats").and_then(|item| {
        item.text("\"text\" or \"json\"", |text| Format::from_str(text, false).ok(), problems)
    });
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
        segments: planned,
    }
}

/// Stands for the address that a broken file does not have.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Reads `[dataplane]`; returns the local addresses once more, as far as there are any.
fn dataplane(section: &Section<'_>, problems: &mut Problems) -> (Config, Vec<IpAddr>) {
    section.only(DATAPLANE, &[], "", problems);
    let allowed = "a unicast address of this node";
    let local = section.need("local", allowed, problems).and_then(|item| {
        let read = |text: &str| text.parse().ok().filter(|ip| plan::is_unicast(*ip));
        item.text(allowed, read, problems)
    });
    let mut config = Config::new(local.unwrap_or(NOWHERE));
    if let (Some(item), Some(first)) = (section.get("second_local"), local) {
        let other = |ip: &IpAddr| plan::is_unicast(*ip) && ip.is_ipv4() != first.is_ipv4();
        let read = |text: &str| text.parse().ok().filter(other);
        let allowed = "a unicast address of this node, of the other family than local";
        config.second_local = item.text(allowed, read, problems);
    }
    let mut number = |key: &str, range, target: &mut usize| {
        let value = section.get(key).and_then(|item: Item<'_>| item.integer(range, problems));
        *target = value.map_or(*target, |value| value as usize);
    };
    number("workers", 1..=MAX_WORKERS as u64, &mut config.workers);
    number("fdb_capacity", 1..=MAX_FDB_CAPACITY as u64, &mut config.fdb_capacity);
    number("batch", 1..=MAX_SLOTS as u64, &mut config.batch);
    number("source_ports", 0..=MAX_SOURCE_PORTS, &mut config.source_ports);
    number("receive_buffer", 4096..=MAX_BUFFER, &mut config.receive_buffer);
    number("send_buffer", 4096..=MAX_BUFFER, &mut config.send_buffer);
    let mut spin = config.spin.as_micros() as usize;
    number("spin", 0..=MAX_SPIN, &mut spin);
    config.spin = Duration::from_micros(spin as u64);
    let mut expiry = config.path_mtu_expiry.as_secs() as usize;
    number("path_mtu_expiry", 1..=MAX_PATH_MTU_EXPIRY, &mut expiry);
    config.path_mtu_expiry = Duration::from_secs(expiry as u64);
    config.probing = probing::read(section, problems);
    if let Some(item) = section.get("source_port_range")
        && item.as_text() != Some("host")
    {
        let allowed = format!("\"host\", or {}", outer::PORT_RANGE);
        config.source_port_range = item.text(allowed, outer::port_range, problems);
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
    if let Some(value) = section.get("reserved_bits").and_then(|item| {
        let read = |text: &str| match text {
            "ignore" => Some(ReservedBits::Ignore),
            "strict" => Some(ReservedBits::Strict),
            _ => None,
        };
        item.text("\"ignore\" or \"strict\"", read, problems)
    }) {
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
