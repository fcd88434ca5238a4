//! What forwarding costs, in the core alone: no device, no system call.
//!
//! Every iteration takes one batch through the forwarder as a worker would: the slots are taken again, the few bytes
//! that tell the frames apart are written, and the output is cleared. The group `refill` measures that preparation
//! alone, so it can be subtracted.
//!
//! Run with `cargo bench --bench forward`; a filter such as `encap/1400` narrows it down.
#![allow(clippy::unwrap_used, missing_docs)]

mod options;
mod probes;
mod scale;
mod super_frames;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use etherparse::PacketBuilder;
use overplane::wire::{VnetHeader, ip, vxlan};
use overplane::{
    Batch, Change, Forwarder, MacAddr, Output, PortId, PortOptions, Prefix, Querier, Segment,
    SegmentId, Tables, Vni,
};

const BATCHES: [usize; 4] = [1, 16, 64, 256];
const SIZES: [usize; 2] = [64, 1400];
const MACS: u64 = 1000;
const PREFIXES: u32 = 1000;
const NOW: Duration = Duration::from_secs(7);
/// Behind the port, and apart from the 1,000 addresses behind the peer.
const HERE: MacAddr = MacAddr([2, 0xaa, 0, 0, 0, 1]);
const THERE: MacAddr = MacAddr([2, 0xaa, 0, 0, 0, 2]);
const VXLAN: usize = vxlan::HEADER_LEN;
const ETHERNET: usize = 14;

fn vtep(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], vxlan::PORT))
}

fn mac(n: u64) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 | n)
}

fn vni() -> Vni {
    Vni::new(100).unwrap()
}

/// A node with one port in one segment.
fn node(segment: Segment) -> (Tables, SegmentId, PortId) {
    node_with(segment, PortOptions::default())
}

fn node_with(segment: Segment, options: PortOptions) -> (Tables, SegmentId, PortId) {
    let id = segment.id();
    let mut tables = Tables::new(Ipv4Addr::new(192, 0, 2, 1).into(), 1).unwrap();
    tables.set_fdb_capacity(segment.fdb_limit).unwrap();
    let port = Change::AddPort { segment: id, name: "ovl0".into(), offload: true, options };
    let ports = tables.apply(NOW, [Change::AddSegment(segment), port]).unwrap();
    (tables, id, ports[0])
}

/// An Ethernet frame of `len` bytes with TCP over IPv4.
fn frame(len: usize) -> Vec<u8> {
    frame_between(HERE, THERE, len)
}

fn frame_between(from: MacAddr, to: MacAddr, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 255)
        .tcp(40_000, 443, 1, 4096)
        .write(&mut frame, &vec![0x5a; len - 54])
        .unwrap();
    frame
}

/// A batch whose slots hold the same frame, and are taken again without copying it.
struct Slots {
    batch: Batch,
    len: usize,
    turn: u64,
}

impl Slots {
    fn new(slots: usize, frame: &[u8]) -> Self {
        let mut batch = Batch::new(slots);
        while batch.push(frame, VnetHeader::default()) {}
        Self { batch, len: frame.len(), turn: 0 }
    }

    /// Takes all slots again; `vary` writes what makes a frame differ from its neighbours.
    #[inline]
    fn refill(
        &mut self,
        mut vary: impl FnMut(&mut [u8], u64),
        mut commit: impl FnMut(&mut Batch, usize) -> bool,
    ) {
        self.batch.clear();
        while let Some(slot) = self.batch.next_slot(0) {
            // A stride without a common factor with the table's size, so that neighbours are strangers.
            self.turn = (self.turn + 7) % MACS;
            vary(slot, self.turn);
            commit(&mut self.batch, self.len);
        }
    }

    fn as_frames(&mut self, vary: impl FnMut(&mut [u8], u64)) {
        self.refill(vary, |batch, len| batch.commit(len, VnetHeader::default()));
    }

    fn as_datagrams(&mut self, vary: impl FnMut(&mut [u8], u64)) {
        let peer = vtep(2);
        self.refill(vary, |batch, len| batch.commit_datagram(len, peer));
    }
}

fn put_mac(bytes: &mut [u8], n: u64) {
    bytes[..6].copy_from_slice(&mac(n).0);
}

