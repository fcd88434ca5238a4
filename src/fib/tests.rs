//! The FIB against the simplest thing that can be right.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Fib, NextHopId, Prefix, Rib};

#[path = "../../benches/lookup/routes.rs"]
#[allow(dead_code, reason = "shared with the benchmarks")]
mod routes;

fn hop(number: u32) -> NextHopId {
    NextHopId::new(number).unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn v4(address: u32, len: u8) -> Prefix {
    Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(address)), len).unwrap()
}

fn v6(address: u128, len: u8) -> Prefix {
    Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(address)), len).unwrap()
}

#[test]
fn the_longest_prefix_wins_whatever_the_order() {
    let mut rib = Rib::new();
    for (text, n) in [("10.0.0.0/8", 8), ("0.0.0.0/0", 0), ("10.1.0.0/16", 16), ("10.1.2.3/32", 32)]
    {
        assert_eq!(rib.insert(prefix(text), hop(n)), None);
    }
    let fib = rib.publish();
    let next = |text: &str| fib.lookup(text.parse().unwrap());
    assert_eq!(next("10.1.2.3"), Some(hop(32)));
    assert_eq!(next("10.1.2.4"), Some(hop(16)));
    assert_eq!(next("10.2.0.1"), Some(hop(8)));
    assert_eq!(next("192.0.2.1"), Some(hop(0)));
    assert_eq!(next("2001:db8::1"), None, "an IPv4 default route is none for IPv6");
}

#[test]
fn next_hops_have_a_largest_number() {
    assert_eq!(NextHopId::new(NextHopId::MAX).map(NextHopId::get), Some(NextHopId::MAX));
    assert_eq!(NextHopId::new(NextHopId::MAX + 1), None);
    assert_eq!(size_of::<Option<NextHopId>>(), 4);
}

/// A scan over a list of routes, longest first.
fn scan(model: &BTreeMap<Prefix, NextHopId>, address: IpAddr) -> Option<NextHopId> {
    let containing = model.iter().filter(|(prefix, _)| prefix.contains(address));
    containing.max_by_key(|(prefix, _)| prefix.len()).map(|(_, hop)| *hop)
}

/// Asks for each length, longest first.
fn by_length(model: &BTreeMap<Prefix, NextHopId>, address: IpAddr) -> Option<NextHopId> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (0..=bits).rev().find_map(|len| model.get(&Prefix::new(address, len)?).copied())
}

/// Single and batch lookups agree with the model.
fn check(fib: &Fib, probes: &[IpAddr], expected: impl Fn(IpAddr) -> Option<NextHopId>) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for probe in probes {
        assert_eq!(fib.lookup(*probe), expected(*probe), "{probe}");
        match probe {
            IpAddr::V4(v4) => four.push(v4.to_bits()),
            IpAddr::V6(v6) => six.push(v6.to_bits()),
        }
    }
    let mut next_hops = vec![None; four.len().max(six.len())];
    fib.lookup_batch_v4(&four, &mut next_hops);
    assert!(four.iter().zip(&next_hops).all(|(at, hop)| *hop == fib.lookup_v4(*at)));
    fib.lookup_batch_v6(&six, &mut next_hops);
    assert!(six.iter().zip(&next_hops).all(|(at, hop)| *hop == fib.lookup_v6(*at)));
}

/// The first and the last address of a prefix, and those around it.
fn edges(prefix: Prefix) -> [IpAddr; 4] {
    match prefix.address() {
        IpAddr::V4(first) => {
            let first = first.to_bits();
            let last = first | u32::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|at| Ipv4Addr::from_bits(at).into())
        }
        IpAddr::V6(first) => {
            let first = first.to_bits();
            let last = first | u128::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|at| Ipv6Addr::from_bits(at).into())
        }
    }
}

