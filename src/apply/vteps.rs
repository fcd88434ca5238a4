//! VTEPs while tables are changed: who names them, and so who is a peer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::Error;
use crate::change::{MAX_DISCOVERED, MAX_UNDERLAY_GROUPS};
use crate::counters::PerWorker;
use crate::segment::{Destination, Location, SegmentId, VtepId, horizon};
use crate::slots::MAX_SLOTS;
use crate::source_key::SourceKey;
use crate::tables::{KnownVtep, Mentions, Peer, SegmentEntry, VtepEntry};

use super::{Draft, add, found};

impl Draft {
    pub(super) fn known_vtep(&self, address: SocketAddr) -> Result<VtepId, Error> {
        let known = self.tables.vtep_by_address.get(&address).map(|known| known.id);
        known.ok_or_else(|| Error::not_found(format_args!("VTEP {address}")))
    }

    /// The VTEP at `address`, made if it is new. Whoever makes it names it, or it is gone in the end.
    pub(super) fn vtep(
        &mut self,
        segment: SegmentId,
        address: SocketAddr,
    ) -> Result<VtepId, Error> {
        if address.ip().is_multicast() {
            return Err(Error::invalid(
                "VTEP",
                address.to_string(),
                "a unicast address with a UDP port; groups are for flood lists",
            ));
        }
        self.vtep_or_group(segment, address)
    }

    /// The same where the address may be that of a group of VTEPs.
    pub(super) fn vtep_or_group(
        &mut self,
        segment: SegmentId,
        address: SocketAddr,
    ) -> Result<VtepId, Error> {
        self.entry(segment)?;
        let ip = address.ip();
        if self.tables.locals.contains(ip) && address.port() == segment.udp_port {
            return Err(Error::conflict(
                format_args!("VTEP {address} in segment {segment}"),
                "it is this node itself, which would hear its own frames",
            ));
        }
        if let Some(known) = self.tables.vtep_by_address.get(&address) {
            return Ok(known.id);
        }
        if ip.is_unspecified() || address.port() == 0 {
            return Err(Error::invalid(
                "VTEP",
                address.to_string(),
                "a unicast address with a UDP port",
            ));
        }
        if !self.tables.locals.reach(ip) {
            return Err(Error::conflict(
                format_args!("VTEP {address}"),
                format_args!(
                    "this node's underlay address is {}: the families differ",
                    self.tables.locals
                ),
            ));
        }
        let counters = PerWorker::new(self.tables.workers);
        let handle = self.tables.vteps.insert_with(|_| Arc::new(VtepEntry { address, counters }));
        let id = VtepId(handle.ok_or(Error::Limit { what: "VTEPs", limit: MAX_SLOTS })?);
        self.tables.vtep_by_address.insert(address, KnownVtep { id, segments: 0 });
        self.tables.vteps_made += 1;
        self.perhaps_unnamed.push(id);
        Ok(id)
    }

    pub(super) fn location(
        &mut self,
        segment: SegmentId,
        destination: Destination,
    ) -> Result<Location, Error> {
        match destination {
            Destination::Vtep(vtep) => Ok(Location::Vtep(self.vtep(segment, vtep)?)),
            Destination::Port(port) => match self.tables.port(port) {
                Some(entry) if entry.segment == segment => Ok(Location::Port(port)),
                Some(entry) => Err(Error::conflict(
                    port,
                    format_args!("it is attached to segment {}", entry.segment),
                )),
                None => Err(Error::not_found(port)),
            },
        }
    }

    pub(super) fn discover(&mut self, segment: SegmentId, address: IpAddr) -> Result<(), Error> {
        let entry = self.entry(segment)?;
        if !entry.open
            || entry.peers.contains_key(&SourceKey::from(address))
            || entry.discovered.len() >= MAX_DISCOVERED
        {
            return Ok(());
        }
        let id = self.vtep(segment, SocketAddr::new(address, segment.udp_port))?;
        add(&mut self.segment(segment)?.discovered, id);
        self.touch(segment, id);
        Ok(())
    }

