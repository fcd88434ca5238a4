//! Two nodes that differ in nothing but that one of them joins frames: what one delivers, the other delivers too.
//!
//! The node that joins nothing is the oracle: it decides about every frame anew.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use overplane::wire::l4::{L4Checksum, checksum_offset, checksum_state, complete, is_partial};
use overplane::wire::{Fragment, FrameInfo, IpError, L3, L4, VnetHeader, eth, ip, vxlan};
use overplane::{
    Batch, Change, Deliver, Destination, Forwarder, MacAddr, Offloads, Output, PortId, PortOptions,
    Segment, SegmentId, Span, Stats, Tables, gso,
};

use crate::packets::*;

/// UDP ports of the routed segments: of bare IP in UDP, and in VXLAN.
pub(crate) const ROUTED: u16 = 8285;
pub(crate) const ROUTED_VXLAN: u16 = vxlan::PORT_LINUX;

/// MAC address of the node's VTEP in the latter.
const VTEP_MAC: MacAddr = MacAddr([0x0e, 0x2a, 0, 0, 0, 1]);

/// The routed segment in VXLAN.
fn routed_vxlan() -> Segment {
    let mut segment = Segment::routed_vxlan(vni(1), VTEP_MAC);
    segment.udp_port = ROUTED_VXLAN;
    segment
}

/// Slots of a batch.
pub(crate) const SLOTS: usize = 80;

/// What one receive gave: one datagram, or a train with a stride.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Node number of the sender.
    pub(crate) from: u8,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of each datagram but the last; 0 for one datagram.
    pub(crate) stride: usize,
}

#[derive(Debug)]
struct Node {
    tables: Tables,
    forwarder: Forwarder,
    batch: Batch,
    output: Output,
}

/// The two nodes.
#[derive(Debug)]
pub(crate) struct Twins {
    joining: Node,
    plain: Node,
    now: Duration,
}

impl Node {
    /// Node 1. Hosts 1 and 3 are behind ports that take super-frames, host 2 behind one that does not, host 9 behind
    /// node 3; nodes 2 and 3 are known to all segments, and segment 2, where nothing is static but host 1, is open.
    fn new(offloads: Offloads, mtu: Option<u32>) -> Self {
        let mut tables = Tables::new(underlay(1), 1).unwrap();
        // It is listed after every step.
        tables.set_fdb_capacity(1024).unwrap();
        let now = Duration::ZERO;
        let with_mtu = |mut segment: Segment| {
            (segment.mtu, segment.fdb_limit) = (mtu, segment.fdb_limit.min(64));
            // Which of several entries gives way depends on the seed of the table, which is each twin's own.
            segment.fdb_evict = false;
            segment
        };
        let mut open = bridge(2);
        (open.open, open.fdb_limit, open.fdb_evict) = (true, 6, false);
        for segment in [bridge(1), open, Segment::routed(ROUTED), routed_vxlan()].map(with_mtu) {
            let (id, kind) = (segment.id(), segment.kind);
            let port = |offload| Change::AddPort {
                segment: id,
                name: "port".into(),
                offload,
                options: PortOptions::default(),
            };
            let changes = [Change::AddSegment(segment), port(true), port(false), port(true)];
            let ports = tables.apply(now, changes).unwrap();
            let peer = |n| SocketAddr::new(underlay(n), id.udp_port);
            let mut changes = vec![
                Change::AddPeer { segment: id, vtep: peer(2) },
                Change::AddPeer { segment: id, vtep: peer(3) },
            ];
            let hosts: [(u8, Destination); 4] = [
                (1, ports[0].into()),
                (2, ports[1].into()),
                (3, ports[2].into()),
                (9, peer(3).into()),
            ];
            for (n, destination) in hosts {
                let (segment, mac) = (id, host(n).mac);
                if !kind.is_ethernet() {
                    for prefix in [format!("10.0.0.{n}/32"), format!("fd00::{n}/128")] {
                        let prefix = prefix.parse().unwrap();
                        changes.push(Change::InsertRoute {
                            segment,
                            prefix,
                            next_hop: destination.into(),
                        });
                    }
                } else if id == bridge_id(1) || n == 1 {
                    changes.push(Change::InsertFdb { segment, mac, destination });
                }
            }
            tables.apply(now, changes).unwrap();
        }
        let mut forwarder = Forwarder::new(0);
        forwarder.set_offloads(offloads);
        Self { tables, forwarder, batch: Batch::new(SLOTS), output: Output::new() }
    }

