//! Handles that outlive what they name.
//!
//! Segments, ports and VTEPs are named by small numbers that fit into an FDB entry. A number is an index with a
//! generation, so that an entry learned for a port that is gone does not come to mean the port that took its place.

use crate::pages::Pages;

/// Bits of a handle that are the index; the 11 bits above are the generation and the top bit is always clear.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u32 = (1 << 11) - 1;

/// Largest number of things that handles can name at one time.
pub(crate) const MAX_SLOTS: usize = 1 << INDEX_BITS;

/// No slot.
const NONE: u32 = u32::MAX;

/// The index that a handle has for as long as it names something.
#[inline]
pub(crate) fn index(handle: u32) -> usize {
    (handle & INDEX_MASK) as usize
}

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: u32,
    /// Of a free slot, the one that was given back next after it.
    next: u32,
    value: Option<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { generation: 0, next: NONE, value: None }
    }
}

/// A dense map from handles to values. Cloning it costs nothing; a change afterwards copies one page of it or two, and
/// so clones some dozens of the values, which are `Arc`s.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    slots: Pages<Slot<T>>,
    /// Indices given out so far.
    used: u32,
    /// The free indices as a list through the slots, the longest unused first, so that generations wrap as late as can
    /// be.
    first_free: u32,
    last_free: u32,
}

impl<T: Clone> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Pages::new(), used: 0, first_free: NONE, last_free: NONE }
    }

    /// Adds the value that `make` builds from its handle, or returns `None` when no handle is left.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u32) -> T) -> Option<u32> {
        let index = match self.first_free {
            NONE if (self.used as usize) < MAX_SLOTS => {
                self.used += 1;
                self.used - 1
            }
            NONE => return None,
            index => index,
        };
        let slot = self.slots.at_mut(index as usize);
        if index == self.first_free {
            self.first_free = std::mem::replace(&mut slot.next, NONE);
        }
        let handle = slot.generation << INDEX_BITS | index;
        slot.value = Some(make(handle));
        Some(handle)
    }

    /// Takes a value out; its handle will not be given out again until 2,048 others had the same index.
    pub(crate) fn remove(&mut self, handle: u32) -> Option<T> {
        self.get(handle)?;
        let index = handle & INDEX_MASK;
        let slot = self.slots.at_mut(index as usize);
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        let value = slot.value.take();
        match self.first_free {
            NONE => self.first_free = index,
            _ => self.slots.at_mut(self.last_free as usize).next = index,
        }
        self.last_free = index;
        value
    }

    #[inline]
    pub(crate) fn get(&self, handle: u32) -> Option<&T> {
        let slot = self.slots.get((handle & INDEX_MASK) as usize)?;
        if slot.generation != handle >> INDEX_BITS {
            return None;
        }
        slot.value.as_ref()
    }

    /// The value, to be replaced.
    pub(crate) fn get_mut(&mut self, handle: u32) -> Option<&mut T> {
        self.get(handle)?;
        self.slots.at_mut((handle & INDEX_MASK) as usize).value.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handle_dies_with_its_value() {
        let mut slots = Slots::new();
        let a = slots.insert_with(|_| 'a').unwrap();
        assert_eq!(slots.remove(a), Some('a'));
        let b = slots.insert_with(|_| 'b').unwrap();
        assert_eq!(a & INDEX_MASK, b & INDEX_MASK, "the index is reused");
        assert_eq!(slots.get(a), None, "the old handle does not see the new value");
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get(b), Some(&'b'));
        assert_eq!(slots.iter().count(), 1);
    }

    #[test]
    fn handles_leave_the_top_bit_free() {
        let mut slots = Slots::new();
        for _ in 0..5000 {
            let handle = slots.insert_with(|handle| handle).unwrap();
            assert_eq!(handle >> 31, 0);
            slots.remove(handle);
        }
    }

    proptest! {
        /// Indices are reused in the order in which they were given back, and clones do not see each other.
        #[test]
        fn reuse_is_first_in_first_out(steps in prop::collection::vec(any::<Option<u8>>(), 0..300)) {
            let mut slots = Slots::new();
            let (mut held, mut free, mut next) = (Vec::new(), VecDeque::new(), 0);
            for step in steps {
                let before = slots.clone();
                let listed: Vec<u32> = slots.iter().copied().collect();
                match step {
                    Some(which) if !held.is_empty() => {
                        let handle = held.swap_remove(usize::from(which) % held.len());
                        prop_assert_eq!(slots.remove(handle), Some(handle));
                        free.push_back(handle & INDEX_MASK);
                    }
                    _ => {
                        let handle = slots.insert_with(|handle| handle).unwrap();
                        let expected = free.pop_front().unwrap_or_else(|| { next += 1; next - 1 });
                        prop_assert_eq!(handle & INDEX_MASK, expected);
                        held.push(handle);
                    }
                }
                prop_assert_eq!(before.iter().copied().collect::<Vec<_>>(), listed);
                prop_assert_eq!(slots.iter().count(), held.len());
                prop_assert!(held.iter().all(|handle| slots.get(*handle) == Some(handle)));
            }
        }
    }
}
