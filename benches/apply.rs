//! What a change of the tables costs: one by itself beside large tables, and a million at once.
//!
//! And what a worker feels of it: the times of its batches while nothing changes, under a stream of single changes, and
//! during a change of a million routes.
//!
//! `cargo bench --bench apply`. The tables have 64 segments, 1,000 VTEPs, 1,000,000 routes in one segment and 100,000
//! static MAC addresses in another.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use overplane::wire::{VnetHeader, ip};
use overplane::{
    Batch, Change, Forwarder, GroupId, MacAddr, Member, NextHop, Output, PortId, PortOptions,
    Prefix, Publisher, Reader, Segment, SegmentId, Tables, Vni,
};

const NOW: Duration = Duration::from_secs(1);
const SEGMENTS: u32 = 64;
const VTEPS: u32 = 1000;

/// Packets of a batch.
const BATCH: usize = 32;

/// Whether to measure; otherwise, as under `cargo test`, all is a thousandth as large.
static MEASURE: LazyLock<bool> = LazyLock::new(|| std::env::args().any(|arg| arg == "--bench"));

fn scaled(n: u32) -> u32 {
    if *MEASURE { n } else { n / 1000 }
}

fn routes() -> u32 {
    scaled(1_000_000)
}

fn macs() -> u32 {
    scaled(100_000)
}

/// Repetitions of a change by itself.
fn times() -> u32 {
    if *MEASURE { 200 } else { 2 }
}

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
    route_to(n, n)
}

fn route_to(n: u32, peer: u32) -> Change {
    let address = Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1) & 0xffff_ff00);
    let prefix = Prefix::new(address.into(), 24 + (n / routes()) as u8).unwrap();
    Change::InsertRoute { segment: routed(), prefix, next_hop: vtep(peer % VTEPS).into() }
}

fn mac(segment: u32, n: u32) -> Change {
    let mac = MacAddr::from_u64(0x0200_0000_0000 | u64::from(n));
    Change::InsertFdb { segment: bridge(segment).id(), mac, destination: vtep(n % VTEPS).into() }
}

fn furnished() -> Tables {
    let mut tables = Tables::new("192.0.2.1".parse().unwrap(), 2).unwrap();
    let segments = (1..SEGMENTS).map(bridge).chain([Segment::routed(8285)]);
    tables.apply(NOW, segments.map(Change::AddSegment)).unwrap();
    let port = |n| Change::AddPort {
        segment: bridge(n).id(),
        name: format!("tap{n}"),
        offload: true,
        options: PortOptions::default(),
    };
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
    let mut taken: [Vec<Duration>; 4] = Default::default();
    for n in 0..times() {
        let changes = change(n);
        let start = Instant::now();
        tables.apply(NOW, changes).unwrap();
        taken[0].push(start.elapsed());
        let start = Instant::now();
        publisher.publish(tables.clone());
        taken[1].push(start.elapsed());
        let start = Instant::now();
        assert!(reader.refresh());
        taken[2].push(start.elapsed());
        let start = Instant::now();
        assert_eq!(publisher.reclaim(), 0);
        taken[3].push(start.elapsed());
    }
    let shown = taken.map(|mut times| {
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

/// What a worker does, batch after batch, and how long each took.
struct Worker {
    reader: Reader<Tables>,
    port: PortId,
    batch: Batch,
    output: Output,
    forwarder: Forwarder,
    packet: Vec<u8>,
}

impl Worker {
    fn new(publisher: &Arc<Publisher<Tables>>, port: PortId) -> Self {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [0; 4], 64)
            .udp(1, 2)
            .write(&mut packet, &[0; 36])
            .unwrap();
        Self {
            reader: Reader::new(publisher.clone()),
            port,
            batch: Batch::new(BATCH),
            output: Output::new(),
            forwarder: Forwarder::new(0),
            packet,
        }
    }

    /// One batch to destinations all over the table; returns the time of the refresh and of all.
    fn turn(&mut self, n: u32) -> (Duration, Duration) {
        self.batch.clear();
        self.output.clear();
        for place in 0..BATCH as u32 {
            let to = (n * BATCH as u32 + place).wrapping_mul(0x85eb_ca6b) % routes();
            let to = to.wrapping_mul(0x9e37_79b1) & 0xffff_ff00 | 1;
            self.packet[16..20].copy_from_slice(&to.to_be_bytes());
            self.packet[10..12].fill(0);
            let check = ip::v4_header_checksum(&self.packet[..20]);
            self.packet[10..12].copy_from_slice(&check.to_be_bytes());
            assert!(self.batch.push(&self.packet, VnetHeader::default()));
        }
        let start = Instant::now();
        self.reader.refresh();
        let refreshed = start.elapsed();
        let tables = self.reader.value();
        self.forwarder.from_port(tables, NOW, self.port, &mut self.batch, &mut self.output);
        black_box(&self.output);
        (refreshed, start.elapsed())
    }
}

/// A batch that took longer is looked into: the CPU may have been given to others meanwhile.
const DISPLACED: Duration = Duration::from_micros(20);

/// Nanoseconds for which this thread was ready to run and another one had the CPU (kernel
/// `Documentation/scheduler/sched-stats.rst`); nothing where the kernel does not say.
fn run_delay() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Runs a worker on a thread of its own while `control` does what it does, and prints what the worker felt.
fn beside(publisher: &Arc<Publisher<Tables>>, port: PortId, what: &str, control: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut worker = Worker::new(publisher, port);
            let (mut refreshes, mut batches) = (Duration::ZERO, Vec::with_capacity(1 << 22));
            let (mut n, mut displaced, mut delay) = (0_u32, 0, run_delay());
            while !done.load(Ordering::Relaxed) || n == 0 {
                n = n.wrapping_add(1);
                let (refresh, batch) = worker.turn(n);
                if batch > DISPLACED {
                    let before = std::mem::replace(&mut delay, run_delay());
                    if delay > before {
                        displaced += 1;
                        continue;
                    }
                }
                refreshes = refreshes.max(refresh);
                batches.push(batch);
            }
            (refreshes, batches, displaced)
        });
        control();
        done.store(true, Ordering::Relaxed);
        let (refresh, mut batches, displaced) = worker.join().unwrap();
        batches.sort();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |part: f64| micros(batches[(batches.len() as f64 * part) as usize]);
        println!(
            "{what:<28}{:>9} batches of {BATCH}, µs: median {:.1}, 99.9 % {:.1}, 99.99 % {:.1}, longest {:.1}; longest refresh {:.1}; {displaced} batches displaced",
            batches.len(),
            at(0.5),
            at(0.999),
            at(0.9999),
            micros(batches[batches.len() - 1]),
            micros(refresh),
        );
    });
}

