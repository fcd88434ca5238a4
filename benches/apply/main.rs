//! What a change of the tables costs, and what forwarding feels of it.
//!
//! ```text
//! cargo bench --bench apply                        # with 1,000,000 routes, some 30 seconds
//! cargo bench --bench apply -- --routes 10000
//! ```
//!
//! The tables have 64 segments, 1,000 VTEPs, routes like the Internet's in one segment and 100,000 static MAC addresses in
//! another. First a change by itself beside all that, and very many at once. Then one thread forwards packets to all of
//! the routes as a worker does, and another changes them: what rate the worker keeps, and how long its longest batches
//! take. Rounds with and without changes alternate.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "these rules are the library's; a benchmark prints, reads the clock, and exports nothing"
)]

mod control;
#[allow(dead_code, reason = "the other benchmark that has it looks up more")]
#[path = "../lookup/routes.rs"]
mod routes;
mod tables;
mod worker;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use overplane::{Change, GroupId, Member, NextHop, Tables};

use control::{bulk, one};
use routes::Numbers;
use tables::{NOW, Routes, SEGMENTS, VTEPS, bridge, furnished, mac, routed, vtep};
use worker::{PACKETS, Scene, report};

#[derive(Debug, Parser)]
#[command(name = "apply", bin_name = "cargo bench --bench apply --")]
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

/// How much of everything there is.
struct Scale {
    macs: u32,
    /// Repetitions of a change by itself.
    times: u32,
}

/// One change after the other, each by itself.
fn single_changes(tables: &mut Tables, routes: &Routes, scale: &Scale) {
    println!(
        "\nµs, median and longest    {:>20}  {:>19}  {:>19}  {:>19}",
        "apply", "publish", "refresh", "reclaim"
    );
    let mut one =
        |what, change: &dyn Fn(u32) -> Vec<Change>| one(tables, scale.times, what, change);
    let (red, segment, spare) = (bridge(1).id(), routed(), routes.len());
    one("insert route", &|n| vec![routes.insert(spare + n, 0)]);
    one("remove route", &|n| vec![routes.remove(spare + n)]);
    one("insert static MAC", &|n| vec![mac(1, scale.macs + n)]);
    one("insert peer", &|n| vec![Change::AddPeer { segment: red, vtep: vtep(VTEPS + n) }]);
    one("remove peer", &|n| vec![Change::RemovePeer { segment: red, vtep: vtep(VTEPS + n) }]);
    one("insert flood", &|n| vec![Change::AddFlood { segment: red, vtep: vtep(n) }]);
    one("add and remove segment", &|n| match n % 2 {
        0 => vec![Change::AddSegment(bridge(SEGMENTS))],
        _ => vec![Change::RemoveSegment(bridge(SEGMENTS).id())],
    });
    one("set group of 8 members", &|n| {
        let members = (0..8).map(|m| Member::new(vtep(n + m), 1)).collect();
        vec![Change::SetGroup { segment, group: GroupId(1), members }]
    });
    one("blackhole", &|n| {
        let prefix = routes.prefix(spare + n);
        vec![Change::InsertRoute { segment, prefix, next_hop: NextHop::Blackhole }]
    });
    one("and away", &|n| vec![routes.remove(spare + n)]);
}

/// Forwarding while nothing changes, and while everything does.
fn felt(mut tables: Tables, scene: &Scene, routes: &Routes, rounds: u32, window: Duration) {
    let mut numbers = Numbers(7);
    let mut apply = |changes: Vec<Change>| {
        let start = Instant::now();
        tables.apply(NOW, changes).unwrap();
        scene.published.publish(tables.clone());
        let took = start.elapsed();
        scene.published.reclaim();
        Some(took)
    };
    // A random route to elsewhere, away, or back.
    let mut away = None;
    let mut change_one = || {
        let number = numbers.below(routes.len().into()) as u32;
        match away.take() {
            Some(number) => vec![routes.insert(number, 0)],
            None if numbers.below(4) == 0 => {
                away = Some(number);
                vec![routes.remove(number)]
            }
            None => vec![routes.insert(number, numbers.next() as u32)],
        }
    };
    let (mut alone, mut paced, mut unpaced, mut all) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        alone.push(scene.measure(window, || None));
        paced.push(scene.measure(window, || {
            let took = apply(change_one());
            thread::sleep(Duration::from_millis(1));
            took
        }));
        unpaced.push(scene.measure(window, || apply(change_one())));
        all.push(scene.measure(window, || apply(routes.insert_all(round + 1))));
    }
    println!();
    report("nothing changes", &alone, &alone);
    report("one change each millisecond", &paced, &alone);
    report("one change after the other", &unpaced, &alone);
    report("every route replaced by one call, again and again", &all, &alone);
}

fn main() {
    let arguments = Arguments::parse();
    let window = Duration::from_millis(arguments.window);
    let (routes, rounds, window, scale) = match arguments.bench {
        true => (arguments.routes, arguments.rounds, window, Scale { macs: 100_000, times: 200 }),
        // Only tried.
        false => (1000, 1, Duration::from_millis(5), Scale { macs: 100, times: 2 }),
    };
    let routes = Routes::new(routes, scale.times);
    let (mut tables, port) = furnished();
    bulk(&mut tables, "routes", routes.insert_all(0));
    let mut other = tables.clone();
    bulk(&mut other, "static MAC addresses", (0..routes.len()).map(|n| mac(2, n)).collect());
    bulk(&mut other, "the same, replaced", (0..routes.len()).map(|n| mac(2, n)).collect());
    drop(other);
    bulk(&mut tables, "static MAC addresses", (0..scale.macs).map(|n| mac(1, n)).collect());
    let start = Instant::now();
    black_box(tables.clone());
    println!("clone {:.1} µs", start.elapsed().as_secs_f64() * 1e6);
    single_changes(&mut tables, &routes, &scale);
    let scene = Scene::new(&tables, port, &routes.destinations(PACKETS));
    felt(tables, &scene, &routes, rounds, window);
}
