//! What hosts and routers say of multicast groups: IGMP (RFC 1112, 2236, 3376), MLD (RFC 2710, 3810), and by what else a
//! multicast router gives itself away (RFC 4286, 7761).
//!
//! Only what arrives without a VLAN tag, and only what a host or router would believe: checksums, lengths, the TTL, and for
//! MLD the router alert are checked.

mod query;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::eth::{self, TYPE_IPV4, TYPE_IPV6};
use super::ip::{self, PROTO_HOP_BY_HOP, PROTO_ICMPV6, V4_HEADER_LEN, V6_HEADER_LEN};
use super::{array_at, checksum, u16_at};
pub(crate) use query::{Asker, Question};

/// Protocol number of IGMP (RFC 1112 appendix I).
const PROTO_IGMP: u8 = 2;
/// Protocol number of PIM (RFC 7761 §4.9).
const PROTO_PIM: u8 = 103;

/// IGMP types (RFC 2236 §2.1, RFC 1112 appendix I, RFC 3376 §4).
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;
/// Type of a multicast router advertisement over IPv4 (RFC 4286 §3.2).
const ADVERTISEMENT: u8 = 0x30;
/// Messages of IGMPv1 and v2, in bytes (RFC 2236 §2), and the least of a v3 query (RFC 3376 §4.1) and report (§4.2).
const LEN_V2: usize = 8;
const QUERY_LEN_V3: usize = 12;
const REPORT_HEAD: usize = 8;

/// ICMPv6 types (RFC 2710 §3.1, RFC 3810 §5.2).
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_V2: u8 = 143;
/// Type of a multicast router advertisement over IPv6 (RFC 4286 §3.2).
const MLD_ADVERTISEMENT: u8 = 151;
/// Messages of MLDv1, in bytes (RFC 2710 §3), and the least of a v2 query (RFC 3810 §5.1).
const LEN_MLD: usize = 24;
const QUERY_LEN_MLD2: usize = 28;

/// The TTL or hop limit that keeps these messages on their link (RFC 2236 §2, RFC 3810 §5).
const TTL: u8 = 1;
/// The IPv6 router alert option, eight bytes of hop-by-hop options being the least (RFC 2711 §2.1, RFC 8200 §4.3).
const ROUTER_ALERT: u8 = 5;
const HOP_BY_HOP_UNIT: usize = 8;

/// Record types (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW_NEW: u8 = 5;

/// Where PIM hellos go (RFC 7761 §4.3.1): 224.0.0.13, ff02::d.
const ALL_PIM_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 13);
const ALL_PIM_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd);
/// Version 2 and type hello, the first byte of a PIM message (RFC 7761 §4.9).
const PIM_HELLO: u8 = 0x20;

/// What a frame says of groups.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// A router, or a bridge in its place, asks who listens.
    Query(Query),
    /// A host says what it listens to, or no longer.
    Report(Records<'a>),
    /// A multicast router has spoken: PIM, or a router advertisement of RFC 4286.
    Router,
}

/// A question to the listeners of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks; `0.0.0.0` is a bridge that asks in place of a router (RFC 4541 §2.1.1).
    pub source: IpAddr,
    /// About which group; `None` for all.
    pub group: Option<IpAddr>,
    /// In how many milliseconds answers come.
    pub response: u32,
    /// Whether a group whose listeners do not answer is to be given up: not if the query is of some sources only, nor if it
    /// says so itself (RFC 3376 §4.1.5).
    pub decides: bool,
}

/// One group of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: IpAddr,
    /// Whether it is listened to, from whatever sources; otherwise no more.
    pub joins: bool,
}

/// The groups of a report, in their order. Left out are those of which nothing follows: groups that everybody gets, and
/// changes of source lists that leave open whether anything is listened to.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    one: Option<Record>,
    rest: &'a [u8],
    left: u16,
    /// Bytes of an address.
    address: usize,
}

impl<'a> Records<'a> {
    fn one(group: IpAddr, joins: bool) -> Self {
        let one = is_tracked(group).then_some(Record { group, joins });
        Self { one, rest: &[], left: 0, address: 0 }
    }

    /// Those of a version 3 or MLDv2 report, if all of them are there.
    fn many(message: &'a [u8], address: usize) -> Option<Self> {
        let rest = message.get(REPORT_HEAD..)?;
        let records = Self { one: None, rest, left: u16_at(message, REPORT_HEAD - 2)?, address };
        let mut checked = records;
        while checked.left > 0 {
            checked.step()?;
        }
        Some(records)
    }

