//! Multicast databases while tables are changed.

use std::net::IpAddr;

use crate::Error;
use crate::change::MAX_ENTRIES;
use crate::multicast::{Group, Mdb, Member, Timer};
use crate::segment::{Destination, Location, SegmentId};
use crate::source_key::SourceKey;
use crate::tables::Bridge;
use crate::wire::multicast::is_tracked;

use super::{Draft, Effect};

impl Draft {
    pub(super) fn insert_mdb(
        &mut self,
        segment: SegmentId,
        group: Option<IpAddr>,
        destination: Destination,
    ) -> Result<(), Error> {
        if let Some(group) = group.filter(|group| !is_tracked(*group)) {
            let allowed =
                "a multicast address that hosts report: not in 224.0.0.0/24, and not ff02::1";
            return Err(Error::invalid("multicast group", group.to_string(), allowed));
        }
        self.snooping(segment)?;
        let at = self.location(segment, destination)?;
        let mdb = self.snooping(segment)?;
        match mdb.find(group, at) {
            Some(Member { timer: None, .. }) => return Ok(()),
            Some(_) => drop(take(mdb, group, at)),
            None => {}
        }
        put(mdb, group, Member { at, timer: None });
        if mdb.statics > MAX_ENTRIES {
            let what = "static entries of a multicast database";
            return Err(Error::Limit { what, limit: MAX_ENTRIES });
        }
        self.name(segment, at)
    }

    pub(super) fn remove_mdb(
        &mut self,
        segment: SegmentId,
        group: Option<IpAddr>,
        destination: Destination,
    ) -> Result<(), Error> {
        let mdb = self.snooping(segment)?;
        let gone = match destination {
            Destination::Port(port) => take(mdb, group, Location::Port(port)),
            Destination::Vtep(vtep) => {
                let at = Location::Vtep(self.known_vtep(vtep)?);
                take(self.snooping(segment)?, group, at)
            }
        };
        let gone = gone.ok_or_else(|| {
            let what = group.map_or("the multicast routers".to_owned(), |group| group.to_string());
            Error::not_found(format_args!("{destination} for {what} in segment {segment}"))
        })?;
        if gone.timer.is_none() { self.unname(segment, gone.at) } else { Ok(()) }
    }

    /// What was heard of concerns nobody any more if the place or the segment is gone.
    pub(super) fn learn_mdb(
        &mut self,
        segment: SegmentId,
        group: Option<IpAddr>,
        destination: Destination,
        until: u32,
    ) -> Result<(), Error> {
        let Some(at) = self.heard_from(segment, destination) else { return Ok(()) };
        let Ok(mdb) = self.snooping(segment) else { return Ok(()) };
        let known = mdb.find(group, at).cloned();
        let effect = match known {
            Some(known) => known.timer.map(|timer| Effect::Prolong(timer, until)),
            None if mdb.has_room(group) => {
                put(mdb, group, Member { at, timer: Some(Timer::new(until)) });
                None
            }
            None => group.map(|group| Effect::FloodGroup(Box::new(mdb.clone()), group)),
        };
        self.effects.extend(effect);
        Ok(())
    }

    pub(super) fn age_mdb(&mut self, segment: SegmentId, second: u32) -> Result<(), Error> {
        let Ok(mdb) = self.snooping(segment) else { return Ok(()) };
        let over = |(group, member): (Option<IpAddr>, &Member)| {
            member.is_over(second).then_some((group, member.at))
        };
        let over: Vec<_> = mdb.entries().filter_map(over).collect();
        for (group, at) in over {
            take(mdb, group, at);
        }
        Ok(())
    }

    /// Takes into account that a place of a segment is new, if that snoops: it was not asked for its groups yet.
    pub(super) fn welcome(&mut self, segment: SegmentId, at: Location) {
        let Ok(mdb) = self.snooping(segment) else { return };
        let timer = match mdb.find(None, at) {
            // Somebody has said that it gets all groups.
            Some(Member { timer: None, .. }) => return,
            Some(Member { timer: Some(timer), .. }) => timer.clone(),
            None => {
                let timer = Timer::new(0);
                put(mdb, None, Member { at, timer: Some(timer.clone()) });
                timer
            }
        };
        let mdb = Box::new(mdb.bare());
        self.effects.push(Effect::Welcome(mdb, timer));
    }

    /// Where something was heard from, if that is a place of the segment. An open one takes a VTEP into account for it.
    fn heard_from(&mut self, segment: SegmentId, destination: Destination) -> Option<Location> {
        let at = match destination {
            Destination::Port(port) => {
                let entry = self.tables.port(port).filter(|entry| entry.segment == segment);
                return entry.map(|entry| Location::Port(entry.id));
            }
            Destination::Vtep(at) => at,
        };
        if self.tables.segment(segment)?.open && at.port() == segment.udp_port {
            self.discover(segment, at.ip()).ok()?;
        }
        let vtep = self.known_vtep(at).ok()?;
        let entry = self.tables.segment(segment)?;
        let peer = entry.peers.get(&SourceKey::from(at.ip()));
        let known = peer.is_some_and(|peer| peer.vtep == vtep) || entry.discovered.contains(&vtep);
        known.then_some(Location::Vtep(vtep))
    }

    fn snooping(&mut self, segment: SegmentId) -> Result<&mut Mdb, Error> {
        self.bridge(segment)?.mdb.as_deref_mut().ok_or_else(|| {
            Error::conflict(
                format_args!("multicast group of segment {segment}"),
                "the segment does not snoop",
            )
        })
    }
}

fn put(mdb: &mut Mdb, group: Option<IpAddr>, member: Member) {
    if let Some(count) = count(mdb, group, &member) {
        *count += 1;
    }
    match group {
        None => mdb.routers.push(member),
        Some(group) => {
            if let Some(of) = mdb.groups.get_mut(&group) {
                of.members.push(member);
            } else {
                let members = [member].into_iter().collect();
                mdb.groups.insert(group, Group { members, ..Group::default() });
            }
        }
    }
}

/// Removes an entry, and its group with the last one.
fn take(mdb: &mut Mdb, group: Option<IpAddr>, at: Location) -> Option<Member> {
    let place = mdb.members(group).iter().position(|member| member.at == at)?;
    let member = match group {
        None => mdb.routers.swap_remove(place),
        Some(group) => {
            let of = mdb.groups.get_mut(&group)?;
            let member = of.members.swap_remove(place);
            if of.members.is_empty() {
                mdb.groups.remove(&group);
            }
            member
        }
    };
    if let Some(count) = count(mdb, group, &member) {
        *count -= 1;
    }
    Some(member)
}

/// The number of entries that are as this one, if they are counted.
fn count<'a>(mdb: &'a mut Mdb, group: Option<IpAddr>, member: &Member) -> Option<&'a mut usize> {
    match (group, &member.timer) {
        (_, None) => Some(&mut mdb.statics),
        (Some(_), Some(_)) => Some(&mut mdb.learned),
        (None, Some(_)) => None,
    }
}

/// Takes a place that is gone out of the database.
pub(super) fn forget(bridge: &mut Bridge, gone: Location) {
    let Some(mdb) = bridge.mdb.as_deref_mut() else { return };
    let entries = mdb.entries().filter(|(_, member)| member.at == gone);
    let groups: Vec<_> = entries.map(|(group, _)| group).collect();
    for group in groups {
        take(mdb, group, gone);
    }
}
