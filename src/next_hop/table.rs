//! The next hops of one segment: dense numbers for the FIB, counted by the routes that use them, and groups.

use std::sync::Arc;

use crate::fib::NextHopId;
use crate::pages::Pages;
use crate::segment::Location;
use crate::shards::Shards;
use crate::slots::Slots;

use super::GroupId;
use super::buckets;

/// A next hop as forwarding sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hop {
    /// One port or VTEP.
    At(Location),
    /// The group of this handle.
    Group(u32),
    Blackhole,
    Unreachable,
    Local,
}

/// A member of a group with its weight, which is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) at: Location,
    pub(crate) weight: u16,
}

/// Members that share flows. Each flow hashes to a bucket, and each bucket belongs to a member.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) members: Box<[Share]>,
    /// Locations as words, a power of two of them; none if there are no members.
    buckets: Box<[u32]>,
}

impl Group {
    /// The member that a flow goes to; `None` if there is none.
    #[inline]
    pub(crate) fn member(&self, flow: u32) -> Option<Location> {
        let bucket = flow as usize & self.buckets.len().wrapping_sub(1);
        self.buckets.get(bucket).map(|word| Location::from_word(*word))
    }

    /// Number of buckets of a member.
    pub(crate) fn buckets_of(&self, member: Location) -> usize {
        self.buckets.iter().filter(|word| **word == member.to_word()).count()
    }
}

/// A place of the table: a next hop and the number of routes to it, or the next free place.
#[derive(Clone, Copy, Debug)]
enum Place {
    Used { hop: Hop, routes: u32 },
    Free { next: Option<NextHopId> },
}

impl Default for Place {
    fn default() -> Self {
        Self::Free { next: None }
    }
}

/// The next hops that the routes of a segment name. A clone shares what neither of the two changes.
///
/// A number is reused as soon as no route has it: FIB and table are of one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct NextHops {
    places: Pages<Place>,
    /// Numbers given out so far.
    used: u32,
    free: Option<NextHopId>,
    ids: Shards<Hop, NextHopId>,
    groups: Slots<Arc<Group>>,
    handles: Shards<GroupId, u32>,
}

impl NextHops {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            places: Pages::new(),
            used: 0,
            free: None,
            ids: Shards::new(seed),
            groups: Slots::new(),
            handles: Shards::new(seed),
        }
    }

    /// What a number that the FIB holds stands for.
    #[inline]
    pub(crate) fn hop(&self, id: NextHopId) -> Option<Hop> {
        match self.places.get(id.get() as usize)? {
            Place::Used { hop, .. } => Some(*hop),
            Place::Free { .. } => None,
        }
    }

    /// The number of a next hop, if a route uses it.
    pub(crate) fn id(&self, hop: Hop) -> Option<NextHopId> {
        self.ids.get(&hop).copied()
    }

    /// Counts one more route to `hop` and returns its number; `None` when no number is left.
    pub(crate) fn acquire(&mut self, hop: Hop) -> Option<NextHopId> {
        if let Some(id) = self.id(hop) {
            if let Place::Used { routes, .. } = self.places.at_mut(id.get() as usize) {
                *routes += 1;
            }
            return Some(id);
        }
        let id = match self.free {
            Some(id) => id,
            None => NextHopId::new(self.used)?,
        };
        let place = self.places.at_mut(id.get() as usize);
        match *place {
            Place::Free { next } if self.free.is_some() => self.free = next,
            _ => self.used += 1,
        }
        *place = Place::Used { hop, routes: 1 };
        self.ids.insert(hop, id);
        Some(id)
    }

    /// Counts one route less to a number, and returns what it stood for if that was the last.
    pub(crate) fn release(&mut self, id: NextHopId) -> Option<Hop> {
        let place = self.places.at_mut(id.get() as usize);
        let Place::Used { hop, routes } = place else { return None };
        *routes -= 1;
        if *routes > 0 {
            return None;
        }
        let hop = *hop;
        *place = Place::Free { next: self.free };
        self.free = Some(id);
        self.ids.remove(&hop);
        Some(hop)
    }

    #[inline]
    pub(crate) fn group(&self, handle: u32) -> Option<&Arc<Group>> {
        self.groups.get(handle)
    }

    pub(crate) fn handle(&self, id: GroupId) -> Option<u32> {
        self.handles.get(&id).copied()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.iter()
    }

    pub(crate) fn group_count(&self) -> usize {
        self.handles.len()
    }

    /// Makes a group, or gives it other members with as few flows moved as can be. There are at most
    /// [`MAX_GROUPS`](super::MAX_GROUPS), so that a handle is left.
    pub(crate) fn set_group(&mut self, id: GroupId, members: Vec<Share>) {
        let handle = self.handle(id);
        let old = handle.and_then(|handle| self.group(handle)).cloned();
        let (buckets, shares) =
            old.as_ref().map_or((&[][..], &[][..]), |old| (&old.buckets[..], &old.members[..]));
        let buckets = buckets::assign(buckets, shares, &members);
        let group = Arc::new(Group { id, members: members.into(), buckets });
        match handle.and_then(|handle| self.groups.get_mut(handle)) {
            Some(place) => *place = group,
            None => {
                if let Some(handle) = self.groups.insert_with(|_| group) {
                    self.handles.insert(id, handle);
                }
            }
        }
    }

    pub(crate) fn remove_group(&mut self, id: GroupId) {
        if let Some(handle) = self.handles.remove(&id) {
            self.groups.remove(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::VtepId;

    fn to(n: u32) -> Hop {
        Hop::At(Location::Vtep(VtepId(n)))
    }

    #[test]
    fn numbers_are_dense_counted_and_reused() {
        let mut table = NextHops::new(1);
        let ids: Vec<u32> = (0..200).map(|n| table.acquire(to(n)).unwrap().get()).collect();
        assert_eq!(ids, (0..200).collect::<Vec<u32>>());
        let five = table.acquire(to(5)).unwrap();
        assert_eq!((five.get(), table.release(five), table.hop(five)), (5, None, Some(to(5))));
        assert_eq!(table.release(five), Some(to(5)));
        assert_eq!((table.hop(five), table.id(to(5))), (None, None));
        assert_eq!(table.release(table.id(to(7)).unwrap()), Some(to(7)));
        let mut next = |hop| table.acquire(hop).unwrap().get();
        assert_eq!([next(Hop::Blackhole), next(Hop::Local), next(to(5))], [7, 5, 200]);
    }

    #[test]
    fn a_group_changes_its_members_and_keeps_its_handle() {
        let mut table = NextHops::new(1);
        let share = |n| Share { at: Location::Vtep(VtepId(n)), weight: 1 };
        table.set_group(GroupId(9), vec![share(1), share(2)]);
        let handle = table.handle(GroupId(9)).unwrap();
        table.set_group(GroupId(9), vec![share(2)]);
        assert_eq!(table.handle(GroupId(9)), Some(handle));
        let group = table.group(handle).unwrap();
        assert!((0..999).all(|flow| group.member(flow) == Some(share(2).at)));
        table.set_group(GroupId(9), vec![]);
        assert_eq!(table.group(handle).unwrap().member(1), None);
        table.remove_group(GroupId(9));
        assert_eq!((table.group_count(), table.groups().count()), (0, 0));
    }
}
