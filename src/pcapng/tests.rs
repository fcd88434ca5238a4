//! What is written, read by a reader that takes nothing that the format does not allow.

use super::*;
use crate::drop_reason::DropReason;
use crate::segment::PortId;

const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// A block: its kind, and what is in it.
type Block = (u32, Vec<u8>);

fn u16_le(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(bytes[..2].try_into().unwrap())
}

fn u32_le(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn blocks(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let len = u32_le(&file[4..]) as usize;
        assert!(len.is_multiple_of(4) && len >= 12, "{len}");
        assert_eq!(u32_le(&file[len - 4..]) as usize, len, "the length is repeated");
        blocks.push((u32_le(file), file[8..len - 4].to_vec()));
        file = &file[len..];
    }
    blocks
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    loop {
        let (code, len) = (u16_le(bytes), usize::from(u16_le(&bytes[2..])));
        let (value, rest) = bytes[4..].split_at(len.next_multiple_of(4));
        assert!(value[len..].iter().all(|byte| *byte == 0), "padding");
        if code == 0 {
            assert_eq!((len, rest.len()), (0, 0), "the end is the end");
            return options;
        }
        options.push((code, value[..len].to_vec()));
        bytes = rest;
    }
}

fn text(options: &[(u16, Vec<u8>)], code: u16) -> String {
    let (_, value) = options.iter().find(|(other, _)| *other == code).unwrap();
    String::from_utf8(value.clone()).unwrap()
}

fn frame(at: CapturePoint, layer: Layer, fate: Fate, bytes: &[u8]) -> Captured {
    Captured {
        time: Duration::from_nanos(1_500_000_001),
        worker: 3,
        at,
        segment: Some(SegmentId { udp_port: 4789, vni: Some(Vni::new(42).unwrap()) }),
        vni: None,
        fate,
        layer,
        len: bytes.len() + 5,
        bytes: bytes.into(),
    }
}

fn port(name: &str) -> CapturePoint {
    CapturePoint::Port { id: PortId(1), name: name.into() }
}

fn written(frames: &[(Captured, u64)], lost: u64) -> Vec<Block> {
    let mut writer = Writer::new(Vec::new(), EPOCH, "tests").unwrap();
    frames.iter().for_each(|(frame, lost)| writer.write(frame, *lost).unwrap());
    blocks(&writer.finish(lost).unwrap())
}

#[test]
fn a_section_says_who_wrote_it_and_in_which_order_bytes_are() {
    let blocks = written(&[], 0);
    let [(kind, section)] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!(*kind, 0x0a0d_0d0a);
    assert_eq!(
        section[..16],
        [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
    );
    assert_eq!(text(&options(&section[16..]), 4), "tests");
}

#[test]
fn each_frame_is_written_with_place_direction_time_and_fate() {
    let dropped = Fate::Dropped(DropReason::NoRoute);
    let frames = [
        (frame(port("ovl0"), Layer::Ethernet, dropped, &[1; 61]), 0),
        (frame(CapturePoint::Vtep([10, 9, 0, 2].into()), Layer::Ip, Fate::Sent, &[2; 60]), 7),
        (frame(port("ovl0"), Layer::Ethernet, Fate::Delivered, &[]), 7),
    ];
    let blocks = written(&frames, 9);
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET, STATISTICS, STATISTICS]
    );
    for (block, link, name) in [(1, 1, "ovl0"), (3, 101, "vtep 10.9.0.2")] {
        let body = &blocks[block].1;
        assert_eq!((u16_le(body), &body[2..8]), (link, &[0; 6][..]));
        let options = options(&body[8..]);
        assert_eq!(text(&options, 2), name);
        assert!(text(&options, 3).contains("VXLAN 42 on UDP port 4789"));
        assert!(options.contains(&(9, vec![9])), "nanoseconds");
    }
    let packets = [2, 4, 5].map(|block| &blocks[block].1);
    let expected = [
        (0, 1, None, "dropped: no_route: No route of the segment"),
        (1, 2, Some(7_u64), "sent"),
        (0, 2, None, "delivered"),
    ];
    for ((packet, (frame, _)), expected) in packets.into_iter().zip(&frames).zip(expected) {
        let (interface, direction, lost, comment) = expected;
        assert_eq!(u32_le(packet), interface);
        let time = u64::from(u32_le(&packet[4..])) << 32 | u64::from(u32_le(&packet[8..]));
        assert_eq!(time, 1_700_000_001_500_000_001);
        let (kept, len) = (u32_le(&packet[12..]) as usize, u32_le(&packet[16..]) as usize);
        assert_eq!((kept, len), (frame.bytes.len(), frame.len));
        assert_eq!(packet[20..20 + kept], frame.bytes[..]);
        let options = options(&packet[20 + kept.next_multiple_of(4)..]);
        assert!(options.contains(&(2, u32::to_le_bytes(direction).into())), "{options:?}");
        assert!(options.contains(&(6, 3_u32.to_le_bytes().into())), "{options:?}");
        let dropcount = options.iter().find(|(code, _)| *code == 4);
        assert_eq!(
            dropcount.map(|(_, value)| value.clone()),
            lost.map(|lost| lost.to_le_bytes().into())
        );
        assert!(text(&options, 1).starts_with(comment), "{options:?}");
    }
    for (block, (interface, written, lost)) in [(6, (0, 2_u64, 9_u64)), (7, (1, 1, 0))] {
        let body = &blocks[block].1;
        assert_eq!(u32_le(body), interface);
        let expected = [(8, written.to_le_bytes().to_vec()), (5, lost.to_le_bytes().to_vec())];
        assert_eq!(options(&body[12..]), expected);
    }
}

