//! What each option costs the frames of a segment that has it, beside the same frames without.
//!
//! All rows are batches of 64 frames of 64 bytes, as `encap/64/64`, `decap/64/64` and `flood/64/64` are.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use overplane::limits::MAX_RATE;
use overplane::rate::RateLimit;
use overplane::wire::{ip, vxlan};
use overplane::{
    Arrival, Change, Dscp, Ecn, Forwarder, GroupPolicy, MacAddr, MssClamp, Output, PathSource,
    PortId, PortOptions, Segment, Tables, Ttl, VlanMode, VlanSet, Vni,
};

use crate::{
    HERE, NOW, Slots, THERE, VXLAN, frame, frame_between, learn_behind_the_peer, node_with,
    put_mac, vni, vtep,
};

const BATCH: usize = 64;
const SIZE: usize = 64;
/// Bytes of a frame that tags move.
const HEAD: usize = 16;
/// In the ECN field of the outer header: the underlay is congested (RFC 3168 §5).
const CONGESTED: u8 = 3;

/// A segment with a port and eight VTEPs, and how its datagrams arrive.
struct Case {
    name: &'static str,
    segment: Segment,
    port: PortOptions,
    more: Vec<Change>,
    header: [u8; VXLAN],
    tos: u8,
    /// Whether the fate of each frame is asked for, as a capture does.
    fates: bool,
}

impl Case {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            segment: Segment::bridge(vni()),
            port: PortOptions::default(),
            more: Vec::new(),
            header: vxlan::encode(vni()),
            tos: 0,
            fates: false,
        }
    }

    fn segment(mut self, set: impl FnOnce(&mut Segment)) -> Self {
        set(&mut self.segment);
        self
    }

    fn port(mut self, set: impl FnOnce(&mut PortOptions)) -> Self {
        set(&mut self.port);
        self
    }

    fn more(mut self, change: Change) -> Self {
        self.more.push(change);
        self
    }

    fn ask(&self, output: &mut Output) {
        if self.fates {
            output.want_fates(BATCH);
        }
    }

    fn node(&self) -> (Tables, PortId) {
        let (mut tables, segment, port) = node_with(self.segment.clone(), self.port.clone());
        let peers = (2..10).map(|n| Change::AddFlood { segment, vtep: vtep(n) });
        tables.apply(NOW, peers.chain(self.more.iter().cloned())).unwrap();
        (tables, port)
    }
}

/// A port that is an access port of one VLAN.
fn access(port: &mut PortOptions) {
    let mut vlans = VlanSet::default();
    vlans.insert(7).unwrap();
    port.vlan = VlanMode::Only { vlans, pvid: Some(7) };
}

/// More than any of these benches sends.
fn ample() -> Option<RateLimit> {
    Some(RateLimit::new(MAX_RATE))
}

fn of_the_outer_header(segment: &mut Segment) {
    segment.outer.dscp = Dscp::Inherit;
    segment.outer.ttl = Ttl::Inherit;
}

/// What concerns frames in both directions.
fn common() -> Vec<Case> {
    let segment = Segment::bridge(vni()).id();
    let path = Change::SetPathMtu {
        vtep: vtep(3),
        source: PathSource::Configured,
        mtu: Some(1300),
        until: NOW,
    };
    let of_vtep = Change::SetVtepVni { segment, vtep: vtep(3), vni: Some(Vni::new(300).unwrap()) };
    let mut policy = Case::new("policy").segment(|segment| segment.header.gbp = true);
    policy.header = vxlan::encode_with_policy(vni(), GroupPolicy::new(42));
    let mut any_vni = Case::new("any VNI").segment(|segment| segment.header.any_vni = true);
    any_vni.header = vxlan::encode(Vni::new(4242).unwrap());
    let mut fates = Case::new("fates");
    fates.fates = true;
    vec![
        Case::new("none"),
        Case::new("suppress").segment(|segment| segment.neighbours.suppress = true),
        Case::new("snoop").segment(|segment| segment.snooping.enabled = true),
        Case::new("clamp").segment(|segment| segment.mtu_options.clamp_mss = MssClamp::ToMtu),
        Case::new("probe").segment(|segment| segment.mtu_options.probe = true),
        Case::new("narrow path").more(path),
        Case::new("inherit").segment(of_the_outer_header),
        Case::new("no ECN").segment(|segment| segment.outer.ecn = Ecn::Off),
        Case::new("VLAN").port(access),
        Case::new("isolated").port(|port| port.isolated = true),
        Case::new("horizon").port(|port| port.group = 2),
        Case::new("VNI of a VTEP").more(of_vtep),
        policy,
        any_vni,
        fates,
    ]
}

