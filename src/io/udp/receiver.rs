//! What a worker receives datagrams with.

use crate::batch::{Arrival, Batch, MAX_TRAIN};
use crate::io::sys::receive::ReceiveGroup;
use crate::output::MAX_OUTPUT;
use crate::wire::vxlan;

/// Bytes that one receive aims at: what is read is still in the cache (L2) when it is forwarded and written.
const BYTES: usize = 256 << 10;

/// Datagrams that one receive aims at, for the same reason: each has its descriptors.
const DATAGRAMS: usize = 1024;

/// Slots that are offered at least, so that one large train does not make the next call a small one.
const MIN_OFFER: usize = 4;

/// Slots that are offered at most: if each brings a full train, all of it still fits into one output.
const MAX_OFFER: usize = MAX_OUTPUT / MAX_TRAIN;

/// What a worker needs to receive datagrams; reused for all its sockets.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(in crate::io) group: ReceiveGroup,
    /// Slots that the next call offers.
    offer: usize,
}

impl Receiver {
    /// Makes a receiver of up to `slots` messages a call, which should be the slots of the batch.
    pub(crate) fn new(slots: usize) -> Self {
        let group = ReceiveGroup::new(slots.min(MAX_OFFER));
        Self { offer: group.capacity(), group }
    }

    /// How many slots the next call should fill, going by what the last one received: all of them for small datagrams,
    /// a few for large trains.
    pub(super) fn offer(&self) -> usize {
        self.offer
    }

    fn adapt(&mut self, messages: usize, bytes: usize, datagrams: usize) {
        let by_bytes = (BYTES * messages).checked_div(bytes);
        let by_datagrams = (DATAGRAMS * messages).checked_div(datagrams);
        let fitting = by_bytes.unwrap_or(usize::MAX).min(by_datagrams.unwrap_or(usize::MAX));
        let capacity = self.group.capacity();
        self.offer = fitting.clamp(MIN_OFFER.min(capacity), capacity);
    }

    /// Takes the messages that were received into the free slots, without those that were cut short or hold more
    /// datagrams than a slot may; returns the number of datagrams in these, as far as known.
    pub(in crate::io) fn commit(&mut self, count: usize, batch: &mut Batch) -> usize {
        let (mut gap, mut truncated) = (0, 0);
        let (mut bytes, mut datagrams) = (0, 0);
        for index in 0..count {
            let message = self.group.message(index);
            bytes += message.len;
            datagrams += message.datagrams();
            let committed = message.source.filter(|_| !message.truncated).is_some_and(|source| {
                if gap > 0 {
                    close_gap(batch, gap, message.len);
                }
                let arrival = Arrival { source, tos: message.tos };
                match message.stride {
                    Some(stride) => commit_joined(batch, message.len, stride, arrival),
                    None => batch.commit_datagram(message.len, arrival),
                }
            });
            if !committed {
                gap += 1;
                truncated += message.datagrams();
            }
        }
        if count > 0 {
            self.adapt(count, bytes, datagrams);
        }
        truncated
    }
}

/// Takes what the kernel has joined, or never cut, into the next free slot.
fn commit_joined(batch: &mut Batch, len: usize, stride: usize, arrival: Arrival) -> bool {
    let datagram = batch.next_slot(0).and_then(|slot| slot.get(..len)).unwrap_or_default();
    match u16::try_from(stride) {
        Ok(size) if vxlan::holds_super_frame(datagram, size) => {
            batch.commit_super_frame(len, size, arrival)
        }
        _ => batch.commit_train(len, stride, arrival),
    }
}

/// Copies `len` bytes into the next free slot from the one that is `gap` slots further on.
///
/// No slot is so small that a UDP datagram would be cut, so this never has to be fast.
#[cold]
fn close_gap(batch: &mut Batch, gap: usize, len: usize) {
    let mut slots = batch.free_slots();
    if let (Some(to), Some(from)) = (slots.next(), slots.nth(gap - 1)) {
        to[..len].copy_from_slice(&from[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_follows_what_arrives() {
        let mut receiver = Receiver::new(64);
        let mut offer = |messages, bytes, datagrams| {
            receiver.adapt(messages, bytes, datagrams);
            receiver.offer()
        };
        assert_eq!(offer(64, 64 * 60_000, 64 * 40), 4);
        assert_eq!(offer(4, 4 * 15_000, 4 * 10), 17);
        assert_eq!(offer(17, 17 * 1500, 17), 64);
        assert_eq!(offer(10, 10 * 3840, 10 * 64), 16, "many small datagrams");
        assert_eq!(offer(3, 0, 3), 64, "empty datagrams");
        assert_eq!(offer(1, 65_507, 128), 4);
        assert_eq!(offer(4, 200, 4), 64, "and back");
        let mut small = Receiver::new(2);
        small.adapt(2, 120_000, 2);
        assert_eq!(small.offer(), 2);
    }
}