#[test]
fn a_datagram_that_is_no_vxlan_is_shown_as_one() {
    let stray = Captured {
        segment: None,
        ..frame(
            CapturePoint::Vtep([10, 9, 0, 2].into()),
            Layer::Datagram,
            Fate::Dropped(DropReason::NoVniFlag),
            b"what",
        )
    };
    let blocks = written(&[(stray, 0)], 0);
    assert_eq!(u16_le(&blocks[1].1), 252);
    let packet = &blocks[2].1;
    assert_eq!((u32_le(&packet[12..]), u32_le(&packet[16..])), (16 + 4, 16 + 9));
    assert_eq!(&packet[20..40], b"\0\x0c\0\x08vxlan\0\0\0\0\0\0\0what");
}

#[test]
fn places_beyond_the_bound_share_an_interface() {
    let fate = Fate::Forwarded;
    let at = |n: usize| frame(port(&format!("p{n}")), Layer::Ethernet, fate, &[]);
    let frames: Vec<_> = (0..MAX_INTERFACES + 3).map(|n| (at(n), 0)).collect();
    let blocks = written(&frames, 0);
    let interfaces: Vec<_> = blocks.iter().filter(|(kind, _)| *kind == INTERFACE).collect();
    assert_eq!(interfaces.len(), MAX_INTERFACES + 1);
    assert_eq!(text(&options(&interfaces[MAX_INTERFACES].1[8..]), 2), "others");
    let last = blocks.iter().rfind(|(kind, _)| *kind == PACKET).unwrap();
    assert_eq!(u32_le(&last.1) as usize, MAX_INTERFACES);
}

/// A name is whatever its owner chooses.
#[test]
fn long_names_are_cut_between_characters() {
    let name = format!("x{}", "ü".repeat(MAX_TEXT));
    let blocks = written(&[(frame(port(&name), Layer::Ethernet, Fate::Forwarded, &[]), 0)], 0);
    assert_eq!(text(&options(&blocks[1].1[8..]), 2).len(), MAX_TEXT - 1);
}

/// A disk with room for so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_is_full() {
    let captured = frame(port("ovl0"), Layer::Ethernet, Fate::Forwarded, &[1; 60]);
    let fits = |room| -> io::Result<()> {
        let mut writer = Writer::new(Disk(room), EPOCH, "tests")?;
        writer.write(&captured, 0)?;
        writer.finish(0).map(drop)
    };
    let needed = (0..1000).find(|room| fits(*room).is_ok()).unwrap();
    assert!(needed > 200 && fits(needed - 1).is_err());
}
