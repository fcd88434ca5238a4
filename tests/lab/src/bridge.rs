//! Kernel bridges and forwarding databases.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Namespace;
use crate::error::Attempt;

impl Namespace {
    /// Makes an Ethernet bridge without spanning tree, down.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, for a name that is taken for one.
    pub fn add_bridge(&self, name: &str) -> io::Result<()> {
        self.add_link(name, InfoKind::Bridge, None).attempt(|| format!("making the bridge {name}"))
    }

    /// Makes a link a port of a bridge.
    ///
    /// # Errors
    ///
    /// When either is missing or the kernel refuses.
    pub fn set_master(&self, link: &str, bridge: &str) -> io::Result<()> {
        let set = || {
            let bridge = self.index(bridge)?;
            self.change(link, vec![LinkAttribute::Controller(bridge)])
        };
        set().attempt(|| format!("making {link} a port of {bridge}"))
    }

    /// Makes a bridge ask for members of multicast groups, IGMPv2 and MLDv1 being what Linux asks with unless told otherwise; they
    /// have `response` to answer.
    ///
    /// # Errors
    ///
    /// When there is no such bridge, or the kernel knows no multicast snooping.
    pub fn set_bridge_querier(&self, bridge: &str, response: Duration) -> io::Result<()> {
        let set = || {
            // In hundredths of a second; in a request of its own, for the kernel makes a querier before it reads times.
            let response =
                InfoBridge::MulticastQueryResponseInterval(response.as_millis() as u64 / 10);
            for setting in [response, InfoBridge::MulticastQuerier(true)] {
                let mut message = LinkMessage::default();
                message.header.index = self.find(bridge)?;
                let data = LinkInfo::Data(InfoData::Bridge(vec![setting]));
                let info = vec![LinkInfo::Kind(InfoKind::Bridge), data];
                message.attributes = vec![LinkAttribute::LinkInfo(info)];
                self.request(RouteNetlinkMessage::NewLink(message), 0)?;
            }
            Ok(())
        };
        set().attempt(|| format!("making {bridge} a querier"))
    }

    /// Adds a permanent entry to an overlay link's own forwarding database.
    ///
    /// The all-zero `mac` is the list of where flooded frames go, which gets one more destination;
    /// any other address has one destination.
    ///
    /// # Errors
    ///
    /// When there is no such link, or the entry exists.
    pub fn bridge_fdb_add(&self, dev: &str, mac: [u8; 6], dst: IpAddr) -> io::Result<()> {
        self.bridge_fdb_add_vni(dev, mac, dst, None)
    }

    /// The same with another VNI than the link's for what goes there.
    ///
    /// # Errors
    ///
    /// When there is no such link, or the entry exists.
    pub fn bridge_fdb_add_vni(
        &self,
        dev: &str,
        mac: [u8; 6],
        dst: IpAddr,
        vni: Option<u32>,
    ) -> io::Result<()> {
        let add = || {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = self.find(dev)?;
            message.header.state = NeighbourState::Other(libc::NUD_PERMANENT | libc::NUD_NOARP);
            message.header.flags = NeighbourFlags::Own;
            message.attributes = vec![
                NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
                NeighbourAttribute::Destination(dst.into()),
            ];
            message.attributes.extend(vni.map(NeighbourAttribute::Vni));
            let more = if mac == [0; 6] { NLM_F_APPEND } else { NLM_F_EXCL };
            let message = RouteNetlinkMessage::NewNeighbour(message);
            self.request(message, NLM_F_CREATE | more).map(drop)
        };
        add().attempt(|| format!("adding {mac:02x?} at {dst} to the forwarding database of {dev}"))
    }

    /// Lists the forwarding database of a bridge, of its port or of an overlay link.
    ///
    /// Entries of an overlay link have the other end's address; those of a bridge have none.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn bridge_fdb(&self, dev: &str) -> io::Result<Vec<([u8; 6], Option<IpAddr>)>> {
        let list = || {
            let index = self.find(dev)?;
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Bridge;
            let answers = self.list(&RouteNetlinkMessage::GetNeighbour(message))?;
            Ok(answers.iter().filter_map(|answer| entry(answer, index)).collect())
        };
        list().attempt(|| format!("listing the forwarding database of {dev}"))
    }
}

/// The entry in an answer, if it is one of the link `index` or of a port of that bridge.
fn entry(answer: &RouteNetlinkMessage, index: u32) -> Option<([u8; 6], Option<IpAddr>)> {
    let RouteNetlinkMessage::NewNeighbour(entry) = answer else { return None };
    let of_bridge = entry.attributes.contains(&NeighbourAttribute::Controller(index));
    if entry.header.ifindex != index && !of_bridge {
        return None;
    }
    let mac = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })?;
    let dst = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(address) => ip(address),
        _ => None,
    });
    Some((mac, dst))
}

fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(|b| Ipv4Addr::from(b).into()),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|b| Ipv6Addr::from(b).into()),
            _ => None,
        },
        _ => None,
    }
}
