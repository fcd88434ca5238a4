//! What changed and is not compiled yet.

/// A set that is written often and read once.
#[derive(Clone, Debug)]
pub(super) struct Noted<T>(Vec<T>);

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Copy> Noted<T> {
    pub(super) fn note(&mut self, value: T) {
        // Duplicates go when there is no room, so that it stays within twice the number of distinct values.
        if self.0.len() == self.0.capacity() && self.0.len() > 1024 {
            self.distinct();
        }
        self.0.push(value);
    }

    /// What was noted, in order, once each; nothing is noted afterwards.
    pub(super) fn take(&mut self) -> Vec<T> {
        self.distinct();
        std::mem::take(&mut self.0)
    }

    fn distinct(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::Noted;

    #[test]
    fn what_is_noted_again_and_again_takes_no_room() {
        let mut noted = Noted::default();
        for at in 0..1_000_000_u32 {
            noted.note(at * 7 % 1000);
        }
        assert!(noted.0.capacity() < 5000, "{}", noted.0.capacity());
        assert!(noted.take().into_iter().eq(0..1000));
        assert!(noted.take().is_empty());
    }
}
