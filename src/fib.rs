//! The FIB of a routed segment: IP prefix → next hop, longest match first.
//!
//! One hash table for each prefix length in use, tried from the longest to the shortest.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::hash::Seeded;
use crate::segment::Location;

/// An IP prefix: an address with the number of leading bits that count.
///
/// Bits beyond the length are zero, so two equal prefixes compare equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that `address` lies in, or `None` when `len` exceeds 32 (IPv4) or 128 (IPv6).
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if len <= 32 => {
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(len)))
            }
            IpAddr::V6(v6) if len <= 128 => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(len)))
            }
            _ => return None,
        };
        Some(Self { address, len })
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that count.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "the length of a prefix is not a number of elements"
    )]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether `address` lies in the prefix.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Self::new(address, self.len) == Some(self)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not an IP prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePrefixError(String);

impl fmt::Display for ParsePrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an IP prefix: expected ADDRESS/LENGTH as in 10.7.2.0/24 or 2001:db8::/32",
            self.0
        )
    }
}

impl std::error::Error for ParsePrefixError {}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    /// Reads `ADDRESS/LENGTH`, or an address alone for the prefix of that one address.
    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let error = || ParsePrefixError(text.to_owned());
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Self::new(address, len.unwrap_or(whole)).ok_or_else(error)
    }
}

fn mask_v4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask_v6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// One family's prefixes: a table for each length in use, longest first.
#[derive(Clone, Debug)]
struct Lengths<K>(Vec<(u8, HashMap<K, Location, Seeded>)>);

impl<K: Copy + Eq + std::hash::Hash> Lengths<K> {
    fn insert(&mut self, len: u8, key: K, next_hop: Location, seed: u64) -> Option<Location> {
        // Sorted longest first, so search by the reversed order.
        let at = match self.0.binary_search_by(|(have, _)| len.cmp(have)) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (len, HashMap::with_hasher(Seeded(seed))));
                at
            }
        };
        self.0[at].1.insert(key, next_hop)
    }

    fn remove(&mut self, len: u8, key: K) -> Option<Location> {
        let at = self.0.binary_search_by(|(have, _)| len.cmp(have)).ok()?;
        let removed = self.0[at].1.remove(&key);
        if self.0[at].1.is_empty() {
            self.0.remove(at);
        }
        removed
    }

    #[inline]
    fn lookup(&self, key_at: impl Fn(u8) -> K) -> Option<Location> {
        self.0.iter().find_map(|(len, table)| table.get(&key_at(*len)).copied())
    }

    fn retain(&mut self, keep: impl Fn(Location) -> bool) {
        for (_, table) in &mut self.0 {
            table.retain(|_, hop| keep(*hop));
        }
        self.0.retain(|(_, table)| !table.is_empty());
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(_, table)| table.len()).sum()
    }

    fn iter(&self) -> impl Iterator<Item = (u8, K, Location)> {
        self.0
            .iter()
            .flat_map(|(len, table)| table.iter().map(move |(key, hop)| (*len, *key, *hop)))
    }
}

/// Prefixes with their next hops.
#[derive(Clone, Debug)]
pub(crate) struct Fib {
    v4: Lengths<u32>,
    v6: Lengths<u128>,
    seed: u64,
}

impl Fib {
    pub(crate) fn new(seed: u64) -> Self {
        Self { v4: Lengths(Vec::new()), v6: Lengths(Vec::new()), seed }
    }

    /// Adds a route, or replaces the one for the same prefix and returns its next hop.
    pub(crate) fn insert(&mut self, prefix: Prefix, next_hop: Location) -> Option<Location> {
        match prefix.address {
            IpAddr::V4(v4) => self.v4.insert(prefix.len, v4.to_bits(), next_hop, self.seed),
            IpAddr::V6(v6) => self.v6.insert(prefix.len, v6.to_bits(), next_hop, self.seed),
        }
    }

    /// Removes the route for exactly this prefix.
    pub(crate) fn remove(&mut self, prefix: Prefix) -> Option<Location> {
        match prefix.address {
            IpAddr::V4(v4) => self.v4.remove(prefix.len, v4.to_bits()),
            IpAddr::V6(v6) => self.v6.remove(prefix.len, v6.to_bits()),
        }
    }

