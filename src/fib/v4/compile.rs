//! From runs of addresses to the lines of a chunk.

use super::{Line, child_flag};
use crate::fib::runs::{Code, Runs};

/// Marks a leaf that names a line, while it is not known how wide leaves are.
const CHILD: u32 = 1 << 31;

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
    /// Bitmap and index of the first leaf, of eight blocks a line.
    lines: Vec<[(u32, u32); 8]>,
    leaves: Vec<u32>,
    todo: Vec<Todo>,
}

/// Compiles `tops` /16 prefixes from `first` on; returns whether leaves are wide.
pub(super) fn compile<T: FromIterator<Line>>(
    runs: &Runs<u32>,
    first: u32,
    tops: usize,
) -> (T, bool) {
    let lines = vec![[(0, 0); 8]; tops];
    let mut chunk = Chunk { runs, run: 0, lines, leaves: Vec::new(), todo: Vec::new() };
    for (line, first) in (first..).step_by(1 << 16).take(tops).enumerate() {
        chunk.fill(line, first, 8);
    }
    for Todo { line, first, run } in std::mem::take(&mut chunk.todo) {
        chunk.run = run;
        chunk.fill(line, first, 0);
    }
    chunk.pack()
}

impl Chunk<'_> {
    /// Fills a line with 256 slots of 2^`bits` addresses each.
    fn fill(&mut self, line: usize, first: u32, bits: u32) {
        for block in 0..8 {
            let first = first | block << (5 + bits);
            self.lines[line][block as usize] = self.block(first, bits);
        }
    }

    fn block(&mut self, first: u32, bits: u32) -> (u32, u32) {
        let value = self.value(first, bits);
        // A block may begin with the leaf that the one before it ended with.
        if self.leaves.last() != Some(&value) {
            self.leaves.push(value);
        }
        let (mut bitmap, base) = (1, self.leaves.len() - 1);
        let last = first | ((32 << bits) - 1);
        for slot in 1..32 {
            if self.next_start().is_none_or(|start| start > last) {
                // The run reaches beyond the block.
                let rest = self.current();
                if self.leaves.last() != Some(&rest) {
                    self.leaves.push(rest);
                    bitmap |= 1 << slot;
                }
                break;
            }
            let value = self.value(first | slot << bits, bits);
            if self.leaves.last() != Some(&value) {
                self.leaves.push(value);
                bitmap |= 1 << slot;
            }
        }
        (bitmap, base as u32)
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
        self.lines.push([(0, 0); 8]);
        self.todo.push(Todo { line, first, run: self.run });
        CHILD | line as u32
    }

    fn next_start(&self) -> Option<u32> {
        self.runs.get(self.run + 1).map(|(start, _)| *start)
    }

    fn current(&self) -> u32 {
        self.runs.get(self.run).map_or(0, |(_, value)| *value)
    }

    fn pack<T: FromIterator<Line>>(self) -> (T, bool) {
        let narrow = child_flag(false);
        let wide = self.leaves.iter().any(|leaf| leaf & !CHILD >= narrow);
        let per_line = if wide { 16 } else { 32 };
        let base = (self.lines.len() * per_line) as u32;
        let blocks = self.lines.iter().map(|blocks| {
            Line(std::array::from_fn(|at| {
                let (bitmap, first) = blocks[at / 4];
                // One less, for the rank counts the bit of the slot itself.
                let word = if at & 2 == 0 { bitmap } else { base + first - 1 };
                (word >> (16 * (at as u32 & 1))) as u16
            }))
        });
        let flag = child_flag(wide);
        let packed = |leaf: u32| if leaf & CHILD == 0 { leaf } else { leaf & !CHILD | flag };
        let leaves = self.leaves.chunks(per_line).map(|leaves| {
            Line(std::array::from_fn(|at| {
                let (leaf, half) = if wide { (at / 2, at as u32 & 1) } else { (at, 0) };
                leaves.get(leaf).map_or(0, |leaf| (packed(*leaf) >> (16 * half)) as u16)
            }))
        });
        (blocks.chain(leaves).collect(), wide)
    }
}