/// What a worker feels of changes.
fn felt(mut tables: Tables) {
    let add = Change::AddPort {
        segment: routed(),
        name: "tun0".into(),
        offload: true,
        options: PortOptions::default(),
    };
    let port = tables.apply(NOW, [add]).unwrap()[0];
    let publisher = Arc::new(Publisher::new(tables.clone()));
    let time = Duration::from_millis(scaled(2000).into());
    beside(&publisher, port, "worker, nothing changes", || thread::sleep(time));
    let (mut changes, start) = (0, Instant::now());
    beside(&publisher, port, "worker, single changes", || {
        while start.elapsed() < time {
            tables.apply(NOW, [route_to(changes % routes(), changes + 1)]).unwrap();
            publisher.publish(tables.clone());
            publisher.reclaim();
            changes += 1;
        }
    });
    println!("{:<28}{:>9} changes meanwhile", "", changes);
    beside(&publisher, port, "worker, a million at once", || {
        tables.apply(NOW, (0..routes()).map(|n| route_to(n, n + 2))).unwrap();
        publisher.publish(tables.clone());
        drop(tables);
        while publisher.reclaim() > 0 {
            thread::yield_now();
        }
    });
}

fn main() {
    let mut tables = furnished();
    bulk(&mut tables, "routes", (0..routes()).map(route).collect());
    let mut other = tables.clone();
    bulk(&mut other, "static MAC addresses", (0..routes()).map(|n| mac(2, n)).collect());
    bulk(&mut other, "the same, replaced", (0..routes()).map(|n| mac(2, n)).collect());
    drop(other);
    bulk(&mut tables, "static MAC addresses", (0..macs()).map(|n| mac(1, n)).collect());
    let start = Instant::now();
    black_box(tables.clone());
    println!("clone {:.1} µs", start.elapsed().as_secs_f64() * 1e6);

    println!(
        "\nµs, median and longest    {:>20}  {:>19}  {:>19}  {:>19}",
        "apply", "publish", "refresh", "reclaim"
    );
    let (red, segment) = (bridge(1).id(), routed());
    one(&mut tables, "insert route", |n| vec![route(routes() + n)]);
    one(&mut tables, "remove route", |n| match route(routes() + n) {
        Change::InsertRoute { segment, prefix, .. } => {
            vec![Change::RemoveRoute { segment, prefix }]
        }
        other => vec![other],
    });
    one(&mut tables, "insert static MAC", |n| vec![mac(1, macs() + n)]);
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
    one(&mut tables, "blackhole", |n| match route(routes() + n) {
        Change::InsertRoute { segment, prefix, .. } => {
            vec![Change::InsertRoute { segment, prefix, next_hop: NextHop::Blackhole }]
        }
        other => vec![other],
    });
    println!();
    felt(tables);
}
