//! A node with two bridge segments and a routed one, and everything that must hold whatever reaches it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use overplane::wire::{FrameInfo, VnetHeader, Vni, probe, vxlan};
use overplane::{
    Arrival, Batch, Change, Deliver, Destination, DropReason, Dscp, Ecn, FdbEntry, Forwarder,
    Gateway, GroupInfo, MacAddr, Mdb, MssClamp, NeighbourEntry, Offload, Offloads, Output, PortId,
    PortInfo, PortOptions, Prober, Probing, Querier, Route, Segment, SegmentId, SegmentInfo, Span,
    Stats, Tables, Transmit, Ttl, limits,
};

use crate::cursor::Cursor;

pub const ROUTED_PORT: u16 = 8285;

/// MAC addresses of VTEPs in the routed segment in VXLAN: this node's is the first.
pub fn vtep_mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

/// A routed segment in VXLAN, beside the bridge segments.
pub fn routed_vxlan() -> Segment {
    Segment::routed_vxlan(Vni::new(9).expect("small"), vtep_mac(1))
}
/// The VNI of VTEPs that have one of their own.
pub const REMOTE_VNI: Vni = match Vni::new(99) {
    Ok(vni) => vni,
    Err(_) => Vni::MAX,
};

/// Most frames of one batch.
const BATCH: usize = 8;

pub fn vtep(n: u8, udp_port: u16) -> SocketAddr {
    SocketAddr::new(address(n), udp_port)
}

pub fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

pub fn bridge(n: u32) -> Segment {
    Segment::bridge(Vni::new(n).expect("small"))
}

/// Everything that can be seen of tables.
pub type Listing = (Vec<SegmentInfo>, Vec<PortInfo>, Vec<Entries>, Stats);

/// What a segment forwards by.
pub type Entries = (
    Vec<FdbEntry>,
    Vec<Route>,
    Vec<GroupInfo>,
    Vec<(SocketAddr, MacAddr)>,
    Vec<NeighbourEntry>,
    Mdb,
);

pub struct World {
    pub tables: Tables,
    pub now: Duration,
    forwarder: Forwarder,
    batch: Batch,
    output: Output,
    prober: Prober,
    /// The last probes that were sent, as datagrams, and to whom.
    asked: Vec<(IpAddr, Vec<u8>)>,
    /// Which copies the outside world refuses: grows with every descriptor.
    turn: u32,
}

