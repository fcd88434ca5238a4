//! What hosts say of their neighbours: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), read and answered.
//!
//! Only what arrives without a VLAN tag, and only what a host would believe: checksums, hop limits and lengths are checked
//! as RFC 4861 §7.1 asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::eth::{self, MacAddr, TYPE_ARP, TYPE_IPV6};
use super::ip::{PROTO_ICMPV6, V6_HEADER_LEN};
use super::{array_at, checksum, put_u16, u16_at};

/// Length in bytes of an ARP packet for IPv4 over Ethernet (RFC 826, "Packet format").
const ARP_LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4 and the lengths of their addresses (RFC 826; IANA "ARP parameters").
const ARP_PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Operations (RFC 826).
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// ICMPv6 types (RFC 4861 §4.3, §4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The hop limit that shows that no router was on the way (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
/// Both messages: ICMPv6 header, flags or reserved bytes, and the target (RFC 4861 §4.3, §4.4).
const MESSAGE_LEN: usize = 24;
/// Options that hold the sender's or the target's link-layer address, eight bytes long (RFC 4861 §4.6.1).
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
const OPTION_LEN: usize = 8;
/// Flags of an advertisement, in the byte behind the checksum (RFC 4861 §4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Length in bytes of the longest answer: a neighbour advertisement with its Ethernet header.
pub(crate) const MAX_ANSWER: usize = eth::HEADER_LEN + V6_HEADER_LEN + MESSAGE_LEN + OPTION_LEN;

/// What a frame says of or asks about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks who has an address.
    Request {
        /// The address asked about.
        target: IpAddr,
        /// Who asks: its own address and where it is; `None` for a probe, by which a host finds out whether an address that
        /// it wants is taken (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
        sender: Option<(IpAddr, MacAddr)>,
    },
    /// Somebody says where an address is.
    Announcement {
        /// The address.
        address: IpAddr,
        /// Where it is.
        mac: MacAddr,
        /// IPv6: whether it is a router's (RFC 4861 §4.4, R flag).
        router: bool,
    },
}

/// Whether a frame can be one of these messages, by its first bytes: what is left for [`parse`] is rare.
#[inline]
pub(crate) fn may_be(frame: &[u8]) -> bool {
    match u16_at(frame, eth::HEADER_LEN - 2) {
        Some(TYPE_ARP) => true,
        // Next header and hop limit.
        Some(TYPE_IPV6) => {
            u16_at(frame, eth::HEADER_LEN + 6)
                == Some(u16::from_be_bytes([PROTO_ICMPV6, HOP_LIMIT]))
        }
        _ => false,
    }
}

/// Reads a frame; `None` where it is no message of this kind or one that hosts do not believe.
///
/// A gratuitous ARP request, which asks about the sender's own address, is an announcement.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Message> {
    match u16_at(frame, eth::HEADER_LEN - 2)? {
        TYPE_ARP => parse_arp(frame),
        TYPE_IPV6 => parse_nd(frame),
        _ => None,
    }
}

/// Whether an address is one that a host of a link can have.
pub(crate) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_host_v4(v4),
        IpAddr::V6(v6) => is_host_v6(v6),
    }
}

fn is_host_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
}

fn is_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

fn parse_arp(frame: &[u8]) -> Option<Message> {
    let (_, from) = eth::addresses(frame)?;
    let arp: &[u8; ARP_LEN] = array_at(frame, eth::HEADER_LEN)?;
    let mac = MacAddr(*array_at(arp, 8)?);
    let v4 = |at| array_at(arp, at).map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes));
    let (sender, target) = (v4(14)?, v4(24)?);
    // Whoever speaks for another station is not believed, nor answered.
    if arp[..6] != ARP_PREFIX || mac != from || !mac.is_individual() {
        return None;
    }
    let announcement = Message::Announcement { address: sender.into(), mac, router: false };
    match u16_at(arp, 6)? {
        ARP_REQUEST if sender.is_unspecified() && is_host_v4(target) => {
            Some(Message::Request { target: target.into(), sender: None })
        }
        ARP_REQUEST | ARP_REPLY if !is_host_v4(sender) => None,
        ARP_REQUEST if sender == target => Some(announcement),
        ARP_REQUEST if is_host_v4(target) => {
            Some(Message::Request { target: target.into(), sender: Some((sender.into(), mac)) })
        }
        ARP_REPLY => Some(announcement),
        _ => None,
    }
}

