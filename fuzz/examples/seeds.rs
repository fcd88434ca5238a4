//! Writes the seeds of the corpora: input that looks like real traffic, for the fuzzer to spoil.
//!
//! `cargo run --example seeds`, in this directory; then minimise with `cargo +nightly fuzz cmin TARGET`.

use std::fs;
use std::path::Path;

use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder, VlanId};
use overplane::wire::vnet::{GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM};
use overplane::wire::{FrameInfo, VnetHeader, Vni, checksum, l4, vxlan};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const V4: [[u8; 4]; 2] = [[10, 7, 1, 1], [10, 7, 3, 1]];
const V6: [[u8; 16]; 2] = [
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfd, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];

fn main() -> std::io::Result<()> {
    let frames = frames();
    for (n, (name, frame)) in frames.iter().enumerate() {
        save("frame", name, frame)?;
        save("frame", &format!("{name}-packet"), &frame[14..])?;
        save("frame", &format!("{name}-vnet"), &[&vnet_of(frame).to_bytes()[..], frame].concat())?;
        for size in [1, 100] {
            let vnet = VnetHeader { gso_size: size, ..vnet_of(frame) };
            let head = [&[0, 8], &vnet.to_bytes()[..]].concat();
            save("gso", &format!("{name}-{size}"), &[head, padded(frame, 300)].concat())?;
        }
        let bare = [&[1, 0], &vnet_of(frame).to_bytes()[..], &padded(&frame[14..], 0)].concat();
        save("gso", &format!("{name}-packet"), &bare)?;
        let steps = steps(n as u8, frame);
        save("forward", name, &[vec![n as u8 * 2], steps.clone()].concat())?;
        save("changes", name, &[vec![n as u8 * 2], changes(n as u8), steps].concat())?;
    }
    save("forward", "probes", &probes(3, 0x43))?;
    save("changes", "probes", &probes(2, 0x41))?;
    for (n, bytes) in routes().iter().enumerate() {
        save("fib", &format!("routes-{n}"), bytes)?;
    }
    for (n, bytes) in trains().iter().enumerate() {
        save("coalesce", &format!("trains-{n}"), bytes)?;
    }
    Ok(())
}

/// A second in which probes are sent, then probes of others and answers, some of them changed, and another second.
fn probes(wait: u8, probe: u8) -> Vec<u8> {
    let request = [0x24, 3, 232, 1];
    let (answer, forged) = ([0x01], [0x13, 28, 1]);
    let batch = [&[probe, 3][..], &request, &answer, &forged, &answer].concat();
    [&[8, wait, 1][..], &batch, &[wait, 1], &batch].concat()
}

/// Trains of one kind of frame, then of two flows that take turns; by bridge segment and by routed one.
fn trains() -> Vec<Vec<u8>> {
    let quirks = (0..32_u8).flat_map(|quirk| {
        let quirky = [0x34, 8 + quirk % 4, 0x20, quirk, 0x34, 8 + quirk % 4, 0x20, quirk];
        [0_u8, 3].map(|segment| [&[2, segment][..], &quirky].concat())
    });
    // Every byte of the headers changed, behind right checksums.
    let changed = (0..20_u8).map(|at| {
        let train = |flow: u8| [0x34, flow, 0x40, 0x80, 14 + at * 2, 1, 0x34, flow, 0];
        [[2, 0].to_vec(), (0..4).flat_map(train).collect()].concat()
    });
    let one_by_one = [0, 1].into_iter().flat_map(|from| {
        let datagram = move |n: u8| [from, n % 3, n % 2 * 2];
        let frames: Vec<u8> = (0..12).flat_map(datagram).collect();
        [0_u8, 3]
            .map(move |segment| [&[2, segment][..], &frames, &[0xff, segment], &frames].concat())
    });
    quirks.chain(changed).chain(one_by_one).collect()
}

/// Prefixes of one address at all lengths, longest first or last, then each removed; with a publication in between.
fn routes() -> Vec<Vec<u8>> {
    let tables = [0_u8, 1].into_iter().flat_map(|family| [1_u8, 3, 7].map(|step| (family, step)));
    let table = |(family, step): (u8, u8)| {
        let (bits, address) = if family == 0 { (32, &[10; 4][..]) } else { (128, &[0x20; 16][..]) };
        let route = |change: u8, len: u8| {
            let next_hop: &[u8] = if change == 0 { &[] } else { &[len % 8] };
            [&[change, 128 + family, len][..], address, next_hop].concat()
        };
        let lens = || (0..=bits).step_by(step.into());
        let added: Vec<u8> = lens().flat_map(|len| route(step, len)).collect();
        let removed: Vec<u8> = lens().rev().step_by(2).flat_map(|len| route(0, len)).collect();
        [&added[..], &[0xff], &removed, &[0xff]].concat()
    };
    tables.map(table).collect()
}