impl World {
    /// A node whose segments differ in what the bits of `flags` say.
    pub fn new(flags: u8) -> Self {
        let mut tables = Tables::new(address(1), 1).expect("a unicast address");
        // Small, so that it is full now and then and quickly listed.
        tables.set_fdb_capacity(256).expect("a capacity within the limits");
        if flags & 1 != 0 {
            tables.set_reserved_bits(vxlan::ReservedBits::Strict);
        }
        if flags & 4 != 0 {
            tables.inherit_dont_fragment();
        }
        let mut changes = Vec::new();
        let mut routed = Segment::routed(ROUTED_PORT);
        routed.addresses = vec![Ipv4Addr::new(10, 7, 1, 254).into(), "fd00::fe".parse().expect("")];
        let mut segments = [bridge(1), bridge(2), routed, routed_vxlan()];
        for (n, segment) in segments.iter_mut().enumerate() {
            segment.neighbours.suppress = flags & 2 != 0 && segment.kind.is_ethernet();
            segment.neighbours.limit = 8;
            segment.snooping.enabled = flags & 8 != 0;
            segment.snooping.limit = 8;
            segment.snooping.membership_interval = Duration::from_secs(30);
            if n == 1 {
                let own = "fe80::51".parse().ok();
                segment.snooping.querier = Some(Querier::new(Some([10, 0, 0, 51].into()), own));
            }
            segment.open = flags & (2 << n) != 0;
            segment.learning = flags & 16 == 0;
            segment.mtu_options.probe = flags & 8 != 0 && segment.id().vni.is_some();
            segment.fdb_limit = 8;
            segment.loops.moves = flags >> 6;
            segment.fdb_evict = flags & 32 == 0;
            segment.header.gbp = n == 1;
            segment.header.any_vni = n == 0 && flags & 4 != 0;
            segment.ageing = Some(Duration::from_secs(30));
            segment.outer.ecn = [Ecn::Normal, Ecn::Compatibility, Ecn::Off][n % 3];
            if flags & 16 != 0 {
                segment.outer.dscp = Dscp::Inherit;
                segment.outer.ttl = Ttl::Inherit;
            }
            if flags & 64 != 0 {
                segment.mtu_options.clamp_mss =
                    [MssClamp::ToMtu, MssClamp::To(536), MssClamp::ToMtu][n % 3];
            }
            if flags & 32 != 0 {
                segment.mtu = Some([68, 600, 9000, 1400][n]);
            }
        }
        for segment in segments {
            let (id, ethernet) = (segment.id(), segment.kind.is_ethernet());
            changes.push(Change::AddSegment(segment));
            for offload in [true, false] {
                let mut options = PortOptions::default();
                if flags & 4 != 0 && offload && !ethernet {
                    let mut gateway = Gateway::default();
                    (gateway.mac, gateway.answer_all) = (MacAddr([2, 0, 0, 0, 0, 2]), true);
                    options.gateway = Some(gateway);
                }
                changes.push(Change::AddPort { segment: id, name: "tap".into(), offload, options });
            }
            if ethernet {
                for n in [2, 3] {
                    changes.push(Change::AddFlood { segment: id, vtep: vtep(n, id.udp_port) });
                }
            }
        }
        let mut world = Self {
            tables: tables.clone(),
            now: Duration::from_secs(10),
            forwarder: Forwarder::new(0),
            batch: Batch::new(BATCH),
            output: Output::new(),
            prober: Prober::new(Probing::default()).expect("the defaults"),
            asked: Vec::new(),
            turn: 0,
        };
        let ports = tables.apply(world.now, changes).expect("a sensible set-up");
        let route_of = |segment, prefix: &str, next_hop: Destination| Change::InsertRoute {
            segment,
            prefix: prefix.parse().expect("a prefix"),
            next_hop: next_hop.into(),
        };
        let route = |prefix, next_hop| {
            route_of(SegmentId { udp_port: ROUTED_PORT, vni: None }, prefix, next_hop)
        };
        let framed = routed_vxlan().id();
        let to = |n| vtep(n, vxlan::PORT);
        if flags & 2 != 0 {
            let [address, v6] = ["10.0.0.9", "fd00::9"].map(|ip| ip.parse().expect("an address"));
            for (address, router) in [(address, false), (v6, true)] {
                let (segment, mac) = (bridge(1).id(), MacAddr([2, 0, 0, 0, 0, 9]));
                let set = Change::SetNeighbour { segment, address, mac, router };
                tables.apply(world.now, [set]).expect("a sensible binding");
            }
        }
        let routes = [
            route_of(framed, "10.7.1.0/24", ports[6].into()),
            route_of(framed, "10.7.2.0/24", ports[7].into()),
            route_of(framed, "10.7.3.0/24", to(3).into()),
            route_of(framed, "fd00:3::/32", to(4).into()),
            Change::SetVtepMac { segment: framed, vtep: to(3), mac: vtep_mac(3) },
            route("10.7.1.0/24", ports[4].into()),
            route("10.7.2.0/24", ports[5].into()),
            route("10.7.3.0/24", vtep(3, ROUTED_PORT).into()),
            route("10.7.3.128/25", vtep(4, ROUTED_PORT).into()),
            route("fd00::/64", ports[4].into()),
            route("fd00:3::/32", vtep(3, ROUTED_PORT).into()),
        ];
        tables.apply(world.now, routes).expect("sensible routes");
        world.tables = tables;
        world.set_offloads(flags >> 6);
        world
    }

    pub fn listing(&self) -> Listing {
        let segments = self.tables.segments();
        let entries = |segment: &SegmentInfo| {
            let fdb = self.tables.fdb(segment.id, self.now).expect("listed");
            let routes = self.tables.routes(segment.id).expect("listed");
            let macs = self.tables.vtep_macs(segment.id).expect("listed");
            let neighbours = self.tables.neighbours(segment.id, self.now).expect("listed");
            let mdb = self.tables.mdb(segment.id, self.now).expect("listed");
            (fdb, routes, self.tables.groups(segment.id).expect("listed"), macs, neighbours, mdb)
        };
        let entries = segments.iter().map(entries).collect();
        (segments, self.tables.ports(), entries, self.tables.stats())
    }

    /// A batch from one port: frames follow until the input says otherwise.
    pub fn port_batch(&mut self, input: &mut Cursor<'_>) {
        let ports: Vec<PortId> = self.tables.ports().iter().map(|port| port.id).collect();
        let Some(port) = input.pick(&ports) else { return };
        self.batch.clear();
        for _ in 0..=input.u8() % BATCH as u8 {
            let vnet = match input.u8() & 1 {
                0 => VnetHeader::default(),
                _ => VnetHeader::parse(&input.array::<10>()).expect("ten bytes"),
            };
            assert!(self.batch.push(&input.padded(), vnet));
        }
        self.forward(Some(port), 0);
    }