/// Runs `one` for every batch and frame size.
fn sizes(
    criterion: &mut Criterion,
    name: &str,
    mut one: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, usize, usize),
) {
    let mut group = criterion.benchmark_group(name);
    for size in SIZES {
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            one(&mut group, BenchmarkId::new(size.to_string(), batch), size, batch);
        }
    }
    group.finish();
}

/// What the other groups do besides forwarding.
fn refill(criterion: &mut Criterion) {
    sizes(criterion, "refill", |group, id, size, batch| {
        let mut slots = Slots::new(batch, &frame(size));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                slots.as_frames(put_mac);
                black_box(&mut slots.batch);
            });
        });
    });
}

/// Port to VTEP: each frame to another one of 1,000 learned MAC addresses.
fn encap(criterion: &mut Criterion) {
    let (mut tables, segment, port) = node(Segment::bridge(vni()));
    tables.apply(NOW, [Change::AddPeer { segment, vtep: vtep(2) }]).unwrap();
    let mut forwarder = Forwarder::new(0);
    let mut output = Output::new();
    learn_behind_the_peer(&tables, &mut forwarder, &mut output);
    sizes(criterion, "encap", |group, id, size, batch| {
        let mut slots = Slots::new(batch, &frame(size));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                slots.as_frames(put_mac);
                output.clear();
                forwarder.from_port(&tables, NOW, port, &mut slots.batch, &mut output);
                black_box(&output);
            });
            assert_eq!(output.transmits().len(), batch, "every frame is sent, none flooded");
        });
    });
}

/// VTEP to port: each frame from another one of 1,000 learned MAC addresses, whose entry is refreshed.
fn decap(criterion: &mut Criterion) {
    let (mut tables, segment, port) = node(Segment::bridge(vni()));
    tables.apply(NOW, [Change::AddPeer { segment, vtep: vtep(2) }]).unwrap();
    let mut forwarder = Forwarder::new(0);
    let mut output = Output::new();
    learn_behind_the_peer(&tables, &mut forwarder, &mut output);
    let mut hello = Batch::new(1);
    assert!(hello.push(&frame_between(THERE, HERE, 64), VnetHeader::default()));
    forwarder.from_port(&tables, NOW, port, &mut hello, &mut output);
    sizes(criterion, "decap", |group, id, size, batch| {
        let datagram = [&vxlan::encode(vni())[..], &frame(size)].concat();
        let mut slots = Slots::new(batch, &datagram);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                slots.as_datagrams(|bytes, n| put_mac(&mut bytes[VXLAN + 6..], n));
                output.clear();
                forwarder.from_underlay(&tables, NOW, vxlan::PORT, &mut slots.batch, &mut output);
                black_box(&output);
            });
            assert_eq!(output.delivers().len(), batch, "every frame is delivered");
        });
    });
}

fn learn_behind_the_peer(tables: &Tables, forwarder: &mut Forwarder, output: &mut Output) {
    let datagram = [&vxlan::encode(vni())[..], &frame(64)].concat();
    let mut slots = Slots::new(1, &datagram);
    for _ in 0..MACS {
        slots.as_datagrams(|bytes, n| put_mac(&mut bytes[VXLAN + 6..], n));
        output.clear();
        forwarder.from_underlay(tables, NOW, vxlan::PORT, &mut slots.batch, output);
    }
    assert_eq!(tables.stats().segments[0].learned, MACS as usize);
}

/// Port to VTEP by the longest of 1,000 prefixes, TTL decremented.
fn route(criterion: &mut Criterion) {
    routes(criterion, "route", Segment::routed(8285), false);
}

/// The same in Ethernet frames from VTEP to VTEP, in VXLAN.
fn route_vxlan(criterion: &mut Criterion) {
    routes(criterion, "route_vxlan", Segment::routed_vxlan(vni(), HERE), true);
}

