//! An address with its prefix length.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::invalid;

/// An IP address with a prefix length, as in `10.0.0.1/24`.
///
/// Methods that want one take the text, or the address and the length as a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address, host bits included.
    pub ip: IpAddr,
    /// The length of the prefix, in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Makes one, refusing a prefix longer than the address.
    ///
    /// # Errors
    ///
    /// When `prefix` is over 32 for IPv4 or over 128 for IPv6.
    pub fn new(ip: IpAddr, prefix: u8) -> io::Result<Self> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(invalid(format!("{ip}/{prefix}: the prefix is longer than {bits} bits")));
        }
        Ok(Self { ip, prefix })
    }

    /// The same prefix with all host bits zero.
    #[must_use]
    pub fn network(&self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        };
        Self { ip, prefix: self.prefix }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let not_one = || invalid(format!("{text:?} is not an address with a prefix length"));
        let (ip, prefix) = text.split_once('/').ok_or_else(not_one)?;
        Self::new(ip.parse().map_err(|_| not_one())?, prefix.parse().map_err(|_| not_one())?)
    }
}

impl TryFrom<&str> for Cidr {
    type Error = io::Error;

    fn try_from(text: &str) -> io::Result<Self> {
        text.parse()
    }
}

impl TryFrom<&String> for Cidr {
    type Error = io::Error;

    fn try_from(text: &String) -> io::Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for Cidr {
    type Error = io::Error;

    fn try_from(text: String) -> io::Result<Self> {
        text.parse()
    }
}

impl TryFrom<(IpAddr, u8)> for Cidr {
    type Error = io::Error;

    fn try_from((ip, prefix): (IpAddr, u8)) -> io::Result<Self> {
        Self::new(ip, prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a cidr")
    }

    #[test]
    fn parses_prints_and_masks() {
        assert_eq!(cidr("10.1.2.3/16").to_string(), "10.1.2.3/16");
        assert_eq!(cidr("10.1.2.3/16").network(), cidr("10.1.0.0/16"));
        assert_eq!(cidr("10.1.2.3/0").network(), cidr("0.0.0.0/0"));
        assert_eq!(cidr("10.1.2.3/32").network(), cidr("10.1.2.3/32"));
        assert_eq!(cidr("fd00::1:2/64").network(), cidr("fd00::/64"));
        assert_eq!(cidr("fd00::1/0").network(), cidr("::/0"));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "host/24", "10.0.0.1/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