    /// Joins the frames that the lowest two bits say, from the next batch on.
    pub fn set_offloads(&mut self, bits: u8) {
        let joins = [Offload::CoalesceTcp, Offload::CoalesceUdp];
        let chosen = joins.into_iter().enumerate().filter(|(n, _)| bits >> n & 1 != 0);
        self.forwarder.set_offloads(chosen.map(|(_, offload)| offload).collect::<Offloads>());
    }

    /// A batch from one underlay socket, from several senders; some datagrams come as trains.
    pub fn underlay_batch(&mut self, input: &mut Cursor<'_>) {
        let ports = [vxlan::PORT, ROUTED_PORT, 8472];
        let udp_port = input.pick(&ports).expect("one of three");
        self.batch.clear();
        for _ in 0..=input.u8() % BATCH as u8 {
            let sender = input.u8();
            let mut arrival = Arrival::from(SocketAddr::new(address(sender % 6), 50_000));
            arrival.tos = sender >> 5;
            // The longest train has as many datagrams as a slot may hold.
            let stride = if sender < 128 { usize::MAX } else { usize::from(input.u16()) };
            let bytes = input.padded();
            let stride = stride.max(bytes.len().div_ceil(limits::MAX_TRAIN));
            let slot = self.batch.next_slot(0).expect("a free slot");
            slot[..bytes.len()].copy_from_slice(&bytes);
            assert!(self.batch.commit_train(bytes.len(), stride, arrival));
        }
        self.forward(None, udp_port);
    }

    pub fn wait(&mut self, seconds: u8) {
        self.now += Duration::from_secs(seconds.into());
        self.output.clear();
        self.forwarder.tick(&self.tables, self.now, drop);
        self.probe();
        let expired = self.tables.expired_mdb(self.now);
        self.tables.apply(self.now, expired).expect("forgotten");
        self.batch.clear();
        self.output.clear();
        self.forwarder.query_groups(&self.tables, self.now, &mut self.batch, &mut self.output);
        self.carry_out();
        self.check();
    }

    /// Sends the probes that are due.
    fn probe(&mut self) {
        let Self { tables, now, forwarder, batch, output, prober, asked, .. } = self;
        let round = prober.round(tables, *now);
        tables.apply(*now, round.changes).expect("what was found out of known VTEPs");
        for probe in &round.probes {
            forwarder.probe(tables, *now, probe, output);
        }
        if !output.transmits().is_empty() {
            asked.clear();
        }
        for transmit in output.transmits() {
            let to = tables.vtep_address(transmit.vtep).expect("a VTEP of this snapshot");
            let datagrams = output.datagrams(batch, transmit);
            asked.extend(datagrams.map(|parts| (to.ip(), parts.concat())));
        }
        for (_, datagram) in asked.iter() {
            check_probe(datagram, probe::Kind::Request);
        }
        self.carry_out();
    }

    /// A batch of probes, and of answers to those that were sent, changed here and there.
    pub fn probe_batch(&mut self, input: &mut Cursor<'_>) {
        self.batch.clear();
        for _ in 0..=input.u8() % BATCH as u8 {
            let how = input.u8();
            let last = self.asked.get(usize::from(how >> 4)).cloned();
            let (from, mut datagram) = match last.filter(|_| how & 1 != 0) {
                Some((from, mut answer)) => {
                    answer.truncate(vxlan::HEADER_LEN + probe::MIN_LEN);
                    // The kind, and the answer's.
                    answer[vxlan::HEADER_LEN + 19] = 2;
                    (from, answer)
                }
                None => {
                    let vni = Vni::new(u32::from(how >> 2 & 3)).expect("small");
                    let kind = [probe::Kind::Request, probe::Kind::Answer][usize::from(how >> 7)];
                    let (size, sequence) = (input.u16(), input.u8().into());
                    let message = probe::Probe { kind, size, sequence, token: 0 };
                    let frame = message.encode(MacAddr([2, 0, 0, 0, 0, how]));
                    let mut datagram = [&vxlan::encode(vni)[..], &frame].concat();
                    // Over IPv4: 20 and 8 bytes more.
                    datagram.resize(datagram.len().max(usize::from(size).saturating_sub(28)), 0);
                    (address(how >> 4 & 7), datagram)
                }
            };
            if how & 2 != 0 {
                let (at, bits) = (usize::from(input.u8()) % datagram.len(), input.u8());
                datagram[at] ^= bits;
            }
            assert!(self.batch.push_datagram(&datagram, SocketAddr::new(from, 50_000)));
        }
        self.forward(None, vxlan::PORT);
    }

