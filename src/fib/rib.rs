//! The routes as they are changed: a map from prefix to next hop.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Fib, NextHopId, Prefix};

/// Routes that can be changed; [`Rib::publish`] makes a [`Fib`] of them.
///
/// A clone shares what neither of the two changes afterwards.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    v4: Arc<BTreeMap<(u32, u8), NextHopId>>,
    v6: Arc<BTreeMap<(u128, u8), NextHopId>>,
}

impl Rib {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route, or replaces the one for the same prefix and returns its next hop.
    pub fn insert(&mut self, prefix: Prefix, next_hop: NextHopId) -> Option<NextHopId> {
        match prefix.address() {
            IpAddr::V4(v4) => {
                Arc::make_mut(&mut self.v4).insert((v4.to_bits(), prefix.len()), next_hop)
            }
            IpAddr::V6(v6) => {
                Arc::make_mut(&mut self.v6).insert((v6.to_bits(), prefix.len()), next_hop)
            }
        }
    }

    /// Removes the route for exactly this prefix, and returns its next hop.
    pub fn remove(&mut self, prefix: Prefix) -> Option<NextHopId> {
        match prefix.address() {
            IpAddr::V4(v4) => Arc::make_mut(&mut self.v4).remove(&(v4.to_bits(), prefix.len())),
            IpAddr::V6(v6) => Arc::make_mut(&mut self.v6).remove(&(v6.to_bits(), prefix.len())),
        }
    }

    /// The next hop of the route for exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: Prefix) -> Option<NextHopId> {
        match prefix.address() {
            IpAddr::V4(v4) => self.v4.get(&(v4.to_bits(), prefix.len())).copied(),
            IpAddr::V6(v6) => self.v6.get(&(v6.to_bits(), prefix.len())).copied(),
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
        let v4 = self.v4.iter().map(|((address, len), hop)| {
            (Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(*address)), *len), *hop)
        });
        let v6 = self.v6.iter().map(|((address, len), hop)| {
            (Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(*address)), *len), *hop)
        });
        v4.chain(v6).filter_map(|(prefix, hop)| Some((prefix?, hop)))
    }

    /// The routes as they are now, to look up in.
    pub fn publish(&mut self) -> Fib {
        Fib { v4: Arc::clone(&self.v4), v6: Arc::clone(&self.v6) }
    }
}
