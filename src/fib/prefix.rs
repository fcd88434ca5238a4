//! An IP prefix, and how it is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::address::Address;

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
            IpAddr::V4(v4) if len <= 32 => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().first(len))),
            IpAddr::V6(v6) if len <= 128 => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().first(len)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        assert_eq!(prefix("10.7.1.9/16"), prefix("10.7.0.0/16"));
        assert_eq!(prefix("10.7.1.9/16").to_string(), "10.7.0.0/16");
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::1/128"));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
