//! The all-or-nothing application of changes: a draft of the tables that takes their place if all changes fit.
//!
//! A change costs what it changes, and the tables around it (nearly) nothing: a draft shares all pieces of them that no
//! change touches.

mod effect;
mod fdb;
mod learned;
mod mdb;
mod neighbours;
mod paths;
mod ports;
mod routes;
mod vtep_macs;
mod vteps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::Error;
use crate::change::{Change, MAX_SEGMENTS};
use crate::counters::PerWorker;
use crate::fdb::seconds;
use crate::fib::Rib;
use crate::mtu;
use crate::multicast::Mdb;
use crate::next_hop::NextHops;
use crate::segment::{Kind, OuterRule, PortId, Segment, SegmentId, VtepId, horizon};
use crate::shards::Shards;
use crate::tables::{Answers, Bridge, Link, Routed, SegmentEntry, SegmentTable, Tables};
use crate::wire::MacAddr;
pub(crate) use effect::Effect;

impl Tables {
    /// Applies all of `changes`, in order, or none, and returns the names of the ports they added.
    ///
    /// `now` is the time since any fixed origin, the same as in forwarding.
    ///
    /// # Errors
    /// The first change that does not fit: [`Error::Invalid`], [`Error::NotFound`], [`Error::Conflict`] or
    /// [`Error::Limit`]. The tables are then as they were.
    pub fn apply(
        &mut self,
        now: Duration,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Vec<PortId>, Error> {
        let changed = self.changed(changes)?;
        *self = changed.tables;
        changed.effects.iter().for_each(|effect| effect.run(&self.fdb, seconds(now)));
        Ok(changed.ports)
    }

    /// What the tables would be with `changes`, and what is to be forgotten then.
    pub(crate) fn changed(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Changed, Error> {
        let mut draft = Draft {
            tables: self.clone(),
            touched: BTreeMap::new(),
            perhaps_unnamed: Vec::new(),
            rerouted: BTreeSet::new(),
            narrowed: Vec::new(),
            resized: Vec::new(),
            added: Vec::new(),
            effects: Vec::new(),
        };
        for change in changes {
            draft.change(change)?;
        }
        let touched: Vec<SegmentId> = draft.touched.keys().copied().collect();
        draft.settle_peers()?;
        draft.settle_limits(touched);
        draft.publish_routes();
        let Draft { tables, added: ports, effects, .. } = draft;
        Ok(Changed { tables, ports, effects })
    }
}

/// The outcome of changes.
pub(crate) struct Changed {
    pub(crate) tables: Tables,
    /// Ports that were added, in order.
    pub(crate) ports: Vec<PortId>,
    /// What the shared FDBs are to forget.
    pub(crate) effects: Vec<Effect>,
}

/// Tables being changed.
struct Draft {
    tables: Tables,
    /// VTEPs that have been named or unnamed in a segment, or discovered.
    touched: BTreeMap<SegmentId, Vec<VtepId>>,
    /// VTEPs that were made on the way or lost a segment: perhaps nothing names them in the end.
    perhaps_unnamed: Vec<VtepId>,
    /// Segments whose routes have changed.
    rerouted: BTreeSet<SegmentId>,
    /// VTEPs whose paths take smaller or larger packets than before.
    narrowed: Vec<VtepId>,
    /// Segments whose MTU has changed.
    resized: Vec<SegmentId>,
    added: Vec<PortId>,
    effects: Vec<Effect>,
}

impl Draft {
    fn change(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::AddSegment(segment) => self.add_segment(&segment),
            Change::RemoveSegment(id) => self.remove_segment(id),
            Change::AddPort { segment, name, offload, options } => {
                self.add_port(segment, name, offload, options)
            }
            Change::SetPort { port, options } => self.set_port(port, options),
            Change::RemovePort(port) => self.remove_port(port),
            Change::AddPeer { segment, vtep } => {
                let id = self.vtep(segment, vtep)?;
                self.name_peer(segment, id, true).map(|_| ())
            }
            Change::RemovePeer { segment, vtep } => {
                let id = self.known_vtep(vtep)?;
                let discovered = remove(&mut self.segment(segment)?.discovered, id);
                if discovered {
                    self.touch(segment, id);
                }
                let named = self.name_peer(segment, id, false)?;
                found(named || discovered, || format!("peer {vtep} of segment {segment}"))
            }
            Change::SetVtepGroup { segment, vtep, group } => {
                self.set_vtep_group(segment, vtep, group)
            }
            Change::AddFlood { segment, vtep } => self.add_flood(segment, vtep),
            Change::RemoveFlood { segment, vtep } => self.remove_flood(segment, vtep),
            Change::InsertFdb { segment, mac, destination } => {
                self.insert_fdb(segment, mac, destination)
            }
            Change::InsertExternFdb { segment, mac, destination } => {
                self.insert_fdb(segment, mac, destination)?;
                self.bridge(segment)?.external.insert(mac.into(), ());
                Ok(())
            }
            Change::AppendFdb { segment, mac, destination } => {
                self.append_fdb(segment, mac, destination)
            }
            Change::RemoveFdb { segment, mac } => self.remove_fdb(segment, mac),
            Change::RemoveFdbDestination { segment, mac, destination } => {
                self.remove_fdb_destination(segment, mac, destination)
            }
            Change::SetVtepVni { segment, vtep, vni } => self.set_vtep_vni(segment, vtep, vni),
            Change::FlushFdb { segment, which } => self.flush_fdb(segment, which),
            Change::InsertRoute { segment, prefix, next_hop } => {
                self.insert_route(segment, prefix, next_hop)
            }
            Change::RemoveRoute { segment, prefix } => self.remove_route(segment, prefix),
            Change::SetGroup { segment, group, members } => {
                self.set_group(segment, group, &members)
            }
            Change::RemoveGroup { segment, group } => self.remove_group(segment, group),
            Change::SetNeighbour { segment, address, mac, router } => {
                self.set_neighbour(segment, address, (mac, router))
            }
            Change::RemoveNeighbour { segment, address } => self.remove_neighbour(segment, address),
            Change::InsertMdb { segment, group, destination } => {
                self.insert_mdb(segment, group, destination)
            }
            Change::RemoveMdb { segment, group, destination } => {
                self.remove_mdb(segment, group, destination)
            }
            Change::LearnMdb { segment, group, destination, until } => {
                self.learn_mdb(segment, group, destination, seconds(until))
            }
            Change::AgeMdb { segment, now } => self.age_mdb(segment, seconds(now)),
            Change::SetVtepMac { segment, vtep, mac } => self.set_vtep_mac(segment, vtep, mac),
            Change::RemoveVtepMac { segment, vtep } => self.remove_vtep_mac(segment, vtep),
            Change::SetUnderlayMtu(mtu) => self.set_underlay_mtu(mtu),
            Change::SetPathMtu { vtep, source, mtu, until } => {
                self.set_path_mtu(vtep, source, mtu, until)
            }
            Change::Discover { segment, address } => self.discover(segment, address),
        }
    }

    fn add_segment(&mut self, segment: &Segment) -> Result<(), Error> {
        segment.check()?;
        let id = segment.id();
        if segment.mtu_options.probe && self.tables.fragments {
            return Err(Error::conflict(
                format_args!("probing the paths of segment {id}"),
                "the underlay may fragment datagrams, and so every size would get there: set DF, or inherit it",
            ));
        }
        for other in self.tables.segments.keys().filter(|other| other.udp_port == id.udp_port) {
            if *other == id || other.vni.is_none() || id.vni.is_none() {
                return Err(Error::conflict(
                    format!("segment {id}"),
                    format!(
                        "segment {other} exists; only VXLAN segments of different VNI share a UDP port"
                    ),
                ));
            }
        }
        let any = self.tables.udp_ports.get(&id.udp_port).and_then(|port| port.any_vni);
        if let Some(other) = any.filter(|_| segment.header.any_vni) {
            return Err(Error::conflict(
                format_args!("segment {id} of any VNI"),
                format_args!("segment {other} takes the other VNIs of that UDP port already"),
            ));
        }
        if self.tables.segments.len() >= MAX_SEGMENTS {
            return Err(Error::Limit { what: "segments", limit: MAX_SEGMENTS });
        }
        let seed = self.tables.seed;
        let table = match segment.kind {
            Kind::Bridge(_) => SegmentTable::Bridge(Bridge {
                learning: segment.learning,
                fdb: self.tables.fdb.clone(),
                domain: self.domain(id, segment.fdb_limits())?,
                statics: Shards::new(seed),
                flood: SmallVec::new(),
                neighbours: self.neighbours(segment),
                mdb: segment.snooping.enabled.then(|| Box::new(Mdb::new(&segment.snooping, seed))),
                scope: segment.scope,
                storm: segment.storm.buckets()?.map(Arc::new),
                pace: segment.loops.pace(),
                horizon: horizon(segment.scope.vtep_group)?,
                groups: Shards::new(seed),
                own: Vec::new(),
                lists: Box::new(Shards::new(seed)),
                external: Box::new(Shards::new(seed)),
            }),
            Kind::Routed | Kind::RoutedVxlan { .. } => SegmentTable::Routed(Box::new(Routed {
                rib: Rib::new(),
                fib: Rib::new().publish(),
                next_hops: NextHops::new(seed),
                link: match segment.kind {
                    Kind::RoutedVxlan { mac, .. } => Some(Link::new(mac.into())),
                    _ => None,
                },
            })),
        };
        let ipv6 = self.tables.locals.has_ipv6();
        let mtu = segment
            .mtu
            .unwrap_or_else(|| mtu::segment_mtu(segment.kind, ipv6, self.tables.underlay_mtu));
        let mut entry = SegmentEntry {
            id,
            kind: segment.kind,
            mtu,
            follows_underlay: segment.mtu.is_none(),
            narrowest: mtu,
            most_mss: segment.mtu_options.clamp_mss.most(),
            answers: Answers {
                v4: segment.addresses.iter().find_map(v4),
                v6: segment.addresses.iter().find_map(v6),
                too_big: segment.mtu_options.too_big_errors,
            },
            open: segment.open,
            probes: segment.mtu_options.probe,
            answers_probes: segment.mtu_options.answer_probes,
            outer: OuterRule::new(segment.outer, self.tables.inherits_df),
            header: segment.header,
            has_many_headers: false,
            vnis: Shards::new(seed),
            ports: SmallVec::new(),
            vlan_ports: 0,
            table,
            mentions: Shards::new(seed),
            discovered: SmallVec::new(),
            peers: Shards::new(seed),
            counters: Arc::new(PerWorker::new(self.tables.workers)),
            drops: Arc::new(PerWorker::new(self.tables.workers)),
        };
        entry.update_headers();
        self.tables.segments.insert(id, Arc::new(entry));
        self.tables.attachments += 1;
        let udp_port = Arc::make_mut(&mut self.tables.udp_ports).entry(id.udp_port).or_default();
        udp_port.segments += 1;
        if segment.header.any_vni {
            udp_port.any_vni = Some(id);
        }
        Ok(())
    }

    fn remove_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        let missing = || not_found(id);
        let segment = self.tables.segments.remove(&id).ok_or_else(missing)?;
        for port in &segment.ports {
            self.tables.ports.remove(port.0);
            self.added.retain(|added| added != port);
        }
        let udp_ports = Arc::make_mut(&mut self.tables.udp_ports);
        if let Some(udp_port) = udp_ports.get_mut(&id.udp_port) {
            udp_port.segments -= 1;
            udp_port.any_vni = udp_port.any_vni.filter(|any| *any != id);
            if udp_port.segments == 0 {
                udp_ports.remove(&id.udp_port);
            }
        }
        self.tables.attachments += 1;
        self.rerouted.remove(&id);
        self.forget_peers(id, &segment);
        Ok(())
    }

