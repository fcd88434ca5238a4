//! What the tables hold, as plain data for people and agents.

mod mdb;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Error;
use crate::change::{Change, MAX_DISCOVERED};
use crate::counters::WorkerCounters;
use crate::fdb::{Place, seconds};
use crate::fib::{NextHopId, Prefix};
use crate::neighbours::Binding;
use crate::next_hop::{Group, GroupId, Hop, NextHop, Share};
use crate::path::{PathMtu, PathSource};
use crate::segment::{
    Destination, HeaderOptions, Kind, Location, PortId, PortOptions, Scope, SegmentId, StormLimits,
};
use crate::source_key::SourceKey;
use crate::stats::{PortStats, SegmentStats, Stats, VtepStats};
use crate::tables::{Bridge, Routed, SegmentEntry, SegmentTable, Tables};
use crate::wire::{MacAddr, Vni};
pub use mdb::{Mdb, MdbEntry};

/// How an FDB entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The control plane inserted it.
    Static,
    /// The control plane has learned it, from elsewhere: `extern_learn` of `bridge fdb`.
    Extern,
    /// A frame was seen.
    Learned,
}

/// One FDB entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The MAC address.
    pub mac: MacAddr,
    /// Where it is; the address of a group has an entry for each of its destinations.
    pub destination: Destination,
    /// The VNI under which its frames go to the VTEP, if that is not the segment's.
    pub vni: Option<Vni>,
    /// How the entry came to be.
    pub origin: Origin,
    /// Time since a frame from it was last seen, in whole seconds; `None` for static entries.
    pub age: Option<Duration>,
}

/// What an IP address is bound to in a bridge segment that answers for its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// The IP address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
    /// IPv6: whether it is a router.
    pub router: bool,
    /// How the binding came to be.
    pub origin: Origin,
    /// Time since it was heard of last, in whole seconds; `None` for static bindings.
    pub age: Option<Duration>,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub prefix: Prefix,
    /// Where their packets go.
    pub next_hop: NextHop,
}

/// A group of next hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name within the segment.
    pub id: GroupId,
    /// Its members, in the order in which they were given.
    pub members: Vec<MemberInfo>,
}

/// A member of a group of next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Where its flows go.
    pub destination: Destination,
    /// Its weight beside those of the other members.
    pub weight: u16,
    /// Buckets of the group that belong to it: its part of the flows, of those of all members together.
    pub buckets: usize,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name.
    pub id: SegmentId,
    /// How it forwards.
    pub kind: Kind,
    /// Largest IP packet inside, in bytes.
    pub mtu: u32,
    /// Whether datagrams from any address are accepted.
    pub open: bool,
    /// Extensions of the VXLAN header.
    pub header: HeaderOptions,
    /// Attached ports.
    pub ports: Vec<PortId>,
    /// VTEPs from which datagrams are accepted, whatever names them.
    pub peers: Vec<SocketAddr>,
    /// VTEPs that get a copy of every frame for everybody.
    pub flood: Vec<SocketAddr>,
    /// How far frames go; the default for a routed segment.
    pub scope: Scope,
    /// How many frames a second are flooded.
    pub storm: StormLimits,
    /// VTEPs that were given another split horizon group than that of [`SegmentInfo::scope`].
    pub vtep_groups: Vec<(SocketAddr, u8)>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name within the dataplane.
    pub id: PortId,
    /// Name of the device.
    pub name: String,
    /// Segment it is attached to.
    pub segment: SegmentId,
    /// Whether the device takes a vnet header with each frame.
    pub offload: bool,
    /// How it takes part in the segment.
    pub options: PortOptions,
}

impl Tables {
    fn listed(&self, segment: SegmentId) -> Result<&SegmentEntry, Error> {
        self.segment(segment).ok_or_else(|| Error::not_found(format_args!("segment {segment}")))
    }

