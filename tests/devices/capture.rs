//! Captures of real traffic: every frame with its fate, never at the traffic's expense.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use overplane::limits::MAX_CAPTURES;
use overplane::pcapng::Writer;
use overplane::{
    Capture, CaptureFilter, CaptureOptions, CapturePoint, Captured, Config, Control, Dataplane,
    Device, DeviceKind, Direction, DropReason, Error, Fate, Layer, Segment, Vni,
};
use overplane_lab::{Transfer, ping_ok, privileged, tcp_transfer};

use crate::hosts::{INNER_V4, Node, V4, eventually, inner_addresses, ip, pair, settle, underlay};
use crate::{routed, tshark};

/// An echo request and its answer of 56 bytes in Ethernet.
const ECHO: usize = 14 + 20 + 8 + 56;

fn open(control: &Control, filter: &str) -> Capture {
    control.capture(filter.parse().unwrap(), CaptureOptions::default()).unwrap()
}

/// All that has been captured by now.
fn drain(control: &Control, capture: &Capture) -> Vec<Captured> {
    settle(control);
    // A batch is counted just before it is captured.
    thread::sleep(Duration::from_millis(50));
    std::iter::from_fn(|| capture.try_next()).collect()
}

fn count(frames: &[Captured], fate: Fate) -> u64 {
    frames.iter().filter(|frame| frame.fate == fate).count() as u64
}

/// The counters, from the start on, are those of what was captured from the start on.
fn accounts_for_all(control: &Control, frames: &[Captured]) {
    let totals = control.stats().totals;
    let received = frames.iter().filter(|frame| frame.direction() == Direction::Received).count();
    assert_eq!(received as u64, totals.received);
    assert_eq!(count(frames, Fate::Forwarded), totals.forwarded);
    assert_eq!(count(frames, Fate::Flooded), totals.flooded);
    assert_eq!(count(frames, Fate::Answered), totals.answered);
    assert_eq!(count(frames, Fate::Sent), totals.sent);
    assert_eq!(count(frames, Fate::Delivered), totals.delivered - totals.coalesced);
    for reason in DropReason::ALL {
        assert_eq!(count(frames, Fate::Dropped(*reason)), totals.drops(*reason), "{reason}");
    }
}

/// A node whose captures are open before it does anything.
fn node(
    host: &overplane_lab::Namespace,
    (local, peer): (usize, usize),
    filters: &[&str],
) -> (Node, Vec<Capture>) {
    let dataplane = host.run(|| Dataplane::start(Config::new(ip(V4[local])))).unwrap();
    let captures = filters.iter().map(|filter| open(&dataplane.control(), filter)).collect();
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let node = Node::with(host, dataplane, false, segment, &inner_addresses(local));
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[peer]), 4789)).unwrap();
    (node, captures)
}

