//! What splitting and joining cost beside the one pass over the payload that a checksum needs.
//!
//! All groups handle the same bytes: one super-frame of [`CHUNKS`] chunks as TCP makes them for a segment of MTU 1450.
//! `checksum/pass` is the least that any of them has to do.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use etherparse::PacketBuilder;
use overplane::wire::{FrameInfo, checksum, vxlan};
use overplane::{Batch, Change, Forwarder, Offloads, Output, Segment, gso};

use super::{HERE, NOW, THERE, node, vni, vtep};

/// Chunks of one super-frame that leaves with one send.
const CHUNKS: usize = 44;
/// TCP payload of each: MTU 1450 without IP and TCP headers and timestamps.
const PAYLOAD: usize = 1398;

/// A TCP super-frame with timestamps.
fn super_frame() -> Vec<u8> {
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let mut frame = Vec::new();
    let payload: Vec<u8> = (0..CHUNKS * PAYLOAD).map(|at| (at * 7) as u8).collect();
    PacketBuilder::ethernet2(THERE.0, HERE.0)
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .tcp(40_000, 443, 1, 4096)
        .ack(7)
        .options_raw(&timestamps)
        .unwrap()
        .write(&mut frame, &payload)
        .unwrap();
    frame
}

/// The sum of every chunk's payload.
fn pass(frame: &[u8]) -> u16 {
    let start = frame.len() - CHUNKS * PAYLOAD;
    frame[start..].chunks(PAYLOAD).map(checksum::sum).fold(0, checksum::add)
}

/// The rate of the checksum over bytes in the cache.
pub(super) fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [64, 576, 1400, 9000, 65_000] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| checksum::sum(black_box(&bytes)));
        });
    }
    let frame = super_frame();
    group.throughput(Throughput::Bytes((CHUNKS * PAYLOAD) as u64));
    group.bench_function("pass", |bencher| bencher.iter(|| pass(black_box(&frame))));
    group.finish();
}

/// One super-frame to chunks behind VXLAN headers.
pub(super) fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Bytes((CHUNKS * PAYLOAD) as u64));
    let frame = super_frame();
    let info = FrameInfo::parse(&frame).unwrap();
    let prefix = vxlan::encode(vni());
    let (mut headers, mut chunks) = (Vec::new(), Vec::new());
    group.bench_function("super-frame", |bencher| {
        bencher.iter(|| {
            headers.clear();
            chunks.clear();
            let frame = black_box(&frame);
            gso::split(frame, &info, PAYLOAD, &prefix, &mut headers, &mut chunks).unwrap();
            black_box((&headers, &chunks));
        });
        assert_eq!(chunks.len(), CHUNKS);
    });
    group.finish();
}

/// Datagrams as the kernel joins them on reception, to one super-frame for the port; and the same frames one by one.
pub(super) fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Bytes((CHUNKS * PAYLOAD) as u64));
    let (mut tables, segment, port) = node(Segment::bridge(vni()));
    let here = Change::InsertFdb { segment, mac: HERE, destination: port.into() };
    tables.apply(NOW, [Change::AddPeer { segment, vtep: vtep(2) }, here]).unwrap();
    let frame = super_frame();
    let (mut headers, mut chunks) = (Vec::new(), Vec::new());
    let info = FrameInfo::parse(&frame).unwrap();
    let prefix = vxlan::encode(vni());
    gso::split(&frame, &info, PAYLOAD, &prefix, &mut headers, &mut chunks).unwrap();
    let part = |bytes: &[u8], span: overplane::Span| {
        bytes[span.start as usize..][..span.len as usize].to_vec()
    };
    let train: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| [part(&headers, chunk.head), part(&frame, chunk.body)].concat())
        .collect();
    let stride = train.len() / CHUNKS;
    for (name, offloads, delivers) in
        [("apart", Offloads::NONE, CHUNKS), ("joined", Offloads::ALL, 1)]
    {
        let mut forwarder = Forwarder::new(0);
        forwarder.set_offloads(offloads);
        let (mut batch, mut output) = (Batch::new(1), Output::new());
        batch.next_slot(0).unwrap()[..train.len()].copy_from_slice(&train);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                batch.clear();
                assert!(batch.commit_train(train.len(), stride, vtep(2)));
                output.clear();
                forwarder.from_underlay(&tables, NOW, vxlan::PORT, &mut batch, &mut output);
                black_box(&output);
            });
            assert_eq!(output.delivers().len(), delivers);
        });
    }
    group.finish();
}
