//! Addresses, routes and neighbours of a host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Attempt, invalid};
use crate::{Cidr, Namespace};

/// Longest time that the kernel takes to find out whether an address is taken: up to a second before it asks, and one
/// for an answer (RFC 4862 §5.4.2).
const CLAIM: Duration = Duration::from_secs(4);

impl Namespace {
    /// Adds an address such as `"10.0.0.1/24"` to a link; an IPv6 one is usable at once.
    ///
    /// # Errors
    ///
    /// When there is no such link, or it has the address already.
    pub fn add_address(
        &self,
        name: &str,
        address: impl TryInto<Cidr, Error = io::Error>,
    ) -> io::Result<()> {
        let address = address.try_into().attempt(|| format!("adding an address to {name}"))?;
        let add = || {
            let message = RouteNetlinkMessage::NewAddress(self.address_message(name, address)?);
            self.request(message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
        };
        add().attempt(|| format!("adding address {address} to {name}"))
    }

    /// Adds an IPv6 address to a link as hosts do on their own, after asking whether it is taken (RFC 4862 §5.4), and says
    /// whether it is free.
    ///
    /// # Errors
    ///
    /// When there is no such link, it has the address already, or the answer takes longer than it may.
    pub fn claim_address(
        &self,
        name: &str,
        address: impl TryInto<Cidr, Error = io::Error>,
    ) -> io::Result<bool> {
        let address = address.try_into().attempt(|| format!("claiming an address for {name}"))?;
        let claim = || {
            let mut message = self.address_message(name, address)?;
            message.header.flags = AddressHeaderFlags::empty();
            let message = RouteNetlinkMessage::NewAddress(message);
            self.request(message, NLM_F_CREATE | NLM_F_EXCL)?;
            let deadline = Instant::now() + CLAIM;
            while Instant::now() < deadline {
                let flags = self.address_flags(address.ip)?;
                if flags.contains(AddressHeaderFlags::Dadfailed) {
                    return Ok(false);
                }
                if !flags.contains(AddressHeaderFlags::Tentative) {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel still asks for it"))
        };
        claim().attempt(|| format!("claiming address {address} for {name}"))
    }

    /// What the kernel says of an address.
    fn address_flags(&self, ip: IpAddr) -> io::Result<AddressHeaderFlags> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.list(&message)?;
        let flags = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(found)
                if found.attributes.contains(&AddressAttribute::Address(ip)) =>
            {
                Some(found.header.flags)
            }
            _ => None,
        });
        flags.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the address is gone"))
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    ///
    /// When there is no such link, or it has no such address.
    pub fn delete_address(
        &self,
        name: &str,
        address: impl TryInto<Cidr, Error = io::Error>,
    ) -> io::Result<()> {
        let address = address.try_into().attempt(|| format!("deleting an address of {name}"))?;
        let delete = || {
            let message = RouteNetlinkMessage::DelAddress(self.address_message(name, address)?);
            self.request(message, 0).map(drop)
        };
        delete().attempt(|| format!("deleting address {address} of {name}"))
    }

    /// The addresses of all links, each with its link's name.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn addresses(&self) -> io::Result<Vec<(String, Cidr)>> {
        let list = || {
            let links = self.list(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
            let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            let addresses = self.list(&message)?;
            Ok(addresses.iter().filter_map(|address| with_link(address, &links)).collect())
        };
        list().attempt(|| "listing addresses")
    }

    /// Adds a route to a prefix, by way of a router, a link or both.
    ///
    /// # Errors
    ///
    /// When neither is given, the router can not be reached, or there is such a route already.
    pub fn add_route(
        &self,
        destination: impl TryInto<Cidr, Error = io::Error>,
        via: Option<IpAddr>,
        dev: Option<&str>,
    ) -> io::Result<()> {
        let destination = destination.try_into().attempt(|| "adding a route")?.network();
        let add = || {
            let message =
                RouteNetlinkMessage::NewRoute(self.route_message(destination, via, dev)?);
            self.request(message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
        };
        add().attempt(|| {
            let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
            let dev = dev.map(|dev| format!(" on {dev}")).unwrap_or_default();
            format!("adding a route to {destination}{via}{dev}")
        })
    }

    /// Adds a route to a prefix by way of a router that is on the link, whatever its address (`onlink`).
    ///
    /// # Errors
    ///
    /// When there is no such link, or there is such a route already.
    pub fn add_onlink_route(
        &self,
        destination: impl TryInto<Cidr, Error = io::Error>,
        via: IpAddr,
        dev: &str,
    ) -> io::Result<()> {
        let destination = destination.try_into().attempt(|| "adding a route")?.network();
        let add = || {
            let mut message = self.route_message(destination, Some(via), Some(dev))?;
            message.header.flags |= RouteFlags::Onlink;
            let message = RouteNetlinkMessage::NewRoute(message);
            self.request(message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
        };
        add().attempt(|| format!("adding a route to {destination} via {via} on the link {dev}"))
    }

    /// Takes back [`Namespace::add_route`], of the same arguments.
    ///
    /// # Errors
    ///
    /// When there is no such route.
    pub fn delete_route(
        &self,
        destination: impl TryInto<Cidr, Error = io::Error>,
        via: Option<IpAddr>,
        dev: Option<&str>,
    ) -> io::Result<()> {
        let destination = destination.try_into().attempt(|| "deleting a route")?.network();
        let delete = || {
            let message =
                RouteNetlinkMessage::DelRoute(self.route_message(destination, via, dev)?);
            self.request(message, 0).map(drop)
        };
        delete().attempt(|| format!("deleting the route to {destination}"))
    }

    /// Tells a link the Ethernet address of a neighbour, for good.
    ///
    /// # Errors
    ///
    /// When there is no such link or the kernel refuses.
    pub fn add_neighbour(&self, dev: &str, ip: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let add = || {
            let mut message = NeighbourMessage::default();
            message.header.family = family(ip);
            message.header.ifindex = self.find(dev)?;
            message.header.state = NeighbourState::Permanent;
            message.header.kind = RouteType::Unicast;
            message.attributes = vec![
                NeighbourAttribute::Destination(ip.into()),
                NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
            ];
            let message = RouteNetlinkMessage::NewNeighbour(message);
            self.request(message, NLM_F_CREATE | NLM_F_REPLACE).map(drop)
        };
        add().attempt(|| format!("adding neighbour {ip} at {mac:02x?} to {dev}"))
    }

    /// Makes a host forget what it knows of a neighbour, so that it asks anew.
    ///
    /// # Errors
    ///
    /// When there is no such link, or nothing is known.
    pub fn delete_neighbour(&self, dev: &str, ip: IpAddr) -> io::Result<()> {
        let delete = || {
            let mut message = NeighbourMessage::default();
            message.header.family = family(ip);
            message.header.ifindex = self.find(dev)?;
            message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
            self.request(RouteNetlinkMessage::DelNeighbour(message), 0).map(drop)
        };
        delete().attempt(|| format!("deleting neighbour {ip} of {dev}"))
    }

    /// Whether all IPv6 addresses of the link `index` work by now, which they do a moment after
    /// both they and the link are there.
    pub(crate) fn ipv6_works(&self, index: u32) -> io::Result<bool> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        let addresses = self.list(&RouteNetlinkMessage::GetAddress(message))?;
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let routes = self.list(&RouteNetlinkMessage::GetRoute(message))?;
        // The last thing the kernel does for an address is the route to itself.
        let works = |ip: Ipv6Addr| {
            let destination = RouteAttribute::Destination(ip.into());
            routes.iter().any(|route| match route {
                RouteNetlinkMessage::NewRoute(route) => {
                    route.header.kind == RouteType::Local && route.attributes.contains(&destination)
                }
                _ => false,
            })
        };
        Ok(addresses.iter().filter_map(|address| ipv6_of(address, index)).all(works))
    }

    fn address_message(&self, name: &str, address: Cidr) -> io::Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip);
        message.header.prefix_len = address.prefix;
        message.header.index = self.find(name)?;
        message.attributes =
            vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
        if address.ip.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        Ok(message)
    }