    fn forward(&mut self, port: Option<PortId>, udp_port: u16) {
        let Self { tables, now, forwarder, batch, output, .. } = self;
        output.clear();
        // Which segment each slot belongs to, read before anything is stripped.
        let of_port = port.and_then(|port| tables.ports().into_iter().find(|p| p.id == port));
        let listed = tables.segments();
        let segments: Vec<Option<SegmentId>> = (0..batch.len())
            .map(|index| match &of_port {
                Some(port) => Some(port.segment),
                None => segment_of(&listed, udp_port, batch.frame(index)),
            })
            .collect();
        let frames: Vec<Span> = (0..batch.len()).map(|index| batch.span(index)).collect();
        match port {
            Some(port) => forwarder.from_port(tables, *now, port, batch, output),
            None => forwarder.from_underlay(tables, *now, udp_port, batch, output),
        }
        // What is in front of a frame from a port is its headroom; in front of a datagram may be another.
        let headroom = if port.is_some() { limits::HEADROOM as u32 } else { 0 };
        let slot_of = |body: Span| {
            let holds = |frame: &Span| frame.start - headroom <= body.start;
            let at = frames.iter().rposition(holds).expect("a run within a slot");
            let room = if port.is_some() { limits::MAX_FRAME as u32 } else { frames[at].len };
            assert!(body.start + body.len <= frames[at].start + room);
            segments[at]
        };
        let infos: HashMap<SegmentId, SegmentInfo> =
            tables.segments().into_iter().map(|info| (info.id, info)).collect();
        let ports: HashMap<PortId, PortInfo> =
            tables.ports().into_iter().map(|port| (port.id, port)).collect();
        for transmit in output.transmits() {
            if transmit.body.is_empty() {
                // The answer to a probe, in the arena.
                let answer = &output.headers()[transmit.head.start as usize..];
                check_probe(&answer[..transmit.head.len as usize], probe::Kind::Answer);
                continue;
            }
            let segment = slot_of(transmit.body).expect("only a known segment sends");
            assert!(
                port.is_some()
                    || infos[&segment].scope.vtep_group == 0
                    || !infos[&segment].vtep_groups.is_empty(),
                "split horizon"
            );
            check_transmit(tables, batch, output, transmit, &infos[&segment]);
        }
        for deliver in output.delivers() {
            let port = &ports[&deliver.port];
            let segment = match deliver.body.is_empty() {
                // A frame of the node's own, in the arena.
                true => port.segment,
                false => slot_of(deliver.body).expect("only a known segment delivers"),
            };
            if deliver.frames > 1 {
                let parts: Vec<Span> = output.joined(deliver).collect();
                assert_eq!(parts.len(), deliver.frames as usize);
                assert!(parts.iter().all(|part| slot_of(*part) == Some(segment)));
            }
            check_deliver(batch, output, deliver, segment, port);
        }
        self.carry_out();
        self.check();
    }

    /// Reports what became of each descriptor: most are taken, some refused.
    fn carry_out(&mut self) {
        let Self { tables, now, forwarder, output, prober, turn, .. } = self;
        for transmit in output.transmits() {
            *turn += 1;
            match *turn % 7 {
                0 => {
                    let datagrams = transmit.datagrams.into();
                    forwarder.unsent(tables, transmit, datagrams, DropReason::UnderlayFull);
                }
                _ => {
                    let (datagrams, bytes) = (transmit.datagrams.into(), transmit.body.len.into());
                    forwarder.sent(tables, transmit, datagrams, bytes);
                }
            }
        }
        for deliver in output.delivers() {
            *turn += 1;
            match *turn % 5 {
                0 => forwarder.undelivered(tables, deliver, DropReason::PortFull),
                _ => forwarder.delivered(tables, deliver, deliver.body.len as usize),
            }
        }
        for echo in output.echoes() {
            prober.heard(*now, echo);
        }
        for &(segment, address) in output.discovered() {
            tables.apply(*now, [Change::Discover { segment, address }]).expect("discovered");
        }
        tables.apply(*now, output.heard().iter().cloned()).expect("heard");
    }