    /// The next record as it is: type, whether it has sources, and group.
    fn step(&mut self) -> Option<(u8, bool, IpAddr)> {
        let head: &[u8; 4] = self.rest.first_chunk()?;
        let (kind, auxiliary) = (head[0], usize::from(head[1]) * 4);
        let sources = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let group = match self.address {
            4 => IpAddr::from(*array_at::<4>(self.rest, head.len())?),
            _ => IpAddr::from(*array_at::<16>(self.rest, head.len())?),
        };
        let len = head.len() + (1 + sources) * self.address + auxiliary;
        self.rest = self.rest.get(len..)?;
        self.left -= 1;
        Some((kind, sources > 0, group))
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if let Some(one) = self.one.take() {
            return Some(one);
        }
        while self.left > 0 {
            let (kind, sources, group) = self.step()?;
            let joins = match kind {
                IS_EXCLUDE | TO_EXCLUDE => true,
                IS_INCLUDE | TO_INCLUDE => sources,
                ALLOW_NEW if sources => true,
                _ => continue,
            };
            if is_tracked(group) {
                return Some(Record { group, joins });
            }
        }
        None
    }
}

/// Whether hosts report that they listen to a group, so that its frames can be kept from others.
///
/// Not to 224.0.0.0/24 (RFC 3376 §6.1 and RFC 4541 §2.1.2), nor to ff02::1 and groups that do not leave their host (RFC
/// 3810 §6).
#[must_use]
pub fn is_tracked(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.is_multicast() && v4.octets()[..3] != [224, 0, 0],
        IpAddr::V6(v6) => {
            let scope = v6.segments()[0] & 0xf;
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            v6.is_multicast() && scope > 1 && v6 != all_nodes
        }
    }
}

/// The group that an Ethernet frame is for, if its frames can be kept from those who do not listen.
#[inline]
#[must_use]
pub fn destination(frame: &[u8]) -> Option<IpAddr> {
    let packet = frame.get(eth::HEADER_LEN..)?;
    let group = match u16_at(frame, eth::HEADER_LEN - 2)? {
        TYPE_IPV4 => ip::v4_addresses(packet)?.1.into(),
        TYPE_IPV6 => ip::v6_addresses(packet)?.1.into(),
        _ => return None,
    };
    is_tracked(group).then_some(group)
}

/// Whether a frame can be one of these messages, by its first bytes: what is left for [`parse`] is rare.
#[inline]
pub(crate) fn may_be(frame: &[u8]) -> bool {
    let protocol = |at| frame.get(eth::HEADER_LEN + at).copied();
    match u16_at(frame, eth::HEADER_LEN - 2) {
        Some(TYPE_IPV4) => matches!(protocol(9), Some(PROTO_IGMP | PROTO_PIM)),
        Some(TYPE_IPV6) => matches!(protocol(6), Some(PROTO_HOP_BY_HOP | PROTO_PIM)),
        _ => false,
    }
}

/// Whether a frame that [`may_be`] one of these messages is of IPv6.
pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    u16_at(frame, eth::HEADER_LEN - 2) == Some(TYPE_IPV6)
}

/// Reads a frame; `None` where it is no message of this kind, or one that is not to be believed.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Message<'_>> {
    let packet = frame.get(eth::HEADER_LEN..)?;
    match u16_at(frame, eth::HEADER_LEN - 2)? {
        TYPE_IPV4 => parse_v4(packet),
        TYPE_IPV6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Message<'_>> {
    let fixed: &[u8; V4_HEADER_LEN] = packet.first_chunk()?;
    let (header_len, total) = (usize::from(fixed[0] & 0xf) * 4, usize::from(u16_at(fixed, 2)?));
    let header = packet.get(..header_len)?;
    let (source, to) = ip::v4_addresses(packet)?;
    // Neither a fragment nor anything but don't-fragment among the flags (RFC 791 §3.1).
    let whole = u16_at(fixed, 6)? & 0xbfff == 0;
    if fixed[0] >> 4 != 4
        || header_len < V4_HEADER_LEN
        || fixed[8] != TTL
        || !whole
        || !to.is_multicast()
        || checksum::finish(checksum::sum(header)) != 0
    {
        return None;
    }
    let message = packet.get(header_len..total)?;
    match fixed[9] {
        PROTO_IGMP if checksum::finish(checksum::sum(message)) == 0 => parse_igmp(message, source),
        PROTO_PIM if to == ALL_PIM_ROUTERS_V4 => is_hello(message),
        _ => None,
    }
}

fn parse_igmp(message: &[u8], source: Ipv4Addr) -> Option<Message<'_>> {
    let &[kind, code, ..] = message else { return None };
    let group = || array_at::<4>(message, 4).map(|group| IpAddr::from(*group));
    let report = |joins| Some(Message::Report(Records::one(group()?, joins)));
    match kind {
        QUERY => igmp_query(message, code, source, group()?),
        REPORT_V1 | REPORT_V2 => report(true),
        LEAVE => report(false),
        REPORT_V3 => Some(Message::Report(Records::many(message, 4)?)),
        ADVERTISEMENT => (message.len() >= LEN_V2).then_some(Message::Router),
        _ => None,
    }
}

