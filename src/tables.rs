//! The snapshot that forwarding reads: segments, ports and VTEPs with everything the control plane said of them.
//!
//! A [`Tables`] is changed only as a whole, by [`Tables::apply`]. What the data path itself finds out, learned MAC
//! addresses and counters, lives behind shared references that successive snapshots hand on.
//!
//! A clone copies next to nothing: whatever can be large is in pieces that snapshots share until one of them changes
//! (see `shards` and `pages`).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use crate::Error;
use crate::counters::{DropCounters, PerWorker, TrafficCounters, WorkerCounters};
use crate::damper::{Damper, Pace};
use crate::fdb::{self, Domain, Fdb, Place, View};
use crate::fib::{Fib, Rib};
use crate::hash::random_seed;
use crate::locals::Locals;
use crate::mtu;
use crate::multicast::Mdb;
use crate::neighbours::Neighbours;
use crate::next_hop::NextHops;
use crate::pages::Pages;
use crate::path::PathMtu;
use crate::segment::{
    Destination, Gateway, HeaderOptions, Kind, Location, OuterRule, PortId, PortOptions, Scope,
    SegmentId, Storm, Traits, VtepId,
};
use crate::shards::Shards;
use crate::slots::{self, Slots};
use crate::source_key::SourceKey;
use crate::wire::eth::MacNumber;
use crate::wire::vxlan::ReservedBits;
use crate::wire::{MacAddr, Vni};

/// Largest number of workers of one dataplane.
pub const MAX_WORKERS: usize = 64;

/// A port as forwarding sees it.
#[derive(Clone, Debug)]
pub(crate) struct PortEntry {
    pub(crate) id: PortId,
    pub(crate) name: String,
    pub(crate) segment: SegmentId,
    /// Whether the device takes a vnet header: unfinished checksums and super-frames can be handed to it.
    pub(crate) offload: bool,
    /// What is special about it: none for most.
    pub(crate) traits: Traits,
    pub(crate) options: PortOptions,
    /// Keeps the limits of what it floods, if it has any.
    pub(crate) storm: Option<Arc<Storm>>,
    /// The router that the host behind a TAP sees, in a routed segment.
    pub(crate) gateway: Option<Arc<Attached>>,
    /// What learned entries behind it are at, in a bridge segment.
    pub(crate) place: Option<Place>,
    pub(crate) counters: Arc<PerWorker<TrafficCounters>>,
}

/// A gateway as forwarding sees it, with the host that is behind it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) mac: MacNumber,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) answer_all: bool,
    /// MAC address of the host: given, or that of the last frame; 0 before the first.
    host: AtomicU64,
    is_given: bool,
}

impl From<&Gateway> for Attached {
    fn from(gateway: &Gateway) -> Self {
        Self {
            mac: gateway.mac.into(),
            addresses: gateway.addresses.clone().into(),
            answer_all: gateway.answer_all,
            host: AtomicU64::new(gateway.host.map_or(0, MacAddr::to_u64)),
            is_given: gateway.host.is_some(),
        }
    }
}

impl Attached {
    /// The MAC address of the host, if it is known.
    #[inline]
    pub(crate) fn host(&self) -> Option<MacNumber> {
        let host = self.host.load(Ordering::Relaxed);
        (host != 0).then(|| MacAddr::from_u64(host).into())
    }

    /// A frame came from the host.
    #[inline]
    pub(crate) fn heard(&self, from: MacNumber) {
        if !self.is_given && self.host.load(Ordering::Relaxed) != from.get() {
            self.host.store(from.get(), Ordering::Relaxed);
        }
    }
}

/// A VTEP as forwarding sees it.
#[derive(Debug)]
pub(crate) struct VtepEntry {
    pub(crate) address: SocketAddr,
    pub(crate) counters: PerWorker<TrafficCounters>,
}

