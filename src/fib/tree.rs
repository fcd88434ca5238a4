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
        let mut layers = vec![(ends.len().div_ceil(8).max(1), 1)];
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
                let end = |at: usize| ends.get(at).copied().unwrap_or(i64::MAX);
                self.lines.push(Line(std::array::from_fn(|at| {
                    if *below == 1 {
                        end(line * 8 + at)
                    } else {
                        // The last key of the child before the one to the right.
                        end((line * 9 + at + 1) * (below / 9) * 8 - 1)
                    }
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