/// Prefixes that nest and collide: few distinct bits, at both ends and where the structures change their step.
fn any_prefix() -> impl Strategy<Value = Prefix> {
    let bits =
        prop::sample::select(vec![0_u8, 1, 5, 6, 11, 12, 13, 15, 16, 18, 19, 23, 24, 27, 31]);
    let v4 = (prop::collection::vec(bits, 0..4), 0_u8..=32)
        .prop_map(|(bits, len)| v4(bits.iter().fold(0, |a, bit| a | 1 << (31 - bit)), len));
    let bits = prop::sample::select(vec![0_u8, 1, 31, 47, 62, 63, 64, 65, 96, 126, 127]);
    let len = prop_oneof![0_u8..=128, 62_u8..=66];
    let v6 = (prop::collection::vec(bits, 0..4), len)
        .prop_map(|(bits, len)| v6(bits.iter().fold(0, |a, bit| a | 1 << (127 - bit)), len));
    prop_oneof![v4, v6]
}

/// Small next hops, and such that take four bytes.
fn any_hop() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0_u32..5, 1 => 32_764_u32..32_770, 1 => NextHopId::MAX - 2..=NextHopId::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in whatever steps, what is published agrees with a scan, and stays as it was.
    #[test]
    fn agrees_with_a_linear_scan(
        steps in prop::collection::vec(
            prop::collection::vec((any_prefix(), prop::option::weighted(0.7, any_hop())), 0..20),
            1..5,
        ),
    ) {
        let (mut rib, mut model) = (Rib::new(), BTreeMap::new());
        let mut published = Vec::new();
        let mut probes = Vec::new();
        for step in steps {
            for (prefix, change) in step {
                probes.extend(edges(prefix));
                match change {
                    Some(n) => prop_assert_eq!(rib.insert(prefix, hop(n)), model.insert(prefix, hop(n))),
                    None => prop_assert_eq!(rib.remove(prefix), model.remove(&prefix)),
                }
                prop_assert_eq!(rib.get(prefix), model.get(&prefix).copied());
            }
            // What is not published is not seen; a clone that is dropped leaves nothing behind.
            let mut dropped = rib.clone();
            for prefix in model.keys().take(3) {
                dropped.remove(*prefix);
            }
            dropped.publish();
            published.push((rib.publish(), model.clone()));
            prop_assert_eq!(rib.len(), model.len());
            prop_assert!(rib.iter().eq(model.iter().map(|(prefix, hop)| (*prefix, *hop))));
        }
        for (fib, model) in &published {
            check(fib, &probes, |probe| scan(model, probe));
        }
    }
}

/// Adds, then changes and removes many routes in random order, publishing on the way.
fn churn(routes: &[(Prefix, u32)], at_once: usize) {
    let mut numbers = routes::Numbers(3);
    let (mut rib, mut model) = (Rib::new(), BTreeMap::new());
    let mut some = |model: &BTreeMap<Prefix, NextHopId>, fib: &Fib| {
        let probes: Vec<_> = (0..500)
            .flat_map(|_| edges(routes[numbers.below(routes.len() as u64) as usize].0))
            .collect();
        check(fib, &probes, |probe| by_length(model, probe));
    };
    for (prefix, next_hop) in routes {
        assert_eq!(rib.insert(*prefix, hop(*next_hop)), model.insert(*prefix, hop(*next_hop)));
        if model.len().is_multiple_of(at_once) {
            some(&model, &rib.publish());
        }
    }
    let whole = (rib.publish(), model.clone());
    some(&model, &whole.0);
    // A clone changes, the original does not.
    let mut changed = rib.clone();
    for (at, (prefix, next_hop)) in routes.iter().enumerate() {
        if at % 7 == 0 {
            assert_eq!(changed.insert(*prefix, hop(next_hop + 1)), Some(hop(*next_hop)));
            model.insert(*prefix, hop(next_hop + 1));
        } else {
            assert_eq!(changed.remove(*prefix), model.remove(prefix));
        }
        if at % (at_once * 2) == 0 {
            some(&model, &changed.publish());
        }
    }
    some(&model, &changed.publish());
    assert!(changed.iter().eq(model.iter().map(|(prefix, hop)| (*prefix, *hop))));
    some(&whole.1, &rib.publish());
    some(&whole.1, &whole.0);
    for prefix in model.keys() {
        assert!(changed.remove(*prefix).is_some());
    }
    assert!(changed.is_empty());
    some(&BTreeMap::new(), &changed.publish());
}