    /// Removes every route that leads to `gone`.
    pub(crate) fn remove_next_hop(&mut self, gone: Location) {
        self.v4.retain(|hop| hop != gone);
        self.v6.retain(|hop| hop != gone);
    }

    /// Number of routes.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The next hop of the longest prefix that contains `destination`.
    #[inline]
    pub(crate) fn lookup(&self, destination: IpAddr) -> Option<Location> {
        match destination {
            IpAddr::V4(v4) => self.v4.lookup(|len| v4.to_bits() & mask_v4(len)),
            IpAddr::V6(v6) => self.v6.lookup(|len| v6.to_bits() & mask_v6(len)),
        }
    }

    /// All routes, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Prefix, Location)> {
        let v4 =
            self.v4.iter().map(|(len, key, hop)| (IpAddr::V4(Ipv4Addr::from_bits(key)), len, hop));
        let v6 =
            self.v6.iter().map(|(len, key, hop)| (IpAddr::V6(Ipv6Addr::from_bits(key)), len, hop));
        v4.chain(v6).map(|(address, len, hop)| (Prefix { address, len }, hop))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::VtepId;

    fn hop(n: u32) -> Location {
        Location::Vtep(VtepId(n))
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut fib = Fib::new(1);
        for (text, n) in
            [("10.0.0.0/8", 8), ("0.0.0.0/0", 0), ("10.1.0.0/16", 16), ("10.1.2.3/32", 32)]
        {
            assert_eq!(fib.insert(prefix(text), hop(n)), None);
        }
        let next = |text: &str| fib.lookup(text.parse().unwrap());
        assert_eq!(next("10.1.2.3"), Some(hop(32)));
        assert_eq!(next("10.1.2.4"), Some(hop(16)));
        assert_eq!(next("10.2.0.1"), Some(hop(8)));
        assert_eq!(next("192.0.2.1"), Some(hop(0)));
        assert_eq!(next("2001:db8::1"), None, "an IPv4 default route is none for IPv6");
    }

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        assert_eq!(prefix("10.7.1.9/16"), prefix("10.7.0.0/16"));
        assert_eq!(prefix("10.7.1.9/16").to_string(), "10.7.0.0/16");
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::1/128"));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few distinct bits, so that prefixes nest and collide.
        let v4 = (0_u32..8, 0_u8..=32)
            .prop_map(|(a, len)| (IpAddr::V4(Ipv4Addr::from_bits(a << 29 | a)), len));
        let v6 = (0_u128..8, 0_u8..=128)
            .prop_map(|(a, len)| (IpAddr::V6(Ipv6Addr::from_bits(a << 125 | a)), len));
        prop_oneof![v4, v6].prop_map(|(address, len)| Prefix::new(address, len).unwrap())
    }

    proptest! {
        /// The FIB agrees with a scan over a list of prefixes.
        #[test]
        fn agrees_with_a_linear_scan(
            steps in prop::collection::vec((any_prefix(), prop::option::of(0_u32..9)), 0..60),
            probes in prop::collection::vec(any_prefix(), 0..30),
        ) {
            let mut fib = Fib::new(7);
            let mut model: Vec<(Prefix, Location)> = Vec::new();
            for (prefix, change) in steps {
                let old = model.iter().find(|(have, _)| *have == prefix).map(|(_, hop)| *hop);
                model.retain(|(have, _)| *have != prefix);
                match change {
                    Some(n) => {
                        prop_assert_eq!(fib.insert(prefix, hop(n)), old);
                        model.push((prefix, hop(n)));
                    }
                    None => prop_assert_eq!(fib.remove(prefix), old),
                }
            }
            for probe in probes {
                let address = probe.address();
                let best = model.iter().filter(|(p, _)| p.contains(address)).max_by_key(|(p, _)| p.len());
                prop_assert_eq!(fib.lookup(address), best.map(|(_, hop)| *hop));
            }
            let mut listed: Vec<_> = fib.iter().map(|(prefix, _)| prefix).collect();
            let mut expected: Vec<_> = model.iter().map(|(prefix, _)| *prefix).collect();
            listed.sort();
            expected.sort();
            prop_assert_eq!(listed, expected);
        }
    }
}