    fn forward(&mut self, arrivals: &[Arrival], udp_port: u16, now: Duration) {
        let Self { tables, forwarder, batch, output } = self;
        batch.clear();
        output.clear();
        for Arrival { from, bytes, stride } in arrivals {
            let source = SocketAddr::new(underlay(*from), 50_000);
            if let Some(slot) = batch.next_slot(0).and_then(|slot| slot.get_mut(..bytes.len())) {
                slot.copy_from_slice(bytes);
                // Refused if there are too many datagrams, by both nodes.
                let _ = batch.commit_train(bytes.len(), *stride, source);
            }
        }
        forwarder.from_underlay(tables, now, udp_port, batch, output);
        assert_eq!(output.transmits(), [], "split horizon");
        for deliver in output.delivers() {
            let len = output.frame(batch, deliver).map(<[u8]>::len).sum();
            forwarder.delivered(tables, deliver, len);
        }
        let discovered: Vec<Change> = output
            .discovered()
            .iter()
            .map(|&(segment, address)| Change::Discover { segment, address })
            .collect();
        tables.apply(now, discovered).unwrap();
        assert!(tables.stats().totals.is_conserved(), "{}", tables.stats());
    }

    fn bytes(&self, deliver: &Deliver) -> Vec<u8> {
        self.output.frame(&self.batch, deliver).collect::<Vec<_>>().concat()
    }

    /// What each port got, in order, as an observer behind it sees it.
    fn seen(&self, link: Link) -> HashMap<PortId, Vec<Stage>> {
        let mut ports: HashMap<PortId, Vec<Stage>> = HashMap::new();
        for deliver in self.output.delivers() {
            let stages = ports.entry(deliver.port).or_insert_with(|| vec![Stage::default()]);
            for frame in link.on_the_wire(deliver.vnet, &self.bytes(deliver)) {
                link.note(stages, &frame, link.normal(&frame));
            }
        }
        ports
    }

    /// What each port would have got had nothing been joined, byte for byte but for padding.
    fn apart(&self, link: Link) -> HashMap<PortId, Vec<Stage>> {
        let mut ports: HashMap<PortId, Vec<Stage>> = HashMap::new();
        for deliver in self.output.delivers() {
            let stages = ports.entry(deliver.port).or_insert_with(|| vec![Stage::default()]);
            let mut note = |mut frame: Vec<u8>| {
                if let Some(info) = link.parse(&frame) {
                    frame.truncate(info.ip_end as usize);
                }
                link.note(stages, &frame, frame.clone());
            };
            if deliver.frames == 1 {
                note(self.bytes(deliver));
                continue;
            }
            let spans: Vec<Span> = self.output.joined(deliver).collect();
            assert_eq!(spans.len(), deliver.frames as usize);
            spans.iter().for_each(|span| note(self.batch.bytes(*span).to_vec()));
        }
        ports
    }
}

/// Frames between two that no frame may overtake: those of each flow in order.
#[derive(Debug, Default)]
pub(crate) struct Stage(HashMap<String, Vec<Vec<u8>>>);

/// What comes before IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    None,
}

impl Link {
    fn parse(self, frame: &[u8]) -> Option<FrameInfo> {
        match self {
            Self::Ethernet => FrameInfo::parse(frame),
            Self::None => FrameInfo::parse_ip(frame).ok(),
        }
    }

    /// The frames that a device with this vnet header would put on a wire.
    pub(crate) fn on_the_wire(self, vnet: VnetHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
        vnet.validate(bytes.len()).unwrap();
        let info = self.parse(bytes).unwrap();
        if !vnet.is_gso() {
            let mut frame = bytes.to_vec();
            frame.truncate(info.ip_end as usize);
            if vnet.needs_checksum() {
                assert!(complete(&mut frame, vnet.csum_start.into(), vnet.csum_offset.into()));
            }
            return vec![frame];
        }
        assert_eq!(info.ip_end as usize, bytes.len(), "no padding");
        assert!(is_partial(bytes, &info));
        assert_eq!((vnet.hdr_len, vnet.csum_start), (info.payload_offset, info.l4_offset));
        let (mut headers, mut chunks) = (Vec::new(), Vec::new());
        gso::split(bytes, &info, vnet.gso_size.into(), &[], &mut headers, &mut chunks).unwrap();
        let whole = |chunk: &gso::Chunk| {
            let part = |of: &[u8], at: Span| of[at.start as usize..][..at.len as usize].to_vec();
            [part(&headers, chunk.head), part(bytes, chunk.body)].concat()
        };
        chunks.iter().map(whole).collect()
    }

