//! Underlay addresses as numbers.

use std::net::{IpAddr, Ipv6Addr};

/// An underlay address as one number, IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).
///
/// Senders are compared for every datagram, and an `IpAddr` would be taken apart and put together again each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey(u128);

impl SourceKey {
    /// No address.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn address(self) -> IpAddr {
        Ipv6Addr::from_bits(self.0).to_canonical()
    }
}

impl From<IpAddr> for SourceKey {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_trip() {
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1", "0.0.0.0"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(SourceKey::from(address).address(), address);
        }
    }
}