fn parse_nd(frame: &[u8]) -> Option<Message> {
    let (_, from) = eth::addresses(frame)?;
    let ip: &[u8; V6_HEADER_LEN] = array_at(frame, eth::HEADER_LEN)?;
    let len = usize::from(u16_at(ip, 4)?);
    if ip[0] >> 4 != 6 || ip[6] != PROTO_ICMPV6 || ip[7] != HOP_LIMIT || len < MESSAGE_LEN {
        return None;
    }
    let message = frame.get(eth::HEADER_LEN + V6_HEADER_LEN..)?.get(..len)?;
    let (source, destination): ([u8; 16], [u8; 16]) = (*array_at(ip, 8)?, *array_at(ip, 24)?);
    let pseudo = checksum::pseudo_v6(source, destination, PROTO_ICMPV6, len as u32);
    let sum = checksum::add(pseudo, checksum::sum(message));
    let target = Ipv6Addr::from(*array_at::<16>(message, 8)?);
    if checksum::finish(sum) != 0 || message[1] != 0 || !is_host_v6(target) || !from.is_individual()
    {
        return None;
    }
    let source = Ipv6Addr::from(source);
    match message[0] {
        SOLICITATION if source.is_unspecified() => option(message, SOURCE_OPTION)
            .ok()?
            .is_none()
            .then_some(Message::Request { target: target.into(), sender: None }),
        SOLICITATION => {
            let mac = option(message, SOURCE_OPTION).ok()?.unwrap_or(from);
            (is_host_v6(source) && mac == from).then_some(Message::Request {
                target: target.into(),
                sender: Some((source.into(), mac)),
            })
        }
        ADVERTISEMENT => {
            let mac = option(message, TARGET_OPTION).ok()??;
            let router = message[4] & ROUTER != 0;
            let answer = Message::Announcement { address: target.into(), mac, router };
            mac.is_individual().then_some(answer)
        }
        _ => None,
    }
}

/// The link-layer address in the first option of a kind, if there is one; an error where the options make no sense.
fn option(message: &[u8], kind: u8) -> Result<Option<MacAddr>, ()> {
    let mut rest = &message[MESSAGE_LEN..];
    let mut found = None;
    while let Some((head, _)) = rest.split_at_checked(2) {
        let len = usize::from(head[1]) * 8;
        if len == 0 || len > rest.len() {
            return Err(());
        }
        if head[0] == kind && len == OPTION_LEN && found.is_none() {
            found = array_at(rest, 2).map(|mac| MacAddr(*mac));
        }
        rest = &rest[len..];
    }
    if rest.is_empty() { Ok(found) } else { Err(()) }
}

/// A frame written into an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
}

impl Answer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Tells `asker` that `target` is at `mac`, as whoever has the address would; `None` where the two are of different
/// families. `router` is of IPv6 alone.
pub(crate) fn answer(
    (target, mac, router): (IpAddr, MacAddr, bool),
    (asker, at): (IpAddr, MacAddr),
) -> Option<Answer> {
    let mut answer = Answer { bytes: [0; MAX_ANSWER], len: 0 };
    match (target, asker) {
        (IpAddr::V4(target), IpAddr::V4(asker)) => {
            let header = eth::header(at.into(), mac.into(), TYPE_ARP);
            let operation = ARP_REPLY.to_be_bytes();
            let (sender, asker) = (target.octets(), asker.octets());
            fill(&mut answer, &[&header, &ARP_PREFIX, &operation, &mac.0, &sender, &at.0, &asker]);
        }
        (IpAddr::V6(target), IpAddr::V6(asker)) => {
            let flags = SOLICITED | OVERRIDE | if router { ROUTER } else { 0 };
            let message = ([ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0], target, (TARGET_OPTION, mac));
            discover(&mut answer, (target, mac), (asker, at), message);
        }
        _ => return None,
    }
    Some(answer)
}

