//! What the control plane may say, what it is told when it is wrong, and that wrong changes leave no trace.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "common/packets.rs"]
mod packets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use overplane::wire::vxlan;
use overplane::{
    Batch, Change, Destination, Error, FdbEntry, Flush, Forwarder, GroupId, GroupInfo, MacAddr,
    Member, NextHop, Output, PortId, PortInfo, PortOptions, Prefix, Route, Segment, SegmentId,
    SegmentInfo, Stats, Tables, limits,
};
use packets::*;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(100);

fn tables() -> Tables {
    let mut tables = Tables::new(underlay(1), 1).unwrap();
    // It is listed after every step.
    tables.set_fdb_capacity(1024).unwrap();
    tables
}

fn routed() -> SegmentId {
    Segment::routed(8285).id()
}

fn port_of(segment: SegmentId) -> Change {
    Change::AddPort {
        segment,
        name: "tap0".into(),
        offload: false,
        options: PortOptions::default(),
    }
}

/// A bridge segment 1 with a port, and a routed segment with a port.
fn furnished() -> (Tables, [PortId; 2]) {
    let mut tables = tables();
    let changes = [
        Change::AddSegment(bridge(1)),
        port_of(bridge_id(1)),
        Change::AddSegment(Segment::routed(8285)),
        port_of(routed()),
    ];
    let ports = tables.apply(NOW, changes).unwrap();
    (tables, ports.try_into().unwrap())
}

/// Everything that can be seen of tables.
type Listing = (
    Vec<SegmentInfo>,
    Vec<PortInfo>,
    Vec<(Vec<FdbEntry>, Vec<Route>, Vec<GroupInfo>)>,
    Stats,
    Vec<u16>,
);

fn listing(tables: &Tables) -> Listing {
    let segments = tables.segments();
    let entries = |segment: &SegmentInfo| {
        let id = segment.id;
        (tables.fdb(id, NOW).unwrap(), tables.routes(id).unwrap(), tables.groups(id).unwrap())
    };
    let entries = segments.iter().map(entries).collect();
    (segments, tables.ports(), entries, tables.stats(), tables.udp_ports().collect())
}

/// A frame from `host` arrives from a VTEP, so that it is learned there.
fn learn_from(tables: &Tables, segment: Segment, from: SocketAddr, host: Host) {
    let mut batch = Batch::new(1);
    let vni = segment.id().vni.unwrap();
    assert!(batch.push_datagram(&vxlan(vni, &udp(host, EVERYBODY, b"")), from));
    let mut output = Output::new();
    Forwarder::new(0).from_underlay(tables, NOW, vxlan::PORT, &mut batch, &mut output);
    for deliver in output.delivers() {
        Forwarder::new(0).delivered(tables, deliver, 0);
    }
}

fn fdb_macs(tables: &Tables, segment: u32) -> Vec<MacAddr> {
    tables.fdb(bridge_id(segment), NOW).unwrap().iter().map(|entry| entry.mac).collect()
}

fn peer(segment: SegmentId, vtep: SocketAddr) -> Change {
    Change::AddPeer { segment, vtep }
}

fn entry(mac: MacAddr, destination: impl Into<Destination>) -> Change {
    Change::InsertFdb { segment: bridge_id(1), mac, destination: destination.into() }
}

fn group(n: u32, members: impl IntoIterator<Item = Member>) -> Change {
    let members = members.into_iter().collect();
    Change::SetGroup { segment: routed(), group: GroupId(n), members }
}

fn route(prefix: &str, next_hop: impl Into<NextHop>) -> Change {
    let prefix = prefix.parse().unwrap();
    Change::InsertRoute { segment: routed(), prefix, next_hop: next_hop.into() }
}

