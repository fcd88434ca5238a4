//! Probing the paths to VTEPs: one worker asks for all, and each hears answers.

use std::time::Duration;

use crate::change::Change;
use crate::shared::try_lock;

use super::Worker;

/// From one look at new VTEPs to the next, if the first was too early.
const LOOK: Duration = Duration::from_millis(100);

/// What the worker that asks keeps.
#[derive(Debug)]
pub(super) struct Probes {
    /// When there is something to do.
    pub(super) next: Duration,
    /// `Tables::peerings` that the prober knows of.
    peerings: u64,
    /// What could not be changed because somebody else was changing the tables.
    left: Vec<Change>,
}

impl Probes {
    pub(super) fn new() -> Self {
        Self { next: Duration::MAX, peerings: 0, left: Vec::new() }
    }
}

impl Worker {
    /// Hands answers to probes on to the worker that asks.
    pub(super) fn flush_echoes(&mut self, now: Duration) {
        if self.output.echoes.is_empty() {
            return;
        }
        for echo in self.output.echoes.drain(..) {
            // Without room it is lost, as the underlay may lose it.
            let _ = self.shared.echoes.push((now, echo));
        }
        if self.index != 0 {
            // See `Shared::wake`.
            let _ = self.shared.seats[0].waker.wake();
        }
    }

    /// Asks what is due. For one worker of all.
    pub(super) fn probe_paths(&mut self, now: Duration) {
        let changed = self.probes.peerings != self.reader.value().peerings;
        if now < self.probes.next && !changed && self.shared.echoes.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        // Whoever lists statistics has it for a moment.
        let Some(mut prober) = try_lock(&shared.prober) else { return };
        while let Some((at, echo)) = shared.echoes.pop() {
            prober.heard(at, &echo);
        }
        let tables = self.reader.value().clone();
        let round = prober.round(&tables, now);
        self.probes.next = prober.next().unwrap_or(Duration::MAX);
        if prober.is_behind(&tables) {
            self.probes.next = self.probes.next.min(now + LOOK);
        }
        self.probes.peerings = tables.peerings;
        drop(prober);
        self.batch.clear();
        for probe in &round.probes {
            self.forwarder.probe(&tables, now, probe, &mut self.output);
        }
        self.flush(now);
        self.probes.left.extend(round.changes);
        if !self.probes.left.is_empty() && self.apply(self.probes.left.clone()) {
            self.probes.left.clear();
        }
        for event in round.events {
            self.shared.event(event);
        }
    }
}