/// A query of the version that its length says (RFC 3376 §7.1).
fn igmp_query(
    message: &[u8],
    code: u8,
    source: Ipv4Addr,
    group: IpAddr,
) -> Option<Message<'static>> {
    let (response, group, decides) = match message.len() {
        // Version 1 knows no times, and asks about all groups only (RFC 2236 §4).
        LEN_V2 if code == 0 => (10_000, None, true),
        LEN_V2 => (u32::from(code) * 100, Some(group), true),
        QUERY_LEN_V3.. => {
            let (flags, sources) = (message[8], u16_at(message, 10)?);
            (query::from_code(code) * 100, Some(group), flags & 0x8 == 0 && sources == 0)
        }
        _ => return None,
    };
    asked(source.into(), group, response, decides)
}

fn asked(
    source: IpAddr,
    group: Option<IpAddr>,
    response: u32,
    decides: bool,
) -> Option<Message<'static>> {
    let group = group.filter(|group| !group.is_unspecified());
    let valid = group.is_none_or(|group| group.is_multicast());
    valid.then_some(Message::Query(Query { source, group, response, decides }))
}

fn parse_v6(packet: &[u8]) -> Option<Message<'_>> {
    let fixed: &[u8; V6_HEADER_LEN] = packet.first_chunk()?;
    let (source, to) = ip::v6_addresses(packet)?;
    let payload = packet.get(V6_HEADER_LEN..)?.get(..usize::from(u16_at(fixed, 4)?))?;
    if fixed[0] >> 4 != 6 || fixed[7] != TTL || !to.is_multicast() {
        return None;
    }
    if fixed[6] == PROTO_PIM && to == ALL_PIM_ROUTERS_V6 {
        return is_hello(payload);
    }
    let (PROTO_HOP_BY_HOP, &[PROTO_ICMPV6, units, ..]) = (fixed[6], payload) else { return None };
    let options_len = (usize::from(units) + 1) * HOP_BY_HOP_UNIT;
    let (options, message) = payload.split_at_checked(options_len)?;
    // A report may come from a host that has no address yet (RFC 3590 §4).
    let on_link = source.is_unicast_link_local() || source.is_unspecified();
    if !on_link || !has_router_alert(&options[2..]) {
        return None;
    }
    let len = message.len() as u32;
    let pseudo = checksum::pseudo_v6(source.octets(), to.octets(), PROTO_ICMPV6, len);
    if checksum::finish(checksum::add(pseudo, checksum::sum(message))) != 0 {
        return None;
    }
    parse_mld(message, source)
}

fn parse_mld(message: &[u8], source: Ipv6Addr) -> Option<Message<'_>> {
    let group = || array_at::<16>(message, 8).map(|group| IpAddr::from(*group));
    let report = |joins| Some(Message::Report(Records::one(group()?, joins)));
    match *message.first()? {
        MLD_QUERY if source.is_unspecified() => None,
        MLD_QUERY => {
            let code = u16_at(message, 4)?;
            let (response, decides) = match message.len() {
                LEN_MLD => (u32::from(code), true),
                QUERY_LEN_MLD2.. => {
                    let (flags, sources) = (message[24], u16_at(message, 26)?);
                    (query::from_code_v6(code), flags & 0x8 == 0 && sources == 0)
                }
                _ => return None,
            };
            asked(source.into(), Some(group()?), response, decides)
        }
        MLD_REPORT => report(true),
        MLD_DONE => report(false),
        MLD_REPORT_V2 => Some(Message::Report(Records::many(message, 16)?)),
        MLD_ADVERTISEMENT => (message.len() >= LEN_V2).then_some(Message::Router),
        _ => None,
    }
}

/// Whether hop-by-hop options have a router alert (RFC 2711 §2.1).
fn has_router_alert(mut options: &[u8]) -> bool {
    loop {
        options = match *options {
            // One byte of padding (RFC 8200 §4.2).
            [0, ref rest @ ..] => rest,
            [ROUTER_ALERT, 2, _, _, ..] => return true,
            [_, len, ref rest @ ..] if usize::from(len) <= rest.len() => &rest[usize::from(len)..],
            _ => return false,
        };
    }
}

fn is_hello(message: &[u8]) -> Option<Message<'static>> {
    (message.len() >= 4 && message[0] == PIM_HELLO).then_some(Message::Router)
}

#[cfg(test)]
mod tests;
