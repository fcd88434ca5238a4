//! Bindings of neighbours while tables are changed.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Error;
use crate::change::MAX_ENTRIES;
use crate::fdb::seconds;
use crate::neighbours::{Binding, Neighbours, Snooped};
use crate::segment::{Segment, SegmentId};
use crate::shards::Shards;
use crate::wire::{MacAddr, is_host};

use super::{Draft, Effect, individual};

impl Draft {
    /// What a new segment knows of its neighbours, if it answers for them.
    pub(super) fn neighbours(&self, segment: &Segment) -> Option<Box<Neighbours>> {
        let options = &segment.neighbours;
        let seed = self.tables.seed;
        let snooped = (options.snoop && options.limit > 0)
            .then(|| Arc::new(Snooped::new(options.limit, options.ageing.map(seconds), seed)));
        options.suppress.then(|| Box::new(Neighbours { statics: Shards::new(seed), snooped }))
    }

    pub(super) fn set_neighbour(
        &mut self,
        segment: SegmentId,
        address: IpAddr,
        (mac, router): (MacAddr, bool),
    ) -> Result<(), Error> {
        individual("MAC address of a neighbour", mac)?;
        if !is_host(address) {
            return Err(Error::invalid("neighbour", address.to_string(), "an address of one host"));
        }
        let neighbours = self.answering(segment)?;
        neighbours.statics.insert(address, Binding { mac: mac.into(), router });
        if neighbours.statics.len() > MAX_ENTRIES {
            let what = "static neighbours of a segment";
            return Err(Error::Limit { what, limit: MAX_ENTRIES });
        }
        self.forget_snooped(segment, address).map(|_| ())
    }

    pub(super) fn remove_neighbour(
        &mut self,
        segment: SegmentId,
        address: IpAddr,
    ) -> Result<(), Error> {
        let known = self.answering(segment)?.statics.remove(&address).is_some();
        let snooped = self.forget_snooped(segment, address)?;
        super::found(known || snooped, || format!("neighbour {address} of segment {segment}"))
    }

    /// Forgets what was heard of an address once the change is certain, and says whether anything was.
    fn forget_snooped(&mut self, segment: SegmentId, address: IpAddr) -> Result<bool, Error> {
        let Some(snooped) = self.answering(segment)?.snooped.clone() else { return Ok(false) };
        let known = snooped.contains(address);
        self.effects.push(Effect::ForgetNeighbour(snooped, address));
        Ok(known)
    }

    fn answering(&mut self, segment: SegmentId) -> Result<&mut Neighbours, Error> {
        self.bridge(segment)?.neighbours.as_deref_mut().ok_or_else(|| {
            Error::conflict(
                format_args!("neighbour of segment {segment}"),
                "the segment does not answer for its neighbours",
            )
        })
    }
}
