//! Queries: how their times are written, and whole ones, as a querier sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    HOP_BY_HOP_UNIT, LEN_V2, MLD_QUERY, PROTO_HOP_BY_HOP, PROTO_ICMPV6, PROTO_IGMP, QUERY,
    QUERY_LEN_MLD2, QUERY_LEN_V3, ROUTER_ALERT, TTL, TYPE_IPV4, TYPE_IPV6, V4_HEADER_LEN,
    V6_HEADER_LEN, checksum, eth,
};
use crate::wire::{MacAddr, put_u16};

/// The IPv4 router alert option (RFC 2113 §2.1).
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
/// TOS of IGMPv3: internetwork control (RFC 3376 §4).
const TOS: u8 = 0xc0;
/// Seconds for the answers to a question about one group (RFC 3376 §8.8).
const LAST_RESPONSE: u8 = 1;
/// Robustness variable: how often a host or querier says what must not get lost (RFC 3376 §8.1).
const ROBUSTNESS: u8 = 2;
/// How far the checksum and the fields behind it are from the beginning of the message.
const CHECKSUM: usize = 2;

/// Where an IPv4 message, and an ICMPv6 one behind a router alert, begins in a frame.
const START_V4: usize = eth::HEADER_LEN + V4_HEADER_LEN + ROUTER_ALERT_V4.len();
const START_V6: usize = eth::HEADER_LEN + V6_HEADER_LEN + HOP_BY_HOP_UNIT;

/// Length in bytes of the longest query, with its Ethernet header.
const MAX_QUERY: usize = START_V6 + QUERY_LEN_MLD2;
const _: () = assert!(QUERY_LEN_V3 > LEN_V2 && START_V4 + QUERY_LEN_V3 <= MAX_QUERY);

/// The number that stands behind a code of a byte: small ones as they are, larger ones as a kind of floating point
/// (RFC 3376 §4.1.1).
pub(super) fn from_code(code: u8) -> u32 {
    let (mantissa, exponent) = (u32::from(code & 0xf), code >> 4 & 0x7);
    if code < 128 { code.into() } else { (mantissa | 0x10) << (exponent + 3) }
}

/// The same for two bytes (RFC 3810 §5.1.3).
pub(super) fn from_code_v6(code: u16) -> u32 {
    let (mantissa, exponent) = (u32::from(code & 0xfff), code >> 12 & 0x7);
    if code < 32_768 { code.into() } else { (mantissa | 0x1000) << (exponent + 3) }
}

/// The code whose number is as close to this one as it can be without exceeding it.
fn to_code(number: u32) -> u8 {
    (0..=255).rev().find(|code| from_code(*code) <= number).unwrap_or(0)
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Of IPv6 a link-local one (RFC 3810 §5.1.14).
    pub(crate) address: IpAddr,
    pub(crate) mac: MacAddr,
    /// Seconds between its questions about all groups.
    pub(crate) interval: u32,
    /// Seconds for the answers to them, at most 12.
    pub(crate) response: u8,
}

/// A query as a frame: IGMPv3 or MLDv2, which hosts of older versions understand, too (RFC 3376 §7.2, RFC 3810 §8.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    bytes: [u8; MAX_QUERY],
    len: usize,
}

