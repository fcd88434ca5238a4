//! Runs of keys in a table of slots, each with a search tree of one or two layers.
//!
//! ```text
//! root ─▶ slot ─▶ inner line: 16 keys ─▶ leaf: 8 runs, with their values
//!                  └── only of slots with more than 8 runs
//! ```
//!
//! All keys of a line are compared at once and those that are smaller counted, which takes no branch that could be
//! guessed wrong, and the vector unit does it without being asked; so searches PlanB (NSDI 2026), with trees only. Slots
//! spare the upper layers, and the bits they stand for need not be compared: 31 bits of a key are enough, so sixteen
//! fit into a line.

mod plant;

use std::sync::Arc;

pub(super) use plant::Forest;

/// Marks a value that is the number of a root where the search goes on.
pub(super) const CHILD: u32 = 1 << 31;

/// Number of bits of a key that a line compares.
const WINDOW: u32 = 31;

/// 64 bytes: the last keys of all parts but the last, in order; a leaf has eight of them and then the values.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line([i32; 16]);

/// Number of runs of a leaf, and of leaves below an inner line.
const RUNS: usize = 8;
const LEAVES: usize = 17;

/// The line of a slot. With an inner line, the leaves are the lines after that.
#[derive(Clone, Copy, Debug, Default)]
struct Slot(u32);

impl Slot {
    fn new(line: usize, inner: bool) -> Self {
        Self((line as u32) << 1 | u32::from(inner))
    }

    #[inline(always)]
    fn line(self) -> usize {
        (self.0 >> 1) as usize
    }

    /// One if there is an inner line, else 0.
    #[inline(always)]
    fn inner(self) -> usize {
        (self.0 & 1) as usize
    }
}

/// Where a search begins: slots for ranges of keys of one size, but the first and the last take all beyond, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Root {
    /// First key of the first slot, from which on the others follow.
    origin: u64,
    /// Binary logarithm of the size of a slot.
    shift: u32,
    /// Number of slots minus one.
    last: u32,
    /// Index of the first slot.
    base: u32,
}

impl Root {
    /// Index of the slot for a key.
    #[inline(always)]
    fn slot(&self, key: u64) -> usize {
        let slot = key.saturating_sub(self.origin) >> (self.shift & 63);
        self.base as usize + slot.min(u64::from(self.last)) as usize
    }
}

/// The bits of a key that lines compare, below slots of 2^`shift` keys.
#[inline(always)]
fn window(key: u64, shift: u32) -> i32 {
    // One bit short of the type, for vector units compare signed numbers.
    (key << (shift.wrapping_neg() & 63) >> (u64::BITS - WINDOW)) as i32
}

/// Trees that share their memory: the one of a root, and those below.
#[derive(Clone, Debug, Default)]
pub(super) struct Trees {
    root: Root,
    slots: Arc<[Slot]>,
    lines: Arc<[Line]>,
    /// Where a search goes on.
    children: Arc<[Root]>,
}

/// A search for a key that has found its slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    slot: Slot,
    window: i32,
}

impl Trees {
    #[inline(always)]
    pub(super) fn search(&self, key: u64) -> Search {
        self.search_from(&self.root, key)
    }

    #[inline(always)]
    fn search_from(&self, root: &Root, key: u64) -> Search {
        let slot = self.slots.get(root.slot(key)).copied().unwrap_or_default();
        Search { slot, window: window(key, root.shift) }
    }

    /// Goes on from a value that is marked with `CHILD`.
    #[inline(always)]
    pub(super) fn search_child(&self, value: u32, key: u64) -> Search {
        let root = self.children.get((value & !CHILD) as usize);
        root.map_or(Search::default(), |root| self.search_from(root, key))
    }

    /// Index of the line that is the leaf.
    #[inline(always)]
    pub(super) fn leaf(&self, search: Search) -> usize {
        let line = search.slot.line();
        // A leaf in place of an inner line is counted for nothing, which is faster than a branch.
        let smaller = self.lines.get(line).map_or(0, |line| smaller(&line.0, search.window));
        line + search.slot.inner() + (smaller & search.slot.inner().wrapping_neg())
    }

    /// The value of a key that is in this leaf.
    #[inline(always)]
    pub(super) fn value(&self, leaf: usize, search: Search) -> u32 {
        let Some(Line(line)) = self.lines.get(leaf) else { return 0 };
        let (ends, values) = line.split_at(RUNS);
        let ends: &[i32; RUNS] = ends.try_into().unwrap_or(&[0; RUNS]);
        values[smaller(ends, search.window) & (RUNS - 1)] as u32
    }

    /// Bytes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.lines) + size_of_val(&*self.children)
    }
}

/// How many of the keys are smaller than another one.
#[inline(always)]
fn smaller<const N: usize>(keys: &[i32; N], key: i32) -> usize {
    let mut smaller = 0;
    for end in keys {
        smaller += u32::from(*end < key);
    }
    smaller as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(trees: &Trees, key: u64) -> u32 {
        let mut search = trees.search(key);
        loop {
            let found = trees.value(trees.leaf(search), search);
            if found & CHILD == 0 {
                return found;
            }
            search = trees.search_child(found, key);
        }
    }

    /// Every number of runs up to several inner lines, with gaps from one key to half of all.
    #[test]
    fn every_size_and_spread_finds_every_run() {
        for count in 1..300_u64 {
            for spread in [0, 7, 33, 55] {
                // From the lowest key to the highest one, with steps that are not all alike.
                let last = |at: u64| at > 0 && at + 1 == count;
                let start = |at: u64| if last(at) { u64::MAX } else { (at + at / 9) << spread };
                let runs: Vec<_> = (0..count).map(|at| (start(at), at as u32 + 1)).collect();
                let trees = Forest::default().finish(&runs);
                for (at, (start, value)) in runs.iter().enumerate() {
                    let last = runs.get(at + 1).map_or(u64::MAX, |(next, _)| next - 1);
                    for key in [*start, last] {
                        assert_eq!(find(&trees, key), *value, "run {at} of {count}, {spread}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_leads_to_another_tree() {
        let mut forest = Forest::default();
        let child = forest.plant(&[(0, 1), (5, 2), (6, 1)], 0);
        let trees = forest.finish(&[(0, 7), (9, child), (10, 7)]);
        assert_eq!([8, 10, u64::MAX].map(|key| find(&trees, key)), [7; 3]);
        let search = trees.search(9);
        assert_eq!(trees.value(trees.leaf(search), search), child);
        let below = [0, 4, 5, 6, u64::MAX].map(|key| {
            let search = trees.search_child(child, key);
            trees.value(trees.leaf(search), search)
        });
        assert_eq!(below, [1, 1, 2, 1, 1]);
        let nothing = Trees::default();
        let search = nothing.search(5);
        assert_eq!(nothing.value(nothing.leaf(search), search), 0, "no tree, no value");
    }
}
