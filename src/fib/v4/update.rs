//! Compiling what changed.

use std::sync::Arc;

use super::compile::{compile, narrow};
use super::{Block, CHUNK_BITS, Chunk, Entry, Other, PART_BITS, Part, Table};
use crate::fib::NextHopId;
use crate::fib::address::Address;
use crate::fib::map::{Key, Map};
use crate::fib::noted::Noted;
use crate::fib::runs::{Code, Runs, runs};

/// Most routes of a chunk; with more, its /16 prefixes are chunks of their own.
const DENSE: usize = 16 * 1024;

/// What was changed and is not compiled yet.
#[derive(Clone, Debug, Default)]
pub(in crate::fib) struct Pending {
    /// The first 16 bits of changed prefixes that lie in a chunk.
    parts: Noted<u16>,
    /// Changed prefixes that are larger than a chunk, or as large.
    covers: Noted<Key<u32>>,
}

impl Pending {
    pub(in crate::fib) fn note(&mut self, (address, len): Key<u32>) {
        if len <= CHUNK_BITS {
            self.covers.note((address, len));
        } else {
            self.parts.note((address >> 16) as u16);
        }
    }
}

impl Table {
    /// Compiles what is pending from `map`.
    pub(in crate::fib) fn update(&mut self, map: &Map<u32>, pending: &mut Pending) {
        let nothing = self.nothing.clone();
        let mut compiler = Compiler { map, nothing, routes: Vec::new(), runs: Runs::new() };
        for parts in pending.parts.take().chunk_by(|a, b| a >> 4 == b >> 4) {
            let Some(chunk) = parts.first().map(|part| u32::from(part >> 4)) else { continue };
            compiler.entry(self.entry_mut(chunk), chunk << 20, parts);
        }
        for key in pending.covers.take() {
            self.cover(map, key);
        }
    }

    fn entry_mut(&mut self, chunk: u32) -> &mut Entry {
        let page = &mut Arc::make_mut(&mut self.root)[(chunk >> 6 & 63) as usize];
        &mut Arc::make_mut(page)[(chunk & 63) as usize]
    }

    /// Sets the covers that a route that was added, changed or removed is, or was.
    fn cover(&mut self, map: &Map<u32>, (address, len): Key<u32>) {
        let (code, code_len) = match map.get((address, len)) {
            Some(next_hop) => (next_hop.code(), len),
            None => {
                let around = map.around(address, len);
                around.map_or((0, 0), |(next_hop, len)| (next_hop.code(), len))
            }
        };
        let removed = code_len != len || code == 0;
        let first = address >> 20;
        for chunk in first..first + (1 << (CHUNK_BITS - len)) {
            let entry = self.entry_mut(chunk);
            let affected = if removed { entry.cover_len == len } else { entry.cover_len <= len };
            if affected {
                (entry.cover, entry.cover_len) = (code, code_len);
            }
        }
    }
}

/// The map, and room to work in.
struct Compiler<'a> {
    map: &'a Map<u32>,
    nothing: Entry,
    routes: Vec<(Key<u32>, NextHopId)>,
    runs: Runs<u32>,
}

impl Compiler<'_> {
    /// Compiles the chunk of an entry again, in which `parts` changed.
    fn entry(&mut self, entry: &mut Entry, first: u32, parts: &[u16]) {
        if let Other::Dense(old) = &entry.chunk.other {
            let mut new = old.clone();
            for part in parts {
                self.part(&mut new[usize::from(part & 15)], u32::from(*part) << 16);
            }
            if new.iter().map(|part| part.routes).sum::<usize>() > DENSE / 2 {
                self.dense(entry, first, new);
                return;
            }
        }
        self.map.collect(first, CHUNK_BITS, &mut self.routes);
        if self.routes.is_empty() {
            let nothing = self.nothing.clone();
            (entry.chunk, entry.leaves) = (nothing.chunk, nothing.leaves);
            return;
        }
        if self.routes.len() <= DENSE {
            runs(first, 0, self.routes.iter().copied(), &mut self.runs);
            let (lines, leaves) = compile(&self.runs, first, 16);
            if let Some((blocks, below)) = lines.as_flattened().split_first_chunk()
                && let Some(leaves) = narrow::<Vec<_>>(&leaves, 16)
            {
                let other = Other::Below(below.as_chunks().0.into());
                entry.chunk = Arc::new(Chunk { blocks: *blocks, other });
                entry.leaves = leaves.into();
                return;
            }
        }
        let mut new: Box<[Part; 16]> = Box::default();
        for (part, first) in new.iter_mut().zip((first..).step_by(1 << 16)) {
            self.part(part, first);
        }
        self.dense(entry, first, new);
    }

    fn dense(&self, entry: &mut Entry, first: u32, mut parts: Box<[Part; 16]>) {
        self.part_covers(&mut parts, first);
        let blocks = [Block::default(); 64];
        entry.chunk = Arc::new(Chunk { blocks, other: Other::Dense(parts) });
        entry.leaves = Arc::default();
    }

    fn part(&mut self, part: &mut Part, first: u32) {
        self.map.collect(first, PART_BITS, &mut self.routes);
        runs(first, 0, self.routes.iter().copied(), &mut self.runs);
        let (lines, leaves) = compile(&self.runs, first, 1);
        let (lines, leaves) = (lines.into(), leaves.into());
        *part = Part { lines, leaves, cover: 0, routes: self.routes.len() };
    }

    /// The longest prefix around each part, of those that are not around the whole chunk.
    fn part_covers(&self, parts: &mut [Part; 16], first: u32) {
        for (part, first) in parts.iter_mut().zip((first..).step_by(1 << 16)) {
            let around = (CHUNK_BITS + 1..=PART_BITS).rev();
            let cover = around.filter_map(|len| self.map.get((first.first(len), len))).next();
            part.cover = cover.map_or(0, NextHopId::code) as Code;
        }
    }
}