fn save(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), bytes)
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let ethernet = || PacketBuilder::ethernet2(A, B);
    let mut frames = Vec::new();
    macro_rules! frame {
        ($name:literal, $builder:expr, $payload:expr) => {{
            let mut frame = Vec::new();
            $builder.write(&mut frame, $payload).expect("a frame");
            frames.push(($name, frame));
        }};
    }
    frame!("udp4", ethernet().ipv4(V4[0], V4[1], 64).udp(1, 2), b"payload");
    frame!("udp6", ethernet().ipv6(V6[0], V6[1], 64).udp(1, 2), b"payload");
    frame!("tcp4", ethernet().ipv4(V4[0], V4[1], 1).tcp(1, 2, 3, 4).ack(5).psh(), b"payload");
    frame!("tcp6", ethernet().ipv6(V6[0], V6[1], 64).tcp(1, 2, 3, 4).ack(5).fin(), b"payload");
    let vlan = ethernet().single_vlan(VlanId::try_new(7).expect("small"));
    frame!("vlan", vlan.ipv4(V4[0], V4[1], 64).tcp(1, 2, 3, 4), b"payload");
    let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 });
    frame!("ping", ethernet().ipv4(V4[0], [203, 0, 113, 1], 64).icmpv4(echo), b"payload");
    let large = vec![9; 1500];
    frame!("large", ethernet().ipv4(V4[0], V4[1], 64).tcp(1, 2, 3, 4), &large);
    let mut fragment = frames[0].1.clone();
    fragment[20] = 0x20;
    frames.push(("fragment", fragment));
    let mut broadcast = frames[0].1.clone();
    broadcast[..6].fill(0xff);
    frames.push(("broadcast", broadcast));
    let arp: [&[u8]; 7] = [
        &[0xff; 6],
        &A,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &A,
        &[10, 0, 0, 1],
        &[0; 6],
        &[10, 0, 0, 9],
    ];
    frames.push(("arp", arp.concat()));
    let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let option = [&target[..], &[1, 1], &A].concat();
    let group = PacketBuilder::ethernet2(A, [0x33, 0x33, 0xff, 0, 0, 9]);
    let solicitation = group.ipv6(V6[0], V6[1], 255).icmpv6_raw(135, 0, [0; 4]);
    frame!("solicitation", solicitation, &option);
    let record = |kind: u8| [4, 0, 0, 0, 239, 0, 0, kind];
    let report = [&[0x22, 0, 0, 0, 0, 0, 0, 2][..], &record(3), &record(4)].concat();
    frames.push(("igmp-report", igmp([224, 0, 0, 22], report)));
    frames
        .push(("igmp-query", igmp([224, 0, 0, 1], vec![0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])));
    frames.push(("igmp-about", igmp([239, 0, 0, 3], vec![0x11, 10, 0, 0, 239, 0, 0, 3])));
    frames.push(("igmp-leave", igmp([224, 0, 0, 2], vec![0x17, 0, 0, 0, 239, 0, 0, 3])));
    let group = [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let report = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group].concat();
    frames.push(("mld-report", mld(report)));
    frames.push(("mld-query", mld([&[130, 0, 0, 0, 0, 10, 0, 0][..], &[0; 16]].concat())));
    let multicast = PacketBuilder::ethernet2(A, [1, 0, 0x5e, 0, 0, 3]);
    frame!("multicast", multicast.ipv4(V4[0], [239, 0, 0, 3], 64).udp(1, 2), b"payload");
    frames
}

/// An IGMP message with its checksums.
fn igmp(to: [u8; 4], mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum::finish(checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (24 + message.len()) as u16;
    let mut header =
        [&[0x46, 0xc0][..], &total.to_be_bytes(), &[0, 0, 0x40, 0, 1, 2, 0, 0]].concat();
    header.extend([V4[0], to, [0x94, 4, 0, 0]].concat());
    let sum = checksum::finish(checksum::sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let link = [&[1, 0, 0x5e, to[1] & 0x7f, to[2], to[3]], &A[..], &[8, 0]].concat();
    [link, header, message].concat()
}

/// An MLD message with its checksum and a router alert.
fn mld(mut message: Vec<u8>) -> Vec<u8> {
    let own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
    let pseudo = checksum::pseudo_v6(own, to, 58, message.len() as u32);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let len = (message.len() as u16 + 8).to_be_bytes();
    let parts: [&[u8]; 9] = [
        &[0x33, 0x33, 0, 0, 0, 0x16],
        &A,
        &[0x86, 0xdd, 0x60, 0, 0, 0],
        &len,
        &[0, 1],
        &own,
        &to,
        &[58, 0, 5, 2, 0, 0, 1, 0],
        &message,
    ];
    parts.concat()
}

fn vnet_of(frame: &[u8]) -> VnetHeader {
    let info = FrameInfo::parse(frame).expect("a frame");
    let Some(offset) = l4::checksum_offset(info.l4) else { return VnetHeader::default() };
    VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: if offset == 16 { GSO_TCPV4 } else { GSO_UDP_L4 },
        hdr_len: info.payload_offset,
        gso_size: 4,
        csum_start: info.l4_offset,
        csum_offset: offset,
    }
}

fn padded(bytes: &[u8], zeros: u16) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], &zeros.to_be_bytes(), bytes].concat()
}

/// The frame from a port, plain and as a super-frame; from the underlay, in VXLAN and bare; and a while.
fn steps(n: u8, frame: &[u8]) -> Vec<u8> {
    let vnet = vnet_of(frame).to_bytes();
    let datagram =
        [&vxlan::encode(Vni::new(1 + u32::from(n) % 2).expect("small"))[..], frame].concat();
    [
        &[0, n % 4, 1, 0][..],
        &padded(frame, 0),
        &[1],
        &vnet,
        &padded(frame, 0),
        &[0, 4, 0, 0],
        &padded(&frame[14..], 0),
        &[2, 0, 1, 2],
        &padded(&datagram, 0),
        &[5],
        &padded(&datagram, 0),
        &[2, 1, 0, 3],
        &padded(&frame[14..], 0),
        &[3, 31],
    ]
    .concat()
}

fn changes(n: u8) -> Vec<u8> {
    vec![3, 3, 2, 4, 4, 2, 6, 3, 2, 8, 2, n, 0, n, 0, 11, 0, n % 4, 24, 0, n]
}
