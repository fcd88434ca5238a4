//! This node's underlay addresses.

use std::fmt;
use std::net::IpAddr;

use crate::Error;

/// One address, or one of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locals {
    first: IpAddr,
    second: Option<IpAddr>,
}

impl Locals {
    /// # Errors
    /// [`Error::Invalid`] for a group address.
    pub(crate) fn new(first: IpAddr) -> Result<Self, Error> {
        Ok(Self { first: unicast(first)?, second: None })
    }

    /// Adds the address of the other family.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a group address, and one of the same family.
    pub(crate) fn add(&mut self, second: IpAddr) -> Result<(), Error> {
        if second.is_ipv4() == self.first.is_ipv4() {
            let allowed = "an address of the other family than the first";
            return Err(Error::invalid("second underlay address", second.to_string(), allowed));
        }
        self.second = Some(unicast(second)?);
        Ok(())
    }

    /// Whether an address is this node's.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        ip == self.first || Some(ip) == self.second
    }

    /// Whether a VTEP with this address can be reached: there is an own address of its family.
    pub(crate) fn reach(&self, ip: IpAddr) -> bool {
        self.second.is_some() || ip.is_ipv4() == self.first.is_ipv4()
    }

    /// Whether there is an IPv6 address, whose header takes more room than that of IPv4.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.first.is_ipv6() || self.second.is_some()
    }
}

impl fmt::Display for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.second.map_or(Ok(()), |second| write!(f, " and {second}"))
    }
}

fn unicast(ip: IpAddr) -> Result<IpAddr, Error> {
    if ip.is_multicast() {
        let allowed = "a unicast address of this node";
        return Err(Error::invalid("local underlay address", ip.to_string(), allowed));
    }
    Ok(ip)
}