    /// All segments, sorted by name.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let mut segments: Vec<SegmentInfo> =
            self.segments.values().map(|entry| self.segment_info(entry)).collect();
        segments.sort_by_key(|segment| segment.id);
        segments
    }

    fn segment_info(&self, entry: &SegmentEntry) -> SegmentInfo {
        let addresses = |vteps: &mut dyn Iterator<Item = _>| {
            let mut addresses: Vec<SocketAddr> =
                vteps.filter_map(|vtep| self.vtep_address(vtep)).collect();
            addresses.sort();
            addresses
        };
        let bridge = entry.bridge();
        let groups = bridge.iter().flat_map(|bridge| bridge.groups.iter());
        let mut vtep_groups: Vec<(SocketAddr, u8)> = groups
            .filter_map(|(vtep, group)| Some((self.vtep_address(*vtep)?, group.group())))
            .collect();
        vtep_groups.sort();
        SegmentInfo {
            id: entry.id,
            kind: entry.kind,
            mtu: entry.mtu,
            open: entry.open,
            header: entry.header,
            ports: entry.ports.to_vec(),
            peers: addresses(&mut entry.peers.values().map(|peer| peer.vtep)),
            flood: addresses(&mut bridge.iter().flat_map(|bridge| bridge.flood.iter().copied())),
            scope: bridge.map_or_else(Scope::default, |bridge| bridge.scope),
            storm: bridge
                .and_then(|bridge| bridge.storm.as_ref())
                .map_or_else(StormLimits::default, |storm| storm.limits),
            vtep_groups,
        }
    }

    /// All ports, sorted by name within the dataplane.
    #[must_use]
    pub fn ports(&self) -> Vec<PortInfo> {
        let info = |port: &std::sync::Arc<crate::tables::PortEntry>| PortInfo {
            id: port.id,
            name: port.name.clone(),
            segment: port.segment,
            offload: port.offload,
            options: port.options.clone(),
        };
        let mut ports: Vec<PortInfo> = self.ports.iter().map(info).collect();
        ports.sort_by_key(|port| port.id);
        ports
    }

    /// The FDB of a bridge segment, sorted by MAC address; empty for a routed segment.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn fdb(&self, segment: SegmentId, now: Duration) -> Result<Vec<FdbEntry>, Error> {
        let mut entries: Vec<FdbEntry> = self.fdb_entries(segment, now)?.collect();
        entries.sort_by_key(|entry| entry.mac);
        Ok(entries)
    }

    /// The same entries one by one, in no order, in memory that does not grow with their number; learned ones are those of
    /// the moment in which they come up.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn fdb_entries(
        &self,
        segment: SegmentId,
        now: Duration,
    ) -> Result<impl Iterator<Item = FdbEntry>, Error> {
        let segment = self.listed(segment)?;
        let of_bridge = move |bridge| self.bridge_entries(segment, bridge, now);
        Ok(segment.bridge().into_iter().flat_map(of_bridge))
    }

    fn bridge_entries<'a>(
        &'a self,
        segment: &'a SegmentEntry,
        bridge: &'a Bridge,
        now: Duration,
    ) -> impl Iterator<Item = FdbEntry> + 'a {
        let entry = move |mac, location, origin, age| {
            let vni = match location {
                Location::Vtep(vtep) => segment.vnis.get(&vtep).copied(),
                Location::Port(_) => None,
            };
            let destination = self.destination(location)?;
            Some(FdbEntry { mac, destination, vni, origin, age })
        };
        let statics = bridge.statics.iter().filter_map(move |(mac, at)| {
            let external = bridge.external.contains_key(mac);
            let origin = if external { Origin::Extern } else { Origin::Static };
            entry((*mac).into(), *at, origin, None)
        });
        let lists = bridge.lists.iter().flat_map(move |(mac, list)| {
            list.locations().filter_map(move |at| entry((*mac).into(), at, Origin::Static, None))
        });
        let learned = bridge
            .fdb
            .entries_of(&bridge.domain, seconds(now))
            .filter(|found| bridge.pinned(found.mac.into()).is_none())
            .filter_map(move |found| {
                let age = Some(Duration::from_secs(u64::from(found.age)));
                entry(found.mac, Location::from_word(found.place), Origin::Learned, age)
            });
        statics.chain(lists).chain(learned)
    }

    /// The routes of a routed segment, sorted by prefix; empty for a bridge segment.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn routes(&self, segment: SegmentId) -> Result<Vec<Route>, Error> {
        Ok(self.route_entries(segment)?.collect())
    }

    /// The same routes one by one, in memory that does not grow with their number.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn route_entries(&self, segment: SegmentId) -> Result<impl Iterator<Item = Route>, Error> {
        let of_table = move |routed| self.table_routes(routed);
        Ok(self.listed(segment)?.routed().into_iter().flat_map(of_table))
    }

    fn table_routes<'a>(&'a self, routed: &'a Routed) -> impl Iterator<Item = Route> + 'a {
        routed.rib.iter().filter_map(move |(prefix, id)| self.route(routed, prefix, id))
    }

    /// The route that packets to an address take in a routed segment: that with the longest prefix. `None` without one, and
    /// in a bridge segment.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn route_to(&self, segment: SegmentId, address: IpAddr) -> Result<Option<Route>, Error> {
        let Some(routed) = self.listed(segment)?.routed() else { return Ok(None) };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let found = (0..=bits).rev().find_map(|length| {
            let prefix = Prefix::new(address, length)?;
            Some((prefix, routed.rib.get(prefix)?))
        });
        Ok(found.and_then(|(prefix, id)| self.route(routed, prefix, id)))
    }

    fn route(&self, routed: &Routed, prefix: Prefix, id: NextHopId) -> Option<Route> {
        let next_hop = match routed.next_hops.hop(id)? {
            Hop::At(location) => NextHop::To(self.destination(location)?),
            Hop::Group(handle) => NextHop::Group(routed.next_hops.group(handle)?.id),
            Hop::Blackhole => NextHop::Blackhole,
            Hop::Unreachable => NextHop::Unreachable,
            Hop::Local => NextHop::Local,
        };
        Some(Route { prefix, next_hop })
    }

    /// The next-hop groups of a routed segment, sorted by name; none for a bridge segment.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn groups(&self, segment: SegmentId) -> Result<Vec<GroupInfo>, Error> {
        let SegmentTable::Routed(routed) = &self.listed(segment)?.table else {
            return Ok(Vec::new());
        };
        let mut groups: Vec<GroupInfo> =
            routed.next_hops.groups().map(|group| self.group_info(group)).collect();
        groups.sort_by_key(|group| group.id);
        Ok(groups)
    }

    /// The neighbours that a bridge segment answers for, sorted by address; none for other segments.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn neighbours(
        &self,
        segment: SegmentId,
        now: Duration,
    ) -> Result<Vec<NeighbourEntry>, Error> {
        let bridge = self.listed(segment)?.bridge();
        let Some(neighbours) = bridge.and_then(|bridge| bridge.neighbours.as_ref()) else {
            return Ok(Vec::new());
        };
        let entry = |address, binding: Binding, origin, age| {
            let Binding { mac, router } = binding;
            NeighbourEntry { address, mac: mac.into(), router, origin, age }
        };
        let statics = neighbours.statics.iter();
        let statics = statics.map(|(address, to)| entry(*address, *to, Origin::Static, None));
        let snooped = neighbours.snooped.iter().flat_map(|snooped| snooped.list(seconds(now)));
        let snooped = snooped
            .filter(|(address, ..)| neighbours.statics.get(address).is_none())
            .map(|(address, to, age)| {
                entry(address, to, Origin::Learned, Some(Duration::from_secs(age.into())))
            });
        let mut entries: Vec<NeighbourEntry> = statics.chain(snooped).collect();
        entries.sort_by_key(|entry| entry.address);
        Ok(entries)
    }

    /// The MAC addresses given for VTEPs of a routed segment in VXLAN, sorted by VTEP; none for other segments.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn vtep_macs(&self, segment: SegmentId) -> Result<Vec<(SocketAddr, MacAddr)>, Error> {
        let link = match &self.listed(segment)?.table {
            SegmentTable::Routed(routed) => routed.link.as_ref(),
            SegmentTable::Bridge(_) => None,
        };
        let given = link.iter().flat_map(|link| link.macs.iter().flatten());
        let mut macs: Vec<(SocketAddr, MacAddr)> = given
            .filter_map(|(vtep, mac)| Some((self.vtep_address(*vtep)?, (*mac).into())))
            .collect();
        macs.sort();
        Ok(macs)
    }

    fn group_info(&self, group: &Group) -> GroupInfo {
        let info = |share: &Share| {
            let destination = self.destination(share.at)?;
            let buckets = group.buckets_of(share.at);
            Some(MemberInfo { destination, weight: share.weight, buckets })
        };
        GroupInfo { id: group.id, members: group.members.iter().filter_map(info).collect() }
    }

    /// Statistics of everything in the tables.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        stats.workers.extend(self.counters.iter().map(WorkerCounters::totals));
        // From what was read just now, so that it is their sum while traffic flows, too.
        stats.workers.iter().for_each(|worker| stats.totals.add(worker));
        stats.ports.extend(self.ports.iter().map(|port| PortStats {
            id: port.id,
            name: port.name.clone(),
            segment: port.segment,
            traffic: port.counters.sum(),
        }));
        stats.vteps.extend(self.vteps.iter().map(|vtep| VtepStats {
            address: vtep.address,
            traffic: vtep.counters.sum(),
            path: self.path_mtu(vtep.address).unwrap_or_default(),
            probe: None,
        }));
        stats.segments.extend(self.segments.values().map(|segment| SegmentStats {
            id: segment.id,
            traffic: segment.counters.sum(),
            drops: segment.drops.sum(),
            learned: self.learned(segment),
            fdb_limit: segment.bridge().map_or(0, |bridge| bridge.domain.limits().entries),
            memberships: mdb::memberships(segment),
        }));
        stats.ports.sort_by_key(|port| port.id);
        stats.vteps.sort_by_key(|vtep| vtep.address);
        stats.segments.sort_by_key(|segment| segment.id);
        stats
    }

    /// Learned entries of a segment. Those that were flushed may wait to be swept; they are counted in the part of the
    /// table or in the place that was flushed, and that is not the segment's any more.
    fn learned(&self, segment: &SegmentEntry) -> usize {
        let Some(bridge) = segment.bridge() else { return 0 };
        let ports = segment.ports.iter().filter_map(|port| self.port(*port)?.place.as_ref());
        let peers = segment.peers.values().filter_map(|peer| peer.place.as_ref());
        bridge.domain.entries().min(ports.chain(peers).map(Place::entries).sum())
    }

    /// What is known of the path to a VTEP; `None` when there is no such VTEP.
    #[must_use]
    pub fn path_mtu(&self, vtep: SocketAddr) -> Option<PathMtu> {
        let known = self.vtep_by_address.get(&vtep)?;
        Some(self.paths.get(&known.id).copied().unwrap_or_default())
    }

    /// Changes that give up what was learned of paths too long ago.
    #[must_use]
    pub fn expired_paths(&self, now: Duration) -> Vec<Change> {
        let expired = self.paths.iter().filter(|(_, path)| path.is_expired(now));
        let vteps = expired.filter_map(|(vtep, _)| self.vtep_address(*vtep));
        let source = PathSource::Learned;
        vteps
            .map(|vtep| Change::SetPathMtu { vtep, source, mtu: None, until: Duration::ZERO })
            .collect()
    }

    /// Changes that make room in open segments which have discovered many VTEPs: those behind which no MAC address
    /// is known are given up.
    #[must_use]
    pub fn stale_discoveries(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for segment in
            self.segments.values().filter(|segment| segment.discovered.len() > MAX_DISCOVERED / 2)
        {
            for vtep in segment.discovered.iter().filter_map(|vtep| self.vtep_address(*vtep)) {
                // A routed segment learns nothing, so all of its discoveries can go; they come back with the next
                // datagram.
                let peer = segment.peers.get(&SourceKey::from(vtep.ip()));
                let place = peer.and_then(|peer| peer.place.as_ref());
                if place.is_none_or(|place| place.entries() == 0) {
                    changes.push(Change::RemovePeer { segment: segment.id, vtep });
                }
            }
        }
        changes
    }
}
