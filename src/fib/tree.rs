//! A sorted array searched as a tree of cache lines with nine children each.
//!
//! Eight keys are compared at once and those that are smaller counted, which takes no branch that could be guessed
//! wrong, and the vector unit does it without being asked. PlanB (NSDI 2026) looks up IPv6 routes so.
//!
//! The tree is static and has no pointers: child `c` of line `n` of a layer is line `9 n + c` of the next one. All keys
//! are in the last layer; those above repeat some.

/// 64 bytes: keys, or the header of a tree.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line([i64; 8]);

/// Trees, each with a header line: the number of layers above the last, the first line of each, and the first value.
///
/// Six layers have room there, enough for 8 × 9⁵ keys.
#[derive(Debug, Default)]
pub(super) struct Forest {
    lines: Vec<Line>,
    values: Vec<u32>,
}

/// Keys are compared as signed numbers, for that is what vector units have.
#[inline(always)]
fn signed(key: u64) -> i64 {
    (key ^ 1 << 63) as i64
}

impl Forest {
    /// Adds a tree for runs of keys, sorted, with a value each; returns the line of its header.
    pub(super) fn plant(&mut self, runs: &[(u64, u32)]) -> u32 {
        let root = self.lines.len();
        // A key is in the run of which the start is not larger; so count the keys before starts that are smaller.
        let ends: Vec<i64> =
            runs.iter().skip(1).map(|(start, _)| signed(start.wrapping_sub(1))).collect();
        // Number of lines of each layer, and of last-layer lines below one of its lines, last layer first.
        let last = ends.len().div_ceil(8).max(1);
        let mut layers = vec![(last, 1)];
        while let Some(&(lines, below)) = layers.last().filter(|(lines, _)| *lines > 1) {
            layers.push((lines.div_ceil(9), below * 9));
        }
        let mut header = [0; 8];
        header[0] = layers.len() as i64 - 1;
        header[7] = self.values.len() as i64;
        self.lines.push(Line(header));
        for (layer, (lines, below)) in layers.iter().rev().enumerate() {
            header[1 + layer] = self.lines.len() as i64;
            for line in 0..*lines {
                self.lines.push(Line(std::array::from_fn(|at| {
                    let key = if *below == 1 {
                        Some(line * 8 + at)
                    } else {
                        // The last key before the child to the right, if there is such a child.
                        let child = (line * 9 + at + 1) * (below / 9);
                        (child < last).then_some(child * 8 - 1)
                    };
                    key.and_then(|key| ends.get(key)).copied().unwrap_or(i64::MAX)
                })));
            }
        }
        self.lines[root] = Line(header);
        self.values.extend(runs.iter().map(|(_, value)| *value));
        root as u32
    }

    pub(super) fn into_parts(self) -> (Vec<Line>, Vec<u32>) {
        (self.lines, self.values)
    }
}

/// A tree to search, by its header, and where to.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    lines: &'a [Line],
    values: &'a [u32],
    header: &'a [i64; 8],
    key: i64,
    /// The line of the layer that is next.
    line: usize,
}

/// The header of no tree, with no values.
static NOTHING: Line = Line([0; 8]);

impl<'a> Search<'a> {
    #[inline(always)]
    pub(super) fn new(lines: &'a [Line], values: &'a [u32], root: u32, key: u64) -> Self {
        let header = &lines.get(root as usize).unwrap_or(&NOTHING).0;
        Self { lines, values, header, key: signed(key), line: 0 }
    }

    #[inline(always)]
    fn layers(&self) -> usize {
        self.header[0] as usize
    }

    /// How many keys of the line in a layer are smaller.
    #[inline(always)]
    fn smaller(&self, layer: usize) -> usize {
        let line = self.lines.get(self.header[layer & 7] as usize + self.line);
        let mut smaller = 0;
        for end in &line.unwrap_or(&NOTHING).0 {
            smaller += usize::from(*end < self.key);
        }
        smaller
    }

    #[inline(always)]
    fn descend(&mut self, layer: usize) {
        self.line = self.line * 9 + self.smaller(layer);
    }

    /// The value of the run that the key lies in; 0 if there is no tree.
    #[inline(always)]
    fn value(&self) -> u32 {
        let at = self.header[7] as usize + self.line * 8 + self.smaller(self.layers() + 1);
        self.values.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub(super) fn run(mut self) -> u32 {
        for layer in 1..=self.layers() {
            self.descend(layer);
        }
        self.value()
    }
}

/// Number of searches that are made in step.
///
/// A search is a chain of loads that each wait for the one before. So the processor is given several chains at once,
/// more than it would find by looking ahead.
pub(super) const IN_STEP: usize = 8;

/// Makes searches in step.
// Loops, for closures that are handed to functions may miss the instructions of the caller.
#[inline(always)]
pub(super) fn run_in_step(searches: &mut [Search<'_>; IN_STEP], found: &mut [u32; IN_STEP]) {
    let mut layers = 0;
    for search in searches.iter() {
        layers = layers.max(search.layers());
    }
    for layer in 1..=layers {
        for search in searches.iter_mut() {
            if layer <= search.layers() {
                search.descend(layer);
            }
        }
    }
    for (search, found) in searches.iter().zip(found) {
        *found = search.value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of runs there can be up to three layers, for each has its own shape.
    #[test]
    fn every_size_finds_every_run() {
        for count in 0..750_u64 {
            // From the lowest key to the highest one, with steps that are not all alike.
            let start = |at: u64| if at + 1 == count { u64::MAX } else { at * at * 3 };
            let runs: Vec<_> = (0..count).map(|at| (start(at), at as u32 + 1)).collect();
            let mut forest = Forest::default();
            forest.plant(&[(0, 7)]);
            let root = forest.plant(&runs);
            let (lines, values) = forest.into_parts();
            let search = |key| Search::new(&lines, &values, root, key);
            for (at, (start, value)) in runs.iter().enumerate() {
                let last = runs.get(at + 1).map_or(u64::MAX, |(next, _)| next - 1);
                let searches = [*start, last, *start, last, *start, last, *start, last].map(search);
                let mut found = [0; IN_STEP];
                run_in_step(&mut searches.clone(), &mut found);
                assert_eq!(found, [*value; IN_STEP], "run {at} of {count}");
                assert_eq!(searches.map(Search::run), found);
            }
        }
    }

    #[test]
    fn trees_of_different_depths_are_searched_in_step() {
        let mut forest = Forest::default();
        let sizes = [1, 2, 9, 10, 73, 74, 700, 1];
        let runs = |size: u32| (0..size).map(|at| (u64::from(at), at + 1)).collect::<Vec<_>>();
        let roots = sizes.map(|size| forest.plant(&runs(size)));
        let (lines, values) = forest.into_parts();
        let mut found = [0; IN_STEP];
        run_in_step(&mut roots.map(|root| Search::new(&lines, &values, root, 1 << 40)), &mut found);
        assert_eq!(found, sizes);
        assert_eq!(Search::new(&[], &[], 0, 5).run(), 0, "no tree, no value");
    }
}
