//! Arbitrary changes of the tables, with batches between them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::{
    Change, Destination, Flush, GroupId, MacAddr, Member, NextHop, PathSource, PortId, PortOptions,
    Prefix, Segment, SegmentId, VlanMode, VlanSet,
};

use crate::cursor::Cursor;
use crate::world::{REMOTE_VNI, ROUTED_PORT, World, address, bridge, routed_vxlan, vtep};

pub fn run(bytes: &[u8]) {
    let mut input = Cursor(bytes);
    let mut world = World::new(input.u8());
    while !input.is_empty() {
        let step = input.u8();
        match step % 8 {
            1 if step & 64 != 0 => world.probe_batch(&mut input),
            0 => world.port_batch(&mut input),
            1 => world.underlay_batch(&mut input),
            2 => {
                let seconds = input.u8();
                world.wait(seconds);
            }
            _ => change(&mut world, &mut input),
        }
    }
}

/// Some changes at once, which all happen or leave no trace.
fn change(world: &mut World, input: &mut Cursor<'_>) {
    let ports: Vec<PortId> = world.tables.ports().iter().map(|port| port.id).collect();
    let changes: Vec<Change> = (0..=input.u8() % 4).map(|_| any_change(input, &ports)).collect();
    let before = world.listing();
    let new_ports = changes.iter().filter(|c| matches!(c, Change::AddPort { .. })).count();
    match world.tables.apply(world.now, changes) {
        Ok(added) => {
            assert!(added.len() <= new_ports);
            let listed = world.tables.ports();
            assert!(added.iter().all(|port| listed.iter().any(|info| info.id == *port)));
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(world.listing(), before, "{error}");
        }
    }
    world.check();
}

fn any_change(input: &mut Cursor<'_>, ports: &[PortId]) -> Change {
    let segment = any_segment(input);
    match input.u8() % 32 {
        0 => Change::AddSegment(new_segment(segment, input)),
        1 => Change::RemoveSegment(segment),
        2 => {
            let (offload, options) = (input.u8() & 1 != 0, any_options(input));
            Change::AddPort { segment, name: "new".into(), offload, options }
        }
        3 => match input.pick(ports) {
            Some(port) => Change::RemovePort(port),
            None => Change::RemoveSegment(segment),
        },
        4 => Change::AddPeer { segment, vtep: any_vtep(input) },
        5 => Change::RemovePeer { segment, vtep: any_vtep(input) },
        6 => Change::AddFlood { segment, vtep: any_vtep(input) },
        7 => Change::RemoveFlood { segment, vtep: any_vtep(input) },
        8 => {
            let (mac, destination) = (any_mac(input), any_destination(input, ports));
            Change::InsertFdb { segment, mac, destination }
        }
        9 => Change::RemoveFdb { segment, mac: any_mac(input) },
        10 => Change::FlushFdb { segment, which: any_flush(input, ports) },
        11 | 12 => {
            let (prefix, next_hop) = (any_prefix(input), any_next_hop(input, ports));
            Change::InsertRoute { segment, prefix, next_hop }
        }
        13 => Change::RemoveRoute { segment, prefix: any_prefix(input) },
        14 => {
            let members = (0..input.u8() % 4)
                .map(|_| Member::new(any_destination(input, ports), u16::from(input.u8() % 8)))
                .collect();
            Change::SetGroup { segment, group: any_group(input), members }
        }
        15 => Change::RemoveGroup { segment, group: any_group(input) },
        16 => match input.pick(ports) {
            Some(port) => Change::SetPort { port, options: any_options(input) },
            None => Change::RemoveSegment(segment),
        },
        17 => Change::SetVtepMac { segment, vtep: any_vtep(input), mac: any_mac(input) },
        18 => Change::RemoveVtepMac { segment, vtep: any_vtep(input) },
        19 => {
            let (address, mac, router) = (any_host(input), any_mac(input), input.u8() & 1 != 0);
            Change::SetNeighbour { segment, address, mac, router }
        }
        20 => Change::RemoveNeighbour { segment, address: any_host(input) },
        21 => {
            let group = input.u8();
            let group = (group < 128).then_some(group % 34);
            Change::SetVtepGroup { segment, vtep: any_vtep(input), group }
        }
        22 => Change::SetPathMtu {
            vtep: any_vtep(input),
            source: [PathSource::Learned, PathSource::Configured, PathSource::Verified]
                [usize::from(input.u8() % 3)],
            mtu: Some(u32::from(input.u16())).filter(|mtu| *mtu > 0),
            until: Duration::from_secs(input.u8().into()),
        },
        23 => {
            let (mac, destination) = (any_mac(input), any_destination(input, ports));
            Change::InsertExternFdb { segment, mac, destination }
        }
        24 => {
            let (mac, destination) = (any_mac(input), any_destination(input, ports));
            Change::AppendFdb { segment, mac, destination }
        }
        25 => {
            let (mac, destination) = (any_mac(input), any_destination(input, ports));
            Change::RemoveFdbDestination { segment, mac, destination }
        }
        26 => {
            let vni = (input.u8() & 3 != 0).then_some(REMOTE_VNI);
            Change::SetVtepVni { segment, vtep: any_vtep(input), vni }
        }
        27 => {
            let (group, destination) = (any_multicast(input), any_destination(input, ports));
            Change::InsertMdb { segment, group, destination }
        }
        28 => {
            let (group, destination) = (any_multicast(input), any_destination(input, ports));
            Change::RemoveMdb { segment, group, destination }
        }
        29 => {
            let (group, destination) = (any_multicast(input), any_destination(input, ports));
            let until = Duration::from_secs(input.u8().into());
            Change::LearnMdb { segment, group, destination, until }
        }
        30 => Change::AgeMdb { segment, now: Duration::from_secs(input.u8().into()) },
        _ => Change::Discover { segment, address: address(input.u8() % 6) },
    }
}

