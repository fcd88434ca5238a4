//! What became of the frames of one batch, counted.

use crate::counters::{Groups, WorkerCounters};
use crate::drop_reason::DropReason;
use crate::tables::{PortEntry, SegmentEntry};
use crate::wire::eth::Cast;

use super::Context;

/// The running counts of one batch, written to the shared counters once at its end.
///
/// A frame of which nothing else is noted went to one destination, in one piece: most do, and cost the least.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Those of the frames, if they are from a port.
    bytes: u64,
    /// Pieces beyond the first that frames to one destination were sent in.
    chunks: u64,
    flooded: u64,
    copies: u64,
    answered: u64,
    dropped: u64,
    /// Those of the frames that are for groups.
    groups: Groups,
    /// Frames, and their bytes, of which the underlay gets a copy.
    underlay_frames: u64,
    underlay_bytes: u64,
    underlay_groups: Groups,
}

impl Tally {
    /// Notes the length of a frame from a port, and for how many stations it is.
    #[inline]
    pub(super) fn received(&mut self, bytes: u32, cast: Cast) {
        self.bytes += u64::from(bytes);
        if cast != Cast::Unicast {
            self.groups.add(cast, 1);
        }
    }

    /// Notes in how many pieces, at least one, a frame went to one destination.
    #[inline]
    pub(super) fn pieces(&mut self, pieces: u64) {
        self.chunks += pieces - 1;
    }

    /// Notes that a frame went to everybody, in so many copies.
    pub(super) fn flooded(&mut self, copies: u64) {
        self.flooded += 1;
        self.copies += copies;
    }

    /// Notes that a frame ended here: it was answered in place of whoever it asks for, or was for this node itself.
    pub(super) fn answered(&mut self) {
        self.answered += 1;
    }

    /// Notes that a frame was dropped.
    pub(super) fn dropped(&mut self, reason: DropReason, counters: &WorkerCounters) {
        self.dropped += 1;
        counters.dropped(reason, 1);
    }

    /// Notes that a frame of `bytes` bytes became a datagram, or several.
    #[inline]
    pub(super) fn encapsulated(&mut self, bytes: usize, cast: Cast) {
        self.underlay_frames += 1;
        self.underlay_bytes += bytes as u64;
        if cast != Cast::Unicast {
            self.underlay_groups.add(cast, 1);
        }
    }

    /// Counts all `frames` of the batch as those of a port and its segment.
    pub(super) fn flush_from_port(
        &self,
        context: &Context<'_>,
        port: &PortEntry,
        segment: &SegmentEntry,
        frames: usize,
    ) {
        let counters = port.counters.of(context.worker);
        counters.received(frames as u64, self.bytes);
        counters.received_for(self.groups);
        self.flush_sent(context, segment);
        self.flush(context.counters, frames);
    }

    /// Counts the frames, all of which were flooded, as made by this node for a segment.
    pub(super) fn flush_generated(&self, context: &Context<'_>, segment: &SegmentEntry) {
        self.flush_sent(context, segment);
        context.counters.generated.add(self.copies);
    }

    fn flush_sent(&self, context: &Context<'_>, segment: &SegmentEntry) {
        let counters = segment.counters.of(context.worker);
        counters.sent(self.underlay_frames, self.underlay_bytes);
        counters.sent_for(self.underlay_groups);
    }

    /// Counts all `frames` of the batch.
    pub(super) fn flush(&self, counters: &WorkerCounters, frames: usize) {
        let frames = frames as u64;
        counters.received.add(frames);
        counters.forwarded.add(frames - self.flooded - self.answered - self.dropped);
        counters.chunks.add(self.chunks);
        counters.flooded.add(self.flooded);
        counters.copies.add(self.copies);
        counters.answered.add(self.answered);
    }
}
