//! The FDB at full load, beside hash maps: [`HashMap`] with its own and with a fast hash, which one thread may change
//! while no other looks, and [`DashMap`], which several may.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use dashmap::DashMap;
use overplane::MacAddr;
use overplane::fdb::{Domain, Fdb, Learned, Limits, Place};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Lookups in one iteration.
const CHUNK: usize = 1_000;

const SECOND: u32 = 7;

/// A generator of numbers without a pattern (Marsaglia, Xorshift RNGs, 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Individual, locally administered addresses.
    fn macs(&mut self, count: usize, prefix: u8) -> Vec<MacAddr> {
        let mac = |number: u64| {
            let [_, _, b, c, d, e, f, g] = number.to_be_bytes();
            MacAddr([prefix, b ^ c, d, e, f, g])
        };
        (0..count).map(|_| mac(self.next())).collect()
    }
}

/// Goes through addresses in their order, around the end.
struct Chunks<'a> {
    macs: &'a [MacAddr],
    next: usize,
}

impl<'a> Chunks<'a> {
    fn new(macs: &'a [MacAddr]) -> Self {
        Self { macs, next: 0 }
    }

    fn next(&mut self) -> &'a [MacAddr] {
        let start = self.next;
        self.next = if start + 2 * CHUNK > self.macs.len() { 0 } else { start + CHUNK };
        &self.macs[start..start + CHUNK]
    }
}

struct Full {
    fdb: Fdb,
    domain: Domain,
    place: Place,
    /// In the order in which they are looked up, which is not that in which they were learned.
    known: Vec<MacAddr>,
    unknown: Vec<MacAddr>,
}

impl Full {
    fn new(size: usize) -> Self {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let (mut known, unknown) = (numbers.macs(size, 2), numbers.macs(size, 6));
        let fdb = Fdb::new(size).unwrap();
        let limits = Limits { entries: size, ..Limits::default() };
        let (domain, place) = (fdb.add_domain(limits, 0).unwrap(), fdb.add_place(1).unwrap());
        for mac in &known {
            let learned = fdb.learn(&domain, *mac, &place, SECOND, |_| ());
            assert!(matches!(learned, Learned::New | Learned::Known), "{learned:?}");
        }
        // One of some ten thousand has had to go for another one.
        known.retain(|mac| fdb.lookup(&domain, *mac, SECOND).is_some());
        for last in (1..known.len()).rev() {
            known.swap(last, numbers.next() as usize % (last + 1));
        }
        Self { fdb, domain, place, known, unknown }
    }

    fn macs(&self, hit: bool) -> &[MacAddr] {
        if hit { &self.known } else { &self.unknown }
    }
}

fn look_up(criterion: &mut Criterion, name: &str, hit: bool) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(CHUNK as u64));
    for size in SIZES {
        let full = Full::new(size);
        let macs = full.macs(hit);
        let mut found = [None; CHUNK];
        let mut chunks = Chunks::new(macs);
        group.bench_function(BenchmarkId::new("batch", size), |bencher| {
            bencher.iter(|| {
                let macs = chunks.next();
                full.fdb.lookup_batch(&full.domain, macs, SECOND, &mut found);
                black_box(&found);
            });
            assert!(found.iter().all(|found| found.is_some() == hit));
        });
        let mut chunks = Chunks::new(macs);
        group.bench_function(BenchmarkId::new("single", size), |bencher| {
            bencher.iter(|| {
                for mac in chunks.next() {
                    black_box(full.fdb.lookup(&full.domain, *mac, SECOND));
                }
            });
        });
        map(&mut group, "std", size, &full, macs, RandomState::new());
        map(&mut group, "foldhash", size, &full, macs, foldhash::fast::RandomState::default());
        let mut dash: DashMap<MacAddr, u32, _> =
            DashMap::with_capacity_and_hasher(size, foldhash::fast::RandomState::default());
        dash.extend(full.known.iter().map(|mac| (*mac, 1)));
        let mut chunks = Chunks::new(macs);
        group.bench_function(BenchmarkId::new("dashmap", size), |bencher| {
            bencher.iter(|| {
                for mac in chunks.next() {
                    black_box(dash.get(mac).map(|place| *place));
                }
            });
        });
    }
    group.finish();
}

fn map<S: BuildHasher>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    size: usize,
    full: &Full,
    macs: &[MacAddr],
    hasher: S,
) {
    let mut map = HashMap::with_capacity_and_hasher(size, hasher);
    map.extend(full.known.iter().map(|mac| (*mac, (1_u32, SECOND))));
    let mut chunks = Chunks::new(macs);
    group.bench_function(BenchmarkId::new(name, size), |bencher| {
        bencher.iter(|| {
            for mac in chunks.next() {
                black_box(map.get(mac).copied());
            }
        });
    });
}

/// Addresses that are known.
pub(crate) fn hit(criterion: &mut Criterion) {
    look_up(criterion, "fdb/hit", true);
}

/// Addresses that are not.
pub(crate) fn miss(criterion: &mut Criterion) {
    look_up(criterion, "fdb/miss", false);
}

/// What a frame's source costs: known in this second, known since before, and new where one of the old must go.
pub(crate) fn learn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fdb/learn");
    group.throughput(Throughput::Elements(CHUNK as u64));
    for size in SIZES {
        let full = Full::new(size);
        let Full { fdb, domain, place, .. } = &full;
        let mut learn = |name, macs, step| {
            let (mut chunks, mut second) = (Chunks::new(macs), SECOND);
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    // As if all entries were seen in this second.
                    second += if chunks.next == 0 { step } else { 0 };
                    for mac in chunks.next() {
                        let _ = black_box(fdb.learn(domain, *mac, place, second, |_| ()));
                    }
                });
            });
        };
        learn("known", &full.known, 0);
        learn("refresh", &full.known, 1);
        learn("evict", &full.unknown, 0);
    }
    group.finish();
}

/// How large a full table is, which is no matter of time.
pub(crate) fn memory(_: &mut Criterion) {
    for size in SIZES {
        let full = Full::new(size);
        let learned = full.domain.entries();
        println!(
            "fdb/memory/{size}: {} bytes, {:.1} for each of {learned} entries",
            full.fdb.bytes(),
            full.fdb.bytes() as f64 / learned as f64
        );
    }
}
