//! Who may insert a key: one at a time, and nobody waits.

use crate::sync::{AtomicU64, Ordering};

/// Most claims that can be held at a time; a worker holds two at most.
const MAX_CLAIMS: usize = 256;

/// A claim for each part of the keys.
pub(super) struct Claims(Box<[AtomicU64]>);

/// The exclusive right to insert and move keys of one part.
pub(super) struct Claim<'a>(&'a AtomicU64);

impl Claims {
    pub(super) fn new(slots: usize) -> Self {
        Self((0..slots.next_power_of_two().min(MAX_CLAIMS)).map(|_| AtomicU64::new(0)).collect())
    }

    /// The part that a hash belongs to: by its lower bits, which do not choose the bucket.
    pub(super) fn part(&self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }

    /// Takes the claim of a part, unless somebody has it.
    pub(super) fn take(&self, part: usize) -> Option<Claim<'_>> {
        let claim = &self.0[part];
        let taken = claim.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then_some(Claim(claim))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
