//! The all-or-nothing application of changes: a draft of the tables that takes their place if all changes fit.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::Error;
use crate::change::{Change, Flush, MAX_DISCOVERED, MAX_ENTRIES, MAX_SEGMENTS};
use crate::counters::PerWorker;
use crate::fdb::{Fdb, seconds};
use crate::fib::Routes;
use crate::hash::Seeded;
use crate::mtu;
use crate::segment::{Destination, Kind, Location, MAX_FLOOD, PortId, Segment, SegmentId, VtepId};
use crate::slots::MAX_SLOTS;
use crate::source_key::SourceKey;
use crate::tables::{Bridge, PortEntry, Routed, SegmentEntry, SegmentTable, Tables, VtepEntry};
use crate::wire::MacAddr;

/// A change of shared learned state, done once nothing can fail any more.
#[derive(Debug)]
pub(crate) enum Effect {
    Forget(Arc<Fdb>, MacAddr),
    Flush(Arc<Fdb>, Flushed),
}

#[derive(Debug)]
pub(crate) enum Flushed {
    All,
    At(Location),
    Behind(HashSet<VtepId>),
    OlderThan(u32),
}

impl Effect {
    /// Whether a worker that still goes by the tables before could undo it.
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) fn bears_repetition(&self) -> bool {
        matches!(self, Self::Flush(_, Flushed::Behind(_)))
    }

    pub(crate) fn run(&self, second: u32) {
        match self {
            Self::Forget(fdb, mac) => fdb.forget(*mac),
            Self::Flush(fdb, which) => fdb.remove_if(
                second,
                |entry| match &which {
                    Flushed::All => true,
                    Flushed::At(location) => entry.location == *location,
                    Flushed::Behind(vteps) => {
                        as_vtep(entry.location).is_some_and(|vtep| vteps.contains(&vtep))
                    }
                    Flushed::OlderThan(age) => entry.age >= *age,
                },
                |_| (),
            ),
        }
    }
}

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
        changed.effects.iter().for_each(|effect| effect.run(seconds(now)));
        *self = changed.tables;
        Ok(changed.ports)
    }

    /// What the tables would be with `changes`, and what is to be forgotten then.
    pub(crate) fn changed(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Changed, Error> {
        let mut draft = Draft {
            tables: self.clone(),
            dirty: Vec::new(),
            removed_peers: Vec::new(),
            new_vteps: Vec::new(),
            added: Vec::new(),
            effects: Vec::new(),
        };
        for change in changes {
            draft.change(change)?;
        }
        draft.settle_peers()?;
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
    /// Segments in which VTEPs may have been named or unnamed.
    dirty: Vec<SegmentId>,
    /// Peers of removed segments, and VTEPs made on the way: perhaps nothing names them in the end.
    removed_peers: Vec<VtepId>,
    new_vteps: Vec<VtepId>,
    added: Vec<PortId>,
    effects: Vec<Effect>,
}

impl Draft {
    fn change(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::AddSegment(segment) => self.add_segment(&segment),
            Change::RemoveSegment(id) => self.remove_segment(id),
            Change::AddPort { segment, name, offload } => self.add_port(segment, name, offload),
            Change::RemovePort(port) => self.remove_port(port),
            Change::AddPeer { segment, vtep } => {
                let id = self.vtep(segment, vtep)?;
                let peers = &mut self.segment(segment)?.named_peers;
                peers.insert(id);
                if peers.len() > MAX_ENTRIES {
                    return Err(Error::Limit { what: "peers of a segment", limit: MAX_ENTRIES });
                }
                Ok(())
            }
            Change::RemovePeer { segment, vtep } => {
                let id = self.known_vtep(vtep)?;
                let entry = self.segment(segment)?;
                let named = entry.named_peers.remove(&id);
                let discovered = remove(&mut entry.discovered, id);
                found(named || discovered, || format!("peer {vtep} of segment {segment}"))
            }
            Change::AddFlood { segment, vtep } => {
                self.bridge(segment)?;
                let id = self.vtep(segment, vtep)?;
                let flood = &mut self.bridge(segment)?.flood;
                if flood.len() >= MAX_FLOOD && !flood.contains(&id) {
                    return Err(Error::Limit { what: "VTEPs in a flood list", limit: MAX_FLOOD });
                }
                add(flood, id);
                Ok(())
            }
            Change::RemoveFlood { segment, vtep } => {
                let id = self.known_vtep(vtep)?;
                let removed = remove(&mut self.bridge(segment)?.flood, id);
                found(removed, || format!("{vtep} in the flood list of segment {segment}"))
            }
            Change::InsertFdb { segment, mac, destination } => {
                self.insert_fdb(segment, mac, destination)
            }
            Change::RemoveFdb { segment, mac } => {
                let bridge = self.bridge(segment)?;
                let fdb = bridge.fdb.clone();
                let known = bridge.statics.remove(&mac).is_some() || fdb.contains(mac);
                self.effects.push(Effect::Forget(fdb, mac));
                found(known, || format!("FDB entry {mac} of segment {segment}"))
            }
            Change::FlushFdb { segment, which } => self.flush_fdb(segment, which),
            Change::InsertRoute { segment, prefix, next_hop } => {
                self.routed(segment)?;
                let next_hop = self.location(segment, next_hop)?;
                let fib = &mut self.routed(segment)?.fib;
                if fib.insert(prefix, next_hop).is_none() && fib.len() > MAX_ENTRIES {
                    return Err(Error::Limit { what: "routes of a segment", limit: MAX_ENTRIES });
                }
                Ok(())
            }
            Change::RemoveRoute { segment, prefix } => {
                let removed = self.routed(segment)?.fib.remove(prefix);
                found(removed.is_some(), || format!("route {prefix} of segment {segment}"))
            }
            Change::Discover { segment, address } => self.discover(segment, address),
        }
    }

    fn add_segment(&mut self, segment: &Segment) -> Result<(), Error> {
        segment.check()?;
        let id = segment.id();
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
        if self.tables.segments.len() >= MAX_SEGMENTS {
            return Err(Error::Limit { what: "segments", limit: MAX_SEGMENTS });
        }
        let seed = self.tables.seed;
        let table = match segment.kind {
            Kind::Bridge(_) => SegmentTable::Bridge(Bridge {
                learning: segment.learning,
                fdb: Arc::new(Fdb::new(segment.fdb_limit, segment.ageing, seed)),
                statics: HashMap::with_hasher(Seeded(seed)),
                flood: SmallVec::new(),
            }),
            Kind::Routed => SegmentTable::Routed(Routed {
                fib: Routes::new(seed),
                icmp_v4: segment.addresses.iter().find_map(v4),
                icmp_v6: segment.addresses.iter().find_map(v6),
            }),
        };
        let ipv6 = self.tables.local.is_ipv6();
        let mtu = segment
            .mtu
            .unwrap_or_else(|| mtu::segment_mtu(segment.kind, ipv6, mtu::DEFAULT_UNDERLAY_MTU));
        let entry = SegmentEntry {
            id,
            mtu,
            open: segment.open,
            ports: SmallVec::new(),
            table,
            named_peers: HashSet::with_hasher(Seeded(seed)),
            discovered: SmallVec::new(),
            peers: HashMap::with_hasher(Seeded(seed)),
            counters: Arc::new(PerWorker::new(self.tables.workers)),
        };
        self.tables.segments.insert(id, Arc::new(entry));
        Ok(())
    }

    fn remove_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        for port in self.segment(id)?.ports.clone() {
            self.tables.ports.remove(port.0);
            self.added.retain(|added| *added != port);
        }
        // Its VTEPs go when peers are settled, unless another segment names them.
        if let Some(segment) = self.tables.segments.remove(&id) {
            self.removed_peers.extend(segment.peers.values());
        }
        Ok(())
    }

    fn add_port(&mut self, segment: SegmentId, name: String, offload: bool) -> Result<(), Error> {
        self.segment(segment)?;
        let counters = PerWorker::new(self.tables.workers);
        let handle = self.tables.ports.insert_with(|handle| {
            Arc::new(PortEntry { id: PortId(handle), name, segment, offload, counters })
        });
        let id = PortId(handle.ok_or(Error::Limit { what: "ports", limit: MAX_SLOTS })?);
        self.segment(segment)?.ports.push(id);
        self.added.push(id);
        Ok(())
    }

    fn remove_port(&mut self, port: PortId) -> Result<(), Error> {
        let entry = self.tables.ports.remove(port.0).ok_or_else(|| Error::not_found(port))?;
        self.added.retain(|added| *added != port);
        let gone = Location::Port(port);
        let segment = self.segment(entry.segment)?;
        remove(&mut segment.ports, port);
        match &mut segment.table {
            SegmentTable::Bridge(bridge) => {
                bridge.statics.retain(|_, at| *at != gone);
                let fdb = bridge.fdb.clone();
                self.effects.push(Effect::Flush(fdb, Flushed::At(gone)));
            }
            SegmentTable::Routed(routed) => routed.fib.remove_next_hop(gone),
        }
        Ok(())
    }

    fn insert_fdb(
        &mut self,
        segment: SegmentId,
        mac: MacAddr,
        destination: Destination,
    ) -> Result<(), Error> {
        if mac.is_multicast() || mac.is_zero() {
            return Err(Error::invalid(
                "MAC address of an FDB entry",
                mac.to_string(),
                "an individual address",
            ));
        }
        self.bridge(segment)?;
        let location = self.location(segment, destination)?;
        let bridge = self.bridge(segment)?;
        if bridge.statics.insert(mac, location).is_none() && bridge.statics.len() > MAX_ENTRIES {
            return Err(Error::Limit {
                what: "static FDB entries of a segment",
                limit: MAX_ENTRIES,
            });
        }
        let fdb = bridge.fdb.clone();
        self.effects.push(Effect::Forget(fdb, mac));
        Ok(())
    }

    fn flush_fdb(&mut self, segment: SegmentId, which: Flush) -> Result<(), Error> {
        let which = match which {
            Flush::All => Flushed::All,
            Flush::OlderThan(age) => Flushed::OlderThan(seconds(age)),
            Flush::Port(port) => {
                self.tables.port(port).ok_or_else(|| Error::not_found(port))?;
                Flushed::At(Location::Port(port))
            }
            Flush::Vtep(vtep) => Flushed::At(Location::Vtep(self.known_vtep(vtep)?)),
        };
        let fdb = self.bridge(segment)?.fdb.clone();
        self.effects.push(Effect::Flush(fdb, which));
        Ok(())
    }

    fn discover(&mut self, segment: SegmentId, address: IpAddr) -> Result<(), Error> {
        let entry = self.segment(segment)?;
        if !entry.open
            || entry.peers.contains_key(&SourceKey::from(address))
            || entry.discovered.len() >= MAX_DISCOVERED
        {
            return Ok(());
        }
        let id = self.vtep(segment, SocketAddr::new(address, segment.udp_port))?;
        add(&mut self.segment(segment)?.discovered, id);
        Ok(())
    }

    /// The segment, to be changed; its VTEPs are settled at the end.
    fn segment(&mut self, id: SegmentId) -> Result<&mut SegmentEntry, Error> {
        let missing = || Error::not_found(format_args!("segment {id}"));
        let entry = self.tables.segments.get_mut(&id).ok_or_else(missing)?;
        if !self.dirty.contains(&id) {
            self.dirty.push(id);
        }
        Ok(Arc::make_mut(entry))
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

    fn known_vtep(&self, address: SocketAddr) -> Result<VtepId, Error> {
        let id = self.tables.vtep_by_address.get(&address).copied();
        id.ok_or_else(|| Error::not_found(format_args!("VTEP {address}")))
    }

    /// The VTEP at `address`, made if it is new.
    fn vtep(&mut self, segment: SegmentId, address: SocketAddr) -> Result<VtepId, Error> {
        self.segment(segment)?;
        let ip = address.ip();
        if ip == self.tables.local && address.port() == segment.udp_port {
            return Err(Error::conflict(
                format_args!("VTEP {address} in segment {segment}"),
                "it is this node itself, which would hear its own frames",
            ));
        }
        if let Some(id) = self.tables.vtep_by_address.get(&address) {
            return Ok(*id);
        }
        if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
            return Err(Error::invalid(
                "VTEP",
                address.to_string(),
                "a unicast address with a UDP port",
            ));
        }
        if ip.is_ipv4() != self.tables.local.is_ipv4() {
            return Err(Error::conflict(
                format_args!("VTEP {address}"),
                format_args!(
                    "this node's underlay address is {}: the families differ",
                    self.tables.local
                ),
            ));
        }
        let counters = PerWorker::new(self.tables.workers);
        let handle = self
            .tables
            .vteps
            .insert_with(|handle| Arc::new(VtepEntry { id: VtepId(handle), address, counters }));
        let id = VtepId(handle.ok_or(Error::Limit { what: "VTEPs", limit: MAX_SLOTS })?);
        self.tables.vtep_by_address.insert(address, id);
        self.new_vteps.push(id);
        Ok(id)
    }

    fn location(
        &mut self,
        segment: SegmentId,
        destination: Destination,
    ) -> Result<Location, Error> {
        match destination {
            Destination::Vtep(vtep) => Ok(Location::Vtep(self.vtep(segment, vtep)?)),
            Destination::Port(port) => match self.tables.port(port) {
                Some(entry) if entry.segment == segment => Ok(Location::Port(port)),
                Some(entry) => Err(Error::conflict(
                    port,
                    format_args!("it is attached to segment {}", entry.segment),
                )),
                None => Err(Error::not_found(port)),
            },
        }
    }

    /// Derives the accepted peers of the changed segments, forgets what was learned behind those that are peers no
    /// more, and drops VTEPs that nothing names any more.
    fn settle_peers(&mut self) -> Result<(), Error> {
        let mut unnamed: HashSet<VtepId> = HashSet::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.tables.segments.get_mut(&id) else { continue };
            let entry = Arc::make_mut(entry);
            let mut gone: HashSet<VtepId> = entry.peers.drain().map(|(_, vtep)| vtep).collect();
            for vtep in named_vteps(entry) {
                gone.remove(&vtep);
                let Some(address) = self.tables.vteps.get(vtep.0).map(|vtep| vtep.address) else {
                    continue;
                };
                if let Some(other) = entry.peers.insert(SourceKey::from(address.ip()), vtep)
                    && other != vtep
                {
                    return Err(Error::conflict(
                        format_args!("VTEP {address} in segment {id}"),
                        "the segment names the same address with another UDP port, and a sender is known by its address",
                    ));
                }
            }
            // What the control plane names goes before what was only heard from.
            let (peers, vteps) = (&mut entry.peers, &self.tables.vteps);
            entry.discovered.retain(|vtep| {
                let address = vteps.get(vtep.0).map(|entry| SourceKey::from(entry.address.ip()));
                let stays = address.filter(|key| !peers.contains_key(key));
                if let Some(key) = stays {
                    peers.insert(key, *vtep);
                    gone.remove(vtep);
                }
                stays.is_some()
            });
            unnamed.extend(&gone);
            if let (false, Some(bridge)) = (gone.is_empty(), entry.bridge()) {
                self.effects.push(Effect::Flush(bridge.fdb.clone(), Flushed::Behind(gone)));
            }
        }
        unnamed.extend(self.removed_peers.drain(..));
        unnamed.extend(self.new_vteps.drain(..));
        for id in unnamed {
            let Some(address) = self.tables.vtep_address(id) else { continue };
            let key = SourceKey::from(address.ip());
            if !self.tables.segments.values().any(|segment| segment.peers.get(&key) == Some(&id)) {
                self.tables.vteps.remove(id.0);
                self.tables.vtep_by_address.remove(&address);
            }
        }
        Ok(())
    }
}

fn as_vtep(location: Location) -> Option<VtepId> {
    match location {
        Location::Vtep(vtep) => Some(vtep),
        Location::Port(_) => None,
    }
}

/// All VTEPs that the control plane names in the segment, with repetitions.
fn named_vteps(entry: &SegmentEntry) -> Vec<VtepId> {
    let mut named: Vec<VtepId> = entry.named_peers.iter().copied().collect();
    match &entry.table {
        SegmentTable::Bridge(bridge) => {
            named.extend(&bridge.flood);
            named.extend(bridge.statics.values().copied().filter_map(as_vtep));
        }
        SegmentTable::Routed(routed) => {
            named.extend(routed.fib.iter().filter_map(|(_, hop)| as_vtep(hop)))
        }
    }
    named
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