    /// Notes that a VTEP may have become a peer of a segment, or may be one no more.
    pub(super) fn touch(&mut self, segment: SegmentId, vtep: VtepId) {
        self.touched.entry(segment).or_default().push(vtep);
    }

    /// Changes what names a location in a segment, and says whether that changed anything.
    fn mention(
        &mut self,
        segment: SegmentId,
        location: Location,
        change: impl FnOnce(&mut Mentions),
    ) -> Result<bool, Error> {
        let mentions = &mut self.segment(segment)?.mentions;
        let before = mentions.get(&location).copied().unwrap_or_default();
        let mut after = before;
        change(&mut after);
        if after.is_named() {
            mentions.insert(location, after);
        } else {
            mentions.remove(&location);
            self.forget_group(segment, location)?;
        }
        if let Location::Vtep(vtep) = location
            && before.is_named() != after.is_named()
        {
            self.touch(segment, vtep);
        }
        Ok(before != after)
    }

    /// Names a VTEP as a peer of the segment, or takes that back, and says whether that changed anything.
    pub(super) fn name_peer(
        &mut self,
        segment: SegmentId,
        vtep: VtepId,
        peer: bool,
    ) -> Result<bool, Error> {
        self.mention(segment, Location::Vtep(vtep), |mentions| mentions.peer = peer)
    }

    /// Gives a VTEP that the segment names a split horizon group, or that of the segment.
    pub(super) fn set_vtep_group(
        &mut self,
        segment: SegmentId,
        address: SocketAddr,
        group: Option<u8>,
    ) -> Result<(), Error> {
        let vtep = self.known_vtep(address)?;
        let named = self.entry(segment)?.mentions.contains_key(&Location::Vtep(vtep));
        found(named, || format!("VTEP {address} of segment {segment}"))?;
        let groups = &mut self.bridge(segment)?.groups;
        match group {
            Some(group) => _ = groups.insert(vtep, horizon(group)?),
            None => _ = groups.remove(&vtep),
        }
        Ok(())
    }

    /// What nothing names has no group of its own.
    fn forget_group(&mut self, segment: SegmentId, location: Location) -> Result<(), Error> {
        if let (Location::Vtep(vtep), Some(_)) = (location, self.entry(segment)?.bridge()) {
            self.bridge(segment)?.groups.remove(&vtep);
        }
        Ok(())
    }

    /// Counts one more that names a location in the segment.
    pub(super) fn name(&mut self, segment: SegmentId, location: Location) -> Result<(), Error> {
        self.mention(segment, location, |mentions| mentions.others += 1).map(|_| ())
    }

    /// Takes back [`Draft::name`].
    pub(super) fn unname(&mut self, segment: SegmentId, location: Location) -> Result<(), Error> {
        self.mention(segment, location, |mentions| mentions.others -= 1).map(|_| ())
    }

    /// One thing in the segment names `new` that named `old` before, or nothing.
    pub(super) fn replace(
        &mut self,
        segment: SegmentId,
        old: Option<Location>,
        new: Location,
    ) -> Result<(), Error> {
        if old == Some(new) {
            return Ok(());
        }
        self.name(segment, new)?;
        old.map_or(Ok(()), |old| self.unname(segment, old))
    }

    /// Counts one segment more or less that has a VTEP as a peer.
    fn count_peer(&mut self, vtep: VtepId, change: impl FnOnce(&mut u32)) {
        let address = self.tables.vtep_address(vtep);
        let known = address.and_then(|address| self.tables.vtep_by_address.get_mut(&address));
        if let Some(known) = known {
            change(&mut known.segments);
            if known.segments == 0 {
                self.perhaps_unnamed.push(vtep);
            }
        }
    }

    /// Counts one segment more or less that sends to a VTEP, if that is a group of the underlay: whoever sends to a
    /// group is a member of it.
    fn count_group(&mut self, segment: SegmentId, vtep: VtepId, more: bool) -> Result<(), Error> {
        let Some(group) = self.tables.vtep_address(vtep).filter(|at| at.ip().is_multicast()) else {
            return Ok(());
        };
        let key = (segment.udp_port, group.ip());
        let groups = Arc::make_mut(&mut self.tables.underlay_groups);
        let members = groups.get(&key).copied().unwrap_or(0);
        match if more { members + 1 } else { members - 1 } {
            0 => {
                groups.remove(&key);
            }
            members => {
                groups.insert(key, members);
            }
        }
        if groups.len() > MAX_UNDERLAY_GROUPS {
            let what = "groups of the underlay";
            return Err(Error::Limit { what, limit: MAX_UNDERLAY_GROUPS });
        }
        // Workers have a socket for each.
        self.tables.attachments += 1;
        Ok(())
    }

