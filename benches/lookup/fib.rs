//! Longest-prefix match on tables shaped like the Internet's.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use ip_network::{Ipv4Network, Ipv6Network};
use ip_network_table::IpNetworkTable;
use overplane::fib::{Fib, NextHopId, Prefix, Rib};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;

use crate::routes;

/// Keys looked up in one call.
const BATCH: usize = 64;

/// Keys of one measurement, and of all before they repeat: more than a branch predictor can learn.
const ROUND: usize = 128 * BATCH;
const KEYS: usize = 32 * ROUND;

const ADDRESSES_CHECKED: usize = 5000;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

pub(crate) fn v4(criterion: &mut Criterion) {
    for (name, count) in [("1k", 1000), ("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000)] {
        let mut group = criterion.benchmark_group(format!("fib/v4/{name}"));
        group.throughput(Throughput::Elements(ROUND as u64));
        let routes = routes::v4(count);
        let fib = rib(routes.iter().map(|(address, len, hop)| (prefix_v4(*address, *len), *hop)))
            .publish();
        let keys = routes::hits_v4(&routes, KEYS);
        let misses = misses(routes::random_v4(), |key| fib.lookup_v4(*key).is_none());
        let pop: Poptrie<(u32, u8), u32> =
            routes.iter().map(|(address, len, hop)| ((*address, *len), *hop)).collect();
        let (mut trie, mut table) = (PrefixMap::<(u32, u8), u32>::new(), IpNetworkTable::new());
        for (address, len, hop) in &routes {
            trie.insert((*address, *len), *hop);
            table.insert(Ipv4Network::new(Ipv4Addr::from_bits(*address), *len).unwrap(), *hop);
        }
        let by_trie = |key: u32| trie.get_lpm(&(key, 32)).map(|(_, hop)| *hop);
        let by_table = |key: u32| table.longest_match_ipv4(key.into()).map(|(_, hop)| *hop);
        for key in
            keys.iter().chain(&misses).step_by((keys.len() + misses.len()) / ADDRESSES_CHECKED)
        {
            let hop = fib.lookup_v4(*key).map(NextHopId::get);
            assert_eq!((hop, hop, hop), (pop.lookup(*key).copied(), by_trie(*key), by_table(*key)));
        }
        report_memory(&fib, count, trie.mem_size());
        let mut hops = [None; BATCH];
        run(&mut group, "overplane", &keys, |keys| fib.lookup_batch_v4(keys, &mut hops));
        run(&mut group, "overplane, misses", &misses, |keys| fib.lookup_batch_v4(keys, &mut hops));
        one_by_one(&mut group, "overplane, single", &keys, |key| {
            fib.lookup_v4(key).map(NextHopId::get)
        });
        one_by_one(&mut group, "poptrie", &keys, |key| pop.lookup(key).copied());
        one_by_one(&mut group, "prefix-trie", &keys, by_trie);
        one_by_one(&mut group, "ip_network_table", &keys, by_table);
    }
}

pub(crate) fn v6(criterion: &mut Criterion) {
    for (name, count) in [("1k", 1000), ("10k", 10_000), ("100k", 100_000), ("250k", 250_000)] {
        let mut group = criterion.benchmark_group(format!("fib/v6/{name}"));
        group.throughput(Throughput::Elements(ROUND as u64));
        let routes = routes::v6(count);
        let fib = rib(routes.iter().map(|(address, len, hop)| (prefix_v6(*address, *len), *hop)))
            .publish();
        let keys = routes::hits_v6(&routes, KEYS);
        let misses = misses(routes::random_v6(), |key| fib.lookup_v6(*key).is_none());
        let pop: Poptrie<(u128, u8), u32> =
            routes.iter().map(|(address, len, hop)| ((*address, *len), *hop)).collect();
        let (mut trie, mut table) = (PrefixMap::<(u128, u8), u32>::new(), IpNetworkTable::new());
        for (address, len, hop) in &routes {
            trie.insert((*address, *len), *hop);
            table.insert(Ipv6Network::new(Ipv6Addr::from_bits(*address), *len).unwrap(), *hop);
        }
        let by_trie = |key: u128| trie.get_lpm(&(key, 128)).map(|(_, hop)| *hop);
        let by_table = |key: u128| table.longest_match_ipv6(key.into()).map(|(_, hop)| *hop);
        for key in
            keys.iter().chain(&misses).step_by((keys.len() + misses.len()) / ADDRESSES_CHECKED)
        {
            let hop = fib.lookup_v6(*key).map(NextHopId::get);
            assert_eq!((hop, hop, hop), (pop.lookup(*key).copied(), by_trie(*key), by_table(*key)));
        }
        report_memory(&fib, count, trie.mem_size());
        let mut hops = [None; BATCH];
        run(&mut group, "overplane", &keys, |keys| fib.lookup_batch_v6(keys, &mut hops));
        run(&mut group, "overplane, misses", &misses, |keys| fib.lookup_batch_v6(keys, &mut hops));
        one_by_one(&mut group, "overplane, single", &keys, |key| {
            fib.lookup_v6(key).map(NextHopId::get)
        });
        one_by_one(&mut group, "poptrie", &keys, |key| pop.lookup(key).copied());
        one_by_one(&mut group, "prefix-trie", &keys, by_trie);
        one_by_one(&mut group, "ip_network_table", &keys, by_table);
    }
}

/// The prefix of a route inside a /48: bits and length.
type Inside = fn(&mut routes::Numbers, u128) -> (u128, u8);

/// Routes of an overlay, all under one /48: each a /64, or a host in one of a few /64 networks, or alone in one.
pub(crate) fn v6_overlay(criterion: &mut Criterion) {
    let mut numbers = routes::Numbers(6);
    let shapes: [(&str, Inside); 3] = [
        ("networks", |_, at| (at << 64, 64)),
        ("hosts", |numbers, _| {
            let (network, host) = (numbers.below(1 << 10), numbers.below(1 << 6));
            (u128::from(network) << 64 | u128::from(host), 128)
        }),
        ("hosts alone", |numbers, at| (at << 64 | u128::from(numbers.next()), 128)),
    ];
    for (shape, route) in shapes {
        for (name, count) in [("1k", 1000), ("50k", 50_000)] {
            let mut group = criterion.benchmark_group(format!("fib/v6/overlay/{shape}/{name}"));
            group.throughput(Throughput::Elements(ROUND as u64));
            let routes: Vec<_> = (0..count)
                .map(|at| {
                    let (inside, len) = route(&mut numbers, at);
                    (0xfd12_3456_789a << 80 | inside, len, (at % 1000) as u32)
                })
                .collect();
            let fib =
                rib(routes.iter().map(|(address, len, hop)| (prefix_v6(*address, *len), *hop)))
                    .publish();
            let keys = routes::hits_v6(&routes, KEYS);
            let mut hops = [None; BATCH];
            run(&mut group, "overplane", &keys, |keys| fib.lookup_batch_v6(keys, &mut hops));
        }
    }
}

/// One change of a full table with its publication, and a full table from nothing.
pub(crate) fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fib/update/1M");
    let routes: Vec<_> = routes::v4(1_000_000)
        .into_iter()
        .map(|(address, len, hop)| (prefix_v4(address, len), NextHopId::new(hop).unwrap()))
        .collect();
    let mut rib = Rib::new();
    for (prefix, hop) in &routes {
        rib.insert(*prefix, *hop);
    }
    let mut published = rib.publish();
    let hops = [NextHopId::new(1), NextHopId::new(2)].map(Option::unwrap);
    let mut at = 0;
    let slash_24s: Vec<_> = routes.iter().map(|route| route.0).filter(|p| p.len() == 24).collect();
    let slash_9: Prefix = "64.0.0.0/9".parse().unwrap();
    let default: Prefix = "0.0.0.0/0".parse().unwrap();
    for (name, prefixes) in
        [("a /24", &slash_24s[..]), ("a /9", &[slash_9]), ("default", &[default])]
    {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                at += 1;
                rib.insert(prefixes[at % prefixes.len()], hops[at / prefixes.len() % 2]);
                published = rib.publish();
            });
        });
    }
    group.bench_function("a /24, on a clone", |bench| {
        bench.iter(|| {
            at += 1;
            let mut changed = rib.clone();
            changed.insert(slash_24s[at % slash_24s.len()], hops[at / slash_24s.len() % 2]);
            published = changed.publish();
            rib = changed;
        });
    });
    group.sample_size(10);
    group.bench_function("all, from nothing", |bench| {
        let all = || {
            let mut rib = Rib::new();
            for (prefix, hop) in &routes {
                rib.insert(*prefix, *hop);
            }
            (rib.publish(), rib)
        };
        bench.iter_batched(|| (), |()| all(), BatchSize::PerIteration);
    });
    drop(published);
}

