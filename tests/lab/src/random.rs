//! Choices that can be made again.

use std::ops::RangeInclusive;

use crate::pattern::mix;

/// A pseudo-random sequence of numbers (splitmix64); of the same seed, the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed ^ 0x7261_6e64) }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number of a range, each about as likely; its start if it is empty.
    pub fn of(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        let span = end.saturating_sub(start).saturating_add(1);
        start + self.number() % span
    }

    /// A number from `low` to `high`, small ones as likely as large ones: each order of magnitude gets its share.
    pub fn of_any_size(&mut self, low: u64, high: u64) -> u64 {
        let bits = 64 - high.leading_zeros();
        let most = self.of(0..=u64::from(bits));
        let ceiling = 1_u64.checked_shl(most as u32).unwrap_or(u64::MAX);
        self.of(low..=ceiling.clamp(low, high.max(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(1);
        let mut seen = [false; 4];
        for _ in 0..200 {
            seen[(random.of(3..=6) - 3) as usize] = true;
            assert!((1..=1 << 23).contains(&random.of_any_size(1, 1 << 23)));
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(random.of(5..=5), 5);
        assert_ne!(Random::new(1).number(), Random::new(2).number());
    }
}