#[test]
fn every_frame_is_captured_with_its_fate() {
    if !privileged("every_frame_is_captured_with_its_fate") {
        return;
    }
    const FILTERS: [&str; 12] = [
        "",
        "net=10.8.0.2",
        "net=10.8.0.0/24,port=ovl0",
        "vtep=10.9.0.2",
        "vtep=10.9.0.3",
        "vni=42,fate=sent",
        "vni=43",
        "udp_port=4789,fate=delivered",
        "mac=ff:ff:ff:ff:ff:ff",
        "fate=dropped",
        "fate=invalid_source",
        "fate=forwarded,net=fd08::/64",
    ];
    let hosts = underlay();
    let (left, captures) = node(&hosts[0], (0, 1), &FILTERS);
    let (right, far) = node(&hosts[1], (1, 0), &[""]);
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    assert!(ping_ok(&hosts[1], ip("fd08::1"), 1000));
    // From a port: no station has this source. From the underlay: nobody has this VNI.
    let (device, port) = Device::channel(DeviceKind::Tap, 8).unwrap();
    left.control.attach(left.segment, device).unwrap();
    port.send(Bytes::from_static(&[0; 60])).unwrap();
    let other = left.control.add_segment(Segment::bridge(Vni::new(7).unwrap())).unwrap();
    left.control.add_flood(other, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let (device, stray) = Device::channel(DeviceKind::Tap, 8).unwrap();
    left.control.attach(other, device).unwrap();
    let mut frame = [0xff; 60];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    stray.send(Bytes::copy_from_slice(&frame)).unwrap();
    let drops = |node: &Node, reason| node.control.stats().totals.drops(reason);
    eventually(5, "both drops", || {
        drops(&left, DropReason::InvalidSource) > 0 && drops(&right, DropReason::UnknownVni) > 0
    });

    // No frame is to come between the two looks.
    hosts.iter().for_each(|host| host.down("ovl0").unwrap());
    let [all, there] = [(&left, &captures[0]), (&right, &far[0])].map(|(node, capture)| {
        let frames = drain(&node.control, capture);
        assert_eq!(capture.lost(), 0);
        accounts_for_all(&node.control, &frames);
        frames
    });
    let echo =
        |frame: &&Captured| frame.len == ECHO && frame.bytes[23] == 1 && frame.bytes[34] == 8;
    let ways = |frames: &[Captured]| -> Vec<(String, Fate)> {
        frames.iter().filter(echo).map(|frame| (frame.at.to_string(), frame.fate)).collect()
    };
    let at = |place: &str, fate| (place.to_owned(), fate);
    let sent = [at("ovl0", Fate::Forwarded), at("10.9.0.2", Fate::Sent)];
    let delivered = [at("10.9.0.1", Fate::Forwarded), at("ovl0", Fate::Delivered)];
    assert!(ways(&all).ends_with(&sent) && ways(&there).ends_with(&delivered));
    let bytes = |frames: &[Captured]| {
        let echoes = frames.iter().filter(echo).rev().take(2);
        echoes.map(|frame| frame.bytes.clone()).collect::<Vec<_>>()
    };
    let same = [bytes(&all), bytes(&there)].concat();
    assert!(same.windows(2).all(|pair| pair[0] == pair[1]), "it is the same frame all the way");
    assert!(all.iter().chain(&there).all(|frame| frame.len == frame.bytes.len()));
    let dropped = all.iter().find(|frame| frame.fate == Fate::Dropped(DropReason::InvalidSource));
    let dropped = dropped.unwrap();
    assert!(matches!(&dropped.at, CapturePoint::Port { name, .. } if &**name == "channel"));
    assert_eq!((dropped.segment, &dropped.bytes[..]), (Some(left.segment), &[0; 60][..]));
    let dropped = there.iter().find(|frame| frame.fate == Fate::Dropped(DropReason::UnknownVni));
    let dropped = dropped.unwrap();
    assert_eq!((dropped.segment, dropped.vni), (None, Some(Vni::new(7).unwrap())));
    assert_eq!((dropped.at.to_string().as_str(), &dropped.bytes[..]), ("10.9.0.1", &frame[..]));

    // What the workers let through is what the filter says of it.
    for (capture, text) in captures.iter().zip(FILTERS).skip(1) {
        let filter: CaptureFilter = text.parse().unwrap();
        let expected: Vec<&Captured> = all.iter().filter(|frame| filter.matches(frame)).collect();
        let got = drain(&left.control, capture);
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(got.is_empty(), ["vtep=10.9.0.3", "vni=43"].contains(&text), "{text}");
    }
    checked_by_tshark(&captures[0], &all);
    drop((captures, far));
    left.finish();
    right.finish();
}

/// Writes frames to a file, and compares them with what tshark reads.
fn checked_by_tshark(capture: &Capture, frames: &[Captured]) {
    let file = std::env::temp_dir().join(format!("overplane-{}.pcapng", std::process::id()));
    let out = fs::File::create(&file).unwrap();
    let mut writer = Writer::new(out, capture.epoch(), "tests").unwrap();
    frames.iter().for_each(|frame| writer.write(frame, 3).unwrap());
    writer.finish(4).unwrap();
    let fields = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.interface_queue",
        "frame.cap_len",
        "frame.drop_count",
        "frame.comment",
        "eth.src",
    ];
    if let Some(lines) = tshark::fields(&file, &fields) {
        assert_eq!(lines.len(), frames.len());
        for (number, (line, frame)) in lines.iter().zip(frames).enumerate() {
            let name = match &frame.at {
                CapturePoint::Port { name, .. } => name.to_string(),
                CapturePoint::Vtep(address) => format!("vtep {address}"),
            };
            let direction = if frame.direction() == Direction::Received { 1 } else { 2 };
            let lost = if number == 0 { "3" } else { "" };
            let [a, b, c, d, e, f] = frame.bytes[6..12] else { unreachable!() };
            let expected = [
                name,
                format!("0x{direction:08x}"),
                frame.worker.to_string(),
                frame.bytes.len().to_string(),
                lost.to_owned(),
            ];
            assert_eq!(line[..5], expected, "frame {number}");
            assert!(line[5].starts_with(&frame.fate.to_string()), "{line:?}");
            assert_eq!(line[6], format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
        }
        let dropped: Vec<_> =
            lines.iter().filter(|line| line[5].contains("invalid_source")).collect();
        assert_eq!(dropped.len(), 1);
        assert!(dropped[0][5].contains(DropReason::InvalidSource.meaning()), "{dropped:?}");
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn copies_that_are_not_carried_out_are_captured_with_the_reason() {
    if !privileged("copies_that_are_not_carried_out_are_captured_with_the_reason") {
        return;
    }
    let hosts = underlay();
    let (left, captures) = node(&hosts[0], (0, 1), &["fate=dropped", ""]);
    // Nothing leads there.
    left.control.add_flood(left.segment, SocketAddr::new(ip("203.0.113.1"), 4789)).unwrap();
    let (device, port) = Device::channel(DeviceKind::Tap, 8).unwrap();
    left.control.attach(left.segment, device).unwrap();
    hosts[0].down("ovl0").unwrap();
    let _ = drain(&left.control, &captures[0]);
    let mut frame = [0xff; 80];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    port.send(Bytes::copy_from_slice(&frame)).unwrap();
    eventually(5, "the drops", || {
        let totals = left.control.stats().totals;
        totals.drops(DropReason::PortDown) > 0 && totals.drops(DropReason::UnderlayUnreachable) > 0
    });
    let drops = drain(&left.control, &captures[0]);
    let of_frame = drops.iter().filter(|drop| drop.bytes[..] == frame);
    let mut copies: Vec<_> =
        of_frame.map(|copy| (copy.at.to_string(), copy.fate, copy.segment)).collect();
    copies.sort_by_key(|(at, ..)| at.clone());
    let segment = Some(left.segment);
    let expected = [
        ("203.0.113.1".to_owned(), Fate::Dropped(DropReason::UnderlayUnreachable), segment),
        ("ovl0".to_owned(), Fate::Dropped(DropReason::PortDown), segment),
    ];
    assert_eq!(copies, expected);
    accounts_for_all(&left.control, &drain(&left.control, &captures[1]));
    drop(captures);
    left.finish();
}

/// Packets without Ethernet, whose TTL is one less when they leave than when they came.
#[test]
fn packets_of_routed_segments_are_captured_as_they_were_received_and_as_they_left() {
    let name = "packets_of_routed_segments_are_captured_as_they_were_received_and_as_they_left";
    if !privileged(name) {
        return;
    }
    const FILTERS: [&str; 4] = [
        "net=10.8.0.2,udp_port=8285",
        "net=10.8.0.2,port=ovl0",
        "net=10.8.0.2,vtep=10.9.0.2",
        "mac=ff:ff:ff:ff:ff:ff",
    ];
    let hosts = underlay();
    let [left, right] = [0, 1].map(|this| routed::end(&hosts[this], this, V4));
    let captures = FILTERS.map(|filter| open(&left.control, filter));
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    let [all, port, vtep, none] = captures.each_ref().map(|capture| drain(&left.control, capture));
    let fates = |frames: &[Captured]| -> Vec<(String, Fate, u8)> {
        let ttl = |frame: &Captured| (frame.at.to_string(), frame.fate, frame.bytes[8]);
        frames.iter().map(ttl).collect()
    };
    let at = |place: &str, fate, ttl| (place.to_owned(), fate, ttl);
    let [there, back] = [
        [at("ovl0", Fate::Forwarded, 64), at("10.9.0.2", Fate::Sent, 63)],
        [at("10.9.0.2", Fate::Forwarded, 63), at("ovl0", Fate::Delivered, 63)],
    ];
    assert!(fates(&all).starts_with(&[there.clone(), back.clone()].concat()), "{all:?}");
    assert!(fates(&port).starts_with(&[there[0].clone(), back[1].clone()]), "{port:?}");
    assert!(fates(&vtep).starts_with(&[there[1].clone(), back[0].clone()]), "{vtep:?}");
    assert!(none.is_empty(), "{none:?}");
    let of_segment = |frame: &Captured| {
        (frame.segment, frame.vni, frame.layer) == (Some(left.segment), None, Layer::Ip)
    };
    assert!(all.iter().all(of_segment), "{all:?}");
    let file = std::env::temp_dir().join(format!("overplane-{}-ip.pcapng", std::process::id()));
    let out = fs::File::create(&file).unwrap();
    let mut writer = Writer::new(out, captures[0].epoch(), "tests").unwrap();
    all.iter().for_each(|frame| writer.write(frame, 0).unwrap());
    writer.finish(0).unwrap();
    if let Some(lines) = tshark::fields(&file, &["ip.dst", "ip.ttl", "icmp.type"]) {
        assert_eq!(lines[..2], [["10.8.0.2", "64", "8"], ["10.8.0.2", "63", "8"]]);
    }
    fs::remove_file(&file).unwrap();
    drop(captures);
    left.finish();
    right.finish();
}

/// Super-frames, trains and what is joined: all of it adds up, and arrives.
#[test]
fn a_capture_of_a_transfer_holds_every_frame_of_it() {
    if !privileged("a_capture_of_a_transfer_holds_every_frame_of_it") {
        return;
    }
    let hosts = underlay();
    let dataplane = hosts[0].run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let mut options = CaptureOptions::default();
    (options.snap, options.frames) = (96, 1 << 18);
    let capture = dataplane.control().capture(CaptureFilter::default(), options).unwrap();
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let left = Node::with(&hosts[0], dataplane, false, segment, &inner_addresses(0));
    left.control.add_flood(left.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let right = Node::vxlan(&hosts[1], V4[1], V4[0], &inner_addresses(1));
    const BYTES: u64 = 8 << 20;
    for (from, to) in [(0, 1), (1, 0)] {
        let server = SocketAddr::new(ip(INNER_V4[to]), 0);
        let report = tcp_transfer(&hosts[from], &hosts[to], server, Transfer::of_bytes(BYTES));
        assert_eq!(report.unwrap().bytes, BYTES);
    }
    hosts.iter().for_each(|host| host.down("ovl0").unwrap());
    let frames = drain(&left.control, &capture);
    assert_eq!(capture.lost(), 0);
    accounts_for_all(&left.control, &frames);
    let mut bytes: HashMap<(Direction, bool), u64> = HashMap::new();
    for frame in &frames {
        assert!(frame.bytes.len() == frame.len.min(96), "{frame:?}");
        let of_port = matches!(frame.at, CapturePoint::Port { .. });
        *bytes.entry((frame.direction(), of_port)).or_default() += frame.len as u64;
    }
    assert!(bytes.len() == 4 && bytes.values().all(|bytes| *bytes > BYTES), "{bytes:?}");
    left.finish();
    right.finish();
}

#[test]
fn a_capture_that_nobody_reads_loses_frames_and_traffic_none() {
    if !privileged("a_capture_that_nobody_reads_loses_frames_and_traffic_none") {
        return;
    }
    let (hosts, left, right) = pair();
    let mut options = CaptureOptions::default();
    options.frames = 16;
    let unread = left.control.capture(CaptureFilter::default(), options).unwrap();
    let (options, bytes) = (CaptureOptions::default(), 32 << 20);
    let full = left.control.capture(CaptureFilter::default(), options).unwrap();
    let server = SocketAddr::new(ip(INNER_V4[1]), 0);
    let report = tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(bytes)).unwrap();
    assert_eq!(report.bytes, bytes);
    assert!(unread.lost() > 0 && full.lost() > 0);
    let kept = drain(&left.control, &unread).len();
    assert_eq!(kept, 16);
    let held: usize = drain(&left.control, &full).iter().map(|frame| frame.bytes.len()).sum();
    assert!(held <= CaptureOptions::default().bytes, "{held} bytes");
    // What was read has made room.
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    assert!(!drain(&left.control, &unread).is_empty());
    drop((unread, full));
    left.finish();
    right.finish();
}

#[test]
fn captures_come_and_go_under_traffic() {
    if !privileged("captures_come_and_go_under_traffic") {
        return;
    }
    let (hosts, left, right) = pair();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let control = &left.control;
        let (done, hosts) = (&done, &hosts);
        let opener = scope.spawn(move || {
            let (mut rounds, mut frames) = (0, 0);
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                let filters = ["", "vni=43", "fate=sent", "port=ovl0"];
                let mut captures: Vec<_> =
                    (0..MAX_CAPTURES).map(|n| open(control, filters[n % filters.len()])).collect();
                let filter = CaptureFilter::default();
                let refused = control.capture(filter, CaptureOptions::default()).unwrap_err();
                assert!(matches!(refused, Error::Limit { limit: MAX_CAPTURES, .. }), "{refused}");
                frames += captures[0].next_within(Duration::from_millis(20)).map_or(0, |_| 1);
                assert!(captures[1].try_next().is_none());
                captures.truncate(rounds % MAX_CAPTURES);
                frames += captures.iter().filter_map(Capture::try_next).count();
                rounds += 1;
            }
            (rounds, frames)
        });
        let server = SocketAddr::new(ip(INNER_V4[1]), 0);
        let transfer = Transfer::of_bytes(64 << 20);
        let report = tcp_transfer(&hosts[0], &hosts[1], server, transfer);
        done.store(true, Ordering::Relaxed);
        assert_eq!(report.unwrap().bytes, 64 << 20);
        let (rounds, frames) = opener.join().unwrap();
        assert!(rounds > 1 && frames > 0, "{rounds} rounds, {frames} frames");
    });
    let late = open(&left.control, "net=10.8.0.2");
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    assert!(late.next_within(Duration::from_secs(5)).is_some(), "all places are free again");
    drop(late);
    left.finish();
    right.finish();
}
