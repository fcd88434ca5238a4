//! Path MTUs while tables are changed: what holds for each VTEP, and what holds for all VTEPs of a segment.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Error;
use crate::mtu;
use crate::path::PathSource;
use crate::segment::{SegmentId, VtepId};
use crate::source_key::SourceKey;
use crate::tables::SegmentEntry;

use super::Draft;

impl Draft {
    pub(super) fn set_path_mtu(
        &mut self,
        vtep: SocketAddr,
        source: PathSource,
        mtu: Option<u32>,
        until: Duration,
    ) -> Result<(), Error> {
        let configured = source == PathSource::Configured;
        if let Some(mtu) = mtu.filter(|mtu| configured && !(68..=65_535).contains(mtu)) {
            return Err(Error::invalid("path MTU", mtu.to_string(), "68 to 65535 bytes"));
        }
        let id = match self.known_vtep(vtep) {
            Ok(id) => id,
            Err(error) if configured => return Err(error),
            // It was removed meanwhile, or somebody forges errors about others.
            Err(_) => return Ok(()),
        };
        let before = self.tables.paths.get(&id).copied().unwrap_or_default();
        let mut path = before;
        path.set(vtep.ip(), source, mtu, until);
        if path.limit().is_some() {
            self.tables.paths.insert(id, path);
        } else {
            self.tables.paths.remove(&id);
        }
        if path.limit() != before.limit() {
            self.narrowed.push(id);
        }
        Ok(())
    }

    pub(super) fn set_underlay_mtu(&mut self, mtu: u32) -> Result<(), Error> {
        if !(68..=65_535).contains(&mtu) {
            return Err(Error::invalid(
                "MTU of the underlay",
                mtu.to_string(),
                "68 to 65535 bytes",
            ));
        }
        self.tables.underlay_mtu = mtu;
        let ipv6 = self.tables.locals.has_ipv6();
        let following = self.tables.segments.values().filter(|entry| entry.follows_underlay);
        let following: Vec<SegmentId> = following.map(|entry| entry.id).collect();
        for id in following {
            let entry = self.segment(id)?;
            entry.mtu = mtu::segment_mtu(entry.kind, ipv6, mtu);
            // At most, until the paths are looked at.
            entry.narrowest = entry.mtu;
            self.resized.push(id);
        }
        Ok(())
    }

    /// Brings the smallest limits of segments in step with the paths of their VTEPs, where `touched` segments have
    /// got other VTEPs.
    pub(super) fn settle_limits(&mut self, touched: impl IntoIterator<Item = SegmentId>) {
        let narrowed = std::mem::take(&mut self.narrowed);
        let mut segments = std::mem::take(&mut self.resized);
        let tables = &self.tables;
        let concerned =
            |segment: &SegmentEntry| narrowed.iter().any(|id| self.is_peer(segment, *id));
        if !narrowed.is_empty() {
            let entries = tables.segments.values();
            segments.extend(entries.filter(|entry| concerned(entry)).map(|entry| entry.id));
        }
        // Those that were narrow may have lost the VTEP with the last narrow path.
        let is_narrow =
            |id: &SegmentId| tables.segment(*id).is_some_and(|entry| entry.narrowest != entry.mtu);
        let none = tables.paths.is_empty();
        segments.extend(touched.into_iter().filter(|id| !none || is_narrow(id)));
        for id in segments {
            let Some(entry) = self.tables.segment(id) else { continue };
            let vteps = self.tables.paths.keys().filter(|vtep| self.is_peer(entry, **vtep));
            let limits = vteps.map(|vtep| self.tables.limit_to(entry, *vtep));
            let narrowest = limits.min().unwrap_or(entry.mtu).min(entry.mtu);
            if narrowest != entry.narrowest
                && let Ok(entry) = self.segment(id)
            {
                entry.narrowest = narrowest;
            }
        }
    }

    fn is_peer(&self, segment: &SegmentEntry, vtep: VtepId) -> bool {
        let address = self.tables.vtep_address(vtep);
        let peer = address.and_then(|address| segment.peers.get(&SourceKey::from(address.ip())));
        peer.is_some_and(|peer| peer.vtep == vtep)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::Change;
    use crate::segment::Segment;
    use crate::tables::Tables;
    use crate::wire::Vni;

    fn segment(n: u32) -> Segment {
        Segment::bridge(Vni::new(n).unwrap())
    }

    fn change(kind: u8, n: u32, vtep: u8, mtu: u32) -> Change {
        let (id, vtep) = (segment(n).id(), SocketAddr::from(([192, 0, 2, 10 + vtep], 4789)));
        let (source, until) = (PathSource::Learned, Duration::ZERO);
        match kind {
            0 => Change::AddSegment(segment(n)),
            1 => Change::RemoveSegment(id),
            2 | 3 => Change::AddPeer { segment: id, vtep },
            4 => Change::RemovePeer { segment: id, vtep },
            5 | 6 => Change::SetPathMtu { vtep, source, mtu: Some(mtu), until },
            7 => Change::SetPathMtu { vtep, source, mtu: None, until },
            _ => {
                let source = PathSource::Configured;
                Change::SetPathMtu { vtep, source, mtu: Some(mtu), until }
            }
        }
    }

    proptest! {
        #[test]
        fn the_smallest_limit_of_a_segment_is_that_of_its_vteps(
            steps in prop::collection::vec((0..9u8, 1..4u32, 0..4u8, 600..1600u32), 0..60)
        ) {
            let mut tables = Tables::new([192, 0, 2, 1].into(), 1).unwrap();
            for (kind, n, vtep, mtu) in steps {
                // What does not fit changes nothing.
                let _ = tables.apply(Duration::ZERO, [change(kind, n, vtep, mtu)]);
                for segment in tables.segments.values() {
                    let limits = segment.peers.values().map(|peer| tables.limit_to(segment, peer.vtep));
                    prop_assert_eq!(segment.narrowest, limits.min().unwrap_or(segment.mtu));
                }
                let known = tables.paths.keys().all(|vtep| tables.has_vtep(*vtep));
                prop_assert!(known, "a path without its VTEP");
            }
        }
    }
}
