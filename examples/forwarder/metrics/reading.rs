//! Everything that is scraped, read at one time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overplane::{Control, SegmentInfo, Stats, UnderlayInfo};

/// VTEPs with metrics of their own at most: in open segments anybody can become one, and nobody is to decide how much a
/// scraper has to store.
pub const MAX_VTEPS: usize = 1024;

/// A worker that is not heard of for so long hangs, for it lets itself be heard of each second.
pub const SILENCE: Duration = Duration::from_secs(4);

/// What metrics are made of.
#[derive(Debug)]
pub struct Reading {
    /// Its VTEPs are those with metrics of their own.
    pub stats: Stats,
    /// VTEPs that are not among them.
    pub vteps_left_out: usize,
    pub segments: Vec<SegmentInfo>,
    pub underlay: Vec<UnderlayInfo>,
    /// By worker, the time since it was heard of.
    pub silence: Vec<Duration>,
    pub fdb_capacity: usize,
    /// Since 1970.
    pub started: Duration,
}

/// Reads a dataplane.
#[derive(Debug)]
pub struct Reader {
    control: Control,
    fdb_capacity: usize,
    started: Duration,
    roster: Roster,
}

impl Reader {
    pub fn new(control: Control, fdb_capacity: usize) -> Self {
        // A clock before 1970 tells nothing.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { control, fdb_capacity, started, roster: Roster::default() }
    }

    pub fn read(&mut self) -> Reading {
        let mut stats = self.control.stats();
        let present: Vec<SocketAddr> = stats.vteps.iter().map(|vtep| vtep.address).collect();
        self.roster.update(&present);
        stats.vteps.retain(|vtep| self.roster.0.contains(&vtep.address));
        Reading {
            vteps_left_out: present.len() - stats.vteps.len(),
            stats,
            segments: self.control.segments(),
            underlay: self.control.underlay(),
            silence: self.control.worker_silence(),
            fdb_capacity: self.fdb_capacity,
            started: self.started,
        }
    }

    /// What is wrong with the dataplane, a line each.
    pub fn trouble(&self) -> Vec<String> {
        trouble(&self.control.worker_silence())
    }
}

/// What is wrong with workers that were silent for so long.
fn trouble(silence: &[Duration]) -> Vec<String> {
    let hangs = silence.iter().enumerate().filter(|(_, silence)| **silence > SILENCE);
    let line = |(worker, silence): (usize, &Duration)| {
        format!(
            "worker {worker} has not been heard of for {} s: it hangs, or gets no CPU",
            silence.as_secs()
        )
    };
    hangs.map(line).collect()
}

/// The VTEPs with metrics of their own: first come, first served, so that newcomers do not push others out.
#[derive(Debug, Default)]
struct Roster(BTreeSet<SocketAddr>);

impl Roster {
    /// `present` is sorted.
    fn update(&mut self, present: &[SocketAddr]) {
        self.0.retain(|vtep| present.binary_search(vtep).is_ok());
        for vtep in present {
            if self.0.len() >= MAX_VTEPS {
                return;
            }
            self.0.insert(*vtep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_push_no_vtep_out() {
        let vteps = |ports: std::ops::Range<u16>| -> Vec<SocketAddr> {
            ports.map(|port| SocketAddr::from(([10, 9, 0, 1], port))).collect()
        };
        let mut roster = Roster::default();
        roster.update(&vteps(100..200));
        roster.update(&vteps(1..2000));
        assert_eq!(roster.0.len(), MAX_VTEPS);
        assert!(vteps(100..200).iter().all(|vtep| roster.0.contains(vtep)));
        roster.update(&vteps(1500..1600));
        assert_eq!(roster.0.len(), 100, "who has gone makes room");
    }

    #[test]
    fn a_silent_worker_is_trouble_and_an_idle_one_is_not() {
        let idle = [Duration::from_millis(1100), Duration::ZERO];
        assert!(trouble(&idle).is_empty());
        let hangs = trouble(&[Duration::ZERO, Duration::from_secs(61)]);
        assert_eq!(hangs, ["worker 1 has not been heard of for 61 s: it hangs, or gets no CPU"]);
    }
}