#[test]
fn errors_say_what_is_wrong_and_what_would_be_right() {
    let (mut tables, [tap, tun]) = furnished();
    tables.apply(NOW, [peer(bridge_id(1), vtep(2))]).unwrap();
    let mac = host(1).mac;
    let group_mac = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    let zero_port = SocketAddr::new(underlay(9), 0);
    let other_port = SocketAddr::new(underlay(2), 8472);
    let ipv6: SocketAddr = "[2001:db8::2]:4789".parse().unwrap();
    let tweaked = |tweak: fn(&mut Segment)| Change::AddSegment(bridge_with(7, tweak));
    for (change, text) in [
        (
            Change::AddSegment(bridge(1)),
            "segment VXLAN 1 on UDP port 4789: segment VXLAN 1 on UDP port 4789 exists; \
             only VXLAN segments of different VNI share a UDP port",
        ),
        (
            Change::AddSegment(Segment::routed(4789)),
            "segment IP in UDP on port 4789: segment VXLAN 1 on UDP port 4789 exists; \
             only VXLAN segments of different VNI share a UDP port",
        ),
        (
            tweaked(|s| s.udp_port = 8285),
            "segment VXLAN 7 on UDP port 8285: segment IP in UDP on port 8285 exists; \
             only VXLAN segments of different VNI share a UDP port",
        ),
        (
            tweaked(|s| s.udp_port = 0),
            "UDP port of a segment: 0 is not allowed; allowed: 1 to 65535",
        ),
        (
            tweaked(|s| s.mtu = Some(67)),
            "MTU of a segment: 67 is not allowed; allowed: 68 to 65535 bytes",
        ),
        (
            tweaked(|s| s.ageing = Some(Duration::from_millis(999))),
            "ageing time: 999ms is not allowed; allowed: 1 to 262144 seconds, or never",
        ),
        (
            tweaked(|s| s.fdb_limit = limits::MAX_FDB_CAPACITY + 1),
            "FDB limit: 1048577 is not allowed; allowed: 0 to 1048576 entries",
        ),
        (
            entry(group_mac, vtep(2)),
            "MAC address of an FDB entry: 01:00:5e:00:00:01 is not allowed; \
             allowed: an individual address; those of groups and 00:00:00:00:00:00 are appended to",
        ),
        (
            Change::SetPort { port: tun, options: port_options(|o| o.isolated = true) },
            "port options in segment IP in UDP on port 8285: \
             the segment is routed, and they are for bridges",
        ),
        (entry(mac, tun), "port 1: it is attached to segment IP in UDP on port 8285"),
        (
            peer(bridge_id(1), zero_port),
            "VTEP: 192.0.2.9:0 is not allowed; allowed: a unicast address with a UDP port",
        ),
        (
            peer(bridge_id(1), ipv6),
            "VTEP [2001:db8::2]:4789: this node's underlay address is 192.0.2.1: \
             the families differ",
        ),
        (
            Change::AddFlood { segment: bridge_id(1), vtep: other_port },
            "VTEP 192.0.2.2:8472 in segment VXLAN 1 on UDP port 4789: the segment names the same \
             address with another UDP port, and a sender is known by its address",
        ),
        (peer(bridge_id(5), vtep(2)), "segment VXLAN 5 on UDP port 4789 does not exist"),
        (
            Change::RemovePeer { segment: bridge_id(1), vtep: vtep(9) },
            "VTEP 192.0.2.9:4789 does not exist",
        ),
        (
            Change::RemoveFlood { segment: bridge_id(1), vtep: vtep(2) },
            "192.0.2.2:4789 in the flood list of segment VXLAN 1 on UDP port 4789 does not exist",
        ),
        (
            Change::RemoveFdb { segment: bridge_id(1), mac },
            "FDB entry 02:00:00:00:00:01 of segment VXLAN 1 on UDP port 4789 does not exist",
        ),
        (
            Change::RemoveRoute { segment: routed(), prefix: "10.0.0.0/8".parse().unwrap() },
            "route 10.0.0.0/8 of segment IP in UDP on port 8285 does not exist",
        ),
        (
            Change::InsertRoute {
                segment: bridge_id(1),
                prefix: "10.0.0.0/8".parse().unwrap(),
                next_hop: tap.into(),
            },
            "route of segment VXLAN 1 on UDP port 4789: \
             the segment is a bridge and has an FDB instead",
        ),
        (
            route("10.0.0.0/8", GroupId(7)),
            "group 7 of segment IP in UDP on port 8285 does not exist",
        ),
        (
            Change::RemoveGroup { segment: routed(), group: GroupId(7) },
            "group 7 of segment IP in UDP on port 8285 does not exist",
        ),
        (group(7, []), "members of a next-hop group: none is not allowed; allowed: 1 to 256"),
        (
            group(7, [Member::new(vtep(2), 257)]),
            "weight in a next-hop group: 257 is not allowed; allowed: 1 to 256",
        ),
        (
            group(7, [Member::new(vtep(2), 1), Member::new(vtep(2), 2)]),
            "group 7 of segment IP in UDP on port 8285: VTEP 192.0.2.2:4789 is named twice; \
             give it the sum of the weights",
        ),
        (
            group(7, [Member::new(tap, 1)]),
            "port 0: it is attached to segment VXLAN 1 on UDP port 4789",
        ),
        (
            Change::AddFlood { segment: routed(), vtep: vtep(2) },
            "FDB or flood list of segment IP in UDP on port 8285: \
             the segment is routed and has a FIB instead",
        ),
    ] {
        let before = listing(&tables);
        let error = tables.apply(NOW, [change]).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(listing(&tables), before, "{text}");
    }
    let error = Tables::new(underlay(1), 65).unwrap_err();
    assert_eq!(error.to_string(), "number of workers: 65 is not allowed; allowed: 1 to 64");
    let error = Tables::new("224.0.0.1".parse().unwrap(), 1).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}

