//! From runs of keys to slots and lines.

use super::{CHILD, LEAVES, Line, RUNS, Root, Slot, Trees, WINDOW, window};

/// Runs in order: the first key of each with its value.
type Runs<'a> = &'a [(u64, u32)];

/// Fewest and most slots of a root.
const FEW_SLOTS: u64 = 8;
const MANY_SLOTS: u64 = 1 << 16;

/// Fewest slots are one for so many runs.
const RUNS_A_SLOT: u64 = 4;

/// Most slots for each run: a search that has to go on costs more than the memory.
const SLOTS_A_RUN: u64 = 32;

/// What is to become trees that share their memory.
#[derive(Debug, Default)]
pub(in crate::fib) struct Forest {
    slots: Vec<Slot>,
    lines: Vec<Line>,
    roots: Vec<Root>,
    /// The last two values that were those of a whole slot, the later one first.
    uniform: [Option<(u32, Slot)>; 2],
}

impl Forest {
    /// Adds a tree; returns a value that leads to it, and has the bits of `mark`, as all that lead to trees below.
    pub(in crate::fib) fn plant(&mut self, runs: Runs<'_>, mark: u32) -> u32 {
        let root = self.tree(runs, mark);
        self.roots.push(root);
        CHILD | mark | (self.roots.len() - 1) as u32
    }

    /// Adds the tree that searches begin with.
    pub(in crate::fib) fn finish(mut self, runs: Runs<'_>) -> Trees {
        let root = self.tree(runs, 0);
        let Self { slots, lines, roots, .. } = self;
        Trees { root, slots: slots.into(), lines: lines.into(), children: roots.into() }
    }

    fn tree(&mut self, runs: Runs<'_>, mark: u32) -> Root {
        let shift = shift(runs);
        let base = self.slots.len();
        let (before, after) =
            (runs.first().map_or(0, |run| run.1), runs.last().map_or(0, |run| run.1));
        let mut root = Root { origin: 0, shift, last: 0, base: base as u32 };
        let [_, (from, _), ..] = runs else {
            self.slots.push(Slot::default());
            self.slots[base] = self.uniform(before);
            return root;
        };
        let to = runs.last().map_or(0, |(start, _)| start - 1);
        // One slot before those with changes of the value, and one after them, stand for all keys beyond.
        let (first, last) = ((from >> shift).saturating_sub(1), (to >> shift) + 1);
        (root.origin, root.last) = (first << shift, (last - first) as u32);
        self.slots.resize(base + root.last as usize + 1, Slot::default());
        let mut rest = runs;
        for (at, slot) in (first..last).zip(base..) {
            let after = rest.iter().skip(1).take_while(|(start, _)| start >> shift == at).count();
            // One that begins with the slot leaves nothing of the run before.
            let begins = rest.get(1).is_some_and(|(start, _)| *start == at << shift);
            let inside = rest.get(usize::from(begins)..=after).unwrap_or_default();
            self.slots[slot] = self.slot(inside, shift, mark);
            rest = rest.get(after..).unwrap_or_default();
        }
        self.slots[base + root.last as usize] = self.uniform(after);
        root
    }

    fn slot(&mut self, runs: Runs<'_>, shift: u32, mark: u32) -> Slot {
        if let [(_, value)] = runs {
            return self.uniform(*value);
        }
        if runs.len() > LEAVES * RUNS || !seen(runs.get(1..).unwrap_or_default(), shift) {
            let child = self.plant(runs, mark);
            return self.uniform(child);
        }
        let end = |at: usize| runs.get(at).map_or(i32::MAX, |(next, _)| window(next - 1, shift));
        let slot = Slot::new(self.lines.len(), runs.len() > RUNS);
        if slot.inner() > 0 {
            self.lines.push(Line(std::array::from_fn(|at| end((at + 1) * RUNS))));
        }
        for (leaf, runs) in runs.chunks(RUNS).enumerate() {
            self.lines.push(Line(std::array::from_fn(|at| match at.checked_sub(RUNS) {
                Some(at) => runs.get(at).map_or(0, |(_, value)| *value as i32),
                None if at + 1 < runs.len() => end(leaf * RUNS + at + 1),
                None => i32::MAX,
            })));
        }
        slot
    }

    fn uniform(&mut self, value: u32) -> Slot {
        // Two, for what is between routes is often of one value.
        self.uniform.swap(0, 1);
        for at in [1, 0] {
            if let Some((have, slot)) = self.uniform[at]
                && have == value
            {
                self.uniform.swap(0, at);
                return slot;
            }
        }
        let slot = Slot::new(self.lines.len(), false);
        let half = |at| if at < RUNS { i32::MAX } else { value as i32 };
        self.lines.push(Line(std::array::from_fn(half)));
        self.uniform[0] = Some((value, slot));
        slot
    }
}

/// Whether lines below a slot of 2^`shift` keys can tell where these runs begin.
fn seen(runs: Runs<'_>, shift: u32) -> bool {
    let unseen = (1_u64 << shift.saturating_sub(WINDOW)) - 1;
    runs.iter().all(|(start, _)| start & unseen == 0)
}

/// How large the slots of a root are to be: small enough that few runs are in slots with too many.
fn shift(runs: Runs<'_>) -> u32 {
    let (Some((from, _)), Some((to, _))) = (runs.get(1), runs.last()) else { return 63 };
    let most = (runs.len() as u64 * SLOTS_A_RUN).clamp(FEW_SLOTS, MANY_SLOTS);
    let mut slots = (runs.len() as u64 / RUNS_A_SLOT).clamp(FEW_SLOTS, most);
    let (mut shift, mut largest) = (63, None);
    loop {
        // The changes of the value may all be at the end of a slot, and then it is -1 + 3.
        let needed = |shift: u32| ((to - 1) >> shift).wrapping_sub(from >> shift).wrapping_add(3);
        while shift > 0 && needed(shift - 1) <= slots {
            shift -= 1;
        }
        let largest = *largest.get_or_insert(shift);
        let crowded: usize = runs
            .chunk_by(|(a, _), (b, _)| a >> shift == b >> shift)
            .filter(|runs| runs.len() >= LEAVES * RUNS || !seen(runs, shift))
            .map(<[_]>::len)
            .sum();
        if crowded <= runs.len() / 32 || shift == 0 {
            return shift;
        }
        if slots >= most {
            // What small slots are of no use for is left to the trees below.
            return if crowded > runs.len() / 2 { largest } else { shift };
        }
        slots = (slots * 2).min(most);
    }
}
