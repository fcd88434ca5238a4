//! What a probe of a path costs: the one who asks, and the one who answers. Other frames pay nothing for it.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use overplane::wire::probe::{Kind, Probe};
use overplane::wire::vxlan;
use overplane::{Change, Forwarder, Output, Prober, Probing, Segment};

use crate::{NOW, Slots, THERE, node, vni, vtep};

/// Outer IPv4 and UDP headers, in bytes.
const OUTER: usize = 28;
const SIZE: u16 = 1500;

pub(crate) fn probes(criterion: &mut Criterion) {
    let mut segment = Segment::bridge(vni());
    segment.mtu_options.probe = true;
    let (mut tables, segment, _) = node(segment);
    tables.apply(NOW, [Change::AddPeer { segment, vtep: vtep(2) }]).unwrap();
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    let mut group = criterion.benchmark_group("probe");

    let asked = Prober::new(Probing::default()).unwrap().round(&tables, NOW).probes;
    group.bench_function("ask", |bencher| {
        bencher.iter(|| {
            output.clear();
            forwarder.probe(&tables, NOW, &asked[0], &mut output);
            black_box(&output);
        });
        assert_eq!(output.transmits().len(), 1);
    });

    let request = Probe { kind: Kind::Request, size: SIZE, sequence: 1, token: 7 }.encode(THERE);
    let mut datagram = [&vxlan::encode(vni())[..], &request].concat();
    datagram.resize(usize::from(SIZE) - OUTER, 0);
    let mut slots = Slots::new(1, &datagram);
    let mut now = NOW;
    group.bench_function("answer", |bencher| {
        bencher.iter(|| {
            // No more often than they are answered.
            now += Duration::from_millis(1);
            slots.as_datagrams(|_, _| ());
            output.clear();
            forwarder.from_underlay(&tables, now, vxlan::PORT, &mut slots.batch, &mut output);
            black_box(&output);
        });
        assert_eq!(output.transmits().len(), 1);
    });
    group.finish();
}