#[test]
fn a_flood_list_has_a_limit() {
    let (mut tables, _) = furnished();
    let vtep = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 4789));
    let add = |n| Change::AddFlood { segment: bridge_id(1), vtep: vtep(n) };
    tables.apply(NOW, (0..limits::MAX_FLOOD).map(add)).unwrap();
    let error = tables.apply(NOW, [add(limits::MAX_FLOOD)]).unwrap_err();
    assert_eq!(error.to_string(), "too many VTEPs in a flood list: at most 1024");
    tables.apply(NOW, [add(7)]).unwrap();
    assert_eq!(tables.segments()[0].flood.len(), limits::MAX_FLOOD, "adding twice is adding once");
}

#[test]
fn a_port_takes_its_entries_with_it_and_its_name_never_means_another() {
    let (mut tables, [tap, tun]) = furnished();
    let changes = [entry(host(1).mac, tap), route("10.7.1.0/24", tun), entry(host(2).mac, vtep(2))];
    tables.apply(NOW, changes).unwrap();
    tables.apply(NOW, [Change::RemovePort(tap), Change::RemovePort(tun)]).unwrap();
    assert_eq!(fdb_macs(&tables, 1), [host(2).mac]);
    assert_eq!(tables.routes(routed()).unwrap(), []);
    let new = tables.apply(NOW, [port_of(bridge_id(1))]).unwrap()[0];
    assert_ne!(new, tap);
    let error = tables.apply(NOW, [entry(host(3).mac, tap)]).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[test]
fn a_port_has_the_options_it_was_given_last() {
    let (mut tables, [tap, tun]) = furnished();
    let of = |tables: &Tables, port: PortId| {
        tables.ports().into_iter().find(|info| info.id == port).unwrap().options
    };
    assert_eq!(of(&tables, tap), PortOptions::default());
    let options = port_options(|o| o.hairpin = true);
    tables.apply(NOW, [Change::SetPort { port: tap, options: options.clone() }]).unwrap();
    assert_eq!(of(&tables, tap), options);
    // What is the default anyway is no option.
    tables.apply(NOW, [Change::SetPort { port: tun, options: PortOptions::default() }]).unwrap();
    tables.apply(NOW, [Change::RemovePort(tap)]).unwrap();
    let error = tables.apply(NOW, [Change::SetPort { port: tap, options }]).unwrap_err();
    assert_eq!(error.to_string(), "port 0 does not exist");
}

#[test]
fn a_group_with_routes_stays_and_a_port_leaves_it_by_itself() {
    let (mut tables, [_, tun]) = furnished();
    let members = [Member::new(tun, 1), Member::new(vtep(2), 3)];
    tables.apply(NOW, [group(7, members), route("10.0.0.0/8", GroupId(7))]).unwrap();
    let remove = Change::RemoveGroup { segment: routed(), group: GroupId(7) };
    let error = tables.apply(NOW, [remove.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "group 7 of segment IP in UDP on port 8285: routes lead to it; \
         remove them or lead them elsewhere first"
    );
    let buckets = |tables: &Tables| {
        let group = tables.groups(routed()).unwrap().remove(0);
        group.members.iter().map(|m| (m.destination, m.buckets)).collect::<Vec<_>>()
    };
    assert_eq!(buckets(&tables), [(tun.into(), 32), (vtep(2).into(), 96)]);
    tables.apply(NOW, [Change::RemovePort(tun)]).unwrap();
    assert_eq!(buckets(&tables), [(vtep(2).into(), 128)]);
    let unrouted =
        [Change::RemoveRoute { segment: routed(), prefix: "10.0.0.0/8".parse().unwrap() }, remove];
    tables.apply(NOW, unrouted).unwrap();
    assert_eq!((tables.groups(routed()).unwrap(), tables.stats().vteps.len()), (vec![], 0));
}

#[test]
fn a_removed_vtep_takes_what_was_learned_behind_it() {
    let (mut tables, _) = furnished();
    for n in [2, 3] {
        tables.apply(NOW, [peer(bridge_id(1), vtep(n))]).unwrap();
        learn_from(&tables, bridge(1), vtep(n), host(n));
    }
    assert_eq!(fdb_macs(&tables, 1), [host(2).mac, host(3).mac]);
    let id = bridge_id(1);
    tables.apply(NOW, [Change::RemovePeer { segment: id, vtep: vtep(2) }]).unwrap();
    assert_eq!(fdb_macs(&tables, 1), [host(3).mac]);
    // Taken back and given again in one go, it was never gone.
    let again = [Change::RemovePeer { segment: id, vtep: vtep(3) }, peer(id, vtep(3))];
    tables.apply(NOW, again).unwrap();
    assert_eq!(fdb_macs(&tables, 1), [host(3).mac]);
    tables.apply(NOW, [Change::RemoveSegment(id), Change::RemoveSegment(routed())]).unwrap();
    assert_eq!((tables.stats().vteps.len(), tables.ports().len()), (0, 0));
}

#[test]
fn a_failing_change_forgets_nothing_that_was_learned() {
    let (mut tables, _) = furnished();
    tables.apply(NOW, [peer(bridge_id(1), vtep(2))]).unwrap();
    learn_from(&tables, bridge(1), vtep(2), host(2));
    let flush = Change::FlushFdb { segment: bridge_id(1), which: Flush::All };
    let wrong = Change::RemoveSegment(bridge_id(99));
    tables.apply(NOW, [flush, wrong]).unwrap_err();
    assert_eq!(fdb_macs(&tables, 1), [host(2).mac]);
}

#[test]
fn a_stranger_cannot_stand_in_the_way_of_a_named_peer() {
    let mut tables = tables();
    let open = bridge_with(1, |segment| segment.open = true);
    let address = underlay(5);
    let discover = Change::Discover { segment: bridge_id(1), address };
    tables.apply(NOW, [Change::AddSegment(open), discover]).unwrap();
    assert_eq!(tables.segments()[0].peers, [vtep(5)]);
    learn_from(&tables, bridge(1), vtep(5), host(5));
    let elsewhere = SocketAddr::new(address, 8472);
    tables.apply(NOW, [peer(bridge_id(1), elsewhere)]).unwrap();
    assert_eq!(tables.segments()[0].peers, [elsewhere]);
    assert_eq!(fdb_macs(&tables, 1), [], "what was learned behind the other is forgotten");
    assert_eq!(tables.stats().vteps.len(), 1);
}

#[test]
fn row_13_each_flush_forgets_what_it_names() {
    let (mut tables, _) = furnished();
    tables.apply(NOW, [peer(bridge_id(1), vtep(2)), peer(bridge_id(1), vtep(3))]).unwrap();
    let learn_all = |tables: &Tables| {
        for n in [2, 3] {
            learn_from(tables, bridge(1), vtep(n), host(n));
        }
    };
    let segment = bridge_id(1);
    for (which, left) in [
        (Flush::All, vec![]),
        (Flush::Vtep(vtep(2)), vec![host(3).mac]),
        (Flush::OlderThan(Duration::from_secs(1)), vec![host(2).mac, host(3).mac]),
        (Flush::OlderThan(Duration::ZERO), vec![]),
    ] {
        learn_all(&tables);
        tables.apply(NOW, [Change::FlushFdb { segment, which }]).unwrap();
        assert_eq!(fdb_macs(&tables, 1), left, "{which:?}");
    }
}

#[test]
fn a_thousand_static_entries_go_into_a_large_fdb_at_once() {
    let mut tables = tables();
    let large = bridge_with(1, |segment| segment.fdb_limit = limits::MAX_FDB_CAPACITY);
    tables.apply(NOW, [Change::AddSegment(large)]).unwrap();
    let mac = |n: u64| MacAddr::from_u64(0x0200_0000_0000 | n);
    // With a sweep of the table for each this would take minutes.
    tables.apply(NOW, (0..1000).map(|n| entry(mac(n), vtep(2)))).unwrap();
    assert_eq!(tables.fdb(bridge_id(1), NOW).unwrap().len(), 1000);
}

/// What the control plane has said, kept in the plainest way.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    statics: BTreeMap<(SegmentId, MacAddr), SocketAddr>,
    routes: BTreeMap<Prefix, NextHop>,
    groups: BTreeMap<GroupId, Vec<Member>>,
    flood: BTreeSet<(SegmentId, SocketAddr)>,
    named: BTreeSet<(SegmentId, SocketAddr)>,
}

const SEGMENTS: usize = 3;

fn segments() -> [SegmentId; SEGMENTS] {
    [bridge_id(1), bridge_id(2), routed()]
}

impl Model {
    fn peers(&self, segment: SegmentId) -> BTreeSet<SocketAddr> {
        let of = |list: &BTreeSet<(SegmentId, SocketAddr)>| {
            list.iter().filter(|(id, _)| *id == segment).map(|(_, vtep)| *vtep).collect::<Vec<_>>()
        };
        let statics =
            self.statics.iter().filter(|((id, _), _)| *id == segment).map(|(_, vtep)| *vtep);
        let hops = self.routes.values().filter_map(|hop| match hop {
            NextHop::To(destination) => Some(*destination),
            _ => None,
        });
        let members = self.groups.values().flatten().map(|member| member.destination);
        let routes = hops.chain(members).filter(|_| segment == routed()).map(|to| match to {
            Destination::Vtep(vtep) => vtep,
            Destination::Port(port) => panic!("{port} is not modelled"),
        });
        of(&self.flood).into_iter().chain(of(&self.named)).chain(statics).chain(routes).collect()
    }

    fn knows(&self, vtep: SocketAddr) -> bool {
        segments().iter().any(|segment| self.peers(*segment).contains(&vtep))
    }

    /// Does what a change says, or says that it is wrong.
    fn apply(&mut self, change: &Change) -> bool {
        let is_bridge = |segment: &SegmentId| segment.vni.is_some();
        match change {
            Change::AddPeer { segment, vtep } => {
                self.named.insert((*segment, *vtep));
                true
            }
            Change::RemovePeer { segment, vtep } => self.named.remove(&(*segment, *vtep)),
            Change::AddFlood { segment, vtep } => {
                self.flood.insert((*segment, *vtep));
                is_bridge(segment)
            }
            Change::RemoveFlood { segment, vtep } => self.flood.remove(&(*segment, *vtep)),
            Change::InsertFdb { segment, mac, destination: Destination::Vtep(vtep) } => {
                self.statics.insert((*segment, *mac), *vtep);
                is_bridge(segment) && !mac.is_multicast()
            }
            Change::RemoveFdb { segment, mac } => self.statics.remove(&(*segment, *mac)).is_some(),
            Change::InsertRoute { segment, prefix, next_hop } => {
                self.routes.insert(*prefix, *next_hop);
                let exists = match next_hop {
                    NextHop::Group(group) => self.groups.contains_key(group),
                    _ => true,
                };
                !is_bridge(segment) && exists
            }
            Change::SetGroup { segment, group, members } => {
                self.groups.insert(*group, members.clone());
                let each: BTreeSet<_> = members.iter().map(|m| m.destination.to_string()).collect();
                !is_bridge(segment) && !members.is_empty() && each.len() == members.len()
            }
            Change::RemoveGroup { segment, group } => {
                let used = self.routes.values().any(|hop| *hop == NextHop::Group(*group));
                !is_bridge(segment) && !used && self.groups.remove(group).is_some()
            }
            Change::RemoveRoute { segment, prefix } => {
                !is_bridge(segment) && self.routes.remove(prefix).is_some()
            }
            other => panic!("not modelled: {other:?}"),
        }
    }

    /// All of the changes, or none.
    fn apply_all(&mut self, changes: &[Change]) -> bool {
        let mut draft = self.clone();
        let mut fits = true;
        for change in changes {
            fits &= draft.apply(change);
        }
        // A sender is known by its address alone.
        for segment in segments() {
            let peers = draft.peers(segment);
            let addresses: BTreeSet<_> = peers.iter().map(SocketAddr::ip).collect();
            fits &= addresses.len() == peers.len();
        }
        if fits {
            *self = draft;
        }
        fits
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let segment = (0..SEGMENTS).prop_map(|n| segments()[n]);
    let any_vtep = (2_u8..6, prop_oneof![9 => Just(4789_u16), 1 => Just(8472)])
        .prop_map(|(n, port)| SocketAddr::new(underlay(n), port));
    let mac = (0_u8..6).prop_map(|n| if n == 5 { MacAddr::BROADCAST } else { host(n + 1).mac });
    let prefix = (0_u8..3, 0_u8..3).prop_map(|(a, len)| {
        Prefix::new(std::net::Ipv4Addr::new(10, a, 0, 0).into(), [0, 8, 16][usize::from(len)])
            .unwrap()
    });
    let group = (0_u32..3).prop_map(GroupId);
    let members = prop::collection::vec((2_u8..6, 1_u16..5), 0..4).prop_map(|members| {
        members.into_iter().map(|(n, weight)| Member::new(vtep(n), weight)).collect::<Vec<_>>()
    });
    let hop = prop_oneof![
        4 => any_vtep.clone().prop_map(NextHop::from),
        2 => group.clone().prop_map(NextHop::Group),
        1 => prop::sample::select(vec![NextHop::Blackhole, NextHop::Unreachable, NextHop::Local]),
    ];
    let all = (0..12, segment, any_vtep, mac, prefix, hop, group, members);
    all.prop_map(|(kind, segment, vtep, mac, prefix, next_hop, group, members)| match kind {
        0 => Change::AddPeer { segment, vtep },
        1 => Change::RemovePeer { segment, vtep },
        2 => Change::AddFlood { segment, vtep },
        3 => Change::RemoveFlood { segment, vtep },
        4 => Change::InsertFdb { segment, mac, destination: vtep.into() },
        5 => Change::RemoveFdb { segment, mac },
        6 | 7 => Change::InsertRoute { segment, prefix, next_hop },
        8 | 9 => Change::SetGroup { segment: routed(), group, members },
        10 => Change::RemoveGroup { segment: routed(), group },
        _ => Change::RemoveRoute { segment, prefix },
    })
}

fn model_tables() -> Tables {
    let mut tables = tables();
    // Small FDBs: each flush reads them in full.
    let small = |n| bridge_with(n, |segment| segment.fdb_limit = 16);
    let segments = [small(1), small(2), Segment::routed(8285)];
    tables.apply(NOW, segments.map(Change::AddSegment)).unwrap();
    tables
}

fn assert_agrees(tables: &Tables, model: &Model) {
    for info in tables.segments() {
        let of = |list: &BTreeSet<(SegmentId, SocketAddr)>| {
            list.iter().filter(|(id, _)| *id == info.id).map(|(_, v)| *v).collect::<Vec<_>>()
        };
        assert_eq!(info.flood, of(&model.flood));
        assert_eq!(info.peers, model.peers(info.id).into_iter().collect::<Vec<_>>());
        let fdb = tables.fdb(info.id, NOW).unwrap();
        let statics: Vec<_> = fdb.iter().map(|e| ((info.id, e.mac), e.destination)).collect();
        let expected = model.statics.iter().filter(|((id, _), _)| *id == info.id);
        let expected: Vec<_> = expected.map(|(key, v)| (*key, Destination::Vtep(*v))).collect();
        assert_eq!(statics, expected);
    }
    let routes = tables.routes(routed()).unwrap();
    let routes: Vec<_> = routes.iter().map(|route| (route.prefix, route.next_hop)).collect();
    let expected: Vec<_> = model.routes.iter().map(|(prefix, hop)| (*prefix, *hop)).collect();
    assert_eq!(routes, expected);
    let groups = tables.groups(routed()).unwrap();
    let members = |group: &GroupInfo| {
        group.members.iter().map(|m| Member::new(m.destination, m.weight)).collect::<Vec<_>>()
    };
    let groups: Vec<_> = groups.iter().map(|group| (group.id, members(group))).collect();
    assert_eq!(groups, model.groups.clone().into_iter().collect::<Vec<_>>());
    let vteps: Vec<SocketAddr> = tables.stats().vteps.iter().map(|vtep| vtep.address).collect();
    assert!(vteps.iter().all(|vtep| model.knows(*vtep)), "no VTEP outlives its last mention");
}

proptest! {
    /// The tables hold what a naive model holds, whatever is asked of them in whatever order.
    #[test]
    fn tables_agree_with_a_naive_model(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 0..60),
    ) {
        let (mut tables, mut model) = (model_tables(), Model::default());
        for changes in batches {
            let before = listing(&tables);
            let applied = tables.apply(NOW, changes.clone());
            let fits = model.apply_all(&changes);
            prop_assert_eq!(applied.is_ok(), fits, "{:?}: {:?}", changes, applied);
            if !fits {
                prop_assert_eq!(listing(&tables), before);
            }
            assert_agrees(&tables, &model);
        }
    }

    /// A change that does not fit, wherever it stands, leaves everything as it was.
    #[test]
    fn a_failing_change_at_any_position_leaves_no_trace(
        setup in prop::collection::vec(any_change(), 0..20),
        changes in prop::collection::vec(any_change(), 0..10),
        position in any::<prop::sample::Index>(),
        failure in 0..4,
    ) {
        let mut tables = model_tables();
        for change in setup {
            let _ = tables.apply(NOW, [change]);
        }
        learn_from(&tables, bridge(1), vtep(2), host(77));
        let before = listing(&tables);
        let wrong = match failure {
            0 => Change::RemoveSegment(bridge_id(99)),
            1 => Change::AddSegment(bridge(1)),
            2 => entry(MacAddr::ZERO, vtep(2)),
            _ => peer(bridge_id(1), "[::1]:4789".parse().unwrap()),
        };
        // Whatever makes room for the failure is part of what must be undone.
        let mut changes = changes;
        changes.extend([
            port_of(bridge_id(1)),
            Change::FlushFdb { segment: bridge_id(1), which: Flush::All },
            Change::RemoveSegment(routed()),
        ]);
        changes.insert(position.index(changes.len()), wrong);
        prop_assert!(tables.apply(NOW, changes).is_err());
        prop_assert_eq!(listing(&tables), before);
    }
}