    /// What holds between batches.
    pub fn check(&self) {
        let totals = self.tables.stats().totals;
        assert!(totals.is_conserved(), "{totals:?}");
        for segment in self.tables.segments() {
            let fdb = self.tables.fdb(segment.id, self.now).expect("listed");
            for entry in fdb {
                match entry.destination {
                    Destination::Port(port) => assert!(segment.ports.contains(&port)),
                    Destination::Vtep(vtep) => assert!(segment.peers.contains(&vtep)),
                }
            }
            let mdb = self.tables.mdb(segment.id, self.now).expect("listed");
            let learned = mdb.entries.iter().filter(|entry| entry.expires.is_some());
            let learned = learned.filter(|entry| entry.group.is_some()).count();
            assert!(learned <= 8, "{mdb:?}");
            for group in self.tables.groups(segment.id).expect("listed") {
                for member in &group.members {
                    assert!(member.buckets > 0, "{group:?}");
                    match member.destination {
                        Destination::Port(port) => assert!(segment.ports.contains(&port)),
                        Destination::Vtep(vtep) => assert!(segment.peers.contains(&vtep)),
                    }
                }
            }
            let addresses: HashSet<IpAddr> = segment.peers.iter().map(SocketAddr::ip).collect();
            assert_eq!(addresses.len(), segment.peers.len(), "a sender is known by its address");
        }
    }
}

fn segment_of(listed: &[SegmentInfo], udp_port: u16, datagram: &[u8]) -> Option<SegmentId> {
    if udp_port == ROUTED_PORT {
        return Some(SegmentId { udp_port, vni: None });
    }
    let vni = vxlan::decode(datagram).ok()?.vni();
    let exact = SegmentId { udp_port, vni: Some(vni) };
    let any = |segment: &&SegmentInfo| segment.id.udp_port == udp_port && segment.header.any_vni;
    let exists = listed.iter().any(|segment| segment.id == exact);
    if exists { Some(exact) } else { listed.iter().find(any).map(|segment| segment.id) }
}

/// A datagram goes to a VTEP of the segment, under its VNI, and holds a packet that fits.
fn check_transmit(
    tables: &Tables,
    batch: &Batch,
    output: &Output,
    transmit: &Transmit,
    segment: &SegmentInfo,
) {
    let to = tables.vtep_address(transmit.vtep).expect("a VTEP of this snapshot");
    assert!(segment.peers.contains(&to), "{to} is no peer of {}", segment.id);
    let datagrams = output.datagrams(batch, transmit);
    assert_eq!(datagrams.len(), transmit.datagrams as usize);
    let total: usize = datagrams.clone().flatten().map(<[u8]>::len).sum();
    assert_eq!(total, (transmit.head.len + transmit.body.len) as usize);
    for parts in datagrams {
        check_datagram(&parts.concat(), segment);
    }
}

/// A datagram holds a probe, or an answer that is no larger than any probe.
fn check_probe(bytes: &[u8], kind: probe::Kind) {
    let header = vxlan::decode(bytes).expect("a VXLAN header");
    assert!(header.is_plain());
    let frame = &bytes[vxlan::HEADER_LEN..];
    let read = probe::Probe::parse(frame).expect("a probe");
    assert_eq!(read.kind, kind);
    match kind {
        probe::Kind::Request => assert_eq!(bytes.len() + 28, usize::from(read.size)),
        probe::Kind::Answer => assert_eq!(frame.len(), probe::MIN_LEN),
    }
}

fn check_datagram(bytes: &[u8], segment: &SegmentInfo) {
    let packet = match segment.id.vni {
        Some(vni) => {
            let header = vxlan::decode(bytes).expect("a VXLAN header");
            assert!(header.vni() == vni || header.vni() == REMOTE_VNI);
            assert!(header.is_plain() || segment.id == bridge(2).id(), "only that one speaks GBP");
            let frame = &bytes[vxlan::HEADER_LEN..];
            let info = FrameInfo::parse(frame).expect("a frame");
            frame.len() - usize::from(info.l3_offset)
        }
        None => {
            FrameInfo::parse_ip(bytes).expect("a packet that the next router takes");
            bytes.len()
        }
    };
    assert!(packet <= segment.mtu as usize, "{packet} bytes in {segment:?}");
}

/// A frame goes to a port of the segment, with a vnet header that the device can obey.
fn check_deliver(
    batch: &Batch,
    output: &Output,
    deliver: &Deliver,
    segment: SegmentId,
    port: &PortInfo,
) {
    assert_eq!(port.segment, segment, "a frame crossed from one segment to another");
    let len = output.frame(batch, deliver).map(<[u8]>::len).sum();
    assert!(port.offload || deliver.vnet == VnetHeader::default());
    assert_eq!(deliver.vnet.validate(len), Ok(()), "{:?} for {len} bytes", deliver.vnet);
}
