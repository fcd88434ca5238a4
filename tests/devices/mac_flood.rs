//! A flood of forged source addresses: it costs the flooder's own entries, no memory, and nobody else's.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::wire::vxlan;
use overplane::{Config, Control, Dataplane, Destination, MacAddr, Segment, SegmentId, Vni};
use overplane_lab::{Namespace, Sniffer, TrainSender, privileged};

use crate::hosts::{V4, eventually, ip, quiet_host, settle, underlay};
use crate::process::resident;

const VNI: u32 = 9;
/// Stations at each place that are there all the time, each heard of once a second.
const STATIONS: u64 = 50;
/// An EtherType for experiments (IEEE 802, local experimental 1).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const FRAME: usize = 60;
const DATAGRAM: usize = vxlan::HEADER_LEN + FRAME;

/// A place with stations of its own, told apart by the second byte of their addresses.
#[derive(Clone, Copy, PartialEq)]
struct Place(u64);

const PORT: Place = Place(0x11);
const BYSTANDER: Place = Place(0x22);
const FLOODED_PORT: Place = Place(0x33);
const VTEP: Place = Place(0x44);
const FLOODING_VTEP: Place = Place(0x55);

impl Place {
    fn station(self, number: u64) -> MacAddr {
        MacAddr::from_u64(0x0200_0000_0000 | self.0 << 32 | number)
    }
}

fn put(frame: &mut [u8], to: MacAddr, from: MacAddr) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&EXPERIMENT);
}

fn frame(to: MacAddr, from: MacAddr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    put(&mut frame, to, from);
    frame
}

/// The VXLAN datagrams of a train; each holds a frame of `FRAME` bytes.
fn train(frames: impl Iterator<Item = [u8; FRAME]>) -> Vec<u8> {
    let header = vxlan::encode(Vni::new(VNI).unwrap());
    frames.flat_map(|frame| [&header[..], &frame].concat()).collect()
}

struct Scene {
    dataplane: Dataplane,
    control: Control,
    segment: SegmentId,
    /// What is behind the three ports.
    port: Sniffer,
    bystander: Sniffer,
    flooded: Sniffer,
    ports: [Destination; 3],
    /// From the two VTEPs.
    vtep: TrainSender,
    flooding: TrainSender,
    _hosts: [Namespace; 5],
}

impl Scene {
    fn new() -> Self {
        let [node, far] = underlay();
        far.add_address("eth0", "10.9.0.3/24").unwrap();
        let dataplane = node.run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
        let control = dataplane.control();
        let mut segment = Segment::bridge(Vni::new(VNI).unwrap());
        // Short, so that sweeping is part of it.
        segment.ageing = Some(Duration::from_secs(10));
        let segment = control.add_segment(segment).unwrap();
        for vtep in [V4[1], "10.9.0.3"] {
            control.add_peer(segment, SocketAddr::new(ip(vtep), vxlan::PORT)).unwrap();
        }
        let hosts = [0, 1, 2].map(|_| quiet_host(&control, segment));
        let [a, b, c] = &hosts;
        let to = SocketAddr::new(ip(V4[0]), vxlan::PORT);
        let from = |address| SocketAddr::new(ip(address), 0);
        let sender = |address| TrainSender::open(&far, from(address), to, DATAGRAM as u16).unwrap();
        let attached = control.ports();
        Self {
            port: Sniffer::open(a, "eth0").unwrap(),
            bystander: Sniffer::incoming(b, "eth0").unwrap(),
            flooded: Sniffer::open(c, "eth0").unwrap(),
            ports: [0, 1, 2].map(|n: usize| attached[n].id.into()),
            vtep: sender("10.9.0.3"),
            flooding: sender(V4[1]),
            dataplane,
            control,
            segment,
            _hosts: {
                let [a, b, c] = hosts;
                [a, b, c, node, far]
            },
        }
    }

    /// Lets every station be heard of: those behind the port say something to the VTEP's, and the other way round.
    fn everybody_speaks(&self) {
        let pairs = (0..STATIONS).map(|n| (PORT.station(n), VTEP.station(n)));
        for (here, there) in pairs.clone() {
            self.port.inject(&frame(there, here)).unwrap();
        }
        self.vtep.send(&train(pairs.map(|(here, there)| frame(here, there)))).unwrap();
    }

    /// The stations that the table has, each at its own place.
    fn known(&self) -> HashSet<MacAddr> {
        let vtep = Destination::Vtep(SocketAddr::new(ip("10.9.0.3"), vxlan::PORT));
        let entries = self.control.fdb(self.segment).unwrap();
        let here = |entry: &&overplane::FdbEntry| match entry.mac.to_u64() >> 32 & 0xff {
            n if n == PORT.0 => entry.destination == self.ports[0],
            n if n == VTEP.0 => entry.destination == vtep,
            n if n == BYSTANDER.0 => entry.destination == self.ports[1],
            _ => false,
        };
        entries.iter().filter(here).map(|entry| entry.mac).collect()
    }
}

