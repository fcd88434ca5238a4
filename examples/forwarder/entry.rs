//! The entries of a planned segment, each of which can be added and taken away alone.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use overplane::{
    Change, Destination, GroupId, MacAddr, Member, NextHop, PortId, Prefix, SegmentId, Vni,
};

use crate::plan::{SegmentPlan, Target, Via};

/// Where something leads, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Vtep(SocketAddr),
    Port(String),
}

/// What becomes of the packets of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    To(Place),
    /// Their flows are shared out, by weight.
    Shared(Vec<(Place, u16)>),
    Blackhole,
    Unreachable,
    Local,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    Flood(SocketAddr),
    Peer(SocketAddr),
    VtepGroup(SocketAddr, u8),
    Fdb(MacAddr, Place),
    VtepVni(SocketAddr, Vni),
    Neighbour(IpAddr, MacAddr, bool),
    Mdb(Option<IpAddr>, Place),
    VtepMac(SocketAddr, MacAddr),
    Route(Prefix, Hop),
}

/// The entries of a segment, in the order in which they can be added.
pub fn entries(planned: &SegmentPlan) -> Vec<Entry> {
    let place = |target: Target| match target {
        Target::Vtep(vtep) => Place::Vtep(vtep),
        Target::Port(at) => Place::Port(planned.ports[at].device.clone()),
    };
    let hop = |via: &Via| match via {
        Via::One(target) => Hop::To(place(*target)),
        Via::Group(members) => {
            Hop::Shared(members.iter().map(|(to, weight)| (place(*to), *weight)).collect())
        }
        Via::Blackhole => Hop::Blackhole,
        Via::Unreachable => Hop::Unreachable,
        Via::Local => Hop::Local,
    };
    let flood = planned.flood.iter().map(|vtep| Entry::Flood(*vtep));
    let peers = planned.peers.iter().map(|vtep| Entry::Peer(*vtep));
    let groups = planned.groups.iter();
    let groups =
        groups.flat_map(|(vtep, group)| [Entry::Peer(*vtep), Entry::VtepGroup(*vtep, *group)]);
    let fdb = planned.fdb.iter().map(|(mac, target)| Entry::Fdb(*mac, place(*target)));
    let vnis = planned.remote_vnis.iter().map(|(vtep, vni)| Entry::VtepVni(*vtep, *vni));
    let neighbours = planned.neighbours.iter();
    let neighbours = neighbours.map(|(ip, mac, router)| Entry::Neighbour(*ip, *mac, *router));
    let mdb = planned.mdb.iter().map(|(group, target)| Entry::Mdb(*group, place(*target)));
    let macs = planned.vtep_macs.iter().map(|(vtep, mac)| Entry::VtepMac(*vtep, *mac));
    let routes = planned.routes.iter().map(|(prefix, via)| Entry::Route(*prefix, hop(via)));
    flood
        .chain(peers)
        .chain(groups)
        .chain(fdb)
        .chain(vnis)
        .chain(neighbours)
        .chain(mdb)
        .chain(macs)
        .chain(routes)
        .collect()
}

/// What the dataplane calls what is named otherwise in plans: ports by their devices, and the group of a route with several
/// next hops by the route's prefix.
#[derive(Clone, Debug, Default)]
pub struct Names {
    ports: HashMap<String, PortId>,
    groups: HashMap<(SegmentId, Prefix), GroupId>,
    next_group: u32,
}

impl Names {
    /// Takes in what ports there are.
    pub fn set_ports(&mut self, ports: impl IntoIterator<Item = (String, PortId)>) {
        self.ports = ports.into_iter().collect();
    }

    fn group(&mut self, segment: SegmentId, prefix: Prefix) -> GroupId {
        let next = &mut self.next_group;
        *self.groups.entry((segment, prefix)).or_insert_with(|| {
            let name = GroupId(*next);
            *next += 1;
            name
        })
    }

    /// Nothing for a port that is gone, and with it what led there.
    fn destination(&self, place: &Place) -> Option<Destination> {
        match place {
            Place::Vtep(vtep) => Some((*vtep).into()),
            Place::Port(device) => self.ports.get(device).map(|port| (*port).into()),
        }
    }
}

impl Entry {
    /// What adds it to a segment.
    pub fn add(&self, segment: SegmentId, names: &mut Names) -> Vec<Change> {
        self.changes(segment, names, true).unwrap_or_default()
    }

    /// What takes it away.
    pub fn remove(&self, segment: SegmentId, names: &mut Names) -> Vec<Change> {
        self.changes(segment, names, false).unwrap_or_default()
    }

