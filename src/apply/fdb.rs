//! The entries of an FDB that the control plane makes, while tables are changed.

use std::net::SocketAddr;

use crate::Error;
use crate::change::MAX_ENTRIES;
use crate::segment::{Destination, Location, MAX_FLOOD, PortId, SegmentId};
use crate::tables::Bridge;
use crate::wire::{MacAddr, Vni};

use super::{Draft, Effect, found, remove};

impl Draft {
    pub(super) fn add_flood(&mut self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.bridge(segment)?;
        let id = self.vtep_or_group(segment, vtep)?;
        let flood = &mut self.bridge(segment)?.flood;
        let Err(place) = flood.binary_search(&id) else { return Ok(()) };
        if flood.len() >= MAX_FLOOD {
            return Err(Error::Limit { what: "VTEPs in a flood list", limit: MAX_FLOOD });
        }
        flood.insert(place, id);
        self.welcome(segment, Location::Vtep(id));
        self.name(segment, Location::Vtep(id))
    }

    pub(super) fn remove_flood(
        &mut self,
        segment: SegmentId,
        vtep: SocketAddr,
    ) -> Result<(), Error> {
        let id = self.known_vtep(vtep)?;
        let removed = remove(&mut self.bridge(segment)?.flood, id);
        found(removed, || format!("{vtep} in the flood list of segment {segment}"))?;
        self.unname(segment, Location::Vtep(id))
    }

    pub(super) fn insert_fdb(
        &mut self,
        segment: SegmentId,
        mac: MacAddr,
        destination: Destination,
    ) -> Result<(), Error> {
        if mac.is_multicast() || mac.is_zero() {
            return Err(Error::invalid(
                "MAC address of an FDB entry",
                mac.to_string(),
                "an individual address; those of groups and 00:00:00:00:00:00 are appended to",
            ));
        }
        self.bridge(segment)?;
        let location = self.location(segment, destination)?;
        let bridge = self.bridge(segment)?;
        let old = bridge.statics.insert(mac.into(), location);
        if bridge.statics.len() > MAX_ENTRIES {
            return Err(Error::Limit {
                what: "static FDB entries of a segment",
                limit: MAX_ENTRIES,
            });
        }
        bridge.external.remove(&mac.into());
        let domain = bridge.domain.clone();
        self.effects.push(Effect::Forget(domain, mac));
        self.replace(segment, old, location)
    }

    /// One more destination for a group address, or for the flood list.
    pub(super) fn append_fdb(
        &mut self,
        segment: SegmentId,
        mac: MacAddr,
        destination: Destination,
    ) -> Result<(), Error> {
        if mac.is_zero() {
            return self.add_flood(segment, flooded(destination)?);
        }
        if !mac.is_multicast() {
            return Err(Error::invalid(
                "MAC address to append a destination to",
                mac.to_string(),
                "the address of a group, or 00:00:00:00:00:00 for the flood list; others have one destination",
            ));
        }
        self.bridge(segment)?;
        let location = match destination {
            Destination::Vtep(vtep) => Location::Vtep(self.vtep_or_group(segment, vtep)?),
            Destination::Port(_) => self.location(segment, destination)?,
        };
        let bridge = self.bridge(segment)?;
        let mut list = bridge.lists.get(&mac.into()).cloned().unwrap_or_default();
        if list.locations().any(|known| known == location) {
            return Ok(());
        }
        if list.vteps.len() + list.ports.len() >= MAX_FLOOD {
            return Err(Error::Limit { what: "destinations of a group address", limit: MAX_FLOOD });
        }
        match location {
            Location::Vtep(vtep) => list.vteps.push(vtep),
            Location::Port(port) => list.ports.push(port),
        }
        bridge.lists.insert(mac.into(), list);
        if bridge.lists.len() > MAX_ENTRIES {
            return Err(Error::Limit { what: "group addresses of a segment", limit: MAX_ENTRIES });
        }
        self.name(segment, location)
    }

