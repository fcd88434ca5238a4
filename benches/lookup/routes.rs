//! Routes shaped like the full tables of the Internet: how long prefixes are, and how they nest.
//!
//! Lengths follow what BGP collectors show (IPv4: 60 % are /24; IPv6: half are /48, and /32 leads the rest). Addresses
//! come from allocations: half of the routes are more specific than another one, and neighbours tend to follow each
//! other.

use std::collections::HashSet;

/// Number of next hops the routes lead to.
pub(crate) const NEXT_HOPS: u32 = 1000;

/// Routes per 10,000 by length.
const V4_LENGTHS: [(u8, u64); 17] = [
    (8, 1),
    (9, 1),
    (10, 1),
    (11, 1),
    (12, 3),
    (13, 6),
    (14, 12),
    (15, 21),
    (16, 137),
    (17, 83),
    (18, 141),
    (19, 250),
    (20, 442),
    (21, 521),
    (22, 1102),
    (23, 1010),
    (24, 6268),
];
const V6_LENGTHS: [(u8, u64); 20] = [
    (20, 1),
    (24, 2),
    (26, 1),
    (28, 15),
    (29, 240),
    (30, 60),
    (31, 50),
    (32, 1180),
    (33, 200),
    (34, 170),
    (35, 90),
    (36, 430),
    (38, 160),
    (39, 60),
    (40, 950),
    (42, 250),
    (44, 920),
    (46, 320),
    (47, 290),
    (48, 4611),
];
/// The blocks the registries hand out from.
const V6_BLOCKS: [(u128, u8); 7] = [
    (0x2001 << 112, 16),
    (0x2400 << 112, 12),
    (0x2600 << 112, 12),
    (0x2800 << 112, 12),
    (0x2a00 << 112, 12),
    (0x2c00 << 112, 12),
    (0x2000 << 112, 4),
];

/// Numbers that are the same in every run (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn length(&mut self, lengths: &[(u8, u64)]) -> u8 {
        let mut at = self.below(lengths.iter().map(|(_, share)| share).sum());
        for (len, share) in lengths {
            if at < *share {
                return *len;
            }
            at -= share;
        }
        unreachable!()
    }
}

/// A prefix, as bits at the top of 128, with the number of a next hop.
type Route = (u128, u8, u32);

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// `count` distinct routes in random order.
fn routes(
    count: usize,
    lengths: &[(u8, u64)],
    longest: u8,
    mut allocation: impl FnMut(&mut Numbers) -> u128,
) -> Vec<Route> {
    let mut numbers = Numbers(1);
    let mut seen = HashSet::with_capacity(count);
    let mut routes: Vec<Route> = Vec::with_capacity(count);
    let mut wanted: Vec<u8> = (0..count).map(|_| numbers.length(lengths)).collect();
    wanted.sort_unstable(); // the covering ones first
    let mut previous = (0, 0);
    for len in wanted {
        loop {
            let step = 1_u128 << (128 - len);
            let address = match numbers.below(10) {
                // The neighbour of the last one.
                0..4 if previous.1 == len => previous.0 + step,
                // Inside another one.
                0..8 if !routes.is_empty() => {
                    let (outer, outer_len, _) = routes[numbers.below(routes.len() as u64) as usize];
                    // Low subnets are used more than high ones.
                    let inside = numbers.wide() & !mask(outer_len);
                    outer | inside >> numbers.below(u64::from(longest - outer_len) / 3 + 1)
                }
                _ => allocation(&mut numbers),
            } & mask(len);
            previous = (address, len);
            if seen.insert((address, len)) {
                routes.push((address, len, numbers.below(u64::from(NEXT_HOPS)) as u32));
                break;
            }
        }
    }
    for at in (1..routes.len()).rev() {
        routes.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    routes
}

/// `count` IPv4 routes in random order: address, length, next hop.
pub(crate) fn v4(count: usize) -> Vec<(u32, u8, u32)> {
    let unicast = |numbers: &mut Numbers| {
        let first = 1 + numbers.below(223);
        u128::from(first << 56 | numbers.next() >> 8) << 64
    };
    let routes = routes(count, &V4_LENGTHS, 32, unicast);
    routes.into_iter().map(|(address, len, hop)| ((address >> 96) as u32, len, hop)).collect()
}

/// `count` IPv6 routes in random order: address, length, next hop.
pub(crate) fn v6(count: usize) -> Vec<(u128, u8, u32)> {
    routes(count, &V6_LENGTHS, 64, |numbers| {
        let (block, len) = V6_BLOCKS[numbers.below(V6_BLOCKS.len() as u64) as usize];
        // Registries hand out from the low end of their blocks.
        block | (numbers.wide() & !mask(len)) >> numbers.below(6)
    })
}

/// Addresses inside routes picked at random.
pub(crate) fn hits_v4(routes: &[(u32, u8, u32)], count: usize) -> Vec<u32> {
    let mut numbers = Numbers(2);
    let mut one = || {
        let (address, len, _) = routes[numbers.below(routes.len() as u64) as usize];
        address | (u64::from(numbers.next() as u32) >> len) as u32
    };
    (0..count).map(|_| one()).collect()
}

/// Addresses inside routes picked at random.
pub(crate) fn hits_v6(routes: &[(u128, u8, u32)], count: usize) -> Vec<u128> {
    let mut numbers = Numbers(2);
    let mut one = || {
        let (address, len, _) = routes[numbers.below(routes.len() as u64) as usize];
        address | (numbers.wide() & !mask(len))
    };
    (0..count).map(|_| one()).collect()
}

/// Unicast addresses at random.
pub(crate) fn random_v4() -> impl Iterator<Item = u32> {
    let mut numbers = Numbers(5);
    std::iter::repeat_with(move || {
        (1 + numbers.below(223) as u32) << 24 | numbers.next() as u32 >> 8
    })
}

/// Global unicast addresses at random.
pub(crate) fn random_v6() -> impl Iterator<Item = u128> {
    let mut numbers = Numbers(5);
    std::iter::repeat_with(move || 1 << 125 | numbers.wide() >> 3)
}
