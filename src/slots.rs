//! Handles that outlive what they name.
//!
//! Segments, ports and VTEPs are named by small numbers that fit into an FDB entry. A number is an index with a
//! generation, so that an entry learned for a port that is gone does not come to mean the port that took its place.

use std::collections::VecDeque;

/// Bits of a handle that are the index; the 11 bits above are the generation and the top bit is always clear.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u32 = (1 << 11) - 1;

/// Largest number of things that handles can name at one time.
pub(crate) const MAX_SLOTS: usize = 1 << INDEX_BITS;

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A dense map from handles to values. Cloning it clones the values, which are `Arc`s.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// Indices to be reused, the longest unused first, so that generations wrap as late as can be.
    free: VecDeque<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: VecDeque::new() }
    }

    /// Adds the value that `make` builds from its handle, or returns `None` when no handle is left.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u32) -> T) -> Option<u32> {
        let index = match self.free.pop_front() {
            Some(index) => index,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(Slot { generation: 0, value: None });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        let handle = slot.generation << INDEX_BITS | index;
        slot.value = Some(make(handle));
        Some(handle)
    }

    /// Takes a value out; its handle will not be given out again until 2,048 others had the same index.
    pub(crate) fn remove(&mut self, handle: u32) -> Option<T> {
        self.get(handle)?;
        let index = handle & INDEX_MASK;
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push_back(index);
        slot.value.take()
    }

    #[inline]
    pub(crate) fn get(&self, handle: u32) -> Option<&T> {
        let slot = self.slots.get((handle & INDEX_MASK) as usize)?;
        if slot.generation != handle >> INDEX_BITS {
            return None;
        }
        slot.value.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
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
}
