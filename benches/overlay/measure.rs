//! The rounds: every row of every system in turn.

use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{TcpLoad, UdpLoad, tcp_echo_latency};

use crate::Result;
use crate::args::Plan;
use crate::hosts::Hosts;
use crate::machine::{Machine, busy_seconds};
use crate::results::Results;
use crate::row::{Metric, Row};
use crate::system::System;

/// Round trips per second of a cell's time.
const ECHOES_PER_SECOND: f64 = 4000.0;

/// Sets everything up and measures it.
pub fn run(plan: &Plan) -> Result<Results> {
    let mut results = Results::new(Machine::here()?);
    let hosts = Hosts::new(&plan.systems)?;
    let start = Instant::now();
    let mut order = plan.systems.clone();
    for round in 1..=plan.rounds {
        let waiting = Window::observe(plan, || 0)?;
        results.busy_otherwise.push(waiting.busy_percent(&results.machine));
        for row in plan.rows.iter().filter(|row| **row != Row::Nodes) {
            for system in &order {
                let values = measure(plan, &hosts, *system, *row)
                    .map_err(|e| format!("{row}, {}: {e}", system.name()))?;
                for (metric, value) in values {
                    results.add(*system, metric, value);
                }
            }
        }
        // So that none is always measured in the wake of the same other one.
        order.reverse();
        eprintln!("round {round} of {}: {} s", plan.rounds, start.elapsed().as_secs());
    }
    if plan.rows.contains(&Row::Nodes) {
        measure_nodes(plan, &hosts, &mut results)?;
    }
    hosts.stop()?;
    Ok(results)
}

fn measure(plan: &Plan, hosts: &Hosts, system: System, row: Row) -> Result<Vec<(Metric, f64)>> {
    let [near, far] = hosts.way(system);
    if let Some([forth, back]) = row.streams() {
        let forth = TcpLoad::start(near.0, far.0, far.1, forth)?;
        let back = TcpLoad::start(far.0, near.0, near.1, back)?;
        let window = Window::observe(plan, || forth.arrived() + back.arrived())?;
        forth.stop()?;
        back.stop()?;
        let rate = window.per_second() * 8.0 / 1e9;
        return Ok(vec![(Metric::Rate(row), rate), (Metric::Cpu(row), window.cpu_per(1e9))]);
    }
    if let Some(how) = row.sender() {
        let load = UdpLoad::start(near.0, far.0, far.1, how)?;
        let window = Window::observe(plan, || load.arrived())?;
        load.stop()?;
        let rate = window.per_second() / 1e3;
        return Ok(vec![(Metric::Rate(row), rate), (Metric::Cpu(row), window.cpu_per(1e6))]);
    }
    let count = (plan.window.as_secs_f64() * ECHOES_PER_SECOND).max(100.0) as usize;
    let warm_up = count / 4;
    let times = tcp_echo_latency(near.0, far.0, far.1, warm_up + count)?;
    let mut times = times[warm_up..].to_vec();
    times.sort_unstable();
    let at = |part: f64| times[(count as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(vec![(Metric::Median, at(0.5)), (Metric::P99, at(0.99))])
}

/// Memory and CPU time of all nodes, the latter while nothing flows.
fn measure_nodes(plan: &Plan, hosts: &Hosts, results: &mut Results) -> Result<()> {
    // What was under way last is over then.
    thread::sleep(plan.warm_up);
    let cpu_times = || -> Result<Vec<Duration>> {
        plan.systems.iter().flat_map(|it| hosts.nodes(*it)).map(|node| node.cpu_time()).collect()
    };
    let (start, before) = (Instant::now(), cpu_times()?);
    thread::sleep(plan.idle);
    let (elapsed, after) = (start.elapsed(), cpu_times()?);
    let mut used = after.into_iter().zip(before).map(|(after, before)| after - before);
    for system in &plan.systems {
        for node in hosts.nodes(*system) {
            let used = used.next().unwrap_or_default();
            let part = used.as_secs_f64() / elapsed.as_secs_f64();
            results.add(*system, Metric::Idle, part * 100.0);
            results.add(*system, Metric::Memory, node.memory()?);
        }
    }
    Ok(())
}

/// What happened in a while.
struct Window {
    arrived: f64,
    seconds: f64,
    cpu_seconds: f64,
}

impl Window {
    /// Waits for the warm-up, and then for as long as is measured.
    fn observe(plan: &Plan, arrived: impl Fn() -> u64) -> Result<Self> {
        thread::sleep(plan.warm_up);
        let (start, cpu, before) = (Instant::now(), busy_seconds()?, arrived());
        thread::sleep(plan.window);
        let after = arrived();
        Ok(Self {
            arrived: (after - before) as f64,
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: busy_seconds()? - cpu,
        })
    }

    /// The part of all CPUs' time in which they did anything.
    fn busy_percent(&self, machine: &Machine) -> f64 {
        self.cpu_seconds / self.seconds / machine.cpus as f64 * 100.0
    }

    fn per_second(&self) -> f64 {
        self.arrived / self.seconds
    }

    /// CPU time for so many of what arrived; not a number if nothing did.
    fn cpu_per(&self, many: f64) -> f64 {
        if self.arrived > 0.0 { self.cpu_seconds / self.arrived * many } else { f64::NAN }
    }
}