    /// Removes the entry of an address, with all its destinations.
    pub(super) fn remove_fdb(&mut self, segment: SegmentId, mac: MacAddr) -> Result<(), Error> {
        let bridge = self.bridge(segment)?;
        let missing = || format!("FDB entry {mac} of segment {segment}");
        if mac.is_zero() {
            let flood = std::mem::take(&mut bridge.flood);
            found(!flood.is_empty(), missing)?;
            return flood.iter().try_for_each(|id| self.unname(segment, Location::Vtep(*id)));
        }
        if mac.is_multicast() {
            let list = bridge.lists.remove(&mac.into());
            let list = list.ok_or_else(|| Error::not_found(missing()))?;
            return list.locations().try_for_each(|location| self.unname(segment, location));
        }
        let domain = bridge.domain.clone();
        let pinned = bridge.statics.remove(&mac.into());
        bridge.external.remove(&mac.into());
        let known = pinned.is_some() || bridge.fdb.contains(&domain, mac);
        self.effects.push(Effect::Forget(domain, mac));
        found(known, missing)?;
        pinned.map_or(Ok(()), |location| self.unname(segment, location))
    }

    /// Removes one destination of an address, and the entry with its last one.
    pub(super) fn remove_fdb_destination(
        &mut self,
        segment: SegmentId,
        mac: MacAddr,
        destination: Destination,
    ) -> Result<(), Error> {
        if mac.is_zero() {
            return self.remove_flood(segment, flooded(destination)?);
        }
        self.bridge(segment)?;
        let location = match destination {
            Destination::Vtep(vtep) => Location::Vtep(self.known_vtep(vtep)?),
            Destination::Port(port) => Location::Port(port),
        };
        let bridge = self.bridge(segment)?;
        let missing = || format!("{destination} for {mac} in the FDB of segment {segment}");
        if !mac.is_multicast() {
            found(bridge.statics.get(&mac.into()) == Some(&location), missing)?;
            return self.remove_fdb(segment, mac);
        }
        let list = bridge.lists.get_mut(&mac.into()).ok_or_else(|| Error::not_found(missing()))?;
        let removed = match location {
            Location::Vtep(vtep) => remove(&mut list.vteps, vtep),
            Location::Port(port) => remove(&mut list.ports, port),
        };
        found(removed, missing)?;
        if list.is_empty() {
            bridge.lists.remove(&mac.into());
        }
        self.unname(segment, location)
    }

    /// Sets the VNI of datagrams to a VTEP, or takes that back. Naming it so makes it a peer, as naming it anywhere.
    pub(super) fn set_vtep_vni(
        &mut self,
        segment: SegmentId,
        vtep: SocketAddr,
        vni: Option<Vni>,
    ) -> Result<(), Error> {
        self.bridge(segment)?;
        let Some(vni) = vni else {
            let id = self.known_vtep(vtep)?;
            let entry = self.segment(segment)?;
            let old = entry.vnis.remove(&id);
            entry.update_headers();
            found(old.is_some(), || format!("a VNI of VTEP {vtep} in segment {segment}"))?;
            return self.unname(segment, Location::Vtep(id));
        };
        let id = self.vtep_or_group(segment, vtep)?;
        let entry = self.segment(segment)?;
        let old = entry.vnis.insert(id, vni);
        entry.update_headers();
        match old {
            Some(_) => Ok(()),
            None => self.name(segment, Location::Vtep(id)),
        }
    }
}

/// Takes a port that is gone out of the lists of group addresses.
pub(super) fn forget_port(bridge: &mut Bridge, port: PortId) {
    let lists = bridge.lists.iter();
    let had_it: Vec<_> =
        lists.filter(|(_, list)| list.ports.contains(&port)).map(|(mac, _)| *mac).collect();
    for mac in had_it {
        if let Some(list) = bridge.lists.get_mut(&mac) {
            remove(&mut list.ports, port);
            if list.is_empty() {
                bridge.lists.remove(&mac);
            }
        }
    }
}

/// The VTEP of a flood list's entry.
fn flooded(destination: Destination) -> Result<SocketAddr, Error> {
    match destination {
        Destination::Vtep(vtep) => Ok(vtep),
        Destination::Port(port) => Err(Error::invalid(
            "destination of the flood list",
            port.to_string(),
            "a VTEP; all ports of the segment get what is flooded",
        )),
    }
}