#[test]
fn a_table_like_the_internets() {
    let v4 = routes::v4(50_000).into_iter().map(|(at, len, hop)| (v4(at, len), hop));
    let v6 = routes::v6(20_000).into_iter().map(|(at, len, hop)| (v6(at, len), hop));
    churn(&v4.chain(v6).collect::<Vec<_>>(), 10_000);
}

#[test]
fn host_routes_that_crowd() {
    // 60,000 hosts of two /16, nested ones among them: more than one chunk or piece holds.
    let mut numbers = routes::Numbers(4);
    let mut some = BTreeMap::new();
    for at in 0..30_000_u32 {
        let address = 10 << 24 | numbers.below(1 << 17) as u32;
        some.insert(v4(address, 32 - numbers.below(9) as u8 / 2), at % 50);
        let host = 0xfd00 << 112 | u128::from(numbers.below(1 << 17));
        some.insert(v6(host, 128 - numbers.below(9) as u8 / 2), at);
        let network = 0xfd01 << 112 | u128::from(numbers.below(1 << 14)) << 64;
        some.insert(v6(network | u128::from(at % 3), 64 + 32 * (at % 3) as u8), at % 50);
    }
    for len in 0..=17 {
        some.insert(v4(10 << 24, len), 100 + u32::from(len));
        some.insert(v6(0xfd00 << 112, len * 6), 200 + u32::from(len));
    }
    let mut routes: Vec<_> = some.into_iter().collect();
    for at in (1..routes.len()).rev() {
        routes.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    churn(&routes, 20_000);
}

#[test]
fn what_is_left_of_a_crowd_is_covered_as_before() {
    let (network, hosts) = (0xfd00_u128 << 112, 16_384);
    let mut rib = Rib::new();
    rib.insert(v6(network, 48), hop(1));
    for at in 0..hosts {
        rib.insert(v6(network | at, 128), hop(2 + (at % 2) as u32));
    }
    let crowd = rib.publish();
    // One half goes and is compiled in larger pieces, the other one stays.
    for at in 1..hosts / 2 {
        rib.remove(v6(network | at, 128));
    }
    let fib = rib.publish();
    assert!(fib.memory() < crowd.memory() * 2 / 3);
    let found = [0, 1, hosts / 2 - 1, hosts / 2, hosts].map(|at| fib.lookup_v6(network | at));
    assert_eq!(found, [2, 1, 1, 2, 1].map(|number| Some(hop(number))));
    assert_eq!(fib.lookup_v6(network | 1 << 80), None);
    rib.remove(v6(network, 48));
    assert_eq!(rib.publish().lookup_v6(network | 1), None);
}

#[test]
fn a_full_table_takes_few_bytes_a_prefix() {
    let mut rib = Rib::new();
    // Sparser tables pay for their chunks, so it takes a large one to see.
    for (address, len, next_hop) in routes::v4(1_000_000) {
        rib.insert(v4(address, len), hop(next_hop));
    }
    let per_prefix = rib.publish().memory() as f64 / 1e6;
    assert!(per_prefix < 8.0, "{per_prefix} bytes");
}

#[test]
fn a_small_table_is_small() {
    let mut rib = Rib::new();
    for at in 0..256 {
        rib.insert(v4(10 << 24 | at << 8, 24), hop(at));
        rib.insert(v6(0xfd00 << 112 | u128::from(at) << 64, 64), hop(at));
    }
    let bytes = rib.publish().memory();
    assert!(bytes < 20_000, "{bytes} bytes");
}