/// What a bridge segment forwards by.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) learning: bool,
    /// The table of all segments, and the part of it that is this one's.
    pub(crate) fdb: Arc<Fdb>,
    pub(crate) domain: Arc<Domain>,
    pub(crate) statics: Shards<MacNumber, Location>,
    /// In order.
    pub(crate) flood: SmallVec<[VtepId; 8]>,
    /// If the segment answers for its neighbours.
    pub(crate) neighbours: Option<Box<Neighbours>>,
    /// If the segment snoops.
    pub(crate) mdb: Option<Box<Mdb>>,
    pub(crate) scope: Scope,
    /// Keeps the limits of what is flooded, if there are any.
    pub(crate) storm: Option<Arc<Storm>>,
    /// How often MAC addresses may move; without a limit if not given.
    pub(crate) pace: Option<Pace>,
    /// What keeps its VTEPs apart, but for those of `groups`.
    pub(crate) horizon: Traits,
    /// What keeps those VTEPs apart whose split horizon group is not that of the segment.
    pub(crate) groups: Shards<VtepId, Traits>,
    /// MAC addresses of the devices of the ports, sorted; each as often as there are such ports.
    pub(crate) own: Vec<MacNumber>,
    /// Where the frames for a group address go, of those that have a list of their own.
    pub(crate) lists: Box<Shards<MacNumber, GroupList>>,
    /// Static entries that were learned by the control plane, and not configured.
    pub(crate) external: Box<Shards<MacNumber, ()>>,
}

/// The destinations of a group address.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupList {
    /// In place of the flood list.
    pub(crate) vteps: SmallVec<[VtepId; 8]>,
    /// In place of all ports, unless it is empty.
    pub(crate) ports: SmallVec<[PortId; 4]>,
}

impl GroupList {
    pub(crate) fn is_empty(&self) -> bool {
        self.vteps.is_empty() && self.ports.is_empty()
    }

    /// All of it, VTEPs first.
    pub(crate) fn locations(&self) -> impl Iterator<Item = Location> {
        let vteps = self.vteps.iter().copied().map(Location::Vtep);
        vteps.chain(self.ports.iter().copied().map(Location::Port))
    }
}

impl Bridge {
    /// The FDB, to look up in.
    #[inline(always)]
    pub(crate) fn macs(&self) -> Macs<'_> {
        Macs { statics: &self.statics, learned: self.fdb.view(&self.domain) }
    }

    /// Whether a MAC address is that of a port's device.
    #[inline]
    pub(crate) fn owns(&self, mac: MacNumber) -> bool {
        self.own.binary_search(&mac).is_ok()
    }

    /// What keeps a VTEP apart from other places; without a VTEP, one that the segment has not heard of.
    #[inline]
    pub(crate) fn apart(&self, vtep: Option<VtepId>) -> Traits {
        match vtep {
            Some(vtep) if !self.groups.is_empty() => {
                self.groups.get(&vtep).copied().unwrap_or(self.horizon)
            }
            _ => self.horizon,
        }
    }

    /// Whether there are VTEPs between which frames are forwarded.
    #[inline]
    pub(crate) fn relays(&self) -> bool {
        !self.horizon.in_group() || !self.groups.is_empty()
    }

    /// Where a static entry pins a MAC address.
    pub(crate) fn pinned(&self, mac: MacNumber) -> Option<Location> {
        self.macs().pinned(mac)
    }
}

/// Where the MAC addresses of a bridge segment are, gathered once for many lookups.
#[derive(Clone, Copy)]
pub(crate) struct Macs<'a> {
    statics: &'a Shards<MacNumber, Location>,
    pub(crate) learned: View<'a>,
}

impl Macs<'_> {
    /// Where a static entry pins a MAC address.
    #[inline(always)]
    pub(crate) fn pinned(&self, mac: MacNumber) -> Option<Location> {
        if self.statics.is_empty() { None } else { self.statics.get(&mac).copied() }
    }

    /// Where a MAC address is, by a static entry or as learned.
    #[inline(always)]
    pub(crate) fn lookup(&self, mac: MacNumber, second: u32) -> Option<Location> {
        if let Some(location) = self.pinned(mac) {
            return Some(location);
        }
        self.learned.lookup(mac, second).map(Location::from_word)
    }
}

/// What a routed segment forwards by.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    /// The routes as the control plane changes them.
    pub(crate) rib: Rib,
    /// The same routes, to look up in.
    pub(crate) fib: Fib,
    pub(crate) next_hops: NextHops,
    /// Of a segment in VXLAN.
    pub(crate) link: Option<Link>,
}

/// What a segment's ICMP errors are made with.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// Their sources; without one, the destination of the packet at fault.
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    /// Whether senders are told of packets that are too large.
    pub(crate) too_big: bool,
}

/// The Ethernet between the VTEPs of a routed segment in VXLAN.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// MAC address of this node's VTEP.
    pub(crate) mac: MacNumber,
    /// Those of the others, by [`slots::index`].
    pub(crate) macs: Pages<Option<(VtepId, MacNumber)>>,
}

