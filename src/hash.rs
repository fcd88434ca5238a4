//! A seeded hash for the small fixed-size keys of the tables.
//!
//! Keys come from the network, so every table set has a seed of its own; they are a few words long, so one
//! multiplication a word is enough and SipHash, the standard library's choice, would cost more than the lookup.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Odd constant with evenly spread bits: the golden ratio as a 64-bit fraction.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes two words so that every input bit reaches every output bit: the two halves of a 128-bit product.
#[inline]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ MULTIPLIER) * u128::from(b | 1);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A fresh unpredictable seed; always the same one under loom, which repeats what it has seen.
pub(crate) fn random_seed() -> u64 {
    if cfg!(overplane_loom) { MULTIPLIER } else { RandomState::new().hash_one(MULTIPLIER) }
}

/// Makes [`Mixer`]s that all start from one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// Hasher state: one word.
#[derive(Debug)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value, MULTIPLIER.rotate_left(17));
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