pub(crate) fn options(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("option/encap");
    group.throughput(Throughput::Elements(BATCH as u64));
    common().iter().for_each(|case| encap(&mut group, case));
    group.finish();

    let mut group = criterion.benchmark_group("option/decap");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut marked = Case::new("congested");
    marked.tos = CONGESTED;
    common().iter().chain([&marked]).for_each(|case| decap(&mut group, case));
    group.finish();

    let mut group = criterion.benchmark_group("option/flood");
    group.throughput(Throughput::Elements(BATCH as u64));
    let storm = Case::new("storm limit of the segment")
        .segment(|segment| segment.storm.broadcast = ample());
    let of_port = Case::new("storm limit of the port").port(|port| port.storm.broadcast = ample());
    common().iter().chain([&storm, &of_port]).for_each(|case| flood(&mut group, case));
    group.finish();
}

fn encap(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    let (tables, port) = case.node();
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    learn_behind_the_peer(&tables, &mut forwarder, &mut output);
    let frame = frame(SIZE);
    let mut slots = Slots::new(BATCH, &frame);
    group.bench_function(case.name, |bencher| {
        bencher.iter(|| {
            slots.as_frames(|bytes, n| {
                bytes[..HEAD].copy_from_slice(&frame[..HEAD]);
                put_mac(bytes, n);
            });
            output.clear();
            case.ask(&mut output);
            forwarder.from_port(&tables, NOW, port, &mut slots.batch, &mut output);
            black_box(&output);
        });
        assert_eq!(output.transmits().len(), BATCH, "every frame is sent, none flooded");
    });
}

fn decap(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    let (tables, port) = case.node();
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    learn_behind_the_peer(&tables, &mut forwarder, &mut output);
    let mut hello = Slots::new(1, &frame_between(THERE, HERE, SIZE));
    hello.as_frames(|_, _| ());
    forwarder.from_port(&tables, NOW, port, &mut hello.batch, &mut output);
    let mut inner = frame(SIZE);
    // Of a transport that knows of congestion, and so takes the mark.
    inner[15] |= case.tos.min(2);
    let inner = with_checksum(inner);
    // Of the VLAN of the port, if that has one.
    let tagged = [&inner[..12], &[0x81, 0, 0, 7], &inner[12..]].concat();
    let inner = if case.port.vlan == VlanMode::Transparent { inner } else { tagged };
    let datagram = [&case.header[..], &inner].concat();
    let mut slots = Slots::new(BATCH, &datagram);
    let mut arrival = Arrival::from(vtep(2));
    arrival.tos = case.tos;
    group.bench_function(case.name, |bencher| {
        bencher.iter(|| {
            let vary = |bytes: &mut [u8], n| {
                bytes[..VXLAN + HEAD].copy_from_slice(&datagram[..VXLAN + HEAD]);
                put_mac(&mut bytes[VXLAN + 6..], n);
            };
            slots.refill(vary, |batch, len| batch.commit_datagram(len, arrival));
            output.clear();
            case.ask(&mut output);
            forwarder.from_underlay(&tables, NOW, vxlan::PORT, &mut slots.batch, &mut output);
            black_box(&output);
        });
        assert_eq!(output.delivers().len(), BATCH, "every frame is delivered");
    });
}

fn flood(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    let (tables, port) = case.node();
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    let frame = frame_between(HERE, MacAddr::BROADCAST, SIZE);
    let mut slots = Slots::new(BATCH, &frame);
    let mut now = NOW;
    group.bench_function(case.name, |bencher| {
        bencher.iter(|| {
            // As long as the limits want.
            now += Duration::from_micros(10);
            slots.as_frames(|bytes, _| bytes[..HEAD].copy_from_slice(&frame[..HEAD]));
            output.clear();
            case.ask(&mut output);
            forwarder.from_port(&tables, now, port, &mut slots.batch, &mut output);
            black_box(&output);
        });
        assert_eq!(output.transmits().len(), BATCH * 8, "one descriptor for each VTEP");
    });
}

/// A frame with IPv4 in it whose header checksum is right again.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let header: [u8; 20] = frame[14..34].try_into().unwrap();
    let check = ip::v4_header_checksum(&header);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}