    /// The frame without padding, with a finished checksum, and without what means nothing.
    pub(crate) fn normal(self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let Some(info) = self.parse(&frame) else { return frame };
        frame.truncate(info.ip_end as usize);
        if checksum_state(&frame, &info) == L4Checksum::Partial {
            let offset = checksum_offset(info.l4).unwrap();
            assert!(complete(&mut frame, info.l4_offset.into(), offset.into()));
        }
        let l3 = usize::from(info.l3_offset);
        if info.l3 == L3::Ipv4 && frame[l3 + 6] & 0x40 != 0 {
            // With DF the identification means nothing (RFC 6864 section 4.1), nor does its share of the checksum;
            // whether that is right does.
            let valid = FrameInfo::parse_ip(&frame[l3..]) != Err(IpError::HeaderChecksum);
            frame[l3 + 4..l3 + 6].fill(0);
            frame[l3 + 10..l3 + 12].fill(if valid { 0 } else { 0xee });
        }
        frame
    }

    /// Adds what is kept of a frame: to its flow, or, if it has none, as one that nothing may overtake.
    fn note(self, stages: &mut Vec<Stage>, frame: &[u8], kept: Vec<u8>) {
        let flow = self.parse(frame).and_then(|info| {
            let whole = info.fragment == Fragment::Whole && matches!(info.l4, L4::Tcp | L4::Udp);
            let addresses = info.addresses(frame).filter(|_| whole)?;
            let ports = &frame[info.l4_offset.into()..][..4];
            Some(format!("{addresses:?} {ports:?} {}", info.protocol))
        });
        let apart = flow.is_none();
        if apart {
            stages.push(Stage::default());
        }
        stages.last_mut().unwrap().0.entry(flow.unwrap_or_default()).or_default().push(kept);
        if apart {
            stages.push(Stage::default());
        }
    }
}

/// All that joining must not change.
fn counts(mut stats: Stats) -> Stats {
    for port in &mut stats.ports {
        // Super-frames count as one frame of the port's, and save headers.
        (port.traffic.sent_packets, port.traffic.sent_bytes) = (0, 0);
    }
    for totals in std::iter::once(&mut stats.totals).chain(&mut stats.workers) {
        (totals.coalesced, totals.learning_refused, totals.moves_refused) = (0, 0, 0);
    }
    stats
}

impl Twins {
    pub(crate) fn new(offloads: Offloads, mtu: Option<u32>) -> Self {
        Self {
            joining: Node::new(offloads, mtu),
            plain: Node::new(Offloads::NONE, mtu),
            now: Duration::from_secs(1),
        }
    }

    /// Hands one batch to both, and returns how many frames were joined to another.
    pub(crate) fn receive(&mut self, arrivals: &[Arrival], udp_port: u16) -> u64 {
        self.now += Duration::from_millis(400);
        let Self { joining, plain, now } = self;
        let before = joining.tables.stats().totals.coalesced;
        joining.forward(arrivals, udp_port, *now);
        plain.forward(arrivals, udp_port, *now);
        let routed = matches!(udp_port, ROUTED | ROUTED_VXLAN);
        let link = if routed { Link::None } else { Link::Ethernet };
        for deliver in plain.output.delivers() {
            assert_eq!(deliver.frames, 1);
        }
        for deliver in joining.output.delivers() {
            check_form(deliver, joining, link);
        }
        same(&joining.seen(link), &plain.seen(link), "on the wire");
        same(&joining.apart(link), &plain.apart(link), "taken apart");
        assert_eq!(joining.output.events(), plain.output.events());
        assert_eq!(joining.output.discovered(), plain.output.discovered());
        let (ours, theirs) = (joining.tables.stats(), plain.tables.stats());
        assert_eq!(format!("{:?}", counts(ours.clone())), format!("{:?}", counts(theirs)));
        for segment in joining.tables.segments() {
            let fdb = |node: &Node| node.tables.fdb(segment.id, *now).unwrap();
            assert_eq!(fdb(joining), fdb(plain));
        }
        ours.totals.coalesced - before
    }
}

