//! The command line, and what to measure according to it.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::row::Row;
use crate::system::System;

/// Measures overlays between two hosts of its own beside each other.
///
/// Each round measures every system, one after the other, row by row; the tables give medians of all rounds, and of
/// the ratios within a round.
#[derive(Debug, Parser)]
#[command(name = "overlay", bin_name = "cargo bench --bench overlay --")]
pub struct Arguments {
    /// How often everything is measured [default: 5].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// For how long each cell is measured, in seconds, after a warm-up of a quarter of that [default: 0.7].
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,

    /// The systems to measure, separated by commas [default: all].
    #[arg(long, value_name = "SYSTEM", value_delimiter = ',')]
    only: Vec<System>,

    /// The rows to measure, separated by commas [default: all].
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,

    /// One short round: shows that everything works, and not how fast.
    #[arg(long)]
    quick: bool,

    /// Write all samples to a file, or instead of the tables to the standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,

    /// What `cargo bench NAME` asks every benchmark for.
    #[arg(hide = true)]
    filter: Option<String>,

    /// What cargo passes to a benchmark that is to be run, and not to one that is only to be tried.
    #[arg(long, hide = true)]
    bench: bool,

    /// Be a node of a system on a host.
    #[arg(long, hide = true, num_args = 3, value_names = ["SYSTEM", "HOST", "NETNS"])]
    pub node: Option<Vec<String>>,
}

/// What is measured, how often and for how long.
#[derive(Debug)]
pub struct Plan {
    pub systems: Vec<System>,
    pub rows: Vec<Row>,
    pub rounds: usize,
    /// How long each cell is measured.
    pub window: Duration,
    /// How long traffic flows before that.
    pub warm_up: Duration,
    /// How long nothing is done to see what the nodes do then.
    pub idle: Duration,
    /// Whether it is only about whether something comes out at all.
    pub try_only: bool,
}

impl Arguments {
    pub fn plan(&self) -> Plan {
        // Whoever tries the benchmark, as `cargo test --benches` does, wants to see it end.
        let try_only = !self.bench;
        let (rounds, window, idle) = match (try_only, self.quick) {
            (true, _) => (1, Duration::from_millis(50), Duration::from_millis(100)),
            (_, true) => (1, Duration::from_millis(150), Duration::from_secs(1)),
            _ => (5, Duration::from_millis(700), Duration::from_secs(10)),
        };
        let window = self.seconds.unwrap_or(window);
        let mut systems = chosen(&self.only);
        let mut rows = chosen(&self.rows);
        if try_only {
            systems.retain(|system| [System::Kernel, System::Naive, System::Auto].contains(system));
            rows.retain(|row| [Row::Tcp1, Row::Udp1, Row::Latency, Row::Nodes].contains(row));
        }
        if self.filter.as_ref().is_some_and(|filter| !"overlay".contains(filter.as_str())) {
            rows.clear();
        }
        Plan {
            systems,
            rows,
            rounds: self.rounds.map_or(rounds, |rounds| rounds as usize),
            window,
            warm_up: (window / 4).clamp(Duration::from_millis(20), Duration::from_millis(250)),
            idle,
            try_only,
        }
    }
}

/// What was named, in the order of the tables; all if nothing was.
fn chosen<T: ValueEnum + PartialEq>(named: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().cloned();
    all.filter(|it| named.is_empty() || named.contains(it)).collect()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().filter(|seconds: &f64| (0.01..=60.0).contains(seconds));
    parsed.map(Duration::from_secs_f64).ok_or_else(|| "0.01 to 60 are allowed".into())
}
