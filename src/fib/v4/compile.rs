//! From runs of addresses to lines and leaves.

use super::{Block, CHILD, Line, NARROW_CHILD};
use crate::fib::runs::{Code, Runs};

/// A line still to be filled with the 256 addresses of a /24.
struct Todo {
    line: usize,
    first: u32,
    run: usize,
}

struct Chunk<'a> {
    runs: &'a [(u32, Code)],
    /// The run of the address that is being looked at.
    run: usize,
    lines: Vec<Line>,
    leaves: Vec<u32>,
    todo: Vec<Todo>,
}

/// Compiles `tops` /16 prefixes from `first` on: their lines, then those that leaves name; and the leaves.
pub(super) fn compile(runs: &Runs<u32>, first: u32, tops: usize) -> (Vec<Line>, Vec<u32>) {
    let lines = vec![Line::default(); tops];
    let mut chunk = Chunk { runs, run: 0, lines, leaves: Vec::new(), todo: Vec::new() };
    for (line, first) in (first..).step_by(1 << 16).take(tops).enumerate() {
        chunk.fill(line, first, 8);
    }
    for Todo { line, first, run } in std::mem::take(&mut chunk.todo) {
        chunk.run = run;
        chunk.fill(line, first, 0);
    }
    (chunk.lines, chunk.leaves)
}

/// Leaves of two bytes, which name lines from the one after `tops` on, unless some do not fit.
pub(super) fn narrow<T: FromIterator<u16>>(leaves: &[u32], tops: u32) -> Option<T> {
    let narrow = |leaf: &u32| {
        let (value, mark) =
            if leaf & CHILD == 0 { (*leaf, 0) } else { ((leaf & !CHILD) - tops, NARROW_CHILD) };
        u16::try_from(value)
            .ok()
            .filter(|value| value & NARROW_CHILD == 0)
            .map(|value| value | mark)
    };
    leaves.iter().map(narrow).collect()
}

impl Chunk<'_> {
    /// Fills a line with 256 slots of 2^`bits` addresses each.
    fn fill(&mut self, line: usize, first: u32, bits: u32) {
        self.lines[line] = [0, 1, 2, 3].map(|at| self.block(first | at << (6 + bits), bits));
    }

    /// Makes a block and adds its leaves.
    fn block(&mut self, first: u32, bits: u32) -> Block {
        let value = self.value(first, bits);
        // A block may begin with the leaf that the one before it ended with.
        if self.leaves.last() != Some(&value) {
            self.leaves.push(value);
        }
        let mut bitmap = 0;
        let last = first | ((64 << bits) - 1);
        for slot in 1..64 {
            // Where the run reaches beyond the block, the other slots are alike.
            let rest = self.next_start().is_none_or(|start| start > last);
            let value = if rest { self.current() } else { self.value(first | slot << bits, bits) };
            if self.leaves.last() != Some(&value) {
                self.leaves.push(value);
                bitmap |= 1 << (slot - 1);
            }
            if rest {
                break;
            }
        }
        Block { bitmap, end: self.leaves.len() as u32 - 1 }
    }

    /// The leaf of one slot.
    fn value(&mut self, first: u32, bits: u32) -> u32 {
        while self.next_start().is_some_and(|start| start <= first) {
            self.run += 1;
        }
        let last = first | ((1 << bits) - 1);
        if bits == 0 || self.next_start().is_none_or(|start| start > last) {
            return self.current();
        }
        let line = self.lines.len();
        self.lines.push(Line::default());
        self.todo.push(Todo { line, first, run: self.run });
        CHILD | line as u32
    }

    fn next_start(&self) -> Option<u32> {
        self.runs.get(self.run + 1).map(|(start, _)| *start)
    }

    fn current(&self) -> u32 {
        self.runs.get(self.run).map_or(0, |(_, value)| *value)
    }
}