/// Compares piece by piece: a difference is a frame then, and not all of them.
fn same(ours: &HashMap<PortId, Vec<Stage>>, theirs: &HashMap<PortId, Vec<Stage>>, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "ports, {what}");
    for (port, theirs) in theirs {
        let ours = ours.get(port).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{port:?}: frames without flow, {what}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours.0.len(), theirs.0.len(), "{port:?}: flows, {what}");
            for (flow, theirs) in &theirs.0 {
                let ours = ours.0.get(flow).unwrap();
                assert_eq!(ours.len(), theirs.len(), "{port:?}: frames of {flow}, {what}");
                for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    assert_eq!(ours, theirs, "{port:?}: frame {n} of {flow}, {what}");
                }
            }
        }
    }
}

/// What a device requires of a frame made of several.
fn check_form(deliver: &Deliver, node: &Node, link: Link) {
    let ports = node.tables.ports();
    let port = ports.iter().find(|port| port.id == deliver.port).unwrap();
    assert!(port.offload || deliver.vnet == VnetHeader::default());
    if deliver.frames == 1 {
        return;
    }
    let bytes = node.bytes(deliver);
    let info = link.parse(&bytes).unwrap();
    let payload = bytes.len() - usize::from(info.payload_offset);
    let size = usize::from(deliver.vnet.gso_size);
    assert_eq!(payload.div_ceil(size), deliver.frames as usize);
    assert!(bytes.len() - usize::from(info.l3_offset) <= 65_535);
    assert!(info.l4 != L4::Udp || deliver.frames <= 64, "UDP_MAX_SEGMENTS before Linux 6.9");
    let mtu = node.tables.segments().iter().find(|s| s.id == port.segment).unwrap().mtu;
    let headers = usize::from(info.payload_offset - info.l3_offset);
    assert!(headers + size <= mtu as usize, "chunks above the MTU");
    if info.l3 == L3::Ipv4 {
        assert!(ip::verify_v4_header(&bytes[info.l3_offset.into()..]));
    }
}

/// A frame as one line of a recipe; see [`Recipe::build`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    /// Bits 0 and 1: IPv6, UDP; bit 2: may be fragmented; the rest: source port.
    pub(crate) flow: u8,
    /// Host it is for.
    pub(crate) to: u8,
    pub(crate) len: u16,
    /// What is unusual about it, one of [`QUIRKS`].
    pub(crate) quirk: u8,
    /// A byte to change, at the end; see [`spoil`].
    pub(crate) spoil: Option<(u16, u8)>,
}

/// Number of quirks; 0 is none.
pub(crate) const QUIRKS: u8 = 31;

/// Sequence number and IPv4 identification of each flow.
#[derive(Debug, Default)]
pub(crate) struct Senders(HashMap<u8, (u32, u16)>);

impl Recipe {
    /// The Ethernet frame, from host 20.
    pub(crate) fn build(&self, senders: &mut Senders) -> Vec<u8> {
        let Self { flow, to, len, quirk, .. } = *self;
        let len = usize::from(len);
        let (v6, udp, whole) = (flow & 1 != 0, flow & 2 != 0, flow & 4 == 0);
        let next = senders.0.entry(flow).or_insert((u32::MAX - 3000, 7));
        let (sequence, id) = *next;
        let mut link = [host(to).mac.0, host(20).mac.0].concat();
        match quirk {
            1 => link[..6].fill(0xff),
            2 => link[5] = 77, // nobody knows where that is
            3 => link[5] = 9,  // behind another node
            4 => link[11] ^= 0xf0,
            5 => link.copy_within(0..6, 6),
            6 => link[6] |= 1,
            _ => {}
        }
        match quirk {
            7 => link.extend([0x81, 0, 0, 7]),
            8 => link.extend([0x88, 0xa8, 0, 7, 0x81, 0, 0, 0]),
            _ => {}
        }
        link.extend(if v6 { eth::TYPE_IPV6 } else { eth::TYPE_IPV4 }.to_be_bytes());

        let mut l4 = [1000 + u16::from(flow >> 3), 9].map(u16::to_be_bytes).concat();
        let payload = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ flow);
        if udp {
            let length = 8 + len as u16 - u16::from(quirk == 9 && len > 0);
            l4.extend([length.to_be_bytes(), [0, 0]].concat());
        } else {
            let options: &[u8] = match quirk {
                10 => &[1, 1, 1, 0],
                11 => &[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6],
                _ => &[],
            };
            let flags = match quirk {
                12 => 0x00,
                13 => 0x18, // PSH
                14 => 0x11, // FIN
                15 => 0x30, // URG
                16 => 0x90, // CWR
                _ => 0x10,
            };
            l4.extend(sequence.to_be_bytes());
            l4.extend(if quirk == 17 { [0, 0, 0, 78] } else { [0, 0, 0, 77] });
            l4.extend([(5 + options.len() as u8 / 4) << 4, flags]);
            l4.extend(if quirk == 18 { [2, 1] } else { [2, 0] });
            l4.extend([0, 0, 0, 0]);
            l4.extend(options);
        }
        l4.extend(payload);

