//! An array that is copied by the page: a clone costs nothing, and a change costs one page and the list of pages.

use std::sync::Arc;

/// Elements of a page.
const PAGE: usize = 64;

/// An array that grows by the page and never shrinks. New elements are `T::default()`.
#[derive(Clone, Debug)]
pub(crate) struct Pages<T> {
    /// Apart from the others: mostly there is no more, and forwarding finds it with one load less.
    first: Arc<[T; PAGE]>,
    others: Arc<[Arc<[T; PAGE]>]>,
}

impl<T: Clone + Default> Pages<T> {
    pub(crate) fn new() -> Self {
        Self { first: Self::page(), others: Arc::default() }
    }

    fn page() -> Arc<[T; PAGE]> {
        Arc::new(std::array::from_fn(|_| T::default()))
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(PAGE) {
            None => self.first.get(index),
            Some(index) => self.others.get(index / PAGE).map(|page| &page[index % PAGE]),
        }
    }

    /// The element at `index`, to be changed; there is one for each index.
    pub(crate) fn at_mut(&mut self, index: usize) -> &mut T {
        let Some(index) = index.checked_sub(PAGE) else {
            return &mut Arc::make_mut(&mut self.first)[index];
        };
        if self.others.len() <= index / PAGE {
            // One empty page stands for all new ones until they are written to. Twice as many as there were, so that
            // growing costs the same for each element, however many there are.
            let empty = Self::page();
            let len = (2 * self.others.len()).max(index / PAGE + 1);
            let new = std::iter::repeat_n(&empty, len - self.others.len());
            self.others = self.others.iter().chain(new).cloned().collect();
        }
        &mut Arc::make_mut(&mut Arc::make_mut(&mut self.others)[index / PAGE])[index % PAGE]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&*self.others).flat_map(|page| page.iter())
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
        assert!(Arc::ptr_eq(&before.first, &pages.first));
        let shared = before.others.iter().zip(&*pages.others).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), before.others.len() - 1, "one page was copied");
        assert_eq!(pages.iter().take(1000).sum::<usize>(), 999 * 500 - 500 + 7);
        assert_eq!(pages.get(1 << 20), None);
    }
}