    /// The VTEPs of a segment that was removed are peers no more.
    pub(super) fn forget_peers(&mut self, id: SegmentId, segment: &SegmentEntry) {
        self.touched.remove(&id);
        self.tables.peerings += 1;
        for peer in segment.peers.values() {
            // Fewer groups are never too many.
            let _ = self.count_group(id, peer.vtep, false);
            self.count_peer(peer.vtep, |segments| *segments -= 1);
        }
    }

    /// Settles who is a peer in the segments where that may have changed, forgets what was learned behind those that
    /// are peers no more, and drops VTEPs that nothing names any more.
    pub(super) fn settle_peers(&mut self) -> Result<(), Error> {
        for (id, touched) in std::mem::take(&mut self.touched) {
            for peer in self.settle_segment(id, &touched)? {
                self.retire(peer.place.as_ref());
            }
        }
        for id in std::mem::take(&mut self.perhaps_unnamed) {
            let Some(address) = self.tables.vtep_address(id) else { continue };
            let known = self.tables.vtep_by_address.get(&address);
            if known.is_some_and(|known| known.segments == 0) {
                self.tables.vteps.remove(id.0);
                self.tables.paths.remove(&id);
                self.tables.vtep_by_address.remove(&address);
            }
        }
        Ok(())
    }

    /// Settles which of some VTEPs are peers of a segment, and returns those that were and are no more.
    fn settle_segment(&mut self, id: SegmentId, touched: &[VtepId]) -> Result<Vec<Peer>, Error> {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        let vteps = self.tables.vteps.clone();
        let key = |vtep: VtepId| {
            vteps.get(vtep.0).map(|entry| (SourceKey::from(entry.address.ip()), entry.address))
        };
        let entry = self.segment(id)?;
        let named =
            |entry: &SegmentEntry, vtep: VtepId| entry.mentions.contains_key(&Location::Vtep(vtep));
        // Those first that make room.
        for vtep in touched {
            if let Some((key, _)) = key(*vtep)
                && !named(entry, *vtep)
                && entry.peers.get(&key).is_some_and(|peer| peer.vtep == *vtep)
                && !entry.discovered.contains(vtep)
            {
                gone.extend(entry.peers.remove(&key));
            }
        }
        for vtep in touched {
            let Some((key, address)) = key(*vtep) else { continue };
            let entry = self.segment(id)?;
            let before = entry.peers.get(&key).map(|peer| peer.vtep);
            if named(entry, *vtep) {
                // What the control plane names goes before what was only heard from.
                entry.discovered.retain(|other| other != vtep && before != Some(*other));
                match before {
                    Some(other) if other == *vtep => continue,
                    Some(other) if named(entry, other) => {
                        return Err(Error::conflict(
                            format_args!("VTEP {address} in segment {id}"),
                            "the segment names the same address with another UDP port, and a sender is known by its address",
                        ));
                    }
                    _ => {}
                }
            } else if !entry.discovered.contains(vtep) || before == Some(*vtep) {
                continue;
            } else if before.is_some() {
                entry.discovered.retain(|other| other != vtep);
                continue;
            }
            let peer = self.peer(id, *vtep)?;
            gone.extend(self.segment(id)?.peers.insert(key, peer));
            come.push(*vtep);
        }
        if !gone.is_empty() || !come.is_empty() {
            self.tables.peerings += 1;
        }
        for peer in &gone {
            self.count_group(id, peer.vtep, false)?;
            self.count_peer(peer.vtep, |segments| *segments -= 1);
        }
        for vtep in &come {
            self.count_group(id, *vtep, true)?;
            self.count_peer(*vtep, |segments| *segments += 1);
        }
        Ok(gone)
    }
}
