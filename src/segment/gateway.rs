//! How a routed segment appears to the host behind a TAP port: as the router of its link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Error;
use crate::wire::{MacAddr, is_host};

/// Most addresses of one gateway.
pub const MAX_GATEWAY_ADDRESSES: usize = 16;

/// The router that the host behind a port of a routed segment sees: the port then gives and takes Ethernet frames, as a TAP
/// does, and frames to the router's MAC address are routed.
///
/// One host is behind such a port. Its MAC address is that of the frames it sends, unless it is given; until it is known,
/// the host is asked for it when a packet arrives for it. The host may have an address without a network (`/32`, `/128`) and a
/// default route by way of one of [`Gateway::addresses`], as Calico sets containers up. Frames for groups end here:
/// nothing is flooded in a routed segment. Nothing is said to a host that probes whether an address is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gateway {
    /// MAC address of the router. The default is `ee:ee:ee:ee:ee:ee`, Calico's.
    pub mac: MacAddr,
    /// IP addresses of the router on this link, at most [`limits::MAX_GATEWAY_ADDRESSES`](crate::limits::MAX_GATEWAY_ADDRESSES):
    /// ARP and ND requests for them are answered. The default is 169.254.1.1, which Calico's containers use, and
    /// fe80::ecee:eeff:feee:eeee, the link-local address that follows from the default MAC address.
    pub addresses: Vec<IpAddr>,
    /// Requests for all other addresses are answered as well, but for those that routes lead to this port itself; off by
    /// default. As `proxy_arp` of a Linux link, for hosts that take others to be on their own link.
    pub answer_all: bool,
    /// MAC address of the host, if it is not to be learned.
    pub host: Option<MacAddr>,
}

impl Default for Gateway {
    fn default() -> Self {
        let v6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
        Self {
            mac: MacAddr([0xee; 6]),
            addresses: vec![Ipv4Addr::new(169, 254, 1, 1).into(), v6.into()],
            answer_all: false,
            host: None,
        }
    }
}

impl Gateway {
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (what, mac) in
            [("MAC address of a gateway", Some(self.mac)), ("MAC address of a host", self.host)]
        {
            if let Some(mac) = mac.filter(|mac| !mac.is_individual()) {
                return Err(Error::invalid(what, mac.to_string(), "an individual address"));
            }
        }
        if let Some(address) = self.addresses.iter().find(|address| !is_host(**address)) {
            return Err(Error::invalid(
                "address of a gateway",
                address.to_string(),
                "an address of one host",
            ));
        }
        if self.addresses.len() > MAX_GATEWAY_ADDRESSES {
            return Err(Error::Limit {
                what: "addresses of a gateway",
                limit: MAX_GATEWAY_ADDRESSES,
            });
        }
        Ok(())
    }
}