impl Question {
    /// Asks who listens to a group, or to any; `None` where the group is of another family.
    pub(crate) fn new(asker: Asker, group: Option<IpAddr>) -> Option<Self> {
        let response = if group.is_some() { LAST_RESPONSE } else { asker.response };
        let mut question = Self { bytes: [0; MAX_QUERY], len: 0 };
        // The group of a question about all of them is zero.
        match (asker.address, group) {
            (IpAddr::V4(own), None) => question.v4(asker, own, Ipv4Addr::UNSPECIFIED, response),
            (IpAddr::V4(own), Some(IpAddr::V4(v4))) => question.v4(asker, own, v4, response),
            (IpAddr::V6(own), None) => question.v6(asker, own, Ipv6Addr::UNSPECIFIED, response),
            (IpAddr::V6(own), Some(IpAddr::V6(v6))) => question.v6(asker, own, v6, response),
            _ => return None,
        }
        Some(question)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn v4(&mut self, asker: Asker, own: Ipv4Addr, group: Ipv4Addr, response: u8) {
        let to = if group.is_unspecified() { Ipv4Addr::new(224, 0, 0, 1) } else { group };
        // The last 23 bits of the address (RFC 1112 §6.4).
        let [_, b, c, d] = to.octets();
        let at = MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
        let total = (V4_HEADER_LEN + ROUTER_ALERT_V4.len() + QUERY_LEN_V3) as u16;
        let words = (V4_HEADER_LEN + ROUTER_ALERT_V4.len()) as u8 / 4;
        self.fill(&[
            &eth::header(at.into(), asker.mac.into(), TYPE_IPV4),
            &[0x40 | words, TOS],
            &total.to_be_bytes(),
            &[0, 0, 0x40, 0, TTL, PROTO_IGMP, 0, 0],
            &own.octets(),
            &to.octets(),
            &ROUTER_ALERT_V4,
            &[QUERY, to_code(u32::from(response) * 10), 0, 0],
            &group.octets(),
            &[ROBUSTNESS, to_code(asker.interval), 0, 0],
        ]);
        let header = checksum::sum(&self.bytes[eth::HEADER_LEN..START_V4]);
        put_u16(&mut self.bytes, eth::HEADER_LEN + 10, checksum::finish(header));
        let message = checksum::sum(&self.bytes[START_V4..self.len]);
        put_u16(&mut self.bytes, START_V4 + CHECKSUM, checksum::finish(message));
    }

    fn v6(&mut self, asker: Asker, own: Ipv6Addr, group: Ipv6Addr, response: u8) {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = if group.is_unspecified() { all_nodes } else { group };
        // The last 32 bits of the address (RFC 2464 §7).
        let [.., a, b, c, d] = to.octets();
        let at = MacAddr([0x33, 0x33, a, b, c, d]);
        let len = (HOP_BY_HOP_UNIT + QUERY_LEN_MLD2) as u16;
        self.fill(&[
            &eth::header(at.into(), asker.mac.into(), TYPE_IPV6),
            &[0x60, 0, 0, 0],
            &len.to_be_bytes(),
            &[PROTO_HOP_BY_HOP, TTL],
            &own.octets(),
            &to.octets(),
            // Two bytes of padding at the end (RFC 8200 §4.2).
            &[PROTO_ICMPV6, 0, ROUTER_ALERT, 2, 0, 0, 1, 0],
            &[MLD_QUERY, 0, 0, 0],
            &(u16::from(response) * 1000).to_be_bytes(),
            &[0, 0],
            &group.octets(),
            &[ROBUSTNESS, to_code(asker.interval), 0, 0],
        ]);
        let len = QUERY_LEN_MLD2 as u32;
        let pseudo = checksum::pseudo_v6(own.octets(), to.octets(), PROTO_ICMPV6, len);
        let sum = checksum::add(pseudo, checksum::sum(&self.bytes[START_V6..self.len]));
        put_u16(&mut self.bytes, START_V6 + CHECKSUM, checksum::finish(sum));
    }

    fn fill(&mut self, parts: &[&[u8]]) {
        for part in parts {
            if let Some(room) = self.bytes.get_mut(self.len..self.len + part.len()) {
                room.copy_from_slice(part);
                self.len += part.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_times_are_those_of_the_rfc() {
        for (code, number) in
            [(0, 0), (100, 100), (127, 127), (0x80, 128), (0x8a, 208), (0xff, 31_744)]
        {
            assert_eq!(from_code(code), number);
            assert_eq!(to_code(number), code);
        }
        assert_eq!(to_code(129), 0x80);
        assert_eq!(from_code_v6(10_000), 10_000);
        assert_eq!(from_code_v6(0x8000), 32_768);
        assert_eq!(from_code_v6(0xffff), 8_387_584);
    }
}
