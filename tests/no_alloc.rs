//! Forwarding allocates nothing: once its buffers have grown to what a batch needs, no path asks for memory again.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "common/groups.rs"]
mod groups;
#[path = "common/packets.rs"]
mod packets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use groups::{Say, say, to_group};
use overplane::limits::MAX_TRAIN;
use overplane::wire::VnetHeader;
use overplane::{
    Batch, Change, DropReason, Forwarder, Offloads, Output, PortId, PortOptions, Segment,
    SegmentId, Tables,
};
use packets::*;

/// Counts what this thread asks for; tests run side by side.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`, and the memory is the system's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: usize = 32;

/// A node with a segment of ten ports, the first of which takes offloads, and a flood list of twelve VTEPs.
struct Node {
    tables: Tables,
    forwarder: Forwarder,
    batch: Batch,
    output: Output,
    ports: Vec<PortId>,
    segment: SegmentId,
    now: Duration,
}

impl Node {
    fn new(segment: Segment) -> Self {
        let id = segment.id();
        let mut tables = Tables::new(underlay(1), 1).unwrap();
        let port = |n| Change::AddPort {
            segment: id,
            name: format!("p{n}"),
            offload: n == 0,
            options: PortOptions::default(),
        };
        let changes = [Change::AddSegment(segment)].into_iter().chain((0..10).map(port));
        let ports = tables.apply(Duration::ZERO, changes).unwrap();
        let flood = (2..14).map(|n| match id.vni {
            Some(_) => Change::AddFlood { segment: id, vtep: vtep(n) },
            None => Change::InsertRoute {
                segment: id,
                prefix: format!("10.{n}.0.0/16").parse().unwrap(),
                next_hop: vtep(n).into(),
            },
        });
        tables.apply(Duration::ZERO, flood).unwrap();
        Self {
            tables,
            forwarder: Forwarder::new(0),
            batch: Batch::new(BATCH),
            output: Output::new(),
            ports,
            segment: id,
            now: Duration::from_secs(5),
        }
    }

    /// Its stations move from VTEP to VTEP all the time, so nothing guards against loops.
    fn bridge() -> Self {
        Self::new(bridge_with(1, |segment| segment.loops.moves = 0))
    }

    fn routed() -> Self {
        Self::new(Segment::routed(8285))
    }

    fn change(&mut self, change: Change) {
        self.tables.apply(self.now, [change]).unwrap();
    }

    fn forward(&mut self, fill: &mut dyn FnMut(&mut Batch, usize), from: Option<PortId>) {
        self.batch.clear();
        self.output.clear();
        (0..BATCH).for_each(|n| fill(&mut self.batch, n));
        let Self { tables, forwarder, batch, output, now, segment, .. } = self;
        match from {
            Some(port) => forwarder.from_port(tables, *now, port, batch, output),
            None => forwarder.from_underlay(tables, *now, segment.udp_port, batch, output),
        }
    }

    /// Forwards the same batch a few times, and then many times under the eyes of the allocator.
    fn assert_frugal(
        &mut self,
        path: &str,
        from: Option<PortId>,
        mut fill: impl FnMut(&mut Batch, usize),
    ) {
        for _ in 0..3 {
            self.forward(&mut fill, from);
        }
        let before = ALLOCATIONS.get();
        for _ in 0..20 {
            self.now += Duration::from_secs(1);
            self.forward(&mut fill, from);
        }
        let allocations = ALLOCATIONS.get() - before;
        assert_eq!(allocations, 0, "{path}: {allocations} allocations in 20 batches of {BATCH}");
    }

    fn frames(&mut self, path: &str, frame: &[u8], vnet: VnetHeader) {
        let port = self.ports[0];
        self.assert_frugal(path, Some(port), |batch, _| assert!(batch.push(frame, vnet)));
    }