impl Link {
    pub(crate) fn new(mac: MacNumber) -> Self {
        Self { mac, macs: Pages::new() }
    }

    /// The MAC address of a VTEP.
    #[inline]
    pub(crate) fn mac_of(&self, vtep: VtepId) -> Option<MacNumber> {
        match self.macs.get(slots::index(vtep.0)) {
            Some(Some((known, mac))) if *known == vtep => Some(*mac),
            _ => None,
        }
    }
}

/// What names a VTEP or a port in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// Whether it is a VTEP that is named as a peer.
    pub(crate) peer: bool,
    /// Flood list, static entries, next hops of routes, members of groups and VTEP MAC addresses that name it.
    pub(crate) others: u32,
}

impl Mentions {
    pub(crate) fn is_named(self) -> bool {
        self.peer || self.others > 0
    }
}

/// A VTEP from which a segment accepts datagrams.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) vtep: VtepId,
    /// What learned entries behind it are at, in a bridge segment.
    pub(crate) place: Option<Place>,
}

#[derive(Clone, Debug)]
pub(crate) enum SegmentTable {
    Bridge(Bridge),
    Routed(Box<Routed>),
}

/// A segment as forwarding sees it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentEntry {
    pub(crate) id: SegmentId,
    pub(crate) kind: Kind,
    /// Largest IP packet inside, in bytes.
    pub(crate) mtu: u32,
    /// Whether that is what the underlay leaves.
    pub(crate) follows_underlay: bool,
    /// The same for all VTEPs that are peers: what is not larger need not be looked at any closer.
    pub(crate) narrowest: u32,
    /// Largest maximum segment size that TCP hosts may tell each other; 0 for whatever they do.
    pub(crate) most_mss: u16,
    pub(crate) answers: Answers,
    pub(crate) open: bool,
    /// Whether the paths to its VTEPs are probed, and their probes are answered.
    pub(crate) probes: bool,
    pub(crate) answers_probes: bool,
    /// What outer headers say.
    pub(crate) outer: OuterRule,
    pub(crate) header: HeaderOptions,
    /// Whether the VXLAN headers of its datagrams are not all alike: looked at for each frame, and so kept at hand.
    pub(crate) has_many_headers: bool,
    /// VTEPs that datagrams go to under another VNI than the segment's.
    pub(crate) vnis: Shards<VtepId, Vni>,
    pub(crate) ports: SmallVec<[PortId; 4]>,
    /// How many of the ports care for VLANs.
    pub(crate) vlan_ports: u32,
    pub(crate) table: SegmentTable,
    /// The VTEPs and ports that the control plane names.
    pub(crate) mentions: Shards<Location, Mentions>,
    /// VTEPs found by an open segment.
    pub(crate) discovered: SmallVec<[VtepId; 4]>,
    /// Every VTEP from which datagrams are accepted, by underlay address: the source port tells nothing, it is
    /// entropy. Follows from all that names VTEPs in this segment.
    pub(crate) peers: Shards<SourceKey, Peer>,
    pub(crate) counters: Arc<PerWorker<TrafficCounters>>,
    pub(crate) drops: Arc<PerWorker<DropCounters>>,
}

impl SegmentEntry {
    /// Brings [`SegmentEntry::has_many_headers`] in step with what it follows from.
    pub(crate) fn update_headers(&mut self) {
        self.has_many_headers = self.header.gbp || self.header.any_vni || !self.vnis.is_empty();
    }

    pub(crate) fn bridge(&self) -> Option<&Bridge> {
        match &self.table {
            SegmentTable::Bridge(bridge) => Some(bridge),
            SegmentTable::Routed(_) => None,
        }
    }

    pub(crate) fn routed(&self) -> Option<&Routed> {
        match &self.table {
            SegmentTable::Routed(routed) => Some(routed),
            SegmentTable::Bridge(_) => None,
        }
    }
}

/// A VTEP that is named by its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownVtep {
    pub(crate) id: VtepId,
    /// Segments that have it as a peer.
    pub(crate) segments: u32,
}

/// A UDP port that segments receive on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UdpPort {
    /// Their number.
    pub(crate) segments: u32,
    /// The one that takes the VNIs that are no other's.
    pub(crate) any_vni: Option<SegmentId>,
}

