//! Bytes that can be made and checked anywhere.

/// A pseudo-random stream of bytes in which any position can be made and checked by itself.
///
/// Two streams of the same seed are the same; streams of different seeds share nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed ^ 0x6f76_6572_706c_616e) }
    }

    /// Writes the bytes that stand at `offset` (in bytes) and after it into `out`.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut index = offset / 8;
        let skip = (offset % 8) as usize;
        let mut rest = out;
        if skip != 0 {
            let count = rest.len().min(8 - skip);
            let (head, tail) = rest.split_at_mut(count);
            head.copy_from_slice(&self.word(index)[skip..skip + count]);
            rest = tail;
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for chunk in &mut words {
            chunk.copy_from_slice(&self.word(index));
            index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&self.word(index)[..tail.len()]);
    }

    /// `length` bytes of the stream from its start.
    #[must_use]
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.fill(0, &mut out);
        out
    }

    /// The offset in the stream of the first byte of `data`, which stands at `offset`, that differs.
    #[must_use]
    pub fn mismatch(&self, offset: u64, data: &[u8]) -> Option<u64> {
        let mut expected = [0; 4096];
        let mut at = offset;
        for chunk in data.chunks(expected.len()) {
            let expected = &mut expected[..chunk.len()];
            self.fill(at, expected);
            if chunk != expected {
                let within = chunk.iter().zip(expected.iter()).position(|(a, b)| a != b);
                return within.map(|within| at + within as u64);
            }
            at += chunk.len() as u64;
        }
        None
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }
}

/// The finishing step of the splitmix64 generator.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn every_piece_is_the_same_as_in_the_whole() {
        let pattern = Pattern::new(7);
        let whole = pattern.bytes(100);
        for start in 0..40 {
            for length in 0..40 {
                let mut piece = vec![0; length];
                pattern.fill(start as u64, &mut piece);
                assert_eq!(piece, whole[start..start + length]);
            }
        }
        assert_ne!(whole, Pattern::new(8).bytes(100));
    }

    #[test]
    fn a_mismatch_is_located() {
        let pattern = Pattern::new(1);
        let mut data = vec![0; 20_000];
        pattern.fill(333, &mut data);
        assert_eq!(pattern.mismatch(333, &data), None);
        data[12_345] ^= 1;
        assert_eq!(pattern.mismatch(333, &data), Some(333 + 12_345));
    }
}