    /// The segment, to look at.
    fn entry(&self, id: SegmentId) -> Result<&SegmentEntry, Error> {
        self.tables.segment(id).ok_or_else(|| not_found(id))
    }

    /// The segment, to be changed.
    fn segment(&mut self, id: SegmentId) -> Result<&mut SegmentEntry, Error> {
        self.tables.segments.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found(id))
    }

    fn bridge(&mut self, id: SegmentId) -> Result<&mut Bridge, Error> {
        match &mut self.segment(id)?.table {
            SegmentTable::Bridge(bridge) => Ok(bridge),
            SegmentTable::Routed(_) => Err(Error::conflict(
                format_args!("FDB or flood list of segment {id}"),
                "the segment is routed and has a FIB instead",
            )),
        }
    }

    fn routed(&mut self, id: SegmentId) -> Result<&mut Routed, Error> {
        match &mut self.segment(id)?.table {
            SegmentTable::Routed(routed) => Ok(routed),
            SegmentTable::Bridge(_) => Err(Error::conflict(
                format_args!("route of segment {id}"),
                "the segment is a bridge and has an FDB instead",
            )),
        }
    }
}

fn individual(what: &'static str, mac: MacAddr) -> Result<(), Error> {
    match mac.is_individual() {
        true => Ok(()),
        false => Err(Error::invalid(what, mac.to_string(), "an individual address")),
    }
}

fn not_found(id: SegmentId) -> Error {
    Error::not_found(format_args!("segment {id}"))
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    }
}

fn add<A: smallvec::Array>(list: &mut SmallVec<A>, item: A::Item)
where
    A::Item: PartialEq,
{
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Removes an item and says whether it was there.
fn remove<A: smallvec::Array>(list: &mut SmallVec<A>, item: A::Item) -> bool
where
    A::Item: PartialEq,
{
    let before = list.len();
    list.retain(|other| *other != item);
    list.len() < before
}

fn found(found: bool, what: impl Fn() -> String) -> Result<(), Error> {
    if found { Ok(()) } else { Err(Error::not_found(what())) }
}
