//! The routes as they are changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::map::{Key, Map};
use super::{Fib, NextHopId, Prefix, v4, v6};

/// Routes that can be changed; [`Rib::publish`] makes a [`Fib`] of them.
///
/// A clone costs next to nothing: the two share all routes, and when one of them changes a route, it copies the few
/// kilobytes around it. So several changes can be tried on a clone, which then replaces the original or is dropped.
#[derive(Clone, Debug)]
pub struct Rib {
    v4: Map<u32>,
    v6: Map<u128>,
    pending_v4: v4::Pending,
    pending_v6: v6::Pending,
    /// As last published.
    fib: Fib,
}

impl Default for Rib {
    fn default() -> Self {
        Self::new()
    }
}

impl Rib {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            v4: Map::new(),
            v6: Map::new(),
            pending_v4: v4::Pending::default(),
            pending_v6: v6::Pending::default(),
            fib: Fib::new(),
        }
    }

    /// Adds a route, or replaces the one for the same prefix and returns its next hop.
    pub fn insert(&mut self, prefix: Prefix, next_hop: NextHopId) -> Option<NextHopId> {
        let old = match bits(prefix) {
            Bits::V4(key) => self.v4.insert(key, next_hop),
            Bits::V6(key) => self.v6.insert(key, next_hop),
        };
        if old != Some(next_hop) {
            self.note(prefix);
        }
        old
    }

    /// Removes the route for exactly this prefix, and returns its next hop.
    pub fn remove(&mut self, prefix: Prefix) -> Option<NextHopId> {
        let old = match bits(prefix) {
            Bits::V4(key) => self.v4.remove(key),
            Bits::V6(key) => self.v6.remove(key),
        };
        if old.is_some() {
            self.note(prefix);
        }
        old
    }

    fn note(&mut self, prefix: Prefix) {
        match bits(prefix) {
            Bits::V4(key) => self.pending_v4.note(key),
            Bits::V6(key) => self.pending_v6.note(&self.fib.v6, key),
        }
    }

    /// The next hop of the route for exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: Prefix) -> Option<NextHopId> {
        match bits(prefix) {
            Bits::V4(key) => self.v4.get(key),
            Bits::V6(key) => self.v6.get(key),
        }
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The routes in order of prefix: IPv4 first, a prefix before those inside it.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, NextHopId)> {
        let v4 = self.v4.iter_from((0, 0)).map(|((address, len), next_hop)| {
            (Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(address)), len), next_hop)
        });
        let v6 = self.v6.iter_from((0, 0)).map(|((address, len), next_hop)| {
            (Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(address)), len), next_hop)
        });
        v4.chain(v6).filter_map(|(prefix, next_hop)| Some((prefix?, next_hop)))
    }

    /// The routes as they are now, compiled for lookup.
    ///
    /// Only what changed since the last time is compiled, the rest is shared with what was published then. A typical
    /// change takes some microseconds, whatever the number of routes.
    pub fn publish(&mut self) -> Fib {
        self.fib.v4.update(&self.v4, &mut self.pending_v4);
        self.fib.v6.update(&self.v6, &mut self.pending_v6);
        self.fib.clone()
    }
}

/// A prefix as numbers.
enum Bits {
    V4(Key<u32>),
    V6(Key<u128>),
}

fn bits(prefix: Prefix) -> Bits {
    match prefix.address() {
        IpAddr::V4(address) => Bits::V4((address.to_bits(), prefix.len())),
        IpAddr::V6(address) => Bits::V6((address.to_bits(), prefix.len())),
    }
}