/// Asks everybody who has `target`, from an address of the same family; without one only ARP can ask, as a probe does.
pub(crate) fn request(target: IpAddr, (own, mac): (Option<IpAddr>, MacAddr)) -> Option<Answer> {
    let mut request = Answer { bytes: [0; MAX_ANSWER], len: 0 };
    match (target, own) {
        (IpAddr::V4(target), None | Some(IpAddr::V4(_))) => {
            let own = match own {
                Some(IpAddr::V4(own)) => own,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let header = eth::header(MacAddr::BROADCAST.into(), mac.into(), TYPE_ARP);
            let operation = ARP_REQUEST.to_be_bytes();
            let (sender, target) = (own.octets(), target.octets());
            fill(
                &mut request,
                &[&header, &ARP_PREFIX, &operation, &mac.0, &sender, &[0; 6], &target],
            );
        }
        (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
            // The target's solicited-node address, and that of Ethernet (RFC 4291 §2.7.1, RFC 2464 §7).
            let [.., a, b, c] = target.octets();
            let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
            let to = MacAddr([0x33, 0x33, 0xff, a, b, c]);
            let message = ([SOLICITATION, 0, 0, 0, 0, 0, 0, 0], target, (SOURCE_OPTION, mac));
            discover(&mut request, (own, mac), (group.into(), to), message);
        }
        _ => return None,
    }
    Some(request)
}

/// A neighbour solicitation or advertisement with one option (RFC 4861 §4.3, §4.4).
fn discover(
    answer: &mut Answer,
    (from, mac): (Ipv6Addr, MacAddr),
    (to, at): (Ipv6Addr, MacAddr),
    (head, target, (option, link)): ([u8; 8], Ipv6Addr, (u8, MacAddr)),
) {
    const LEN: u16 = (MESSAGE_LEN + OPTION_LEN) as u16;
    let parts: [&[u8]; 10] = [
        &eth::header(at.into(), mac.into(), TYPE_IPV6),
        &[0x60, 0, 0, 0],
        &LEN.to_be_bytes(),
        &[PROTO_ICMPV6, HOP_LIMIT],
        &from.octets(),
        &to.octets(),
        &head,
        &target.octets(),
        &[option, 1],
        &link.0,
    ];
    fill(answer, &parts);
    let start = eth::HEADER_LEN + V6_HEADER_LEN;
    let pseudo = checksum::pseudo_v6(from.octets(), to.octets(), PROTO_ICMPV6, LEN.into());
    let sum = checksum::add(pseudo, checksum::sum(&answer.bytes[start..]));
    put_u16(&mut answer.bytes, start + 2, checksum::finish(sum));
}

fn fill(answer: &mut Answer, parts: &[&[u8]]) {
    for part in parts {
        if let Some(room) = answer.bytes.get_mut(answer.len..answer.len + part.len()) {
            room.copy_from_slice(part);
            answer.len += part.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn arp(operation: u16, from: MacAddr, sender: &str, target: &str) -> Vec<u8> {
        let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
        let header = eth::header(MacAddr::BROADCAST.into(), from.into(), TYPE_ARP);
        let parts: [&[u8]; 7] = [
            &header,
            &ARP_PREFIX,
            &operation.to_be_bytes(),
            &from.0,
            &octets(sender),
            &[0; 6],
            &octets(target),
        ];
        parts.concat()
    }

    /// A neighbour message with an option or without.
    fn nd(kind: u8, flags: u8, source: &str, target: &str, option: &[u8]) -> Vec<u8> {
        let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let (source, to, target) = (octets(source), octets("ff02::1"), octets(target));
        let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0], &target[..], option].concat();
        let pseudo = checksum::pseudo_v6(source, to, PROTO_ICMPV6, message.len() as u32);
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&message)));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = eth::header(MacAddr([0x33, 0x33, 0, 0, 0, 1]).into(), A.into(), TYPE_IPV6);
        let len = (message.len() as u16).to_be_bytes();
        let parts: [&[u8]; 7] =
            [&header, &[0x60, 0, 0, 0], &len, &[PROTO_ICMPV6, HOP_LIMIT], &source, &to, &message];
        parts.concat()
    }

    fn link(kind: u8, mac: MacAddr) -> Vec<u8> {
        [&[kind, 1][..], &mac.0].concat()
    }

    fn announcement(address: &str, mac: MacAddr, router: bool) -> Option<Message> {
        Some(Message::Announcement { address: ip(address), mac, router })
    }

    fn request(target: &str, sender: Option<(&str, MacAddr)>) -> Option<Message> {
        let sender = sender.map(|(sender, mac)| (ip(sender), mac));
        Some(Message::Request { target: ip(target), sender })
    }

    #[test]
    fn arp_is_a_request_a_probe_or_an_announcement() {
        let cases = [
            (arp(1, A, "10.0.0.1", "10.0.0.2"), request("10.0.0.2", Some(("10.0.0.1", A)))),
            (arp(1, A, "0.0.0.0", "10.0.0.2"), request("10.0.0.2", None)),
            (arp(1, A, "10.0.0.1", "10.0.0.1"), announcement("10.0.0.1", A, false)),
            (arp(2, A, "10.0.0.1", "10.0.0.2"), announcement("10.0.0.1", A, false)),
            (arp(2, A, "0.0.0.0", "10.0.0.2"), None),
            (arp(3, A, "10.0.0.1", "10.0.0.2"), None),
            (arp(1, A, "224.0.0.1", "10.0.0.2"), None),
            (arp(1, A, "10.0.0.1", "127.0.0.1"), None),
            (arp(1, A, "0.0.0.0", "255.255.255.255"), None),
            (arp(1, MacAddr::BROADCAST, "10.0.0.1", "10.0.0.2"), None),
        ];
        for (frame, expected) in cases {
            assert_eq!(parse(&frame), expected, "{frame:02x?}");
            assert!(may_be(&frame));
            for len in 0..frame.len() {
                assert_eq!(parse(&frame[..len]), None);
            }
        }
        // Whoever speaks for another station, and another kind of address.
        for at in [6, 14, 16, 18, 19, 22] {
            let mut frame = arp(1, A, "10.0.0.1", "10.0.0.2");
            frame[at] ^= 4;
            assert_eq!(parse(&frame), None, "byte {at}");
        }
    }

    #[test]
    fn neighbour_discovery_is_believed_as_hosts_do() {
        let (source, target) = (link(SOURCE_OPTION, A), link(TARGET_OPTION, B));
        let two = [&link(14, B)[..], &source].concat();
        let cases = [
            (nd(135, 0, "fd00::1", "fd00::2", &source), request("fd00::2", Some(("fd00::1", A)))),
            (nd(135, 0, "fd00::1", "fd00::2", &two), request("fd00::2", Some(("fd00::1", A)))),
            (nd(135, 0, "fd00::1", "fd00::2", &[]), request("fd00::2", Some(("fd00::1", A)))),
            (nd(135, 0, "::", "fd00::2", &[]), request("fd00::2", None)),
            (nd(135, 0, "::", "fd00::2", &source), None),
            (nd(135, 0, "fd00::1", "fd00::2", &link(SOURCE_OPTION, B)), None),
            (nd(135, 0, "fd00::1", "ff02::2", &source), None),
            (nd(135, 0, "fd00::1", "fd00::2", &[1, 0, 0, 0, 0, 0, 0, 0]), None),
            (nd(135, 0, "fd00::1", "fd00::2", &[1, 2, 0, 0, 0, 0, 0, 0]), None),
            (nd(135, 0, "fd00::1", "fd00::2", &[1]), None),
            (nd(136, ROUTER, "fd00::1", "fd00::2", &target), announcement("fd00::2", B, true)),
            (nd(136, OVERRIDE, "fd00::1", "fd00::2", &target), announcement("fd00::2", B, false)),
            (nd(136, 0, "fd00::1", "fd00::2", &[]), None),
            (nd(136, 0, "fd00::1", "fd00::2", &link(TARGET_OPTION, MacAddr::BROADCAST)), None),
            (nd(134, 0, "fd00::1", "fd00::2", &target), None),
        ];
        for (frame, expected) in cases {
            assert_eq!(parse(&frame), expected, "{frame:02x?}");
            assert!(may_be(&frame));
        }
        let good = nd(135, 0, "fd00::1", "fd00::2", &source);
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len]), None, "{len} bytes");
        }
        // Version, length, next header, hop limit, addresses, code and checksum; the hop limit is in no sum.
        for at in [14, 18, 20, 21, 22, 55, 57, 70] {
            let mut frame = good.clone();
            frame[at] ^= 0x10;
            assert_eq!(parse(&frame), None, "byte {at}");
        }
    }

    #[test]
    fn an_answer_is_what_the_neighbour_itself_would_say() {
        for (target, asker) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
            for router in [false, true] {
                let answer = answer((ip(target), B, router), (ip(asker), A)).unwrap();
                let frame = answer.bytes();
                assert_eq!(eth::addresses(frame), Some((A, B)));
                let router = router && ip(target).is_ipv6();
                assert_eq!(parse(frame), announcement(target, B, router));
            }
        }
        let arp = answer((ip("10.0.0.2"), B, false), (ip("10.0.0.1"), A)).unwrap();
        let expected = [&ARP_PREFIX[..], &[0, 2], &B.0, &[10, 0, 0, 2], &A.0, &[10, 0, 0, 1]];
        assert_eq!(arp.bytes()[14..], expected.concat());

        let answer_v6 = answer((ip("fd00::2"), B, true), (ip("fd00::1"), A)).unwrap();
        assert_eq!(answer_v6.bytes().len(), MAX_ANSWER);
        let parsed = SlicedPacket::from_ethernet(answer_v6.bytes()).unwrap();
        let (
            Some(LinkSlice::Ethernet2(_)),
            Some(NetSlice::Ipv6(net)),
            Some(TransportSlice::Icmpv6(icmp)),
        ) = (parsed.link, parsed.net, parsed.transport)
        else {
            panic!("no advertisement")
        };
        assert_eq!(net.header().source_addr(), ip("fd00::2"));
        assert_eq!(net.header().destination_addr(), ip("fd00::1"));
        assert_eq!((icmp.type_u8(), icmp.bytes5to8()[0]), (ADVERTISEMENT, 0xe0));
        assert_eq!(answer((ip("fd00::2"), B, true), (ip("10.0.0.1"), A)).map(|_| ()), None);
    }

    #[test]
    fn a_question_is_one_that_hosts_answer() {
        for (target, own) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fe80::1")] {
            let question = super::request(ip(target), (Some(ip(own)), A)).unwrap();
            assert_eq!(parse(question.bytes()), request(target, Some((own, A))));
        }
        let probe = super::request(ip("10.0.0.2"), (None, A)).unwrap();
        assert_eq!(parse(probe.bytes()), request("10.0.0.2", None));
        assert!(super::request(ip("fd00::2"), (None, A)).is_none());
    }

    proptest! {
        #[test]
        fn survives_anything(mut frame in prop::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(ethertype) = frame.get_mut(12..14) {
                ethertype.copy_from_slice(&if v6 { TYPE_IPV6 } else { TYPE_ARP }.to_be_bytes());
            }
            prop_assert!(parse(&frame).is_none() || may_be(&frame));
        }
    }
}