    fn datagrams(&mut self, path: &str, datagram: &[u8]) {
        self.assert_frugal(path, None, |batch, n| {
            // From all peers in turn.
            assert!(batch.push_datagram(datagram, vtep(2 + n as u8 % 12)));
        });
    }
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn bridging_allocates_nothing() {
    let mut node = Node::bridge();
    let plain = VnetHeader::default();
    node.change(Change::InsertFdb {
        segment: node.segment,
        mac: host(2).mac,
        destination: vtep(2).into(),
    });
    node.change(Change::InsertFdb {
        segment: node.segment,
        mac: host(3).mac,
        destination: node.ports[1].into(),
    });
    node.frames("port to VTEP", &udp(host(1), host(2), b"x"), plain);
    assert_eq!(node.output.transmits().len(), BATCH);
    node.frames("port to port", &udp(host(1), host(3), b"x"), plain);
    assert_eq!(node.output.delivers().len(), BATCH);
    node.frames("flood from a port", &udp(host(1), EVERYBODY, b"x"), plain);
    assert_eq!(node.output.transmits().len(), BATCH * 12);
    assert_eq!(node.output.delivers().len(), BATCH * 9);
    let (frame, vnet) = unfinished(udp(host(1), host(2), b"x"));
    node.frames("unfinished checksum", &frame, vnet);
    let (frame, vnet) = tcp_super_frame(host(1), host(2), &[0; 30_000], 1400);
    node.frames("super-frame from a port", &frame, vnet);
    assert_eq!(node.output.transmits().len(), BATCH);
    assert!(node.output.transmits().iter().all(|transmit| transmit.datagrams == 22));
    let (frame, vnet) = tcp_super_frame(host(1), EVERYBODY, &[0; 30_000], 1400);
    node.frames("flooded super-frame", &frame, vnet);
    node.datagrams("VTEP to port", &vxlan(vni(1), &udp(host(9), host(3), b"x")));
    assert_eq!(node.output.delivers().len(), BATCH);
    node.datagrams("flood from a VTEP", &vxlan(vni(1), &udp(host(9), EVERYBODY, b"x")));
    assert_eq!(node.output.delivers().len(), BATCH * 10);
    let large = tcp(host(9), host(3), &[0; 30_000]);
    node.datagrams("super-frame from a VTEP", &vxlan(vni(1), &large));
    assert_eq!(node.output.delivers().len(), BATCH * 22);
}

#[test]
fn snooping_allocates_nothing() {
    let mut node = Node::new(bridge_with(1, |segment| {
        segment.loops.moves = 0;
        segment.snooping.enabled = true;
    }));
    let (plain, segment) = (VnetHeader::default(), node.segment);
    let (group, all) = ("239.1.2.3".parse().unwrap(), "0.0.0.0".parse().unwrap());
    node.frames("a query", &say(host(1), Say::Query(3), all), plain);
    node.frames("a report that is news", &say(host(1), Say::Join(3), group), plain);
    assert_eq!(node.output.heard().len(), 1);
    for destination in [vtep(2).into(), vtep(3).into(), node.ports[1].into()] {
        node.change(Change::InsertMdb { segment, group: Some(group), destination });
    }
    node.frames("a group", &to_group(host(1), group, b"x"), plain);
    assert_eq!(node.output.transmits().len(), BATCH * 2);
    assert_eq!(node.output.delivers().len(), BATCH);
    // To the port that asked, too.
    node.datagrams("a group from a VTEP", &vxlan(vni(1), &to_group(host(9), group, b"x")));
    assert_eq!(node.output.delivers().len(), BATCH * 2);
    node.datagrams("a report from a VTEP", &vxlan(vni(1), &say(host(9), Say::Join(2), group)));
    assert_eq!(node.output.delivers().len(), BATCH);
}

#[test]
fn joining_allocates_nothing() {
    let mut node = Node::bridge();
    node.forwarder.set_offloads(Offloads::ALL);
    let (segment, destination) = (node.segment, node.ports[0].into());
    node.change(Change::InsertFdb { segment, mac: host(1).mac, destination });
    let datagram = vxlan(vni(1), &udp(host(9), host(1), b"payload"));
    let train = datagram.repeat(MAX_TRAIN);
    node.assert_frugal("trains", None, |batch, _| {
        batch.next_slot(0).unwrap()[..train.len()].copy_from_slice(&train);
        assert!(batch.commit_train(train.len(), datagram.len(), vtep(2)));
    });
    assert_eq!(node.output.delivers().len(), BATCH * MAX_TRAIN / 64);
}

#[test]
fn routing_and_its_errors_allocate_nothing() {
    let mut node = Node::routed();
    let plain = VnetHeader::default();
    node.change(Change::InsertRoute {
        segment: node.segment,
        prefix: "10.1.0.0/16".parse().unwrap(),
        next_hop: node.ports[0].into(),
    });
    node.frames("route to a VTEP", &ip_udp("10.1.0.1", "10.2.0.1", 64, b"x"), plain);
    assert_eq!(node.output.transmits().len(), BATCH);
    let answered = |node: &Node| assert_eq!(node.output.delivers().len(), BATCH, "answered");
    node.frames("no route", &ip_udp("10.1.0.1", "203.0.113.1", 64, b"x"), plain);
    answered(&node);
    node.frames("TTL exceeded", &ip_udp("10.1.0.1", "10.2.0.1", 1, b"x"), plain);
    answered(&node);
    node.frames("too big", &ip_udp("10.1.0.1", "10.2.0.1", 64, &[0; 2000]), plain);
    answered(&node);
    node.datagrams("route to a port", &ip_udp("10.2.0.1", "10.1.0.1", 64, b"x"));
    assert_eq!(node.output.delivers().len(), BATCH);
}

#[test]
fn drops_allocate_nothing() {
    let mut node = Node::bridge();
    let drops = |node: &Node, reason| node.tables.stats().totals.drops(reason);
    let hello = udp(host(1), EVERYBODY, b"x");
    for (path, datagram, reason) in [
        ("unknown VNI", vxlan(vni(9), &hello), DropReason::UnknownVni),
        ("no VNI", vec![0; 60], DropReason::NoVniFlag),
        ("cut short", vxlan(vni(1), &hello[..10]), DropReason::Truncated),
    ] {
        node.datagrams(path, &datagram);
        assert_eq!(drops(&node, reason), 23 * BATCH as u64, "{path}");
    }
    node.assert_frugal("unknown VTEP", None, |batch, n| {
        assert!(batch.push_datagram(&vxlan_hello(), vtep(100 + n as u8)));
    });
    node.frames("bad source", &[0xff; 60], VnetHeader::default());
    let gone = node.ports[0];
    node.change(Change::RemovePort(gone));
    node.frames("detached", &hello, VnetHeader::default());
    assert_eq!(drops(&node, DropReason::Detached), 23 * BATCH as u64);
}

fn vxlan_hello() -> [u8; 50] {
    let mut datagram = [0; 50];
    datagram[..8].copy_from_slice(&overplane::wire::vxlan::encode(vni(1)));
    datagram[14] = 2;
    datagram
}

#[test]
fn learning_and_moving_allocate_nothing() {
    let mut node = Node::bridge();
    let mut serial = 0_u64;
    let template = vxlan(vni(1), &udp(host(1), EVERYBODY, b"x"));
    // Every datagram is from a new address, and in the second half from an address of another peer.
    node.assert_frugal("new addresses", None, |batch, n| {
        serial += 1;
        let slot = batch.next_slot(0).unwrap();
        slot[..template.len()].copy_from_slice(&template);
        slot[14..22].copy_from_slice(&(0x0202_0000_0000_0000 | serial << 16).to_be_bytes());
        slot[20..22].copy_from_slice(&template[20..22]);
        assert!(batch.commit_datagram(template.len(), vtep(2 + n as u8 % 12)));
    });
    assert!(node.tables.stats().segments[0].learned >= 20 * BATCH);
    let mut turn = 0_usize;
    node.assert_frugal("moves", None, |batch, _| {
        turn += 1;
        assert!(batch.push_datagram(&template, vtep(2 + (turn % 12) as u8)));
    });
    assert!(node.output.events().iter().any(|e| matches!(e, overplane::Event::Moved { .. })));
}

#[test]
fn holding_an_address_allocates_nothing() {
    let mut node = Node::new(bridge(1));
    node.datagrams("moves that are too many", &vxlan(vni(1), &udp(host(9), EVERYBODY, b"x")));
    assert!(node.tables.stats().totals.drops(DropReason::Damped) > 0);
}

#[test]
fn ageing_allocates_nothing() {
    let mut node = Node::bridge();
    node.frames("learn", &udp(host(1), EVERYBODY, b"x"), VnetHeader::default());
    assert_eq!(node.tables.stats().segments[0].learned, 1);
    node.output.clear();
    let before = ALLOCATIONS.get();
    let later = node.now + Duration::from_secs(300);
    for _ in 0..60 {
        node.forwarder.tick(&node.tables, later, drop);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(node.tables.stats().segments[0].learned, 0);
}
