//! An ordered map from prefix to next hop, of blocks that clones share until one of them writes.
//!
//! A B+ tree: changing a route copies the blocks on the way to it that are shared, a few kilobytes, and nothing else.

use std::slice;
use std::sync::Arc;

use super::NextHopId;
use super::address::Address;

/// Most routes of a leaf, and most children of an inner block.
const FULL: usize = 64;

/// Neighbours that together have fewer are made one.
const SPARSE: usize = FULL / 2;

/// A prefix: its first address and its length. They sort as prefixes do: one before those inside it.
pub(super) type Key<A> = (A, u8);

/// A block with a lower bound of its keys.
type Child<A> = (Key<A>, Arc<Block<A>>);

#[derive(Clone, Debug)]
enum Block<A> {
    Leaf(Vec<(Key<A>, NextHopId)>),
    Inner(Vec<Child<A>>),
}

/// Whether one key sorts before another, in a way that compiles to no branch.
#[inline(always)]
fn before<A: Ord>(a: &Key<A>, b: &Key<A>) -> bool {
    (a.0 < b.0) | ((a.0 == b.0) & (a.1 < b.1))
}

/// Where a key is among those of a leaf, or where it would be.
#[inline(always)]
fn find<A: Ord>(routes: &[(Key<A>, NextHopId)], key: &Key<A>) -> Result<usize, usize> {
    let at = routes.partition_point(|(have, _)| before(have, key));
    if routes.get(at).is_some_and(|(have, _)| have == key) { Ok(at) } else { Err(at) }
}

/// Routes in order of prefix.
#[derive(Clone, Debug)]
pub(super) struct Map<A> {
    root: Arc<Block<A>>,
    len: usize,
}

impl<A: Address> Map<A> {
    pub(super) fn new() -> Self {
        Self { root: Arc::new(Block::Leaf(Vec::new())), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, key: Key<A>, next_hop: NextHopId) -> Option<NextHopId> {
        let (old, split) = Arc::make_mut(&mut self.root).insert(key, next_hop);
        if let Some((bound, right)) = split {
            let left = (key.min(bound), Arc::clone(&self.root));
            self.root = Arc::new(Block::Inner(vec![left, (bound, right)]));
        }
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, key: Key<A>) -> Option<NextHopId> {
        // A key that is not there must not make copies of blocks.
        self.get(key)?;
        let old = Arc::make_mut(&mut self.root).remove(key);
        if let Block::Inner(children) = &*self.root
            && let [(_, only)] = children.as_slice()
        {
            self.root = Arc::clone(only);
        }
        self.len -= usize::from(old.is_some());
        old
    }

    pub(super) fn get(&self, key: Key<A>) -> Option<NextHopId> {
        let mut block = &self.root;
        loop {
            match &**block {
                Block::Leaf(routes) => {
                    let at = find(routes, &key).ok()?;
                    return routes.get(at).map(|(_, next_hop)| *next_hop);
                }
                Block::Inner(children) => block = &children.get(child(children, key))?.1,
            }
        }
    }

    /// The longest prefix around an address that is shorter than `len`, with its length.
    pub(super) fn around(&self, address: A, len: u8) -> Option<(NextHopId, u8)> {
        (0..len).rev().find_map(|len| Some((self.get((address.first(len), len))?, len)))
    }

    /// Gathers the routes inside a prefix, without that prefix itself, in place of what `routes` held.
    pub(super) fn collect(&self, first: A, len: u8, routes: &mut Vec<(Key<A>, NextHopId)>) {
        routes.clear();
        let inside = self.iter_from((first, 0)).take_while(|((at, _), _)| *at <= first.last(len));
        routes.extend(inside.filter(|((_, longer), _)| *longer > len));
    }

    /// The routes from `key` on.
    pub(super) fn iter_from(&self, key: Key<A>) -> Iter<'_, A> {
        let mut above = Vec::new();
        let mut block = &self.root;
        loop {
            match &**block {
                Block::Leaf(routes) => {
                    let at = routes.partition_point(|(have, _)| *have < key);
                    return Iter { above, leaf: routes.get(at..).unwrap_or_default().iter() };
                }
                Block::Inner(children) => {
                    let mut rest = children.get(child(children, key)..).unwrap_or_default().iter();
                    let Some((_, first)) = rest.next() else {
                        return Iter { above, leaf: [].iter() };
                    };
                    above.push(rest);
                    block = first;
                }
            }
        }
    }
}

