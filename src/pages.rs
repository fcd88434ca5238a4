//! An array that is copied by the page: a clone costs nothing, and a change costs one page and the list of pages.

use std::sync::Arc;

/// Elements of a page.
const PAGE: usize = 64;

/// An array that grows by the page and never shrinks. New elements are `T::default()`.
#[derive(Clone, Debug)]
pub(crate) struct Pages<T> {
    pages: Arc<[Arc<[T; PAGE]>]>,
}

impl<T: Clone + Default> Pages<T> {
    pub(crate) fn new() -> Self {
        Self { pages: Arc::default() }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE).map(|page| &page[index % PAGE])
    }

    /// The element at `index`, to be changed; there is one for each index.
    pub(crate) fn at_mut(&mut self, index: usize) -> &mut T {
        if self.pages.len() <= index / PAGE {
            // One empty page stands for all new ones until they are written to. Twice as many as there were, so that
            // growing costs the same for each element, however many there are.
            let empty = Arc::new(std::array::from_fn(|_| T::default()));
            let len = (2 * self.pages.len()).max(index / PAGE + 1);
            let new = std::iter::repeat_n(&empty, len - self.pages.len());
            self.pages = self.pages.iter().chain(new).cloned().collect();
        }
        &mut Arc::make_mut(&mut Arc::make_mut(&mut self.pages)[index / PAGE])[index % PAGE]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had_and_shares_the_rest() {
        let mut pages = Pages::new();
        for n in 0..1000 {
            *pages.at_mut(n) = n;
        }
        let before = pages.clone();
        *pages.at_mut(500) = 7;
        assert_eq!((before.get(500), pages.get(500)), (Some(&500), Some(&7)));
        let shared = before.pages.iter().zip(&*pages.pages).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), before.pages.len() - 1, "one page was copied");
        assert_eq!(pages.iter().take(1000).sum::<usize>(), 999 * 500 - 500 + 7);
        assert_eq!(pages.get(1 << 20), None);
    }
}
