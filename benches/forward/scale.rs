//! Forwarding with large tables beside small ones: what the cache misses of a lookup cost a frame.
//!
//! Frames of 64 bytes in batches of 64, each to (or from) another one of all addresses, in no order.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput};
use overplane::wire::vxlan;
use overplane::{Batch, Change, Forwarder, Output, Prefix, Segment};

use super::{ETHERNET, NOW, Slots, VXLAN, frame, node, put_mac, vni, vtep};

const BATCH: usize = 64;
const SIZES: [u32; 2] = [1000, 100_000];

/// A network of 24 bits, scattered over a quarter of the address space that is all unicast.
fn network(n: u32) -> u32 {
    0x0a00_0000 + (n.wrapping_mul(0x9e37_79b1) >> 2 & !0xff)
}

/// Numbers below `size` in no order a prefetcher knows.
struct Order {
    size: u32,
    state: u32,
}

impl Order {
    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.state) * u64::from(self.size)) >> 32) as u32
    }
}

fn each(
    criterion: &mut Criterion,
    name: &str,
    mut one: impl FnMut(u32, &mut dyn FnMut(&mut dyn FnMut())),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in SIZES {
        one(size, &mut |run| {
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(&mut *run)
            });
        });
    }
    group.finish();
}

/// Port to VTEP by the longest of `size` prefixes.
pub(super) fn scale_route(criterion: &mut Criterion) {
    let packet = frame(64 + ETHERNET)[ETHERNET..].to_vec();
    each(criterion, "scale/route", |size, bench| {
        let (mut tables, segment, port) = node(Segment::routed(8285));
        let route = |n| Change::InsertRoute {
            segment,
            prefix: Prefix::new(Ipv4Addr::from_bits(network(n)).into(), 24).unwrap(),
            next_hop: vtep(2 + (n % 8) as u8).into(),
        };
        tables.apply(NOW, (0..size).map(route)).unwrap();
        let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
        let mut slots = Slots::new(BATCH, &packet);
        let mut order = Order { size, state: 1 };
        bench(&mut || {
            slots.as_frames(|bytes, _| readdress(bytes, network(order.next()) | 9));
            output.clear();
            forwarder.from_port(&tables, NOW, port, &mut slots.batch, &mut output);
            assert_eq!(black_box(&output).transmits().len(), BATCH);
        });
    });
}

/// Writes the destination of an IPv4 header, the TTL and the checksum.
fn readdress(header: &mut [u8], address: u32) {
    header[8] = 64;
    header[10..12].fill(0);
    header[16..20].copy_from_slice(&address.to_be_bytes());
    let sum: u32 =
        header[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Port to VTEP, and VTEP to port, with `size` learned MAC addresses behind the VTEP.
pub(super) fn scale_bridge(criterion: &mut Criterion) {
    for decap in [false, true] {
        let name = if decap { "scale/decap" } else { "scale/encap" };
        each(criterion, name, |size, bench| {
            let mut segment = Segment::bridge(vni());
            segment.fdb_limit = 131_072;
            let (mut tables, segment, port) = node(segment);
            tables.apply(NOW, [Change::AddPeer { segment, vtep: vtep(2) }]).unwrap();
            let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
            let datagram = [&vxlan::encode(vni())[..], &frame(64)].concat();
            let mut one = Batch::new(1);
            for n in 0..size {
                let mut hello = datagram.clone();
                put_mac(&mut hello[VXLAN + 6..], n.into());
                one.clear();
                output.clear();
                assert!(one.push_datagram(&hello, vtep(2)));
                forwarder.from_underlay(&tables, NOW, vxlan::PORT, &mut one, &mut output);
            }
            assert_eq!(tables.stats().segments[0].learned, size as usize);
            let here = super::frame_between(super::THERE, super::HERE, 64);
            one.clear();
            assert!(one.push(&here, Default::default()));
            forwarder.from_port(&tables, NOW, port, &mut one, &mut output);
            let mut order = Order { size, state: 1 };
            let mut slots = Slots::new(BATCH, if decap { &datagram } else { &datagram[VXLAN..] });
            bench(&mut || {
                output.clear();
                if decap {
                    slots.as_datagrams(|bytes, _| {
                        put_mac(&mut bytes[VXLAN + 6..], order.next().into())
                    });
                    forwarder.from_underlay(
                        &tables,
                        NOW,
                        vxlan::PORT,
                        &mut slots.batch,
                        &mut output,
                    );
                    assert_eq!(black_box(&output).delivers().len(), BATCH);
                } else {
                    slots.as_frames(|bytes, _| put_mac(bytes, order.next().into()));
                    forwarder.from_port(&tables, NOW, port, &mut slots.batch, &mut output);
                    assert_eq!(black_box(&output).transmits().len(), BATCH);
                }
            });
        });
    }
}