    fn route_message(
        &self,
        destination: Cidr,
        via: Option<IpAddr>,
        dev: Option<&str>,
    ) -> io::Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.ip);
        message.header.destination_prefix_length = destination.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        if destination.ip != unspecified(destination.ip) || destination.prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(destination.ip.into()));
        }
        match via {
            Some(via) if via.is_ipv4() != destination.ip.is_ipv4() => {
                return Err(invalid("the router's address is of the other version of IP"));
            }
            Some(via) => message.attributes.push(RouteAttribute::Gateway(via.into())),
            None if dev.is_none() => {
                return Err(invalid("a route needs a router, a link or both"));
            }
            None => {}
        }
        if let Some(dev) = dev {
            let index = self.find(dev).attempt(|| format!("looking for {dev}"))?;
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Ok(message)
    }
}

/// The address in an answer with the name of its link; the near end's where there are two.
fn with_link(
    answer: &RouteNetlinkMessage,
    links: &[RouteNetlinkMessage],
) -> Option<(String, Cidr)> {
    let RouteNetlinkMessage::NewAddress(address) = answer else { return None };
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| address.attributes.iter().find_map(pick);
    let near = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let ip = near.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let name = links.iter().find_map(|link| match link {
        RouteNetlinkMessage::NewLink(link) if link.header.index == address.header.index => {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        }
        _ => None,
    })?;
    Some((name, Cidr { ip, prefix: address.header.prefix_len }))
}

/// The address in an answer, if it is an IPv6 one of the link `index`.
fn ipv6_of(answer: &RouteNetlinkMessage, index: u32) -> Option<Ipv6Addr> {
    let RouteNetlinkMessage::NewAddress(address) = answer else { return None };
    let of_link = address.header.index == index && address.header.family == AddressFamily::Inet6;
    address.attributes.iter().filter(|_| of_link).find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(ip)) => Some(*ip),
        _ => None,
    })
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