/// A snapshot of everything that forwarding decides by.
///
/// A clone shares what the data path finds out, learned MAC addresses and counters, with the original: flushing in one
/// flushes in both.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(crate) locals: Locals,
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    pub(crate) reserved_bits: ReservedBits,
    /// Whether what may be fragmented inside may be so outside.
    pub(crate) inherits_df: bool,
    /// Whether the underlay may fragment all datagrams.
    pub(crate) fragments: bool,
    /// Learned entries of all bridge segments.
    pub(crate) fdb: Arc<Fdb>,
    /// MAC addresses of all of them that have moved lately.
    pub(crate) damper: Arc<Damper>,
    pub(crate) segments: Shards<SegmentId, Arc<SegmentEntry>>,
    /// UDP ports on which segments receive.
    pub(crate) udp_ports: Arc<BTreeMap<u16, UdpPort>>,
    /// Groups of the underlay that segments send to, by the UDP port they are heard on, with the number of segments.
    pub(crate) underlay_groups: Arc<BTreeMap<(u16, IpAddr), u32>>,
    pub(crate) ports: Slots<Arc<PortEntry>>,
    /// Counts the changes of `ports`, `udp_ports` and `underlay_groups`: of what workers have devices and sockets for.
    pub(crate) attachments: u64,
    pub(crate) vteps: Slots<Arc<VtepEntry>>,
    pub(crate) vtep_by_address: Shards<SocketAddr, KnownVtep>,
    /// Counts the VTEPs that were made.
    pub(crate) vteps_made: u64,
    /// Counts the changes of who is a peer of a segment.
    pub(crate) peerings: u64,
    /// Proves that an answer is one to a probe of this node's.
    pub(crate) tokens: RandomState,
    /// MTU of the underlay's interface, in bytes.
    pub(crate) underlay_mtu: u32,
    /// What is known of the paths to VTEPs; mostly nothing.
    pub(crate) paths: Shards<VtepId, PathMtu>,
    pub(crate) counters: Arc<PerWorker<WorkerCounters>>,
}

