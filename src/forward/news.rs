//! How much of what a batch brings is learned.

/// New and moved MAC addresses that are learned from one share of a batch: bounds what a flood of forged ones costs.
const EACH: u8 = 32;

/// Binary logarithm of the number of shares.
const SHARES_BITS: u32 = 4;

/// Spreads neighbouring numbers over the shares: the golden ratio as a 32-bit fraction.
const MULTIPLIER: u32 = 0x9e37_79b9;

/// What may still be learned from a batch.
///
/// Each place draws on one of a few shares, so that a flood from one place leaves the others theirs. Which places draw on
/// the same one is different in each batch.
pub(super) struct News {
    left: [u8; 1 << SHARES_BITS],
    batch: u32,
}

impl News {
    /// For batch number `batch`.
    pub(super) fn new(batch: u32) -> Self {
        Self { left: [EACH; 1 << SHARES_BITS], batch }
    }

    #[inline]
    fn share(&mut self, place: u32) -> &mut u8 {
        let mixed = (place ^ self.batch.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
        &mut self.left[(mixed >> (u32::BITS - SHARES_BITS)) as usize]
    }

    /// Takes one from the share of a place, and says whether there was one.
    #[inline]
    pub(super) fn take(&mut self, place: u32) -> bool {
        let share = self.share(place);
        let some = *share > 0;
        *share -= u8::from(some);
        some
    }

    /// Gives back what was taken.
    pub(super) fn put_back(&mut self, place: u32) {
        *self.share(place) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_others_theirs_in_most_batches() {
        let learned = (0..1000).filter(|batch| {
            let mut news = News::new(*batch);
            let flooded = (0..5000).filter(|_| news.take(7)).count();
            assert_eq!(flooded, usize::from(EACH));
            news.take(8)
        });
        let learned = learned.count();
        assert!((850..1000).contains(&learned), "in {learned} of 1000 batches");
    }

    #[test]
    fn what_is_put_back_can_be_taken() {
        let mut news = News::new(3);
        while news.take(1) {}
        news.put_back(1);
        assert!(news.take(1) && !news.take(1));
    }
}
