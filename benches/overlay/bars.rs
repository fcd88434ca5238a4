//! What overplane wants to reach beside others.

use crate::results::{Results, Summary};
use crate::row::{Metric, Row};
use crate::system::System;

/// One goal.
#[derive(Debug)]
pub struct Bar {
    pub name: &'static str,
    what: What,
    bound: Bound,
}

/// What is looked at: a ratio round by round, or a number as it is.
#[derive(Debug)]
enum What {
    Ratio((System, Metric), (System, Metric)),
    Value(System, Metric),
}

#[derive(Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use What::{Ratio, Value};

const fn of(system: System, row: Row) -> (System, Metric) {
    (system, Metric::Rate(row))
}

const fn cpu(system: System, row: Row) -> (System, Metric) {
    (system, Metric::Cpu(row))
}

const fn bar(name: &'static str, what: What, bound: Bound) -> Bar {
    Bar { name, what, bound }
}

/// All goals; all ratios are of overplane VXLAN to something else.
pub const BARS: [Bar; 11] = [
    bar(
        "TCP, 1 flow, to naive",
        Ratio(of(System::Auto, Row::Tcp1), of(System::Naive, Row::Tcp1)),
        AtLeast(8.0),
    ),
    bar(
        "TCP, 1 flow, to kernel",
        Ratio(of(System::Auto, Row::Tcp1), of(System::Kernel, Row::Tcp1)),
        AtLeast(0.75),
    ),
    bar(
        "CPU per GB, TCP, 1 flow, to kernel",
        Ratio(cpu(System::Auto, Row::Tcp1), cpu(System::Kernel, Row::Tcp1)),
        AtMost(2.0),
    ),
    bar(
        "TCP towards a kernel peer, to kernel ⇄ kernel",
        Ratio(of(System::ToKernel, Row::Tcp1), of(System::Kernel, Row::Tcp1)),
        AtLeast(0.7),
    ),
    bar(
        "TCP from a kernel peer, to kernel ⇄ kernel",
        Ratio(of(System::FromKernel, Row::Tcp1), of(System::Kernel, Row::Tcp1)),
        AtLeast(0.7),
    ),
    bar(
        "UDP, 1 flow, plain sender, to kernel",
        Ratio(of(System::Auto, Row::Udp1), of(System::Kernel, Row::Udp1)),
        AtLeast(1.8),
    ),
    bar(
        "UDP, 1 flow, plain sender, to naive",
        Ratio(of(System::Auto, Row::Udp1), of(System::Naive, Row::Udp1)),
        AtLeast(4.0),
    ),
    bar(
        "UDP, 1 flow, GSO sender and GRO receiver, to plain",
        Ratio(of(System::Auto, Row::GsoGro), of(System::Auto, Row::Udp1)),
        AtLeast(5.0),
    ),
    bar(
        "round trip, p50, to kernel",
        Ratio((System::Auto, Metric::Median), (System::Kernel, Metric::Median)),
        AtMost(3.0),
    ),
    bar("CPU of an idle node, %", Value(System::Auto, Metric::Idle), AtMost(0.1)),
    bar(
        "memory of a node with 2 workers, MiB",
        Value(System::Workers2, Metric::Memory),
        AtMost(32.0),
    ),
];

/// A goal and what was reached.
#[derive(Debug)]
pub struct Verdict {
    pub bar: &'static Bar,
    pub samples: Vec<f64>,
    pub summary: Summary,
}

impl Verdict {
    /// Those of all goals for which there are samples.
    pub fn all(results: &Results) -> Vec<Self> {
        let verdicts = BARS.iter().map(|bar| {
            let samples = match bar.what {
                Ratio(of, to) => results.ratios(of, to),
                Value(system, metric) => results.samples(system, metric).to_vec(),
            };
            let summary = Summary::of(&samples)?;
            Some(Self { bar, samples, summary })
        });
        verdicts.flatten().collect()
    }

    /// Whether the median reaches the goal.
    pub fn holds(&self) -> bool {
        match self.bar.bound {
            AtLeast(bound) => self.summary.median >= bound,
            AtMost(bound) => self.summary.median <= bound,
        }
    }
}

impl Bar {
    /// A value as it is shown.
    pub fn show(&self, value: f64) -> String {
        match self.what {
            Ratio(..) => format!("{value:.2}"),
            Value(_, metric) => metric.show(value),
        }
    }

    /// The bound in words.
    pub fn bound(&self) -> String {
        match self.bound {
            AtLeast(bound) => format!("≥ {bound}"),
            AtMost(bound) => format!("≤ {bound}"),
        }
    }
}
