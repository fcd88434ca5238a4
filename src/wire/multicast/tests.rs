use proptest::prelude::*;

use super::*;
use crate::wire::MacAddr;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An IGMP message in a frame, with its checksums, from 10.0.0.1.
fn igmp(to: &str, message: &[u8]) -> Vec<u8> {
    let IpAddr::V4(to) = ip(to) else { panic!("IPv4") };
    let mut message = message.to_vec();
    let sum = checksum::finish(checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (24 + message.len()) as u16;
    let mut header =
        [&[0x46, 0xc0][..], &total.to_be_bytes(), &[0, 0, 0x40, 0, 1, 2, 0, 0]].concat();
    header.extend([[10, 0, 0, 1], to.octets(), [0x94, 4, 0, 0]].concat());
    let sum = checksum::finish(checksum::sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let link = eth::header(MacAddr([1, 0, 0x5e, 0, 0, 1]).into(), MAC.into(), TYPE_IPV4);
    [&link[..], &header, &message].concat()
}

/// An MLD message in a frame, with its checksum and a router alert, from fe80::1.
fn mld(to: &str, message: &[u8]) -> Vec<u8> {
    mld_from("fe80::1", to, message)
}

fn mld_from(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let (from, to) = (octets(from), octets(to));
    let mut message = message.to_vec();
    let pseudo = checksum::pseudo_v6(from, to, PROTO_ICMPV6, message.len() as u32);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let link = eth::header(MacAddr([0x33, 0x33, 0, 0, 0, 1]).into(), MAC.into(), TYPE_IPV6);
    let len = (message.len() as u16 + 8).to_be_bytes();
    let options = [58, 0, 5, 2, 0, 0, 1, 0];
    let parts: [&[u8]; 8] =
        [&link, &[0x60, 0, 0, 0], &len, &[0, 1], &from, &to, &options, &message];
    parts.concat()
}

fn short(kind: u8, code: u8, group: [u8; 4]) -> Vec<u8> {
    [[kind, code, 0, 0], group].concat()
}

fn long(kind: u8, group: &str) -> Vec<u8> {
    let group = group.parse::<Ipv6Addr>().unwrap().octets();
    [&[kind, 0, 0, 0, 0x27, 0x10, 0, 0][..], &group].concat()
}

fn records(frame: &[u8]) -> Vec<(String, bool)> {
    match parse(frame) {
        Some(Message::Report(records)) => {
            records.map(|record| (record.group.to_string(), record.joins)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn query(frame: &[u8]) -> Query {
    match parse(frame) {
        Some(Message::Query(query)) => query,
        other => panic!("{other:?}"),
    }
}

/// A report of version 3 or MLDv2: type, sources and group of each record.
fn report(kind: u8, list: &[(u8, u16, IpAddr)]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0];
    message.extend((list.len() as u16).to_be_bytes());
    for (kind, sources, group) in list {
        message.extend([*kind, 1]);
        message.extend(sources.to_be_bytes());
        let source = match group {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        for _ in 0..=*sources {
            message.extend(&source);
        }
        // Auxiliary data, one word.
        message.extend([0xaa; 4]);
    }
    message
}

#[test]
fn hosts_of_all_versions_join_and_leave() {
    let group = [239, 1, 2, 3];
    let one = |joins| vec![("239.1.2.3".to_owned(), joins)];
    assert_eq!(records(&igmp("239.1.2.3", &short(0x12, 0, group))), one(true));
    assert_eq!(records(&igmp("239.1.2.3", &short(0x16, 0, group))), one(true));
    assert_eq!(records(&igmp("224.0.0.2", &short(0x17, 0, group))), one(false));
    // A group that everybody gets, and what is no group at all.
    assert_eq!(records(&igmp("224.0.0.9", &short(0x16, 0, [224, 0, 0, 9]))), []);
    assert_eq!(records(&igmp("224.0.0.9", &short(0x16, 0, [10, 0, 0, 9]))), []);
    for (kind, joins) in [(131, true), (132, false)] {
        let expected = vec![("ff05::7".to_owned(), joins)];
        assert_eq!(records(&mld("ff02::2", &long(kind, "ff05::7"))), expected);
        let solicited = vec![("ff02::1:ff00:1".to_owned(), joins)];
        assert_eq!(records(&mld_from("::", "ff02::2", &long(kind, "ff02::1:ff00:1"))), solicited);
        assert_eq!(records(&mld("ff02::2", &long(kind, "ff02::1"))), []);
        assert_eq!(records(&mld("ff02::2", &long(kind, "ff01::7"))), []);
    }
}

#[test]
fn source_lists_say_whether_anything_is_listened_to() {
    for (kind, group, to) in [(0x22, "239.1.2.3", "224.0.0.22"), (143, "ff05::7", "ff02::16")] {
        let frame = |list: &[(u8, u16)]| {
            let list: Vec<_> = list.iter().map(|(kind, n)| (*kind, *n, ip(group))).collect();
            let message = report(kind, &list);
            if kind == 143 { mld(to, &message) } else { igmp(to, &message) }
        };
        let said = |list: &[(u8, u16)]| -> Vec<bool> {
            records(&frame(list)).into_iter().map(|(_, joins)| joins).collect()
        };
        assert_eq!(said(&[(1, 0), (1, 2), (2, 0), (2, 2)]), [false, true, true, true]);
        assert_eq!(said(&[(3, 0), (3, 2), (4, 0), (4, 2)]), [false, true, true, true]);
        assert_eq!(said(&[(5, 1), (5, 0), (6, 1), (0, 0), (7, 1)]), [true]);
        // Records that are not all there: of none anything follows.
        let good = frame(&[(2, 0), (2, 1)]);
        for len in 0..good.len() {
            assert!(parse(&good[..len]).is_none(), "{len} bytes");
        }
        let list = [(2, 0, ip(group)), (2, 0, ip(group))];
        let mut message = report(kind, &list);
        message[7] = 3;
        let frame = if kind == 143 { mld(to, &message) } else { igmp(to, &message) };
        assert!(parse(&frame).is_none());
    }
}

#[test]
fn queries_are_of_the_version_that_their_length_says() {
    let (source, group) = (ip("10.0.0.1"), Some(ip("239.1.2.3")));
    let all = Query { source, group: None, response: 10_000, decides: true };
    assert_eq!(query(&igmp("224.0.0.1", &short(0x11, 0, [0; 4]))), all);
    assert_eq!(query(&igmp("224.0.0.1", &short(0x11, 100, [0; 4]))), all);
    let v2 = query(&igmp("239.1.2.3", &short(0x11, 10, [239, 1, 2, 3])));
    assert_eq!(v2, Query { group, response: 1000, ..all });
    let v3 = |code, flags: u8, sources: u8| {
        let tail = [flags, 125, 0, sources, 10, 0, 0, 9, 10, 0, 0, 8];
        let tail = &tail[..4 + 4 * usize::from(sources)];
        query(&igmp("239.1.2.3", &[&short(0x11, code, [239, 1, 2, 3])[..], tail].concat()))
    };
    assert_eq!(v3(0x80, 2, 0), Query { group, response: 12_800, ..all });
    assert_eq!(v3(10, 0xa, 0), Query { group, response: 1000, decides: false, ..all });
    assert_eq!(v3(10, 2, 1), Query { group, response: 1000, decides: false, ..all });
    // Neither of version 2 nor 3; and about something that is no group.
    assert!(parse(&igmp("224.0.0.1", &[&short(0x11, 1, [0; 4])[..], &[0, 0]].concat())).is_none());
    assert!(parse(&igmp("224.0.0.1", &short(0x11, 1, [10, 0, 0, 1]))).is_none());

    let (source, group) = (ip("fe80::1"), Some(ip("ff05::7")));
    let all = Query { source, group: None, response: 10_000, decides: true };
    assert_eq!(query(&mld("ff02::1", &long(130, "::"))), all);
    assert_eq!(query(&mld("ff05::7", &long(130, "ff05::7"))), Query { group, ..all });
    let v2 =
        |flags| query(&mld("ff05::7", &[&long(130, "ff05::7")[..], &[flags, 125, 0, 0]].concat()));
    assert_eq!(v2(2), Query { group, ..all });
    assert_eq!(v2(8), Query { group, decides: false, ..all });
    assert!(parse(&mld_from("::", "ff02::1", &long(130, "::"))).is_none());
    assert!(parse(&mld_from("fd00::1", "ff02::1", &long(130, "::"))).is_none());
    assert!(parse(&mld("ff02::1", &[&long(130, "::")[..], &[0, 0]].concat())).is_none());
}

#[test]
fn routers_give_themselves_away() {
    let is_router = |frame: &[u8]| matches!(parse(frame), Some(Message::Router));
    assert!(is_router(&igmp("224.0.0.106", &short(0x30, 20, [0; 4]))));
    assert!(is_router(&mld("ff02::6a", &long(151, "::"))));
    let mut pim = igmp("224.0.0.13", &short(0x20, 0, [0; 4]));
    pim[14 + 9] = 103;
    // The header's checksum follows the protocol number.
    let sum = u16::from_be_bytes([pim[24], pim[25]]) - 101;
    pim[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(is_router(&pim) && may_be(&pim));
    pim[14 + 24] = 0x23;
    assert!(parse(&pim).is_none());
    let mut pim = mld("ff02::d", &long(130, "::"));
    pim[14 + 6] = 103;
    pim[14 + 40] = 0x20;
    assert!(is_router(&pim) && may_be(&pim));
}

#[test]
fn what_may_have_been_routed_or_mangled_is_not_believed() {
    let good = igmp("239.1.2.3", &short(0x16, 0, [239, 1, 2, 3]));
    // Version and header length, length, fragments, TTL, protocol, checksums, destination, message.
    for at in [14, 17, 20, 22, 23, 24, 30, 38, 40, 45] {
        let mut frame = good.clone();
        frame[at] ^= 0x20;
        assert!(parse(&frame).is_none(), "byte {at}");
    }
    let good = mld("ff02::16", &long(131, "ff05::7"));
    // Version, length, next header, hop limit, addresses, options, message.
    for at in [14, 19, 20, 21, 22, 38, 54, 55, 56, 62, 64, 85] {
        let mut frame = good.clone();
        frame[at] ^= 0x20;
        assert!(parse(&frame).is_none(), "byte {at}");
    }
    // Padding behind the packet is none of it.
    assert!(parse(&[&good[..], &[0xff; 9]].concat()).is_some());
}

#[test]
fn some_groups_are_everybodys() {
    for everybodys in
        ["224.0.0.1", "224.0.0.251", "ff02::1", "ff01::5", "ff00::1", "10.0.0.1", "fe80::1"]
    {
        assert!(!is_tracked(ip(everybodys)), "{everybodys}");
    }
    for tracked in ["224.0.1.1", "239.0.0.1", "ff02::1:ff00:1", "ff02::fb", "ff05::1", "ff0e::1"] {
        assert!(is_tracked(ip(tracked)), "{tracked}");
    }
    assert_eq!(destination(&igmp("239.1.2.3", &[0; 8])), Some(ip("239.1.2.3")));
    assert_eq!(destination(&igmp("224.0.0.5", &[0; 8])), None);
    assert_eq!(destination(&mld("ff05::7", &[0; 8])), Some(ip("ff05::7")));
    assert_eq!(destination(&[0; 14]), None);
}

#[test]
fn questions_are_understood() {
    for (own, all, group) in
        [("10.0.0.9", "224.0.0.1", "239.129.2.3"), ("fe80::9", "ff02::1", "ff05::7")]
    {
        let asker = Asker { address: ip(own), mac: MAC, interval: 125, response: 10 };
        for (group, response) in [(None, 10), (Some(ip(group)), 1)] {
            let question = Question::new(asker, group).unwrap();
            let expected =
                Query { source: ip(own), group, response: response * 1000, decides: true };
            assert_eq!(query(question.bytes()), expected);
            assert!(may_be(question.bytes()));
            let (to, from) = eth::addresses(question.bytes()).unwrap();
            assert_eq!(from, MAC);
            let is = etherparse::SlicedPacket::from_ethernet(question.bytes()).unwrap();
            let destination: IpAddr = match is.net.unwrap() {
                etherparse::NetSlice::Ipv4(v4) => v4.header().destination_addr().into(),
                etherparse::NetSlice::Ipv6(v6) => v6.header().destination_addr().into(),
                other => panic!("{other:?}"),
            };
            assert_eq!(destination, group.unwrap_or(ip(all)));
            let expected = match (group, ip(own).is_ipv4()) {
                (None, true) => [1, 0, 0x5e, 0, 0, 1],
                (Some(_), true) => [1, 0, 0x5e, 1, 2, 3],
                (None, false) => [0x33, 0x33, 0, 0, 0, 1],
                (Some(_), false) => [0x33, 0x33, 0, 0, 0, 7],
            };
            assert_eq!(to, MacAddr(expected));
        }
        let other = if ip(own).is_ipv4() { "ff05::7" } else { "239.1.1.1" };
        assert!(Question::new(asker, Some(ip(other))).is_none());
    }
}

proptest! {
    #[test]
    fn survives_anything(mut frame in prop::collection::vec(any::<u8>(), 0..160), v6: bool, fix: bool) {
        if let Some(ethertype) = frame.get_mut(12..14) {
            ethertype.copy_from_slice(&if v6 { TYPE_IPV6 } else { TYPE_IPV4 }.to_be_bytes());
        }
        let _ = destination(&frame);
        prop_assert!(parse(&frame).is_none() || may_be(&frame));
        if fix && frame.len() > 8 {
            // As far as the records, with whatever they say.
            let message = &frame[..];
            let whole = if v6 { mld("ff02::16", &[&[143][..], message].concat()) } else { igmp("224.0.0.22", &[&[0x22][..], message].concat()) };
            if let Some(Message::Report(records)) = parse(&whole) {
                prop_assert!(records.count() <= whole.len());
            }
        }
    }
}