/// Sends frames from `sources` addresses behind a VTEP, each from another one, within `time`.
fn flood_from_vtep(
    scene: &Scene,
    sources: u64,
    time: Duration,
    sent: &AtomicU64,
    over: &AtomicBool,
) {
    let start = Instant::now();
    let mut trains = train((0..TrainSender::MAX).map(|_| {
        // To one that is behind the sender itself: learned from, and dropped.
        frame(FLOODING_VTEP.station(0), FLOODING_VTEP.station(0))
    }));
    let mut next = 1;
    while next < sources && !over.load(Ordering::Relaxed) {
        for datagram in trains.chunks_exact_mut(DATAGRAM) {
            put(
                &mut datagram[vxlan::HEADER_LEN..],
                FLOODING_VTEP.station(0),
                FLOODING_VTEP.station(next),
            );
            next += 1;
        }
        scene.flooding.send(&trains).unwrap();
        sent.store(next, Ordering::Relaxed);
        let due = time.mul_f64(next as f64 / sources as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

/// Sends frames behind a port, each from another address, until it is over.
fn flood_from_port(scene: &Scene, over: &AtomicBool) {
    for number in 1.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // The device's queue may be full: that is what a flood does.
        let _ = scene.flooded.inject(&frame(FLOODED_PORT.station(0), FLOODED_PORT.station(number)));
        if number % 32 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Floods a node from `sources` addresses within `time`. Memory is that of the whole process, and so looked at only
/// when no other test is run in it: `alone`.
#[allow(clippy::print_stdout, reason = "shows when the test fails")]
fn flood(sources: u64, time: Duration, alone: bool) {
    let mut scene = Scene::new();
    let stations = |place: Place| (0..STATIONS).map(move |n| place.station(n));
    let everybody: HashSet<MacAddr> = stations(PORT).chain(stations(VTEP)).collect();
    // More than are learned from one batch.
    eventually(5, "everybody is learned", || {
        scene.everybody_speaks();
        scene.known() == everybody
    });
    settle(&scene.control);
    scene.bystander.drain();
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut memory = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            flood_from_vtep(&scene, sources, time, &sent, &over);
            over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| flood_from_port(&scene, &over));
        // Those that arrive in the middle of it find a place, also behind the socket that the flood comes from, and
        // keep it.
        let late = [BYSTANDER.station(1), VTEP.station(STATIONS)];
        let mut tries = 0;
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(250));
            scene.everybody_speaks();
            if sent.load(Ordering::Relaxed) > sources / 2 {
                scene.bystander.inject(&frame(PORT.station(0), late[0])).unwrap();
                let late = [frame(PORT.station(0), late[1])];
                scene.vtep.send(&train(late.into_iter())).unwrap();
                tries += 1;
            }
            memory.push(resident());
            let known = scene.known();
            let missing: Vec<_> = everybody.difference(&known).copied().collect();
            let late = late.iter().filter(|mac| !known.contains(mac)).count();
            let fine = missing.is_empty() && (tries < 8 || late == 0);
            // The flood would go on otherwise.
            over.fetch_or(!fine, Ordering::Relaxed);
            assert!(
                fine,
                "forgotten under the flood: {missing:?}; {late} not learned from {tries} frames"
            );
        }
    });
    let stats = scene.control.stats();
    let learned = stats.segments[0].learned;
    println!(
        "{} sources sent; {learned} learned; memory in KiB {memory:?}\n{stats}",
        sent.into_inner()
    );
    assert!(learned <= stats.segments[0].fdb_limit, "{stats}");
    assert!(learned as u64 > 2 * STATIONS + 1000, "the flood came to be learned: {stats}");
    let (early, last) = (memory[memory.len() / 4], memory[memory.len() - 1]);
    assert!(!alone || last < early + 4096, "memory grew: {memory:?}");
    let flooded = scene.bystander.drain();
    let to_known = |frame: &&Vec<u8>| everybody.iter().any(|mac| frame[..6] == mac.0);
    let lost: Vec<_> = flooded.iter().filter(to_known).map(|frame| &frame[..12]).collect();
    assert!(lost.is_empty(), "{} frames to known stations were flooded: {lost:02x?}", lost.len());
    scene.dataplane.stop().unwrap();
    assert!(scene.control.stats().totals.is_conserved());
}

#[test]
fn row_12_a_flood_of_macs_takes_nothing_from_others() {
    if privileged("row_12_a_flood_of_macs_takes_nothing_from_others") {
        flood(300_000, Duration::from_secs(4), false);
    }
}

/// For longer, and with no other test beside it; `.ci/run` does so.
#[test]
#[ignore = "takes half a minute, and --test-threads=1"]
fn row_12_a_flood_of_ten_million_macs_takes_nothing_from_others() {
    if privileged("row_12_a_flood_of_ten_million_macs_takes_nothing_from_others") {
        flood(10_000_000, Duration::from_secs(30), true);
    }
}