/// Which child a key belongs to.
fn child<A: Ord>(children: &[Child<A>], key: Key<A>) -> usize {
    children.partition_point(|(bound, _)| !before(&key, bound)).saturating_sub(1)
}

/// What an insertion replaced, and the right half of the block if it had to be split.
type Inserted<A> = (Option<NextHopId>, Option<Child<A>>);

impl<A: Copy + Ord> Block<A> {
    fn insert(&mut self, key: Key<A>, next_hop: NextHopId) -> Inserted<A> {
        match self {
            Self::Leaf(routes) => {
                let at = match find(routes, &key) {
                    Ok(at) => return (Some(std::mem::replace(&mut routes[at].1, next_hop)), None),
                    Err(at) => at,
                };
                if routes.len() < FULL {
                    routes.insert(at, (key, next_hop));
                    return (None, None);
                }
                let mut right = split_off(routes);
                match at.checked_sub(routes.len()) {
                    Some(at) if at > 0 => right.insert(at, (key, next_hop)),
                    _ => routes.insert(at, (key, next_hop)),
                }
                (None, right.first().map(|r| r.0).map(|bound| (bound, Arc::new(Self::Leaf(right)))))
            }
            Self::Inner(children) => {
                let at = child(children, key);
                let Some((_, below)) = children.get_mut(at) else { return (None, None) };
                let (old, split) = Arc::make_mut(below).insert(key, next_hop);
                let Some(new) = split else { return (old, None) };
                let mut right = None;
                if children.len() < FULL {
                    children.insert(at + 1, new);
                } else {
                    let mut half = split_off(children);
                    match (at + 1).checked_sub(children.len()) {
                        Some(at) if at > 0 => half.insert(at, new),
                        _ => children.insert(at + 1, new),
                    }
                    right =
                        half.first().map(|c| c.0).map(|bound| (bound, Arc::new(Self::Inner(half))));
                }
                (old, right)
            }
        }
    }

    fn remove(&mut self, key: Key<A>) -> Option<NextHopId> {
        match self {
            Self::Leaf(routes) => {
                let at = find(routes, &key).ok()?;
                Some(routes.remove(at).1)
            }
            Self::Inner(children) => {
                let at = child(children, key);
                let old = Arc::make_mut(&mut children.get_mut(at)?.1).remove(key);
                join(children, at);
                if at > 0 {
                    join(children, at - 1);
                }
                old
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(routes) => routes.len(),
            Self::Inner(children) => children.len(),
        }
    }
}

/// Makes one of the child `at` and the next one, if they are sparse.
fn join<A: Copy + Ord>(children: &mut Vec<Child<A>>, at: usize) {
    let Some([(_, left), (_, right)]) = children.get_mut(at..at + 2) else { return };
    if left.len() + right.len() >= SPARSE {
        return;
    }
    match (Arc::make_mut(left), &**right) {
        (Block::Leaf(left), Block::Leaf(right)) => left.extend_from_slice(right),
        (Block::Inner(left), Block::Inner(right)) => left.extend_from_slice(right),
        _ => return, // all leaves are equally deep
    }
    children.remove(at + 1);
}

/// The upper half, with room to grow.
fn split_off<T>(items: &mut Vec<T>) -> Vec<T> {
    let mut upper = Vec::with_capacity(FULL);
    upper.extend(items.drain(items.len() / 2..));
    upper
}

/// Routes in order of prefix.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a, A> {
    /// What is left to visit of the blocks above the leaf.
    above: Vec<slice::Iter<'a, Child<A>>>,
    leaf: slice::Iter<'a, (Key<A>, NextHopId)>,
}

impl<A: Copy> Iterator for Iter<'_, A> {
    type Item = (Key<A>, NextHopId);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(route) = self.leaf.next() {
                return Some(*route);
            }
            let Some((_, block)) = self.above.last_mut()?.next() else {
                self.above.pop();
                continue;
            };
            match &**block {
                Block::Leaf(routes) => self.leaf = routes.iter(),
                Block::Inner(children) => self.above.push(children.iter()),
            }
        }
    }
}
