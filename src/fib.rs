//! Longest-prefix match for IPv4 and IPv6: routes that can be changed, and what is looked up in.
//!
//! A [`Rib`] holds the routes; [`Rib::publish`] makes a [`Fib`] of them, which is immutable, cheap to clone and can be
//! read by any number of threads. A route leads to a [`NextHopId`], a number that means what its user wants it to.
//!
//! ```
//! use overplane::fib::{NextHopId, Rib};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut rib = Rib::new();
//! rib.insert("10.0.0.0/8".parse()?, NextHopId::new(1).ok_or("too large")?);
//! rib.insert("10.7.2.0/24".parse()?, NextHopId::new(2).ok_or("too large")?);
//! let fib = rib.publish();
//! assert_eq!(fib.lookup("10.7.2.9".parse()?), NextHopId::new(2));
//! assert_eq!(fib.lookup("10.9.0.1".parse()?), NextHopId::new(1));
//! assert_eq!(fib.lookup("192.0.2.1".parse()?), None);
//! # Ok(())
//! # }
//! ```

mod next_hop;
mod prefix;
mod rib;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use next_hop::NextHopId;
pub use prefix::{ParsePrefixError, Prefix};
pub use rib::Rib;

use prefix::{mask_v4, mask_v6};

/// Routes to look up in: the next hop of the longest prefix that contains an address.
///
/// Made by [`Rib::publish`] and never changed; a clone shares all of it.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    v4: Arc<BTreeMap<(u32, u8), NextHopId>>,
    v6: Arc<BTreeMap<(u128, u8), NextHopId>>,
}

impl Fib {
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
        (0..=32).rev().find_map(|len| self.v4.get(&(destination & mask_v4(len), len)).copied())
    }

    /// The next hop of an IPv6 address, given as a number as [`std::net::Ipv6Addr::to_bits`] has it.
    #[must_use]
    #[inline]
    pub fn lookup_v6(&self, destination: u128) -> Option<NextHopId> {
        (0..=128).rev().find_map(|len| self.v6.get(&(destination & mask_v6(len), len)).copied())
    }

    /// Looks up many IPv4 addresses at once: the next hop of each into the place of the same index.
    ///
    /// As many as the shorter of the two slices has.
    #[inline]
    pub fn lookup_batch_v4(&self, destinations: &[u32], next_hops: &mut [Option<NextHopId>]) {
        for (destination, next_hop) in destinations.iter().zip(next_hops) {
            *next_hop = self.lookup_v4(*destination);
        }
    }

    /// Looks up many IPv6 addresses at once: the next hop of each into the place of the same index.
    ///
    /// As many as the shorter of the two slices has.
    #[inline]
    pub fn lookup_batch_v6(&self, destinations: &[u128], next_hops: &mut [Option<NextHopId>]) {
        for (destination, next_hop) in destinations.iter().zip(next_hops) {
            *next_hop = self.lookup_v6(*destination);
        }
    }

    /// Bytes of memory it takes, including what it shares with others.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.v4.len() * size_of::<((u32, u8), NextHopId)>()
            + self.v6.len() * size_of::<((u128, u8), NextHopId)>()
    }
}
