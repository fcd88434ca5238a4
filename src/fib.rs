//! Longest-prefix match for IPv4 and IPv6: routes that can be changed, and what is looked up in.
//!
//! A [`Rib`] holds the routes; [`Rib::publish`] makes a [`Fib`] of them, which is immutable, cheap to clone and can be
//! read by any number of threads. A route leads to a [`NextHopId`], a number that means what its user wants it to.
//!
//! The module knows of nothing else in this crate, does no input or output, and can be used alone:
//!
//! ```
//! use std::net::Ipv4Addr;
//! use overplane::fib::{NextHopId, Rib};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hop = |number| NextHopId::new(number).ok_or("a next hop is less than 2^30 - 1");
//! let mut rib = Rib::new();
//! rib.insert("10.0.0.0/8".parse()?, hop(1)?);
//! rib.insert("10.7.2.0/24".parse()?, hop(2)?);
//! let fib = rib.publish();
//! assert_eq!(fib.lookup("10.7.2.9".parse()?), NextHopId::new(2));
//! assert_eq!(fib.lookup("10.9.0.1".parse()?), NextHopId::new(1));
//! assert_eq!(fib.lookup("192.0.2.1".parse()?), None);
//!
//! // Many at once take less time each.
//! let destinations = [[10, 7, 2, 1], [10, 7, 3, 1]].map(|at| Ipv4Addr::from(at).to_bits());
//! let mut next_hops = [None; 2];
//! fib.lookup_batch_v4(&destinations, &mut next_hops);
//! assert_eq!(next_hops, [NextHopId::new(2), NextHopId::new(1)]);
//!
//! // All of some changes or none: make them on a clone. What is published already stays as it is.
//! let mut changed = rib.clone();
//! changed.remove("10.7.2.0/24".parse()?).ok_or("no such route")?;
//! rib = changed;
//! assert_eq!(rib.publish().lookup("10.7.2.9".parse()?), NextHopId::new(1));
//! assert_eq!(fib.lookup("10.7.2.9".parse()?), NextHopId::new(2));
//! # Ok(())
//! # }
//! ```
//!
//! Looking up allocates nothing, takes no lock and does not panic. A change costs microseconds, at most some
//! milliseconds, at a million routes: `docs/tables.md` has the structure and the figures.

mod address;
mod map;
mod next_hop;
mod noted;
mod prefix;
mod rib;
mod runs;
#[cfg(test)]
mod tests;
mod tree;
mod v4;
mod v6;

use std::net::IpAddr;

pub use next_hop::NextHopId;
pub use prefix::{ParsePrefixError, Prefix};
pub use rib::Rib;

/// Routes to look up in: the next hop of the longest prefix that contains an address.
///
/// Made by [`Rib::publish`] and never changed; a clone shares all of it.
#[derive(Clone, Debug)]
pub struct Fib {
    v4: v4::Table,
    v6: v6::Table,
}

impl Default for Fib {
    fn default() -> Self {
        Self::new()
    }
}

impl Fib {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self { v4: v4::Table::new(), v6: v6::Table::new() }
    }

    /// The next hop of the longest prefix that contains `destination`.
    #[must_use]
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> Option<NextHopId> {
        match destination {
            IpAddr::V4(v4) => self.lookup_v4(v4.to_bits()),
            IpAddr::V6(v6) => self.lookup_v6(v6.to_bits()),
        }
    }

    /// The next hop of an IPv4 address, given as a number as [`std::net::Ipv4Addr::to_bits`] has it.
    #[must_use]
    #[inline]
    pub fn lookup_v4(&self, destination: u32) -> Option<NextHopId> {
        self.v4.lookup(destination)
    }

    /// The next hop of an IPv6 address, given as a number as [`std::net::Ipv6Addr::to_bits`] has it.
    #[must_use]
    #[inline]
    pub fn lookup_v6(&self, destination: u128) -> Option<NextHopId> {
        self.v6.lookup(destination)
    }

    /// Looks up many IPv4 addresses at once: the next hop of each into the place of the same index.
    ///
    /// As many as the shorter of the two slices has. This takes less time than as many single lookups: the processor
    /// waits for the memory of several at once, and its newer instructions are used where it has them.
    #[inline]
    pub fn lookup_batch_v4(&self, destinations: &[u32], next_hops: &mut [Option<NextHopId>]) {
        self.v4.lookup_batch(destinations, next_hops);
    }

    /// Looks up many IPv6 addresses at once: the next hop of each into the place of the same index.
    ///
    /// As many as the shorter of the two slices has.
    #[inline]
    pub fn lookup_batch_v6(&self, destinations: &[u128], next_hops: &mut [Option<NextHopId>]) {
        self.v6.lookup_batch(destinations, next_hops);
    }

    /// Bytes of memory it takes, including what it shares with others.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory()
    }
}
