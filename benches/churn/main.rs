//! What forwarding feels of tables that change, and how soon it goes by what they say.
//!
//! ```text
//! cargo bench --bench churn                        # with 1,000,000 routes, some 15 seconds
//! cargo bench --bench churn -- --routes 10000
//! ```
//!
//! One thread forwards packets to random destinations as a worker does, taking up the newest tables before each
//! batch; another changes them. Rounds with and without changes alternate. A pause is the processor time from the
//! moment a batch begins that takes up new tables until it is forwarded: what the worker does itself, with the caches
//! as the change left them, without what the scheduler gives to others.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "these rules are the library's; a benchmark prints, reads the clock, and exports nothing"
)]

mod forwarding;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use overplane::{
    Change, PortId, PortOptions, Prefix, Publisher, Reader, Segment, SegmentId, Tables,
};
use overplane_lab::Random;

use forwarding::{Sample, forward};

const UDP_PORT: u16 = 8285;
const VTEPS: u64 = 1000;
/// The time of all that happens: nothing ages here.
pub const NOW: Duration = Duration::from_secs(7);

#[derive(Debug, Parser)]
#[command(name = "churn", bin_name = "cargo bench --bench churn --")]
struct Arguments {
    /// Number of routes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    routes: u32,

    /// How often forwarding with and without changes is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,

    /// How long each measurement takes, in milliseconds.
    #[arg(long, default_value_t = 700)]
    window: u64,

    /// What `cargo bench NAME` asks every benchmark for.
    #[arg(hide = true)]
    filter: Option<String>,

