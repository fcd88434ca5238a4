//! What hosts and routers say of multicast groups, as frames.
#![allow(dead_code, reason = "each test uses some of them")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overplane::MacAddr;
use overplane::wire::checksum;

use crate::packets::{Host, udp};

/// What somebody says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// A report of a version: IGMP 1 to 3, or MLD 1 and 2.
    Join(u8),
    /// A leave of a version: IGMP 2 or 3, or MLD 1 and 2.
    Leave(u8),
    /// A query of a version, answered within 10 s, or within 1 s if it is of one group.
    Query(u8),
}

/// The MAC address of a group.
pub(crate) fn group_mac(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            MacAddr([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

/// Host `from` says something of a group; unspecified is all groups.
pub(crate) fn say(from: Host, what: Say, group: IpAddr) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => igmp(from, what, group),
        IpAddr::V6(group) => mld(from, what, group),
    }
}

/// The link-local address of a host.
pub(crate) fn link_local(host: Host) -> Ipv6Addr {
    let [.., n] = host.ip.octets();
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n.into())
}

fn igmp(from: Host, what: Say, group: Ipv4Addr) -> Vec<u8> {
    let code = if group.is_unspecified() { 100 } else { 10 };
    let short = |kind: u8, code: u8| [&[kind, code, 0, 0][..], &group.octets()].concat();
    let all = Ipv4Addr::new(224, 0, 0, 1);
    let (to, message) = match what {
        Say::Join(1) => (group, short(0x12, 0)),
        Say::Join(2) => (group, short(0x16, 0)),
        Say::Leave(2) => (Ipv4Addr::new(224, 0, 0, 2), short(0x17, 0)),
        Say::Join(_) | Say::Leave(_) => {
            let kind = if matches!(what, Say::Join(_)) { 4 } else { 3 };
            let record = [&[kind, 0, 0, 0][..], &group.octets()].concat();
            (Ipv4Addr::new(224, 0, 0, 22), [&[0x22, 0, 0, 0, 0, 0, 0, 1], &record[..]].concat())
        }
        Say::Query(version) => {
            let to = if group.is_unspecified() { all } else { group };
            match version {
                1 => (to, short(0x11, 0)),
                2 => (to, short(0x11, code)),
                _ => (to, [&short(0x11, code)[..], &[2, 125, 0, 0]].concat()),
            }
        }
    };
    igmp_message(from, to, &message)
}

/// An IGMP message with its checksums and a router alert.
pub(crate) fn igmp_message(from: Host, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum::finish(checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (24 + message.len()) as u16;
    let parts: [&[u8]; 6] = [
        &[0x46, 0xc0],
        &total.to_be_bytes(),
        &[0, 0, 0x40, 0, 1, 2, 0, 0],
        &from.ip.octets(),
        &to.octets(),
        &[0x94, 4, 0, 0],
    ];
    let mut header = parts.concat();
    let sum = checksum::finish(checksum::sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let link = [&group_mac(to.into()).0[..], &from.mac.0, &[8, 0]].concat();
    [link, header, message].concat()
}

fn mld(from: Host, what: Say, group: Ipv6Addr) -> Vec<u8> {
    let delay = if group.is_unspecified() { [0x27, 0x10] } else { [3, 0xe8] };
    let short = |kind: u8, delay: [u8; 2]| {
        [&[kind, 0, 0, 0, delay[0], delay[1], 0, 0][..], &group.octets()].concat()
    };
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (to, message) = match what {
        Say::Join(1) => (group, short(131, [0; 2])),
        Say::Leave(1) => (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), short(132, [0; 2])),
        Say::Join(_) | Say::Leave(_) => {
            let kind = if matches!(what, Say::Join(_)) { 4 } else { 3 };
            let record = [&[kind, 0, 0, 0][..], &group.octets()].concat();
            let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
            (to, [&[143, 0, 0, 0, 0, 0, 0, 1], &record[..]].concat())
        }
        Say::Query(version) => {
            let to = if group.is_unspecified() { all } else { group };
            match version {
                1 => (to, short(130, delay)),
                _ => (to, [&short(130, delay)[..], &[2, 125, 0, 0]].concat()),
            }
        }
    };
    let source = link_local(from).octets();
    let mut message = message;
    let pseudo = checksum::pseudo_v6(source, to.octets(), 58, message.len() as u32);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let parts: [&[u8]; 9] = [
        &group_mac(to.into()).0,
        &from.mac.0,
        &[0x86, 0xdd, 0x60, 0, 0, 0],
        &(message.len() as u16 + 8).to_be_bytes(),
        &[0, 1],
        &source,
        &to.octets(),
        &[58, 0, 5, 2, 0, 0, 1, 0],
        &message,
    ];
    parts.concat()
}

/// A UDP datagram for a group.
pub(crate) fn to_group(from: Host, group: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mac = group_mac(group);
    match group {
        IpAddr::V4(ip) => udp(from, Host { mac, ip }, payload),
        IpAddr::V6(ip) => {
            let mut frame = Vec::new();
            etherparse::PacketBuilder::ethernet2(from.mac.0, mac.0)
                .ipv6(link_local(from).octets(), ip.octets(), 64)
                .udp(5000, 6000)
                .write(&mut frame, payload)
                .unwrap();
            frame
        }
    }
}