impl Tables {
    /// Makes empty tables for a node at underlay address `local`, to be used by `workers` forwarders.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `workers` is not 1 to [`MAX_WORKERS`], or `local` is a group address.
    pub fn new(local: IpAddr, workers: usize) -> Result<Self, Error> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(Error::invalid("number of workers", workers.to_string(), "1 to 64"));
        }
        let locals = Locals::new(local)?;
        let seed = random_seed();
        Ok(Self {
            locals,
            workers,
            seed,
            reserved_bits: ReservedBits::default(),
            inherits_df: false,
            fragments: false,
            fdb: Arc::new(Fdb::new(fdb::DEFAULT_CAPACITY)?),
            damper: Arc::new(Damper::new(seed)),
            segments: Shards::new(seed),
            udp_ports: Arc::default(),
            underlay_groups: Arc::default(),
            ports: Slots::new(),
            attachments: 0,
            vteps: Slots::new(),
            vtep_by_address: Shards::new(seed),
            vteps_made: 0,
            peerings: 0,
            tokens: RandomState::new(),
            underlay_mtu: mtu::DEFAULT_UNDERLAY_MTU,
            paths: Shards::new(seed),
            counters: Arc::new(PerWorker::new(workers)),
        })
    }

    /// Sets what becomes of VXLAN datagrams with reserved bits set; the bits are ignored unless this is called.
    pub fn set_reserved_bits(&mut self, reserved_bits: ReservedBits) {
        self.reserved_bits = reserved_bits;
    }

    /// Adds this node's underlay address of the other family: a segment can then have VTEPs of both. Before segments are
    /// added, whose MTU is by default what fits over IPv6.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a group address, and for one of the same family.
    pub fn add_local(&mut self, second: IpAddr) -> Result<(), Error> {
        self.locals.add(second)
    }

    /// Has datagrams say whether their inner packet may be fragmented ([`OuterHeader::may_fragment`]), in segments that are
    /// added from now on.
    ///
    /// [`OuterHeader::may_fragment`]: crate::OuterHeader::may_fragment
    pub fn inherit_dont_fragment(&mut self) {
        self.inherits_df = true;
    }

    /// Says that the underlay may fragment all datagrams, so that nothing can be found out of its paths: segments that
    /// want them probed ([`MtuOptions::probe`](crate::MtuOptions)) are refused.
    pub fn allow_fragments(&mut self) {
        self.fragments = true;
    }

    /// Sets for how many learned MAC addresses there is room, in all segments together: 1 to
    /// [`limits::MAX_FDB_CAPACITY`](crate::limits::MAX_FDB_CAPACITY), 65,536 unless this is called. 23 bytes of memory each.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number, and [`Error::Conflict`] when there are segments already: they have their
    /// entries in the table before.
    pub fn set_fdb_capacity(&mut self, entries: usize) -> Result<(), Error> {
        if !self.segments.is_empty() {
            return Err(Error::conflict("FDB capacity", "it is set before segments are added"));
        }
        self.fdb = Arc::new(Fdb::new(entries)?);
        Ok(())
    }

    #[inline]
    pub(crate) fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(id.0).map(|entry| &**entry)
    }

    #[inline]
    pub(crate) fn vtep(&self, id: VtepId) -> Option<&VtepEntry> {
        self.vteps.get(id.0).map(|entry| &**entry)
    }

    /// Whether a VTEP is still there, for those who need no more of it.
    #[inline]
    pub(crate) fn has_vtep(&self, id: VtepId) -> bool {
        self.vteps.get(id.0).is_some()
    }

    /// Whether a location is still there.
    #[inline]
    pub(crate) fn has(&self, location: Location) -> bool {
        match location {
            Location::Port(port) => self.port(port).is_some(),
            Location::Vtep(vtep) => self.has_vtep(vtep),
        }
    }

    #[inline]
    pub(crate) fn segment(&self, id: SegmentId) -> Option<&SegmentEntry> {
        self.segments.get(&id).map(|entry| &**entry)
    }

    /// Largest IP packet, in bytes, that a segment carries to a VTEP.
    pub(crate) fn limit_to(&self, segment: &SegmentEntry, vtep: VtepId) -> u32 {
        let path = self.paths.get(&vtep).and_then(PathMtu::limit);
        let Some((path, to)) = path.zip(self.vtep_address(vtep)) else { return segment.mtu };
        mtu::segment_mtu(segment.kind, to.is_ipv6(), path).min(segment.mtu)
    }

    /// A number that nobody else can say of something, by a keyed hash.
    pub(crate) fn token(&self, of: &impl Hash) -> u64 {
        self.tokens.hash_one(of)
    }

    /// The bridge segment that takes a VNI on a UDP port.
    #[inline]
    pub(crate) fn bridge_of(&self, udp_port: u16, vni: Vni) -> Option<&SegmentEntry> {
        let exact = self.segment(SegmentId { udp_port, vni: Some(vni) });
        exact.or_else(|| self.segment(self.udp_ports.get(&udp_port)?.any_vni?))
    }

    /// Where the control plane would say a location is; `None` when it is gone.
    pub(crate) fn destination(&self, location: Location) -> Option<Destination> {
        match location {
            Location::Port(port) => self.port(port).map(|port| Destination::Port(port.id)),
            Location::Vtep(vtep) => self.vtep_address(vtep).map(Destination::Vtep),
        }
    }

    /// Underlay address and UDP port of a VTEP, or `None` if it is gone.
    #[must_use]
    pub fn vtep_address(&self, id: VtepId) -> Option<SocketAddr> {
        self.vtep(id).map(|vtep| vtep.address)
    }

    /// The largest outer IP packet that any segment makes, over IPv6 or IPv4, in bytes.
    pub(crate) fn widest_packet(&self, ipv6: bool) -> u32 {
        let packet = |entry: &Arc<SegmentEntry>| entry.mtu + mtu::overhead(entry.kind, ipv6);
        self.segments.values().map(packet).max().unwrap_or(0)
    }

    /// UDP ports on which the segments receive, each once, in ascending order.
    pub fn udp_ports(&self) -> impl Iterator<Item = u16> {
        self.udp_ports.keys().copied()
    }

    /// Whether a segment receives on a UDP port.
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) fn receives_on(&self, udp_port: u16) -> bool {
        self.udp_ports.contains_key(&udp_port)
    }

    /// Whether there is to be a socket on a UDP port, at the node's own address or at that of a group.
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) fn receives_at(&self, udp_port: u16, group: Option<IpAddr>) -> bool {
        match group {
            Some(group) => self.underlay_groups.contains_key(&(udp_port, group)),
            None => self.receives_on(udp_port),
        }
    }
}
