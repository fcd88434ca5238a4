//! Counters that one worker writes and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::drop_reason::DropReason;
use crate::stats::{Totals, Traffic};

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

/// Packets and bytes in both directions.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounters {
    received_packets: Counter,
    received_bytes: Counter,
    sent_packets: Counter,
    sent_bytes: Counter,
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
}

impl PerWorker<TrafficCounters> {
    pub(crate) fn sum(&self) -> Traffic {
        let mut sum = Traffic::default();
        for counters in self.iter() {
            sum.received_packets += counters.received_packets.get();
            sum.received_bytes += counters.received_bytes.get();
            sum.sent_packets += counters.sent_packets.get();
            sum.sent_bytes += counters.sent_bytes.get();
        }
        sum
    }
}

/// What became of all frames of one worker.
#[derive(Debug)]
pub(crate) struct WorkerCounters {
    pub(crate) received: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) chunks: Counter,
    pub(crate) flooded: Counter,
    pub(crate) copies: Counter,
    pub(crate) generated: Counter,
    pub(crate) sent: Counter,
    pub(crate) delivered: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) learning_refused: Counter,
    pub(crate) moves_refused: Counter,
    pub(crate) evicted: Counter,
    pub(crate) answers_withheld: Counter,
    drops: Box<[Counter]>,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            forwarded: Counter::default(),
            chunks: Counter::default(),
            flooded: Counter::default(),
            copies: Counter::default(),
            generated: Counter::default(),
            sent: Counter::default(),
            delivered: Counter::default(),
            coalesced: Counter::default(),
            learning_refused: Counter::default(),
            moves_refused: Counter::default(),
            evicted: Counter::default(),
            answers_withheld: Counter::default(),
            drops: DropReason::ALL.iter().map(|_| Counter::default()).collect(),
        }
    }
}

impl WorkerCounters {
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, frames: u64) {
        self.drops[reason as usize].add(frames);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            chunks: self.chunks.get(),
            flooded: self.flooded.get(),
            copies: self.copies.get(),
            generated: self.generated.get(),
            sent: self.sent.get(),
            delivered: self.delivered.get(),
            coalesced: self.coalesced.get(),
            learning_refused: self.learning_refused.get(),
            moves_refused: self.moves_refused.get(),
            evicted: self.evicted.get(),
            answers_withheld: self.answers_withheld.get(),
            drops: self.drops.iter().map(Counter::get).collect(),
        }
    }
}
