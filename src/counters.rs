//! Counters that one worker writes and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::drop_reason::DropReason;
use crate::stats::{Drops, Totals, Traffic};
use crate::wire::eth::Cast;

/// A counter with a single writer: adding is a load and a store, not an atomic read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One instance of `T` for each worker, on cache lines of its own.
#[derive(Debug)]
pub(crate) struct PerWorker<T>(Box<[CachePadded<T>]>);

impl<T: Default> PerWorker<T> {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| CachePadded::new(T::default())).collect())
    }

    /// The instance that `worker` may write.
    #[inline]
    pub(crate) fn of(&self, worker: usize) -> &T {
        &self.0[worker]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}

/// Packets that were not for one station.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups {
    pub(crate) multicast: u64,
    pub(crate) broadcast: u64,
}

impl Groups {
    #[inline]
    pub(crate) fn of(cast: Cast, packets: u64) -> Self {
        let mut groups = Self::default();
        groups.add(cast, packets);
        groups
    }

    #[inline]
    pub(crate) fn add(&mut self, cast: Cast, packets: u64) {
        match cast {
            Cast::Unicast => {}
            Cast::Multicast => self.multicast += packets,
            Cast::Broadcast => self.broadcast += packets,
        }
    }

    fn is_none(&self) -> bool {
        self.multicast | self.broadcast == 0
    }
}

/// Packets and bytes in both directions.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounters {
    received_packets: Counter,
    received_bytes: Counter,
    sent_packets: Counter,
    sent_bytes: Counter,
    received_groups: [Counter; 2],
    sent_groups: [Counter; 2],
    received_dropped: Counter,
    sent_dropped: Counter,
}

impl TrafficCounters {
    #[inline]
    pub(crate) fn received(&self, packets: u64, bytes: u64) {
        self.received_packets.add(packets);
        self.received_bytes.add(bytes);
    }

    #[inline]
    pub(crate) fn sent(&self, packets: u64, bytes: u64) {
        self.sent_packets.add(packets);
        self.sent_bytes.add(bytes);
    }

    /// Says of packets that were counted as received which were for groups.
    #[inline]
    pub(crate) fn received_for(&self, groups: Groups) {
        add_groups(&self.received_groups, groups);
    }

    /// Says of packets that were counted as sent which were for groups.
    #[inline]
    pub(crate) fn sent_for(&self, groups: Groups) {
        add_groups(&self.sent_groups, groups);
    }

    /// Says of packets that were counted as received that they were dropped.
    #[cold]
    pub(crate) fn received_dropped(&self, packets: u64) {
        self.received_dropped.add(packets);
    }

    #[cold]
    pub(crate) fn sent_dropped(&self, packets: u64) {
        self.sent_dropped.add(packets);
    }
}

#[inline]
fn add_groups([multicast, broadcast]: &[Counter; 2], groups: Groups) {
    // Mostly there are none, and then nothing is written.
    if !groups.is_none() {
        multicast.add(groups.multicast);
        broadcast.add(groups.broadcast);
    }
}

impl PerWorker<TrafficCounters> {
    pub(crate) fn sum(&self) -> Traffic {
        let mut sum = Traffic::default();
        for counters in self.iter() {
            sum.received_packets += counters.received_packets.get();
            sum.received_bytes += counters.received_bytes.get();
            sum.sent_packets += counters.sent_packets.get();
            sum.sent_bytes += counters.sent_bytes.get();
            sum.received_multicast += counters.received_groups[0].get();
            sum.received_broadcast += counters.received_groups[1].get();
            sum.received_dropped += counters.received_dropped.get();
            sum.sent_multicast += counters.sent_groups[0].get();
            sum.sent_broadcast += counters.sent_groups[1].get();
            sum.sent_dropped += counters.sent_dropped.get();
        }
        sum
    }
}

/// Drops by reason.
#[derive(Debug)]
pub(crate) struct DropCounters(Box<[Counter]>);

impl Default for DropCounters {
    fn default() -> Self {
        Self(DropReason::ALL.iter().map(|_| Counter::default()).collect())
    }
}

impl DropCounters {
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, frames: u64) {
        self.0[reason as usize].add(frames);
    }

    pub(crate) fn drops(&self) -> Drops {
        Drops { counts: self.0.iter().map(Counter::get).collect() }
    }
}

impl PerWorker<DropCounters> {
    pub(crate) fn sum(&self) -> Drops {
        let mut sum = Drops::default();
        self.iter().for_each(|counters| sum.add(&counters.drops()));
        sum
    }
}

/// What became of all frames of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) received: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) chunks: Counter,
    pub(crate) flooded: Counter,
    pub(crate) copies: Counter,
    pub(crate) answered: Counter,
    pub(crate) generated: Counter,
    pub(crate) sent: Counter,
    pub(crate) delivered: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) learning_refused: Counter,
    pub(crate) moves_refused: Counter,
    pub(crate) evicted: Counter,
    pub(crate) answers_withheld: Counter,
    pub(crate) neighbour_conflicts: Counter,
    pub(crate) probes: Counter,
    pub(crate) probes_answered: Counter,
    pub(crate) memberships_refused: Counter,
    drops: DropCounters,
}

impl WorkerCounters {
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, frames: u64) {
        self.drops.dropped(reason, frames);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            chunks: self.chunks.get(),
            flooded: self.flooded.get(),
            copies: self.copies.get(),
            answered: self.answered.get(),
            generated: self.generated.get(),
            sent: self.sent.get(),
            delivered: self.delivered.get(),
            coalesced: self.coalesced.get(),
            learning_refused: self.learning_refused.get(),
            moves_refused: self.moves_refused.get(),
            evicted: self.evicted.get(),
            answers_withheld: self.answers_withheld.get(),
            neighbour_conflicts: self.neighbour_conflicts.get(),
            probes: self.probes.get(),
            probes_answered: self.probes_answered.get(),
            memberships_refused: self.memberships_refused.get(),
            drops: self.drops.drops(),
        }
    }
}
