//! The tables that are changed: 64 segments, 1,000 VTEPs, and routes like the Internet's in one of the segments.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use overplane::{Change, MacAddr, PortId, PortOptions, Prefix, Segment, SegmentId, Tables, Vni};

use crate::routes::{self, NEXT_HOPS};

/// The time of all that happens: nothing ages here.
pub const NOW: Duration = Duration::from_secs(7);
pub const SEGMENTS: u32 = 64;
pub const VTEPS: u32 = NEXT_HOPS;

const UDP_PORT: u16 = 8285;

pub fn routed() -> SegmentId {
    Segment::routed(UDP_PORT).id()
}

pub fn bridge(n: u32) -> Segment {
    Segment::bridge(Vni::new(n).unwrap())
}

pub fn vtep(n: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0001 + n), 4789))
}

pub fn mac(segment: u32, n: u32) -> Change {
    let mac = MacAddr::from_u64(0x0200_0000_0000 | u64::from(n));
    Change::InsertFdb { segment: bridge(segment).id(), mac, destination: vtep(n % VTEPS).into() }
}

/// The routes, of which the first are in the tables and the spare ones are not.
pub struct Routes {
    all: Vec<(u32, u8, u32)>,
    used: usize,
}

impl Routes {
    pub fn new(count: u32, spare: u32) -> Self {
        Self { all: routes::v4((count + spare) as usize), used: count as usize }
    }

    pub fn len(&self) -> u32 {
        self.used as u32
    }

    pub fn prefix(&self, n: u32) -> Prefix {
        let (address, len, _) = self.all[n as usize % self.all.len()];
        Prefix::new(Ipv4Addr::from_bits(address).into(), len).unwrap()
    }

    /// Route `n`, with its next hop moved by so many.
    pub fn insert(&self, n: u32, by: u32) -> Change {
        let hop = self.all[n as usize % self.all.len()].2.wrapping_add(by) % VTEPS;
        Change::InsertRoute {
            segment: routed(),
            prefix: self.prefix(n),
            next_hop: vtep(hop).into(),
        }
    }

    pub fn remove(&self, n: u32) -> Change {
        Change::RemoveRoute { segment: routed(), prefix: self.prefix(n) }
    }

    /// All that are in the tables, with their next hops moved by so many.
    pub fn insert_all(&self, by: u32) -> Vec<Change> {
        (0..self.len()).map(|n| self.insert(n, by)).collect()
    }

    /// Addresses that routes in the tables lead to.
    pub fn destinations(&self, count: usize) -> Vec<Ipv4Addr> {
        let hits = routes::hits_v4(&self.all[..self.used], count);
        hits.into_iter().map(Ipv4Addr::from_bits).collect()
    }
}

/// Tables without routes, and a port of the routed segment.
pub fn furnished() -> (Tables, PortId) {
    let mut tables = Tables::new("192.0.2.1".parse().unwrap(), 2).unwrap();
    let segments = (1..SEGMENTS).map(bridge).chain([Segment::routed(UDP_PORT)]);
    tables.apply(NOW, segments.map(Change::AddSegment)).unwrap();
    let port = |segment, name| Change::AddPort {
        segment,
        name,
        offload: true,
        options: PortOptions::default(),
    };
    let taps = (1..SEGMENTS).map(|n| port(bridge(n).id(), format!("tap{n}")));
    tables.apply(NOW, taps).unwrap();
    let peers = (2..SEGMENTS).flat_map(|segment| {
        (0..VTEPS).map(move |n| Change::AddPeer { segment: bridge(segment).id(), vtep: vtep(n) })
    });
    tables.apply(NOW, peers).unwrap();
    let tun = tables.apply(NOW, [port(routed(), "tun0".into())]).unwrap();
    (tables, tun[0])
}
