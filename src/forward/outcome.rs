//! What became of the descriptors, and what time alone brings about.

use std::time::Duration;

use crate::change::Change;
use crate::counters::Groups;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::fdb::seconds;
use crate::output::{Deliver, Transmit};
use crate::segment::SegmentId;
use crate::tables::{SegmentEntry, Tables};

use super::Forwarder;

/// Whoever carries an output out reports the outcome here: of each datagram of a [`Transmit`] and of each [`Deliver`],
/// exactly once. Frames of [`Output::joined`](crate::Output::joined) that are delivered apart have an outcome each, as a
/// `Deliver` with `frames: 1`.
impl Forwarder {
    /// The underlay took `datagrams` datagrams of a descriptor, with `bytes` bytes of UDP payload in all.
    #[inline]
    pub fn sent(&self, tables: &Tables, transmit: &Transmit, datagrams: u64, bytes: u64) {
        tables.counters.of(self.worker).sent.add(datagrams);
        if let Some(vtep) = tables.vtep(transmit.vtep) {
            let counters = vtep.counters.of(self.worker);
            counters.sent(datagrams, bytes);
            counters.sent_for(Groups::of(transmit.outer.cast, datagrams));
        }
    }

    /// The port took a frame of `bytes` bytes; one that stands for several counts as one of the port's and as several
    /// delivered.
    #[inline]
    pub fn delivered(&self, tables: &Tables, deliver: &Deliver, bytes: usize) {
        let counters = tables.counters.of(self.worker);
        counters.delivered.add(u64::from(deliver.frames));
        counters.coalesced.add(u64::from(deliver.frames - 1));
        if let Some(port) = tables.port(deliver.port) {
            let counters = port.counters.of(self.worker);
            counters.sent(1, bytes as u64);
            counters.sent_for(Groups::of(deliver.cast, 1));
        }
    }

    /// `datagrams` datagrams of a descriptor were not taken; `reason` is one of
    /// [`Stage::Output`](crate::Stage::Output).
    #[cold]
    pub fn unsent(&self, tables: &Tables, transmit: &Transmit, datagrams: u64, reason: DropReason) {
        tables.counters.of(self.worker).dropped(reason, datagrams);
        if let Some(vtep) = tables.vtep(transmit.vtep) {
            vtep.counters.of(self.worker).sent_dropped(datagrams);
        }
    }

    /// A frame, or all those it stands for, was not taken; `reason` is one of
    /// [`Stage::Output`](crate::Stage::Output).
    #[cold]
    pub fn undelivered(&self, tables: &Tables, deliver: &Deliver, reason: DropReason) {
        let frames = u64::from(deliver.frames);
        tables.counters.of(self.worker).dropped(reason, frames);
        if let Some(port) = tables.port(deliver.port) {
            port.counters.of(self.worker).sent_dropped(frames);
            if let Some(segment) = tables.segment(port.segment) {
                segment.drops.of(self.worker).dropped(reason, frames);
            }
        }
    }

    /// A super-frame that was decided about as one frame is delivered as `chunks` chunks (at least one), each with an
    /// outcome of its own.
    pub fn split(&self, tables: &Tables, chunks: u64) {
        tables.counters.of(self.worker).chunks.add(chunks.saturating_sub(1));
    }

    /// Counts `datagrams` that were received cut short, and so cannot be forwarded.
    pub fn truncated(&self, tables: &Tables, datagrams: u64) {
        let counters = tables.counters.of(self.worker);
        counters.received.add(datagrams);
        counters.dropped(DropReason::Truncated, datagrams);
    }

    /// A change of [`Output::heard`](crate::Output::heard) cannot be applied, for want of room: its group is flooded for a while.
    pub fn unheard(&self, tables: &Tables, now: Duration, change: &Change) {
        let Change::LearnMdb { segment, group: Some(group), .. } = change else { return };
        tables.counters.of(self.worker).memberships_refused.add(1);
        let bridge = tables.segment(*segment).and_then(SegmentEntry::bridge);
        if let Some(mdb) = bridge.and_then(|bridge| bridge.mdb.as_deref()) {
            mdb.flood(*group, seconds(now));
        }
    }

    /// Forgets learned FDB entries whose time is over, in a part of the table, reports each, and says after how long to
    /// call again: a second or less. For one worker of all; takes some tens of microseconds at most.
    pub fn tick(&self, tables: &Tables, now: Duration, mut report: impl FnMut(Event)) -> Duration {
        tables.fdb.sweep(seconds(now), |removed| {
            report(Event::Aged { segment: SegmentId::from_word(removed.domain), mac: removed.mac });
        })
    }
}
