//! The learned part of FDBs while tables are changed: what is flushed gets another name, and the old one is retired.

use std::sync::Arc;

use crate::Error;
use crate::change::Flush;
use crate::fdb::{Domain, Limits, Place, seconds};
use crate::segment::{Location, PortId, SegmentId, VtepId};
use crate::slots::MAX_SLOTS;
use crate::source_key::SourceKey;
use crate::tables::{Peer, PortEntry};

use super::{Draft, Effect};

impl Draft {
    pub(super) fn flush_fdb(&mut self, segment: SegmentId, which: Flush) -> Result<(), Error> {
        let domain = self.bridge(segment)?.domain.clone();
        match which {
            Flush::All => {
                self.bridge(segment)?.domain = self.domain(segment, domain.limits())?;
                self.effects.push(Effect::RetireAll(domain));
                Ok(())
            }
            Flush::OlderThan(age) => {
                self.effects.push(Effect::RemoveOlder(domain, seconds(age)));
                Ok(())
            }
            Flush::Port(port) => {
                let entry = self.tables.port(port).ok_or_else(|| Error::not_found(port))?;
                // Nothing of another segment's port was learned here.
                if entry.segment == segment { self.replace_place(segment, port) } else { Ok(()) }
            }
            Flush::Vtep(address) => {
                let vtep = self.known_vtep(address)?;
                let key = SourceKey::from(address.ip());
                if self.entry(segment)?.peers.get(&key).is_some_and(|peer| peer.vtep == vtep) {
                    let fresh = self.peer(segment, vtep)?;
                    let old = self.segment(segment)?.peers.insert(key, fresh);
                    self.retire(old.and_then(|peer| peer.place).as_ref());
                }
                Ok(())
            }
        }
    }

    /// A new part of the table for a bridge segment.
    pub(super) fn domain(&self, id: SegmentId, limits: Limits) -> Result<Arc<Domain>, Error> {
        let domain = self.tables.fdb.add_domain(limits, id.to_word());
        let full =
            Error::Limit { what: "bridge segments, with those removed or flushed", limit: 65_535 };
        domain.map(Arc::new).ok_or(full)
    }

    /// A new place for learned entries, if the segment learns any.
    fn place(&self, segment: SegmentId, at: Location) -> Result<Option<Place>, Error> {
        if self.entry(segment)?.bridge().is_none() {
            return Ok(None);
        }
        let full =
            Error::Limit { what: "ports and peers of all bridge segments", limit: MAX_SLOTS };
        self.tables.fdb.add_place(at.to_word()).map(Some).ok_or(full)
    }

    /// Gives a port of a segment a place without entries instead of what it had.
    pub(super) fn replace_place(&mut self, segment: SegmentId, port: PortId) -> Result<(), Error> {
        let place = self.place(segment, Location::Port(port))?;
        let entry = self.tables.ports.get_mut(port.0).ok_or_else(|| Error::not_found(port))?;
        let old = entry.place.clone();
        *entry = Arc::new(PortEntry { place, ..PortEntry::clone(entry) });
        self.retire(old.as_ref());
        Ok(())
    }

    /// A VTEP as a peer of a segment.
    pub(super) fn peer(&self, segment: SegmentId, vtep: VtepId) -> Result<Peer, Error> {
        Ok(Peer { vtep, place: self.place(segment, Location::Vtep(vtep))? })
    }

    /// Forgets what is at a place once the change is certain.
    pub(super) fn retire(&mut self, place: Option<&Place>) {
        self.effects.extend(place.cloned().map(Effect::Retire));
    }
}
