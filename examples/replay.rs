//! Drives the forwarding core from a packet capture: no device, no socket, no privileges.
//!
//! ```sh
//! cargo run --example replay                    # a small capture made up here
//! cargo run --example replay -- capture.pcap    # your own (tcpdump -w capture.pcap)
//! ```
//!
//! Two nodes share one bridge segment. Captured VXLAN datagrams (UDP to port 4789) reach the second node as from the
//! underlay; every other frame is read from the first node's port, and what the first node sends reaches the second.
//! At the end, the fate of every frame and what each node learned is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use overplane::wire::{VnetHeader, vxlan};
use overplane::{
    Batch, Change, Forwarder, Output, PortId, PortOptions, Segment, SegmentId, Tables, Vni,
};

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

/// The VNI of frames that do not bring one along.
const VNI: u32 = 100;

fn main() -> ExitCode {
    match replay() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let frames = match (arguments.next(), arguments.next()) {
        (None, _) => {
            println!("No capture given: replaying a small one made up here.\n");
            read_pcap(&made_up_capture()?)?
        }
        (Some(path), None) if path != "--help" && path != "-h" => {
            let path = std::path::Path::new(&path);
            let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let file = std::fs::read(path).map_err(|error| at(&error))?;
            read_pcap(&file).map_err(|error| at(&error))?
        }
        _ => {
            println!("usage: replay [CAPTURE.pcap]");
            return Ok(());
        }
    };

    let mut first = Node::new("first", FIRST, SECOND, &frames)?;
    let mut second = Node::new("second", SECOND, FIRST, &frames)?;
    for Captured { time, frame } in &frames {
        match captured_datagram(frame) {
            Some((source, datagram)) => {
                second.accept_from(source, *time)?;
                second.receive(*time, source, datagram);
            }
            None => {
                for datagram in first.read(*time, frame) {
                    second.receive(*time, SocketAddr::new(FIRST, vxlan::PORT), &datagram);
                }
            }
        }
    }
    println!("{} frames replayed.", frames.len());
    let end = frames.last().map_or(Duration::ZERO, |last| last.time);
    first.report(end)?;
    second.report(end)
}

/// One node: tables, a forwarder, and the buffers that a worker would have.
struct Node {
    name: &'static str,
    tables: Tables,
    forwarder: Forwarder,
    batch: Batch,
    output: Output,
    segments: Vec<SegmentId>,
    port: PortId,
}

impl Node {
    /// A node with a segment for each VNI in the capture, each with a port, and a peer.
    fn new(
        name: &'static str,
        local: IpAddr,
        peer: IpAddr,
        frames: &[Captured],
    ) -> Result<Self, Box<dyn Error>> {
        let mut vnis = BTreeSet::from([VNI]);
        for (_, datagram) in frames.iter().filter_map(|captured| captured_datagram(&captured.frame))
        {
            if let Ok(header) = vxlan::decode(datagram) {
                vnis.insert(header.vni().get());
            }
        }
        let mut tables = Tables::new(local, 1)?;
        let (mut segments, mut port) = (Vec::new(), None);
        for number in vnis {
            let mut segment = Segment::bridge(Vni::new(number)?);
            // Captures are made where super-frames are still whole.
            segment.mtu = Some(65_535);
            let id = segment.id();
            let ports = tables.apply(
                Duration::ZERO,
                [
                    Change::AddSegment(segment),
                    Change::AddPort {
                        segment: id,
                        name: format!("{name}-{number}"),
                        offload: false,
                        options: PortOptions::default(),
                    },
                    Change::AddFlood { segment: id, vtep: SocketAddr::new(peer, vxlan::PORT) },
                ],
            )?;
            if number == VNI {
                port = ports.first().copied();
            }
            segments.push(id);
        }
        Ok(Self {
            name,
            tables,
            forwarder: Forwarder::new(0),
            batch: Batch::new(1),
            output: Output::new(),
            segments,
            port: port.ok_or("no port was made")?,
        })
    }