    /// What cargo passes to a benchmark that is to be run, and not to one that is only to be tried.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Tables with a routed segment, as the control plane has them, and what readers see of them.
struct Plane {
    tables: Tables,
    published: Arc<Publisher<Tables>>,
    segment: SegmentId,
    port: PortId,
    routes: u32,
}

/// The prefix of route `number`: a /24 in no order, and a /32 in it for every eighth.
fn prefix(number: u32) -> Prefix {
    let place = number.wrapping_mul(0x9_e377) & 0xf_ffff;
    let len = if number.is_multiple_of(8) { 32 } else { 24 };
    Prefix::new(Ipv4Addr::from_bits(0x1000_0000 | place << 8).into(), len).unwrap()
}

/// An address that route `number` leads to.
pub fn destination(number: u32) -> Ipv4Addr {
    match prefix(number).address() {
        std::net::IpAddr::V4(v4) => v4,
        std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn vtep(number: u64) -> SocketAddr {
    let [.., a, b] = (1 + number % VTEPS).to_be_bytes();
    SocketAddr::from(([192, 168, a, b], UDP_PORT))
}

impl Plane {
    fn new(routes: u32) -> Self {
        let mut tables = Tables::new(Ipv4Addr::new(192, 0, 2, 1).into(), 1).unwrap();
        let segment = Segment::routed(UDP_PORT);
        let id = segment.id();
        let port = Change::AddPort {
            segment: id,
            name: "ovl0".into(),
            offload: true,
            options: PortOptions::default(),
        };
        let ports = tables.apply(NOW, [Change::AddSegment(segment), port]).unwrap();
        let published = Arc::new(Publisher::new(tables.clone()));
        Self { tables, published, segment: id, port: ports[0], routes }
    }

    fn route(&self, number: u32, towards: u64) -> Change {
        let (segment, prefix) = (self.segment, prefix(number));
        Change::InsertRoute { segment, prefix, next_hop: vtep(towards).into() }
    }

    /// Applies changes and makes readers see them; returns how long that took.
    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Duration {
        let start = Instant::now();
        self.tables.apply(NOW, changes).unwrap();
        self.published.publish(self.tables.clone());
        start.elapsed()
    }

    fn insert_all(&mut self, salt: u64) -> Duration {
        let changes: Vec<Change> =
            (0..self.routes).map(|n| self.route(n, u64::from(n).wrapping_mul(7) + salt)).collect();
        self.apply(changes)
    }

    /// One change of a random route: to elsewhere, away, or back.
    fn change_one(&mut self, random: &mut Random) -> Duration {
        let number = random.of(0..=u64::from(self.routes - 1)) as u32;
        let insert = self.route(number, random.number());
        if random.of(0..=3) > 0 {
            return self.apply([insert]);
        }
        let remove = Change::RemoveRoute { segment: self.segment, prefix: prefix(number) };
        let took = self.apply([remove]);
        took.max(self.apply([insert]))
    }

    /// Forwards for `window` while `meanwhile` runs again and again, and returns what both say.
    fn measure(
        &mut self,
        window: Duration,
        mut meanwhile: impl FnMut(&mut Self) -> Option<Duration>,
    ) -> (Sample, Vec<Duration>) {
        let (over, port, routes) = (AtomicBool::new(false), self.port, self.routes);
        let reader = Reader::new(self.published.clone());
        thread::scope(|scope| {
            let forwarding = scope.spawn(|| forward(reader, port, routes, &over));
            let (start, mut took) = (Instant::now(), Vec::new());
            while start.elapsed() < window {
                match meanwhile(self) {
                    Some(time) => took.push(time),
                    None => thread::sleep(window.saturating_sub(start.elapsed())),
                }
            }
            over.store(true, Ordering::Relaxed);
            (forwarding.join().unwrap(), took)
        })
    }
}

fn median<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values.get(values.len() / 2).copied()
}

/// The results of one way of changing.
fn report(name: &str, alone: &[Sample], samples: &[(Sample, Vec<Duration>)]) {
    let pairs = samples.iter().zip(alone);
    let ratio = median(pairs.map(|((churn, _), alone)| churn.rate() / alone.rate())).unwrap();
    let rate = median(samples.iter().map(|(sample, _)| sample.rate())).unwrap();
    println!("{name}: {:.1} Mframes/s, {ratio:.2} of that without changes (median)", rate / 1e6);
    let took = || samples.iter().flat_map(|(_, took)| took.iter().copied());
    let pauses = || samples.iter().flat_map(|(sample, _)| sample.pauses.iter().copied());
    if let (Some(middle), Some(longest)) = (median(took()), took().max()) {
        println!(
            "  {} calls: {middle:.1?} (median), {longest:.1?} (longest) until published",
            took().count()
        );
    }
    if let (Some(middle), Some(longest)) = (median(pauses()), pauses().max()) {
        println!(
            "  {} batches with new tables: {middle:.1?} (median), {longest:.1?} (longest)",
            pauses().count()
        );
    }
}

fn main() {
    let arguments = Arguments::parse();
    let (rounds, window, routes) = match arguments.bench {
        true => (arguments.rounds, Duration::from_millis(arguments.window), arguments.routes),
        // Only tried.
        false => (1, Duration::from_millis(50), arguments.routes.min(10_000)),
    };
    let mut plane = Plane::new(routes);
    println!("{routes} routes inserted by one call: {:.1?}", plane.insert_all(0));
    let mut random = Random::new(1);
    let (mut alone, mut paced, mut unpaced, mut bulk) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        alone.push(plane.measure(window, |_| None).0);
        paced.push(plane.measure(window, |plane| {
            let took = plane.change_one(&mut random);
            thread::sleep(Duration::from_millis(1));
            Some(took)
        }));
        unpaced.push(plane.measure(window, |plane| Some(plane.change_one(&mut random))));
        bulk.push(plane.measure(window, |plane| Some(plane.insert_all(u64::from(round) + 1))));
    }
    let rate = median(alone.iter().map(Sample::rate)).unwrap();
    println!("no changes: {:.1} Mframes/s", rate / 1e6);
    report("one change each millisecond", &alone, &paced);
    report("one change after the other", &alone, &unpaced);
    report("every route replaced by one call, again and again", &alone, &bulk);
}