fn any_options(input: &mut Cursor<'_>) -> PortOptions {
    let flags = input.u8();
    let mut options = PortOptions::default();
    options.group = if flags & 64 != 0 { input.u8() % 34 } else { 0 };
    options.mac = (flags & 128 != 0).then(|| any_mac(input));
    if flags & 32 != 0 {
        let limit = RateLimit { per_second: input.u8().into(), burst: input.u8().into() };
        options.storm.broadcast = Some(limit);
        options.storm.unknown_unicast = Some(limit);
    }
    options.vlan = match input.u8() % 4 {
        0 => VlanMode::Untagged,
        1 => VlanMode::Only { vlans: VlanSet::default(), pvid: Some(input.u16()) },
        2 => {
            let mut vlans = VlanSet::default();
            let _ = vlans.insert(input.u16() & 0xfff);
            VlanMode::Only { vlans, pvid: Some(5) }
        }
        _ => VlanMode::Transparent,
    };
    options.isolated = flags & 1 != 0;
    options.fast_leave = flags & 3 == 2;
    options.multicast_routers = flags & 3 != 3;
    options.hairpin = flags & 2 != 0;
    options.learning = flags & 4 == 0;
    options.flood_unknown_unicast = flags & 8 == 0;
    options.flood_multicast = flags & 16 == 0;
    options.flood_broadcast = flags & 32 == 0;
    options
}

fn any_segment(input: &mut Cursor<'_>) -> SegmentId {
    match input.u8() % 6 {
        5 => routed_vxlan().id(),
        0 => Segment::routed(ROUTED_PORT).id(),
        1 => Segment::routed(8472).id(),
        n => bridge(n.into()).id(),
    }
}