    fn changes(&self, segment: SegmentId, names: &mut Names, add: bool) -> Option<Vec<Change>> {
        let one = match (self, add) {
            (&Self::Flood(vtep), true) => Change::AddFlood { segment, vtep },
            (&Self::Flood(vtep), false) => Change::RemoveFlood { segment, vtep },
            (&Self::Peer(vtep), true) => Change::AddPeer { segment, vtep },
            (&Self::Peer(vtep), false) => Change::RemovePeer { segment, vtep },
            (&Self::VtepGroup(vtep, group), _) => {
                Change::SetVtepGroup { segment, vtep, group: add.then_some(group) }
            }
            (&Self::Fdb(mac, ref place), _) => {
                let destination = names.destination(place)?;
                match (mac.is_multicast(), add) {
                    (true, true) => Change::AppendFdb { segment, mac, destination },
                    (false, true) => Change::InsertFdb { segment, mac, destination },
                    (_, false) => Change::RemoveFdbDestination { segment, mac, destination },
                }
            }
            (&Self::VtepVni(vtep, vni), _) => {
                Change::SetVtepVni { segment, vtep, vni: add.then_some(vni) }
            }
            (&Self::Neighbour(address, mac, router), true) => {
                Change::SetNeighbour { segment, address, mac, router }
            }
            (&Self::Neighbour(address, ..), false) => Change::RemoveNeighbour { segment, address },
            (&Self::Mdb(group, ref place), _) => {
                let destination = names.destination(place)?;
                match add {
                    true => Change::InsertMdb { segment, group, destination },
                    false => Change::RemoveMdb { segment, group, destination },
                }
            }
            (&Self::VtepMac(vtep, mac), true) => Change::SetVtepMac { segment, vtep, mac },
            (&Self::VtepMac(vtep, _), false) => Change::RemoveVtepMac { segment, vtep },
            (Self::Route(prefix, hop), _) => return route(segment, *prefix, hop, names, add),
        };
        Some(vec![one])
    }
}

/// A route with several next hops has a group of its own.
fn route(
    segment: SegmentId,
    prefix: Prefix,
    hop: &Hop,
    names: &mut Names,
    add: bool,
) -> Option<Vec<Change>> {
    let insert = |next_hop| vec![Change::InsertRoute { segment, prefix, next_hop }];
    let remove = Change::RemoveRoute { segment, prefix };
    Some(match (hop, add) {
        (Hop::Shared(to), true) => {
            let member = |(place, weight): &(Place, u16)| {
                Some(Member::new(names.destination(place)?, *weight))
            };
            let members = to.iter().map(member).collect::<Option<Vec<Member>>>()?;
            let group = names.group(segment, prefix);
            let next_hop = group.into();
            vec![
                Change::SetGroup { segment, group, members },
                Change::InsertRoute { segment, prefix, next_hop },
            ]
        }
        (Hop::Shared(_), false) => {
            vec![remove, Change::RemoveGroup { segment, group: names.group(segment, prefix) }]
        }
        (Hop::To(place), true) => insert(names.destination(place)?.into()),
        // What led to a port that is gone went with it.
        (Hop::To(place), false) => {
            names.destination(place)?;
            vec![remove]
        }
        (Hop::Blackhole, true) => insert(NextHop::Blackhole),
        (Hop::Unreachable, true) => insert(NextHop::Unreachable),
        (Hop::Local, true) => insert(NextHop::Local),
        (_, false) => vec![remove],
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vtep(vtep) => write!(f, "vtep {vtep}"),
            Self::Port(device) => write!(f, "port {device}"),
        }
    }
}

/// As a line about it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood(vtep) => write!(f, "flood {vtep}"),
            Self::Peer(vtep) => write!(f, "peer {vtep}"),
            Self::VtepGroup(vtep, group) => write!(f, "vtep {vtep} group {group}"),
            Self::Fdb(mac, place) => write!(f, "fdb {mac} {place}"),
            Self::VtepVni(vtep, vni) => write!(f, "vtep {vtep} vni {vni}"),
            Self::Neighbour(address, mac, router) => {
                write!(f, "neighbour {address} {mac}{}", if *router { " router" } else { "" })
            }
            Self::Mdb(Some(group), place) => write!(f, "group {group} {place}"),
            Self::Mdb(None, place) => write!(f, "multicast router {place}"),
            Self::VtepMac(vtep, mac) => write!(f, "vtep {vtep} mac {mac}"),
            Self::Route(prefix, hop) => match hop {
                Hop::To(place) => write!(f, "route {prefix} {place}"),
                Hop::Shared(to) => {
                    write!(f, "route {prefix}")?;
                    to.iter().try_for_each(|(place, weight)| write!(f, " {place} weight {weight}"))
                }
                Hop::Blackhole => write!(f, "route {prefix} blackhole"),
                Hop::Unreachable => write!(f, "route {prefix} unreachable"),
                Hop::Local => write!(f, "route {prefix} local"),
            },
        }
    }
}
