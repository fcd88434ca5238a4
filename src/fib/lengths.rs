//! A hash table for each prefix length in use, tried from the longest to the shortest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::prefix::{Prefix, mask_v4, mask_v6};
use crate::hash::Seeded;
use crate::segment::Location;

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
pub(crate) struct Routes {
    v4: Lengths<u32>,
    v6: Lengths<u128>,
    seed: u64,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { v4: Lengths(Vec::new()), v6: Lengths(Vec::new()), seed }
    }

    /// Adds a route, or replaces the one for the same prefix and returns its next hop.
    pub(crate) fn insert(&mut self, prefix: Prefix, next_hop: Location) -> Option<Location> {
        match prefix.address() {
            IpAddr::V4(v4) => self.v4.insert(prefix.len(), v4.to_bits(), next_hop, self.seed),
            IpAddr::V6(v6) => self.v6.insert(prefix.len(), v6.to_bits(), next_hop, self.seed),
        }
    }

    /// Removes the route for exactly this prefix.
    pub(crate) fn remove(&mut self, prefix: Prefix) -> Option<Location> {
        match prefix.address() {
            IpAddr::V4(v4) => self.v4.remove(prefix.len(), v4.to_bits()),
            IpAddr::V6(v6) => self.v6.remove(prefix.len(), v6.to_bits()),
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
        v4.chain(v6).filter_map(|(address, len, hop)| Some((Prefix::new(address, len)?, hop)))
    }
}
