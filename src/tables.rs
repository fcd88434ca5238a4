//! The snapshot that forwarding reads: segments, ports and VTEPs with everything the control plane said of them.
//!
//! A [`Tables`] is changed only as a whole, by [`Tables::apply`]. What the data path itself finds out, learned MAC
//! addresses and counters, lives behind shared references that successive snapshots hand on.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::Error;
use crate::counters::{PerWorker, TrafficCounters, WorkerCounters};
use crate::fdb::Fdb;
use crate::fib::Routes;
use crate::hash::{Seeded, random_seed};
use crate::segment::{Destination, Location, PortId, SegmentId, VtepId};
use crate::slots::Slots;
use crate::source_key::SourceKey;
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;
use crate::wire::vxlan::ReservedBits;

/// Largest number of workers of one dataplane.
pub const MAX_WORKERS: usize = 64;

/// A port as forwarding sees it.
#[derive(Debug)]
pub(crate) struct PortEntry {
    pub(crate) id: PortId,
    pub(crate) name: String,
    pub(crate) segment: SegmentId,
    /// Whether the device takes a vnet header: unfinished checksums and super-frames can be handed to it.
    pub(crate) offload: bool,
    pub(crate) counters: PerWorker<TrafficCounters>,
}

/// A VTEP as forwarding sees it.
#[derive(Debug)]
pub(crate) struct VtepEntry {
    pub(crate) id: VtepId,
    pub(crate) address: SocketAddr,
    pub(crate) counters: PerWorker<TrafficCounters>,
}

/// What a bridge segment forwards by.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) learning: bool,
    pub(crate) fdb: Arc<Fdb>,
    pub(crate) statics: HashMap<MacAddr, Location, Seeded>,
    pub(crate) flood: SmallVec<[VtepId; 8]>,
}

impl Bridge {
    /// Where a static entry pins a MAC address.
    #[inline]
    pub(crate) fn pinned(&self, mac: MacNumber) -> Option<Location> {
        if self.statics.is_empty() { None } else { self.statics.get(&mac.into()).copied() }
    }

    /// Where a MAC address is, by a static entry or as learned.
    #[inline]
    pub(crate) fn lookup(&self, mac: MacNumber, second: u32) -> Option<Location> {
        self.pinned(mac).or_else(|| self.fdb.lookup(mac, second))
    }
}

/// What a routed segment forwards by.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    pub(crate) fib: Routes,
    /// Sources of ICMP errors; without one, the destination of the packet at fault.
    pub(crate) icmp_v4: Option<Ipv4Addr>,
    pub(crate) icmp_v6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug)]
pub(crate) enum SegmentTable {
    Bridge(Bridge),
    Routed(Routed),
}

/// A segment as forwarding sees it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentEntry {
    pub(crate) id: SegmentId,
    /// Largest IP packet inside, in bytes.
    pub(crate) mtu: u32,
    pub(crate) open: bool,
    pub(crate) ports: SmallVec<[PortId; 4]>,
    pub(crate) table: SegmentTable,
    /// VTEPs named as peers and by nothing else perhaps.
    pub(crate) named_peers: HashSet<VtepId, Seeded>,
    /// VTEPs found by an open segment.
    pub(crate) discovered: SmallVec<[VtepId; 4]>,
    /// Every VTEP from which datagrams are accepted, by underlay address: the source port tells nothing, it is
    /// entropy. Derived from all that names VTEPs in this segment.
    pub(crate) peers: HashMap<SourceKey, VtepId, Seeded>,
    pub(crate) counters: Arc<PerWorker<TrafficCounters>>,
}

impl SegmentEntry {
    pub(crate) fn bridge(&self) -> Option<&Bridge> {
        match &self.table {
            SegmentTable::Bridge(bridge) => Some(bridge),
            SegmentTable::Routed(_) => None,
        }
    }
}

/// A snapshot of everything that forwarding decides by.
///
/// A clone shares what the data path finds out, learned MAC addresses and counters, with the original: flushing in one
/// flushes in both.
#[derive(Clone, Debug)]
pub struct Tables {
    pub(crate) local: IpAddr,
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    pub(crate) reserved_bits: ReservedBits,
    pub(crate) segments: HashMap<SegmentId, Arc<SegmentEntry>, Seeded>,
    pub(crate) ports: Slots<Arc<PortEntry>>,
    pub(crate) vteps: Slots<Arc<VtepEntry>>,
    pub(crate) vtep_by_address: HashMap<SocketAddr, VtepId>,
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
        if local.is_multicast() {
            return Err(Error::invalid(
                "local underlay address",
                local.to_string(),
                "a unicast address of this node",
            ));
        }
        let seed = random_seed();
        Ok(Self {
            local,
            workers,
            seed,
            reserved_bits: ReservedBits::Refuse,
            segments: HashMap::with_hasher(Seeded(seed)),
            ports: Slots::new(),
            vteps: Slots::new(),
            vtep_by_address: HashMap::new(),
            counters: Arc::new(PerWorker::new(workers)),
        })
    }

    /// Sets what becomes of VXLAN datagrams with reserved bits set; refused unless this is called.
    pub fn set_reserved_bits(&mut self, reserved_bits: ReservedBits) {
        self.reserved_bits = reserved_bits;
    }

    #[inline]
    pub(crate) fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(id.0).map(|entry| &**entry)
    }

    #[inline]
    pub(crate) fn vtep(&self, id: VtepId) -> Option<&VtepEntry> {
        self.vteps.get(id.0).map(|entry| &**entry)
    }

    #[inline]
    pub(crate) fn segment(&self, id: SegmentId) -> Option<&SegmentEntry> {
        self.segments.get(&id).map(|entry| &**entry)
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

    /// UDP ports on which the segments receive, each once.
    pub fn udp_ports(&self) -> impl Iterator<Item = u16> {
        let mut ports: SmallVec<[u16; 8]> = self.segments.keys().map(|id| id.udp_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter()
    }
}