    /// Makes the sender of a captured datagram a peer, as the control plane of its network had done.
    fn accept_from(&mut self, source: SocketAddr, now: Duration) -> Result<(), Box<dyn Error>> {
        let vtep = SocketAddr::new(source.ip(), vxlan::PORT);
        // What cannot be a peer of this node is counted as unknown.
        let IpAddr::V4(ip) = vtep.ip() else { return Ok(()) };
        if !ip.is_unspecified() && !ip.is_multicast() && vtep.ip() != SECOND {
            let peer = |segment: &SegmentId| Change::AddPeer { segment: *segment, vtep };
            self.tables.apply(now, self.segments.iter().map(peer).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Reads a frame from the port and returns the datagrams that come of it.
    fn read(&mut self, now: Duration, frame: &[u8]) -> Vec<Vec<u8>> {
        self.batch.clear();
        if self.batch.push(frame, VnetHeader::default()) {
            let Self { forwarder, tables, port, batch, output, .. } = self;
            forwarder.from_port(tables, now, *port, batch, output);
        }
        self.carry_out()
    }

    /// Receives a datagram from the underlay.
    fn receive(&mut self, now: Duration, source: SocketAddr, datagram: &[u8]) {
        self.batch.clear();
        if self.batch.push_datagram(datagram, source) {
            let Self { forwarder, tables, batch, output, .. } = self;
            forwarder.from_underlay(tables, now, vxlan::PORT, batch, output);
        }
        self.carry_out();
    }

    /// Does what a worker does with an output: sends, delivers, and reports what became of each copy.
    fn carry_out(&mut self) -> Vec<Vec<u8>> {
        let Self { name, forwarder, tables, batch, output, .. } = self;
        let mut datagrams = Vec::new();
        for transmit in output.transmits() {
            for parts in output.datagrams(batch, transmit) {
                let datagram = parts.concat();
                forwarder.sent(tables, transmit, 1, datagram.len() as u64);
                datagrams.push(datagram);
            }
        }
        for deliver in output.delivers() {
            let bytes = output.frame(batch, deliver).map(<[u8]>::len).sum();
            forwarder.delivered(tables, deliver, bytes);
        }
        for event in output.events() {
            println!("{name}: {event}");
        }
        output.clear();
        datagrams
    }

    fn report(&self, now: Duration) -> Result<(), Box<dyn Error>> {
        println!("\n── {} node ──", self.name);
        print!("{}", self.tables.stats());
        for segment in &self.segments {
            for entry in self.tables.fdb(*segment, now)? {
                let age = entry.age.unwrap_or_default().as_secs();
                println!("FDB {segment}: {} at {}, seen {age} s ago", entry.mac, entry.destination);
            }
        }
        Ok(())
    }
}

/// The VXLAN datagram in a captured frame, with its sender.
fn captured_datagram(frame: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let source: IpAddr = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => ip.header().source_addr().into(),
        Some(NetSlice::Ipv6(ip)) => ip.header().source_addr().into(),
        _ => return None,
    };
    let datagram = udp.payload();
    (udp.destination_port() == vxlan::PORT)
        .then_some((SocketAddr::new(source, udp.source_port()), datagram))
}

/// A frame with the time since the first one of its capture.
struct Captured {
    time: Duration,
    frame: Vec<u8>,
}

/// Classic pcap: link type of Ethernet (tcpdump.org, "Link-layer header types").
const ETHERNET: u32 = 1;

/// Reads a classic pcap file (draft-ietf-opsawg-pcap): a header of 24 bytes, then records of a 16-byte header and the
/// captured bytes each.
fn read_pcap(file: &[u8]) -> Result<Vec<Captured>, Box<dyn Error>> {
    let word_at = |at: usize| file.get(at..)?.first_chunk().copied();
    let magic = word_at(0).ok_or("empty or too short for a capture file")?;
    let (number, fraction): (fn([u8; 4]) -> u32, u32) = match u32::from_be_bytes(magic) {
        0xa1b2_c3d4 => (u32::from_be_bytes, 1_000),
        0xa1b2_3c4d => (u32::from_be_bytes, 1),
        0xd4c3_b2a1 => (u32::from_le_bytes, 1_000),
        0x4d3c_b2a1 => (u32::from_le_bytes, 1),
        0x0a0d_0d0a => {
            return Err("this is pcapng; convert it: editcap -F pcap IN.pcapng OUT.pcap".into());
        }
        _ => return Err("not a pcap file".into()),
    };
    let field = |at| word_at(at).map(number);
    match field(20).map(|word| word & 0xffff) {
        Some(ETHERNET) => {}
        Some(other) => return Err(format!("link type {other}; only Ethernet (1) is read").into()),
        None => return Err("cut short within its first header".into()),
    }
    let (mut frames, mut at, mut start) = (Vec::new(), 24, None);
    while at < file.len() {
        let record = || Some((field(at)?, field(at + 4)?, field(at + 8)? as usize));
        let (seconds, part, len) = record().ok_or("cut short within a record's header")?;
        let end = (at + 16).checked_add(len).ok_or("a record of impossible length")?;
        let frame = file.get(at + 16..end).ok_or("cut short within its last record")?;
        let nanos = part.saturating_mul(fraction).min(999_999_999);
        let stamp = Duration::new(seconds.into(), nanos);
        let time = stamp.saturating_sub(*start.get_or_insert(stamp));
        frames.push(Captured { time, frame: frame.to_vec() });
        at = end;
    }
    Ok(frames)
}

/// A capture of two hosts that find each other, a stray control frame, and a datagram of a third node.
fn made_up_capture() -> Result<Vec<u8>, Box<dyn Error>> {
    let (a, b, c) = ([2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xc]);
    let udp = |from, to, text: &[u8]| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(from, to)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(7, 7)
            .write(&mut frame, text)?;
        Ok::<_, Box<dyn Error>>(frame)
    };
    let hello = udp(c, [0xff; 6], b"hello from a third node")?;
    let mut foreign = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 1, 3], [2, 0, 0, 0, 1, 2])
        .ipv4([192, 0, 2, 3], [192, 0, 2, 2], 64)
        .udp(50_000, vxlan::PORT)
        .write(&mut foreign, &[&vxlan::encode(Vni::new(VNI)?)[..], &hello].concat())?;
    let frames = [
        udp(a, [0xff; 6], b"who is there?")?,
        udp(b, a, b"me")?,
        udp(a, b, b"both on one port: the node has nothing to do")?,
        udp(a, c, b"nobody knows where that is")?,
        udp(a, [1, 0x80, 0xc2, 0, 0, 0], b"ends at the first bridge")?,
        foreign,
    ];
    let mut file = 0xa1b2_c3d4_u32.to_be_bytes().to_vec();
    file.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for (second, frame) in (0_u32..).zip(frames) {
        let len = (frame.len() as u32).to_be_bytes();
        file.extend([second.to_be_bytes(), [0; 4], len, len].concat());
        file.extend(frame);
    }
    Ok(file)
}