fn routes(criterion: &mut Criterion, name: &str, segment: Segment, framed: bool) {
    let (mut tables, segment, port) = node(segment);
    let prefix = |n: u32| Ipv4Addr::from_bits(0x0a00_0000 | n << 8);
    let route = |n| Change::InsertRoute {
        segment,
        prefix: Prefix::new(prefix(n).into(), 24).unwrap(),
        next_hop: vtep(2 + (n % 8) as u8).into(),
    };
    tables.apply(NOW, (0..PREFIXES).map(route)).unwrap();
    let mac_of = |n: u8| Change::SetVtepMac { segment, vtep: vtep(n), mac: mac(n.into()) };
    tables.apply(NOW, (2..10).filter(|_| framed).map(mac_of)).unwrap();
    let mut forwarder = Forwarder::new(0);
    let mut output = Output::new();
    sizes(criterion, name, |group, id, size, batch| {
        let packet = frame(size + ETHERNET)[ETHERNET..].to_vec();
        let headers: Vec<[u8; 20]> = (0..PREFIXES)
            .map(|n| {
                let mut header: [u8; 20] = packet[..20].try_into().unwrap();
                header[16..].copy_from_slice(&(prefix(n).to_bits() | 9).to_be_bytes());
                let check = ip::v4_header_checksum(&header);
                header[10..12].copy_from_slice(&check.to_be_bytes());
                header
            })
            .collect();
        let mut slots = Slots::new(batch, &packet);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                slots.as_frames(|bytes, n| bytes[..20].copy_from_slice(&headers[n as usize]));
                output.clear();
                forwarder.from_port(&tables, NOW, port, &mut slots.batch, &mut output);
                black_box(&output);
            });
            assert_eq!(output.transmits().len(), batch, "every packet has a route");
        });
    });
}

/// Port to eight VTEPs: broadcast.
fn flood(criterion: &mut Criterion) {
    let (tables, _, port) = flooding(Segment::bridge(vni()));
    floods(criterion, "flood", (&tables, port, MacAddr::BROADCAST), 8);
}

/// Port to two of eight VTEPs, those that have joined one of 1,000 groups.
fn multicast(criterion: &mut Criterion) {
    let mut segment = Segment::bridge(vni());
    segment.snooping.enabled = true;
    segment.snooping.querier = Some(Querier::new(Some([10, 0, 0, 1].into()), None));
    segment.snooping.querier.iter_mut().for_each(|q| q.response_interval = Duration::from_secs(1));
    let (mut tables, segment, port) = flooding(segment);
    let group = |n: u32| Some(Ipv4Addr::from_bits(0xef00_0000 | n).into());
    let joined = |n| {
        [3, 7].map(|to| Change::InsertMdb {
            segment,
            group: group(n),
            destination: vtep(to).into(),
        })
    };
    tables.apply(NOW, (0..1000).flat_map(joined)).unwrap();
    // Somebody asks, so that frames are forwarded by it.
    let (mut batch, mut output) = (Batch::new(1), Output::new());
    let asked = NOW.saturating_sub(Duration::from_secs(5));
    Forwarder::new(0).query_groups(&tables, asked, &mut batch, &mut output);
    assert!(tables.mdb(segment, NOW).unwrap().active_v4);
    floods(criterion, "multicast", (&tables, port, MacAddr([1, 0, 0x5e, 0, 0, 9])), 2);
}

/// A node that floods to eight VTEPs.
fn flooding(segment: Segment) -> (Tables, SegmentId, PortId) {
    let (mut tables, segment, port) = node(segment);
    let peers = (2..10).map(|n| Change::AddFlood { segment, vtep: vtep(n) });
    tables.apply(NOW, peers).unwrap();
    (tables, segment, port)
}

fn floods(
    criterion: &mut Criterion,
    name: &str,
    (tables, port, to): (&Tables, PortId, MacAddr),
    copies: usize,
) {
    let mut forwarder = Forwarder::new(0);
    let mut output = Output::new();
    sizes(criterion, name, |group, id, size, batch| {
        let mut frame = frame(size);
        // The group that goes with the address; everybody does not look at it.
        frame[ETHERNET + 16..ETHERNET + 20].copy_from_slice(&[239, 0, 0, 9]);
        let mut slots = Slots::new(batch, &frame);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                slots.as_frames(|bytes, _| bytes[..6].copy_from_slice(&to.0));
                output.clear();
                forwarder.from_port(tables, NOW, port, &mut slots.batch, &mut output);
                black_box(&output);
            });
            assert_eq!(output.transmits().len(), batch * copies, "one descriptor for each VTEP");
        });
    });
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

use options::options;
use probes::probes;
use scale::{scale_bridge, scale_route};
use super_frames::{checksums, coalesce, split};

criterion_group! {
    name = benches;
    config = quick();
    targets = refill, encap, decap, route, route_vxlan, flood, multicast, scale_route, scale_bridge, checksums, split, coalesce, probes, options
}
criterion_main!(benches);
