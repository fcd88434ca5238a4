//! What a change of the tables costs: one by itself beside large tables, and a million at once.
//!
//! `cargo bench --bench apply`. The tables have 64 segments, 1,000 VTEPs, 1,000,000 routes in one segment and 100,000
//! static MAC addresses in another.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overplane::{
    Change, GroupId, MacAddr, Member, NextHop, Prefix, Publisher, Reader, Segment, SegmentId,
    Tables, Vni,
};

const NOW: Duration = Duration::from_secs(1);
const SEGMENTS: u32 = 64;
const VTEPS: u32 = 1000;
const ROUTES: u32 = 1_000_000;
const MACS: u32 = 100_000;

/// Repetitions of a change by itself.
const TIMES: u32 = 200;

fn routed() -> SegmentId {
    Segment::routed(8285).id()
}

fn bridge(n: u32) -> Segment {
    Segment::bridge(Vni::new(n).unwrap())
}

fn vtep(n: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0001 + n), 4789))
}

/// Prefixes of 24 bits, spread over the address space.
fn route(n: u32) -> Change {
    let address = Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1) & 0xffff_ff00);
    let prefix = Prefix::new(address.into(), 24 + (n / ROUTES) as u8).unwrap();
    Change::InsertRoute { segment: routed(), prefix, next_hop: vtep(n % VTEPS).into() }
}

fn mac(segment: u32, n: u32) -> Change {
    let mac = MacAddr::from_u64(0x0200_0000_0000 | u64::from(n));
    Change::InsertFdb { segment: bridge(segment).id(), mac, destination: vtep(n % VTEPS).into() }
}

fn furnished() -> Tables {
    let mut tables = Tables::new("192.0.2.1".parse().unwrap(), 2).unwrap();
    let segments = (1..SEGMENTS).map(bridge).chain([Segment::routed(8285)]);
    tables.apply(NOW, segments.map(Change::AddSegment)).unwrap();
    let port =
        |n| Change::AddPort { segment: bridge(n).id(), name: format!("tap{n}"), offload: true };
    tables.apply(NOW, (1..SEGMENTS).map(port)).unwrap();
    let peers = (2..SEGMENTS).flat_map(|segment| {
        (0..VTEPS).map(move |n| Change::AddPeer { segment: bridge(segment).id(), vtep: vtep(n) })
    });
    tables.apply(NOW, peers).unwrap();
    tables
}

/// Applies and publishes `change(n)` again and again and prints the median and the longest time of each step.
fn one(tables: &mut Tables, what: &str, change: impl Fn(u32) -> Vec<Change>) {
    let publisher = Arc::new(Publisher::new(tables.clone()));
    let mut reader = Reader::new(publisher.clone());
    let mut times: [Vec<Duration>; 4] = Default::default();
    for n in 0..TIMES {
        let changes = change(n);
        let start = Instant::now();
        tables.apply(NOW, changes).unwrap();
        times[0].push(start.elapsed());
        let start = Instant::now();
        publisher.publish(tables.clone());
        times[1].push(start.elapsed());
        let start = Instant::now();
        assert!(reader.refresh());
        times[2].push(start.elapsed());
        let start = Instant::now();
        assert_eq!(publisher.reclaim(), 0);
        times[3].push(start.elapsed());
    }
    let shown = times.map(|mut times| {
        times.sort();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        format!("{:9.1} {:9.1}", micros(times[times.len() / 2]), micros(times[times.len() - 1]))
    });
    println!("{what:<28}{}", shown.join("  "));
}

fn bulk(tables: &mut Tables, what: &str, changes: Vec<Change>) {
    let count = changes.len();
    let start = Instant::now();
    tables.apply(NOW, changes).unwrap();
    let applied = start.elapsed();
    println!("{what:<28}{count:>9} changes in {:7.1} ms", applied.as_secs_f64() * 1e3);
}

fn main() {
    let mut tables = furnished();
    bulk(&mut tables, "routes", (0..ROUTES).map(route).collect());
    let mut other = tables.clone();
    bulk(&mut other, "static MAC addresses", (0..ROUTES).map(|n| mac(2, n)).collect());
    bulk(&mut other, "the same, replaced", (0..ROUTES).map(|n| mac(2, n)).collect());
    drop(other);
    bulk(&mut tables, "static MAC addresses", (0..MACS).map(|n| mac(1, n)).collect());
    let start = Instant::now();
    black_box(tables.clone());
    println!("clone {:.1} µs", start.elapsed().as_secs_f64() * 1e6);

    println!(
        "\nµs, median and longest    {:>20}  {:>19}  {:>19}  {:>19}",
        "apply", "publish", "refresh", "reclaim"
    );
    let (red, segment) = (bridge(1).id(), routed());
    one(&mut tables, "insert route", |n| vec![route(ROUTES + n)]);
    one(&mut tables, "remove route", |n| match route(ROUTES + n) {
        Change::InsertRoute { segment, prefix, .. } => {
            vec![Change::RemoveRoute { segment, prefix }]
        }
        other => vec![other],
    });
    one(&mut tables, "insert static MAC", |n| vec![mac(1, MACS + n)]);
    one(&mut tables, "insert peer", |n| {
        vec![Change::AddPeer { segment: red, vtep: vtep(VTEPS + n) }]
    });
    one(&mut tables, "remove peer", |n| {
        vec![Change::RemovePeer { segment: red, vtep: vtep(VTEPS + n) }]
    });
    one(&mut tables, "insert flood", |n| vec![Change::AddFlood { segment: red, vtep: vtep(n) }]);
    one(&mut tables, "add and remove segment", |n| match n % 2 {
        0 => vec![Change::AddSegment(bridge(SEGMENTS))],
        _ => vec![Change::RemoveSegment(bridge(SEGMENTS).id())],
    });
    one(&mut tables, "set group of 8 members", |n| {
        let members = (0..8).map(|m| Member::new(vtep(n + m), 1)).collect();
        vec![Change::SetGroup { segment, group: GroupId(1), members }]
    });
    one(&mut tables, "blackhole", |n| match route(ROUTES + n) {
        Change::InsertRoute { segment, prefix, .. } => {
            vec![Change::InsertRoute { segment, prefix, next_hop: NextHop::Blackhole }]
        }
        other => vec![other],
    });
}
