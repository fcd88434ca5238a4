//! Routes and next-hop groups while tables are changed.

use std::collections::HashSet;

use crate::Error;
use crate::change::MAX_ENTRIES;
use crate::fib::{NextHopId, Prefix};
use crate::next_hop::{GroupId, Hop, MAX_GROUPS, MAX_MEMBERS, MAX_WEIGHT, Member, NextHop, Share};
use crate::segment::{Location, PortId, SegmentId};
use crate::tables::SegmentTable;

use super::{Draft, found};

impl Draft {
    pub(super) fn insert_route(
        &mut self,
        segment: SegmentId,
        prefix: Prefix,
        next_hop: NextHop,
    ) -> Result<(), Error> {
        self.routed(segment)?;
        let hop = self.hop(segment, next_hop)?;
        let routed = self.routed(segment)?;
        let known = routed.next_hops.id(hop).is_some();
        let id = routed.next_hops.acquire(hop);
        let id = id.ok_or(Error::Limit { what: "next hops", limit: NextHopId::MAX as usize })?;
        let old = routed.rib.insert(prefix, id);
        if routed.rib.len() > MAX_ENTRIES {
            return Err(Error::Limit { what: "routes of a segment", limit: MAX_ENTRIES });
        }
        self.rerouted.insert(segment);
        if let (false, Hop::At(location)) = (known, hop) {
            self.name(segment, location)?;
        }
        old.map_or(Ok(()), |old| self.release(segment, old))
    }

    pub(super) fn remove_route(&mut self, segment: SegmentId, prefix: Prefix) -> Result<(), Error> {
        let old = self.routed(segment)?.rib.remove(prefix);
        found(old.is_some(), || format!("route {prefix} of segment {segment}"))?;
        self.rerouted.insert(segment);
        old.map_or(Ok(()), |old| self.release(segment, old))
    }

    /// One route less leads to a next hop.
    fn release(&mut self, segment: SegmentId, id: NextHopId) -> Result<(), Error> {
        match self.routed(segment)?.next_hops.release(id) {
            Some(Hop::At(location)) => self.unname(segment, location),
            _ => Ok(()),
        }
    }

    fn hop(&mut self, segment: SegmentId, next_hop: NextHop) -> Result<Hop, Error> {
        Ok(match next_hop {
            NextHop::To(destination) => Hop::At(self.location(segment, destination)?),
            NextHop::Group(group) => {
                let handle = self.routed(segment)?.next_hops.handle(group);
                Hop::Group(handle.ok_or_else(|| missing(segment, group))?)
            }
            NextHop::Blackhole => Hop::Blackhole,
            NextHop::Unreachable => Hop::Unreachable,
            NextHop::Local => Hop::Local,
        })
    }

    pub(super) fn set_group(
        &mut self,
        segment: SegmentId,
        group: GroupId,
        members: &[Member],
    ) -> Result<(), Error> {
        let next_hops = &self.routed(segment)?.next_hops;
        if next_hops.handle(group).is_none() && next_hops.group_count() >= MAX_GROUPS {
            return Err(Error::Limit { what: "next-hop groups of a segment", limit: MAX_GROUPS });
        }
        if members.len() > MAX_MEMBERS {
            return Err(Error::Limit { what: "members of a next-hop group", limit: MAX_MEMBERS });
        }
        if members.is_empty() {
            return Err(Error::invalid("members of a next-hop group", "none", "1 to 256"));
        }
        let mut shares: Vec<Share> = Vec::with_capacity(members.len());
        let mut seen = HashSet::with_capacity(members.len());
        for Member { destination, weight } in members {
            if !(1..=MAX_WEIGHT).contains(weight) {
                let what = "weight in a next-hop group";
                return Err(Error::invalid(what, weight.to_string(), "1 to 256"));
            }
            if !seen.insert(destination) {
                return Err(Error::conflict(
                    format_args!("{group} of segment {segment}"),
                    format_args!("{destination} is named twice; give it the sum of the weights"),
                ));
            }
            shares.push(Share { at: self.location(segment, *destination)?, weight: *weight });
        }
        self.replace_group(segment, group, shares)
    }

    /// Gives a group other members, of which there may be none.
    fn replace_group(
        &mut self,
        segment: SegmentId,
        group: GroupId,
        shares: Vec<Share>,
    ) -> Result<(), Error> {
        let old = self.members(segment, group)?;
        for share in &shares {
            self.name(segment, share.at)?;
        }
        self.routed(segment)?.next_hops.set_group(group, shares);
        self.unname_all(segment, &old)
    }

    pub(super) fn remove_group(&mut self, segment: SegmentId, group: GroupId) -> Result<(), Error> {
        let next_hops = &self.routed(segment)?.next_hops;
        let handle = next_hops.handle(group).ok_or_else(|| missing(segment, group))?;
        if next_hops.id(Hop::Group(handle)).is_some() {
            return Err(Error::conflict(
                format_args!("{group} of segment {segment}"),
                "routes lead to it; remove them or lead them elsewhere first",
            ));
        }
        let old = self.members(segment, group)?;
        self.routed(segment)?.next_hops.remove_group(group);
        self.unname_all(segment, &old)
    }

    /// The members of a group, none if there is no such group.
    fn members(&mut self, segment: SegmentId, group: GroupId) -> Result<Vec<Share>, Error> {
        let next_hops = &self.routed(segment)?.next_hops;
        let group = next_hops.handle(group).and_then(|handle| next_hops.group(handle));
        Ok(group.map_or_else(Vec::new, |group| group.members.to_vec()))
    }

    fn unname_all(&mut self, segment: SegmentId, shares: &[Share]) -> Result<(), Error> {
        shares.iter().try_for_each(|share| self.unname(segment, share.at))
    }

    /// Takes a port that is gone out of the routes and groups of its segment.
    pub(super) fn remove_next_hop(
        &mut self,
        segment: SegmentId,
        port: PortId,
    ) -> Result<(), Error> {
        let gone = Location::Port(port);
        if !self.entry(segment)?.mentions.contains_key(&gone) {
            return Ok(());
        }
        let routed = self.routed(segment)?;
        if let Some(id) = routed.next_hops.id(Hop::At(gone)) {
            let led_there: Vec<Prefix> =
                routed.rib.iter().filter(|(_, hop)| *hop == id).map(|(prefix, _)| prefix).collect();
            for prefix in led_there {
                self.remove_route(segment, prefix)?;
            }
        }
        let groups = self.routed(segment)?.next_hops.groups();
        let had_it: Vec<GroupId> = groups
            .filter(|group| group.members.iter().any(|share| share.at == gone))
            .map(|group| group.id)
            .collect();
        for group in had_it {
            let mut members = self.members(segment, group)?;
            members.retain(|share| share.at != gone);
            self.replace_group(segment, group, members)?;
        }
        Ok(())
    }

    /// Makes the changed routes those that are looked up in.
    pub(super) fn publish_routes(&mut self) {
        for id in std::mem::take(&mut self.rerouted) {
            if let Ok(segment) = self.segment(id)
                && let SegmentTable::Routed(routed) = &mut segment.table
            {
                routed.fib = routed.rib.publish();
            }
        }
    }
}

fn missing(segment: SegmentId, group: GroupId) -> Error {
    Error::not_found(format_args!("{group} of segment {segment}"))
}
