//! What a worker feels of changes: the rate it keeps, and its longest batches.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::wire::{VnetHeader, ip};
use overplane::{Batch, Forwarder, Output, PortId, Publisher, Reader, Tables};

use crate::tables::NOW;

/// Packets of a batch.
const BATCH: usize = 32;
/// Different packets, more than a branch predictor can learn.
pub const PACKETS: usize = 1 << 16;
const HEADER: usize = 20;

/// A batch that took longer is looked into: the CPU may have been given to others meanwhile.
const DISPLACED: Duration = Duration::from_micros(20);

/// Batches whose time is kept; later ones only count.
const KEPT: usize = 1 << 22;

/// Where packets are forwarded.
pub struct Scene {
    pub published: Arc<Publisher<Tables>>,
    pub port: PortId,
    template: Vec<u8>,
    headers: Vec<[u8; HEADER]>,
}

/// What forwarding for a while came to.
#[derive(Debug, Default)]
pub struct Sample {
    frames: u64,
    time: Duration,
    /// The time of each batch, from looking for new tables on, but of those that were displaced.
    pub batches: Vec<Duration>,
    /// The same of those that took up new tables alone.
    pub takeovers: Vec<Duration>,
    /// Batches during which the CPU was another's.
    pub displaced: u64,
}

impl Sample {
    /// Frames per second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.time.as_secs_f64()
    }
}

/// Nanoseconds for which this thread was ready to run and another one had the CPU (kernel
/// `Documentation/scheduler/sched-stats.rst`); nothing where the kernel does not say.
fn run_delay() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

impl Scene {
    /// Forwards packets to these destinations, which are all over the table.
    pub fn new(tables: &Tables, port: PortId, destinations: &[Ipv4Addr]) -> Self {
        let mut template = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [0; 4], 64)
            .udp(40_000, 53)
            .write(&mut template, &[0x5a; 32])
            .unwrap();
        let header = |to: &Ipv4Addr| {
            let mut header: [u8; HEADER] = template[..HEADER].try_into().unwrap();
            header[16..].copy_from_slice(&to.octets());
            header[10..12].fill(0);
            let check = ip::v4_header_checksum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            header
        };
        let headers = destinations.iter().map(header).collect();
        Self { published: Arc::new(Publisher::new(tables.clone())), port, template, headers }
    }

    /// Forwards as a worker does, taking up the newest tables before each batch, until it is `over`.
    fn forward(&self, over: &AtomicBool) -> Sample {
        let mut reader = Reader::new(self.published.clone());
        let mut batch = Batch::new(BATCH);
        while batch.push(&self.template, VnetHeader::default()) {}
        let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
        let mut sample = Sample { batches: Vec::with_capacity(KEPT), ..Sample::default() };
        let (mut turn, mut delay) = (0, run_delay());
        let start = Instant::now();
        while sample.frames == 0 || !over.load(Ordering::Relaxed) {
            batch.clear();
            while let Some(slot) = batch.next_slot(0) {
                slot[..HEADER].copy_from_slice(&self.headers[turn % self.headers.len()]);
                turn += 1;
                batch.commit(self.template.len(), VnetHeader::default());
            }
            output.clear();
            let begin = Instant::now();
            let changed = reader.refresh();
            forwarder.from_port(reader.value(), NOW, self.port, &mut batch, &mut output);
            let took = begin.elapsed();
            black_box(&output);
            sample.frames += BATCH as u64;
            if took > DISPLACED {
                let before = std::mem::replace(&mut delay, run_delay());
                if delay > before {
                    sample.displaced += 1;
                    continue;
                }
            }
            if sample.batches.len() < KEPT {
                sample.batches.push(took);
                sample.takeovers.extend(changed.then_some(took));
            }
        }
        sample.time = start.elapsed();
        sample
    }

    /// Forwards for `window` while `meanwhile` runs again and again, and returns what both say: `meanwhile` how long a
    /// change took, or nothing if there is none.
    pub fn measure(
        &self,
        window: Duration,
        mut meanwhile: impl FnMut() -> Option<Duration>,
    ) -> (Sample, Vec<Duration>) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let forwarding = scope.spawn(|| self.forward(&over));
            let (start, mut took) = (Instant::now(), Vec::new());
            while start.elapsed() < window {
                match meanwhile() {
                    Some(time) => took.push(time),
                    None => thread::sleep(window.saturating_sub(start.elapsed())),
                }
            }
            over.store(true, Ordering::Relaxed);
            (forwarding.join().unwrap(), took)
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Times in order, to be asked for the longest of a part of them.
struct Sorted(Vec<Duration>);

impl Sorted {
    fn new(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, part: f64) -> f64 {
        let place = (self.0.len() as f64 * part) as usize;
        self.0.get(place.min(self.0.len().saturating_sub(1))).map_or(f64::NAN, |time| micros(*time))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints what came of several rounds of one way of changing, each beside a round of the same time without changes.
pub fn report(name: &str, rounds: &[(Sample, Vec<Duration>)], alone: &[(Sample, Vec<Duration>)]) {
    let ratios =
        rounds.iter().zip(alone).map(|((with, _), (without, _))| with.rate() / without.rate());
    let rate = median(rounds.iter().map(|(sample, _)| sample.rate()).collect());
    println!("{name}");
    println!(
        "  {:.1} Mframes/s, {:.2} of that without changes",
        rate / 1e6,
        median(ratios.collect())
    );
    let batches = Sorted::new(rounds.iter().flat_map(|(sample, _)| sample.batches.iter().copied()));
    println!(
        "  batches of {BATCH}, µs: median {:.1}, 99.9 % {:.1}, 99.99 % {:.1}, longest {:.1}; {} displaced",
        batches.at(0.5),
        batches.at(0.999),
        batches.at(0.9999),
        batches.at(1.0),
        rounds.iter().map(|(sample, _)| sample.displaced).sum::<u64>(),
    );
    let takeovers =
        Sorted::new(rounds.iter().flat_map(|(sample, _)| sample.takeovers.iter().copied()));
    let calls = Sorted::new(rounds.iter().flat_map(|(_, took)| took.iter().copied()));
    if !calls.0.is_empty() {
        println!(
            "  {} of them with new tables, µs: median {:.1}, longest {:.1}",
            takeovers.0.len(),
            takeovers.at(0.5),
            takeovers.at(1.0)
        );
        let time: Duration = rounds.iter().map(|(sample, _)| sample.time).sum();
        println!(
            "  {:.0} changes a second, µs until published: median {:.1}, longest {:.1}",
            calls.0.len() as f64 / time.as_secs_f64(),
            calls.at(0.5),
            calls.at(1.0)
        );
    }
}