fn new_segment(id: SegmentId, input: &mut Cursor<'_>) -> Segment {
    let mut segment = match id.vni {
        Some(_) if id == routed_vxlan().id() => routed_vxlan(),
        Some(vni) => Segment::bridge(vni),
        None => Segment::routed(id.udp_port),
    };
    let flags = input.u8();
    segment.fdb_limit = usize::from(flags & 7);
    segment.open = flags & 8 != 0;
    segment.neighbours.suppress = flags & 8 != 0;
    segment.neighbours.limit = usize::from(flags & 7);
    segment.snooping.enabled = flags & 4 != 0;
    segment.snooping.limit = usize::from(flags & 3);
    segment.header.any_vni = flags & 24 == 8;
    segment.learning = flags & 16 == 0;
    segment.mtu_options.probe = flags & 12 == 4 && id.vni.is_some();
    segment.mtu_options.answer_probes = flags & 2 == 0;
    segment.ageing = (flags & 32 == 0).then_some(Duration::from_secs(u64::from(flags & 3)));
    if flags & 64 != 0 {
        segment.mtu = Some(u32::from(input.u16()));
    }
    if flags & 128 != 0 {
        segment.udp_port = input.u16();
        segment.loops.moves = input.u8() % 4;
        segment.storm.multicast = Some(RateLimit::new(input.u8().into()));
        segment.scope.vtep_group = input.u8() % 34;
        segment.scope.group_fwd_mask = input.u16() & 0xfffc;
    }
    segment
}

fn any_vtep(input: &mut Cursor<'_>) -> SocketAddr {
    match input.u8() {
        255 => "[2001:db8::1]:4789".parse().expect("an address"),
        254 => "224.0.0.1:4789".parse().expect("an address"),
        253 => "192.0.2.2:0".parse().expect("an address"),
        n => vtep(n % 6, if n & 64 == 0 { 4789 } else { 8472 }),
    }
}

fn any_destination(input: &mut Cursor<'_>, ports: &[PortId]) -> Destination {
    match input.u8() & 1 {
        0 => any_vtep(input).into(),
        _ => input.pick(ports).map_or(any_vtep(input).into(), Destination::Port),
    }
}

fn any_next_hop(input: &mut Cursor<'_>, ports: &[PortId]) -> NextHop {
    match input.u8() % 8 {
        0 => NextHop::Blackhole,
        1 => NextHop::Unreachable,
        2 => NextHop::Local,
        3 | 4 => any_group(input).into(),
        _ => any_destination(input, ports).into(),
    }
}

fn any_group(input: &mut Cursor<'_>) -> GroupId {
    GroupId(u32::from(input.u8() % 3))
}

fn any_mac(input: &mut Cursor<'_>) -> MacAddr {
    MacAddr([input.u8() & 3, 0, 0, 0, 0, input.u8() % 8])
}

fn any_multicast(input: &mut Cursor<'_>) -> Option<IpAddr> {
    match input.u8() % 8 {
        0 => None,
        1 => Some(std::net::Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, input.u8().into()).into()),
        2 => Some(std::net::Ipv4Addr::new(224, 0, 0, input.u8()).into()),
        n => Some(std::net::Ipv4Addr::new(239, 0, 0, n).into()),
    }
}

fn any_host(input: &mut Cursor<'_>) -> IpAddr {
    match input.u8() & 1 {
        0 => std::net::Ipv4Addr::new(10, 0, 0, input.u8() % 12).into(),
        _ => std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(input.u8() % 12)).into(),
    }
}

fn any_prefix(input: &mut Cursor<'_>) -> Prefix {
    let address = match input.u8() & 1 {
        0 => std::net::Ipv4Addr::new(10, 7, input.u8() % 4, 0).into(),
        _ => std::net::Ipv6Addr::new(0xfd00, u16::from(input.u8() % 4), 0, 0, 0, 0, 0, 0).into(),
    };
    Prefix::new(address, input.u8() % 33).expect("short enough for both families")
}

fn any_flush(input: &mut Cursor<'_>, ports: &[PortId]) -> Flush {
    match (input.u8() % 4, input.pick(ports)) {
        (0, Some(port)) => Flush::Port(port),
        (1, _) => Flush::Vtep(any_vtep(input)),
        (2, _) => Flush::OlderThan(Duration::from_secs(input.u8().into())),
        _ => Flush::All,
    }
}
