//! What was measured, and what it comes down to.

use std::collections::BTreeMap;

use crate::machine::Machine;
use crate::row::Metric;
use crate::system::System;

/// All samples, in the order of the rounds; of memory and idle time one for each node.
#[derive(Debug)]
pub struct Results {
    pub machine: Machine,
    /// How busy the CPUs were before each round, in percent, when nothing of this benchmark ran.
    pub busy_otherwise: Vec<f64>,
    samples: BTreeMap<(System, Metric), Vec<f64>>,
}

/// Samples in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Results {
    pub fn new(machine: Machine) -> Self {
        Self { machine, busy_otherwise: Vec::new(), samples: BTreeMap::new() }
    }

    pub fn add(&mut self, system: System, metric: Metric, value: f64) {
        self.samples.entry((system, metric)).or_default().push(value);
    }

    /// The samples of one number; none if it was not measured.
    pub fn samples(&self, system: System, metric: Metric) -> &[f64] {
        self.samples.get(&(system, metric)).map_or(&[], Vec::as_slice)
    }

    /// The ratios of two numbers, round by round.
    pub fn ratios(&self, of: (System, Metric), to: (System, Metric)) -> Vec<f64> {
        let (of, to) = (self.samples(of.0, of.1), self.samples(to.0, to.1));
        of.iter().zip(to).map(|(of, to)| of / to).collect()
    }
}

impl Summary {
    /// Of all samples that are numbers; none if there is none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|it| it.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }
}
