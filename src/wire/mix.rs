//! The mixing function behind flow hashes.

/// Multiply-and-fold mixing in the manner of wyhash: every bit of a 128-bit product depends on all
/// bits below it, and folding its halves brings the strong upper bits down.
pub(super) struct Mixer {
    state: u64,
    key: u64,
}

impl Mixer {
    /// Odd numbers with half of their bits set and no pattern (digits of the fractions of e, pi and
    /// the golden ratio).
    const E: u64 = 0xb7e1_5162_8aed_2a6b;
    const PI: u64 = 0x243f_6a88_85a3_08d3;
    const PHI: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline]
    pub(super) fn new(seed: u64) -> Mixer {
        // Never zero: a zero factor would forget the other one.
        Mixer { state: (seed ^ Self::E) | 1, key: seed.rotate_left(32) ^ Self::PI }
    }

    #[inline]
    pub(super) fn add(&mut self, a: u64, b: u64) {
        self.state = fold(self.state ^ a, self.key ^ b) ^ self.state.rotate_left(23);
    }

    #[inline]
    pub(super) fn finish(self) -> u32 {
        let hash = fold(self.state, Self::PHI);
        (hash ^ (hash >> 32)) as u32
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(seed: u64, a: u64, b: u64) -> u32 {
        let mut mixer = Mixer::new(seed);
        mixer.add(a, b);
        mixer.finish()
    }

    #[test]
    fn every_input_bit_changes_about_half_of_the_output() {
        const ROUNDS: u64 = 256;
        for bit in 0..128 {
            let (a, b) = if bit < 64 { (1u64 << bit, 0) } else { (0, 1u64 << (bit - 64)) };
            let changed: u32 = (0..ROUNDS)
                .map(|n| {
                    let (x, y) = (n.wrapping_mul(0x1234_5678_9abc_def1), n << 8 | 6);
                    (hash(7, x, y) ^ hash(7, x ^ a, y ^ b)).count_ones()
                })
                .sum();
            let mean = f64::from(changed) / ROUNDS as f64;
            assert!((14.0..18.0).contains(&mean), "input bit {bit} changes {mean} bits");
        }
    }

    #[test]
    fn no_seed_collapses_the_hash() {
        for seed in [0, 1, Mixer::E, Mixer::E ^ 1, Mixer::PI, Mixer::PI.rotate_right(32), u64::MAX]
        {
            let mut hashes: Vec<u32> = (0..1000).map(|n| hash(seed, n, 6)).collect();
            hashes.extend((0..1000).map(|n| hash(seed, 5, n << 8)));
            hashes.sort_unstable();
            hashes.dedup();
            assert!(hashes.len() >= 1998, "seed {seed:#x} leaves {}", hashes.len());
        }
    }
}