        let protocol = if udp { 17 } else { 6 };
        let ttl = if quirk == 19 { 63 } else { 64 };
        let ce = u8::from(quirk == 20);
        let mut net;
        if v6 {
            let extension: &[u8] = if quirk == 21 { &[protocol, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
            net = vec![0x60, ce << 4, 0, u8::from(quirk == 22)];
            net.extend(((l4.len() + extension.len()) as u16).to_be_bytes());
            net.extend([if extension.is_empty() { protocol } else { 0 }, ttl]);
            for n in [2, to] {
                let address = format!("fd00::{n}").parse::<std::net::Ipv6Addr>();
                net.extend(address.unwrap().octets());
            }
            net.extend(extension);
        } else {
            let options: &[u8] = if quirk == 21 { &[1, 1, 1, 0] } else { &[] };
            let header = 20 + options.len();
            net = vec![0x40 | (header / 4) as u8, ce];
            net.extend(((header + l4.len()) as u16).to_be_bytes());
            net.extend(if quirk == 22 { [0x27, 0x0f] } else { id.to_be_bytes() });
            let fragments = if quirk == 23 { 0x20 } else { 0 };
            net.extend([fragments | if whole { 0x40 } else { 0 }, 0, ttl, protocol, 0, 0]);
            net.extend(host(2).ip.octets());
            net.extend(host(to).ip.octets());
            net.extend(options);
            let check = ip::v4_header_checksum(&net);
            net[10..12].copy_from_slice(&check.to_be_bytes());
        }
        let mut frame = [link, net, l4].concat();
        let info = FrameInfo::parse(&frame).unwrap();
        let absent = udp && quirk == 24;
        if !absent && overplane::wire::l4::set_partial(&mut frame, &info) {
            let offset = checksum_offset(info.l4).unwrap();
            // Partial as a kernel peer leaves it.
            if !matches!(quirk, 25 | 26) {
                assert!(complete(&mut frame, info.l4_offset.into(), offset.into()));
            }
            if quirk == 27 {
                frame[usize::from(info.l4_offset + offset)] ^= 0x55;
            }
        }
        if matches!(quirk, 26 | 28) && !v6 {
            frame[usize::from(info.l3_offset) + 10] ^= 0x55;
        }
        if quirk == 29 {
            frame.extend([0xee; 5]);
        }
        if quirk == 30 {
            return frame; // again
        }
        if let Some((at, change)) = self.spoil {
            spoil(&mut frame, usize::from(at & !REPAIR), change, at & REPAIR != 0);
        }
        let taken = len as u32 * if quirk == QUIRKS { 2 } else { 1 };
        *next = (sequence.wrapping_add(taken), id.wrapping_add(1));
        frame
    }
}

/// Bit of the place in [`Recipe::spoil`]: all checksums are made right again.
pub(crate) const REPAIR: u16 = 0x8000;

/// Changes some bits of a byte: damage on the way, or, with the checksums made right again, something else that was
/// meant.
pub(crate) fn spoil(frame: &mut [u8], at: usize, change: u8, repair: bool) {
    frame[at % frame.len()] ^= change;
    let Some(info) = FrameInfo::parse(frame).filter(|_| repair) else { return };
    let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
    if info.l3 == L3::Ipv4 {
        let check = ip::v4_header_checksum(&frame[l3..l4]);
        frame[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
    }
    if overplane::wire::l4::set_partial(frame, &info) {
        let offset = checksum_offset(info.l4).unwrap();
        assert!(complete(&mut frame[..info.ip_end as usize], l4, offset.into()));
    }
}

/// The datagram that carries a frame to a bridge segment, or, without its own Ethernet addresses, to a routed one.
pub(crate) fn encapsulated(segment: SegmentId, frame: &[u8]) -> Vec<u8> {
    match segment.vni {
        Some(vni) if segment == routed_vxlan().id() => {
            let rest = frame.get(6..).unwrap_or_default();
            [&vxlan::encode(vni)[..], &VTEP_MAC.0, rest].concat()
        }
        Some(vni) => [&vxlan::encode(vni)[..], frame].concat(),
        None => frame.get(14..).unwrap_or_default().to_vec(),
    }
}