fn prefix_v4(address: u32, len: u8) -> Prefix {
    Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(address)), len).unwrap()
}

fn prefix_v6(address: u128, len: u8) -> Prefix {
    Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(address)), len).unwrap()
}

fn rib(routes: impl Iterator<Item = (Prefix, u32)>) -> Rib {
    let mut rib = Rib::new();
    for (prefix, hop) in routes {
        rib.insert(prefix, NextHopId::new(hop).unwrap());
    }
    rib
}

fn misses<K>(keys: impl Iterator<Item = K>, is_miss: impl Fn(&K) -> bool) -> Vec<K> {
    keys.filter(is_miss).take(KEYS).collect()
}

fn report_memory(fib: &Fib, count: usize, trie: usize) {
    let per_prefix = |bytes: usize| bytes as f64 / count as f64;
    let (fib, trie) = (per_prefix(fib.memory()), per_prefix(trie));
    println!("{count} prefixes: {fib:.1} bytes each; prefix-trie: {trie:.1}");
}

/// Calls `lookup` with batches of the keys in turn.
fn run<K>(group: &mut Group<'_>, name: &str, keys: &[K], mut lookup: impl FnMut(&[K])) {
    let mut rounds = keys.chunks_exact(ROUND).cycle();
    group.bench_function(name, |bench| {
        bench.iter(|| {
            for batch in rounds.next().unwrap().chunks_exact(BATCH) {
                lookup(black_box(batch));
            }
        });
    });
}

fn one_by_one<K: Copy>(
    group: &mut Group<'_>,
    name: &str,
    keys: &[K],
    lookup: impl Fn(K) -> Option<u32>,
) {
    let mut hops = [None; BATCH];
    run(group, name, keys, |keys| {
        for (key, hop) in keys.iter().zip(&mut hops) {
            *hop = lookup(*key);
        }
        black_box(&hops);
    });
}
