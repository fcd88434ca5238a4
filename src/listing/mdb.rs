//! Multicast databases as plain data.

use std::net::IpAddr;
use std::time::Duration;

use crate::Error;
use crate::change::Change;
use crate::fdb::seconds;
use crate::multicast::{Mdb as Database, Member};
use crate::segment::{Destination, SegmentId};
use crate::tables::{SegmentEntry, Tables};

use super::Origin;

/// The multicast database of a bridge segment that [snoops](crate::Snooping): as `bridge mdb show`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mdb {
    /// Who gets which group, multicast routers first, then sorted by group.
    pub entries: Vec<MdbEntry>,
    /// Whether IPv4 multicast is forwarded by it: somebody asks for members, and has for long enough. Otherwise it is flooded.
    pub active_v4: bool,
    /// The same for IPv6.
    pub active_v6: bool,
}

/// One destination of a multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MdbEntry {
    /// The group; `None` for a multicast router, which gets all, or a place that is new and was not asked yet.
    pub group: Option<IpAddr>,
    /// Who gets its frames.
    pub destination: Destination,
    /// How the entry came to be.
    pub origin: Origin,
    /// Time until it is forgotten if nobody reports, in whole seconds; `None` for static entries.
    pub expires: Option<Duration>,
}

impl Tables {
    /// The multicast database of a segment; empty if it does not snoop.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such segment.
    pub fn mdb(&self, segment: SegmentId, now: Duration) -> Result<Mdb, Error> {
        let second = seconds(now);
        let Some(database) = snooping(self.listed(segment)?) else { return Ok(Mdb::default()) };
        let entry = |(group, member): (Option<IpAddr>, &Member)| {
            let left = |until: u32| Duration::from_secs(until.saturating_sub(second).into());
            let expires = member.timer.as_ref().map(|timer| left(timer.until()));
            let origin = if expires.is_some() { Origin::Learned } else { Origin::Static };
            let destination = self.destination(member.at)?;
            Some(MdbEntry { group, destination, origin, expires })
        };
        let held = database.entries().filter(|(_, member)| member.holds(second));
        let mut entries: Vec<MdbEntry> = held.filter_map(entry).collect();
        entries.sort_by_key(|entry| (entry.group, entry.destination.to_string()));
        let [active_v4, active_v6] = [false, true].map(|ipv6| database.is_reliable(ipv6, second));
        Ok(Mdb { entries, active_v4, active_v6 })
    }

    /// Changes that make room where learned entries of multicast databases are past their time.
    #[must_use]
    pub fn expired_mdb(&self, now: Duration) -> Vec<Change> {
        let second = seconds(now);
        let stale = |entry: &SegmentEntry| {
            let database = snooping(entry)?;
            let over = database.entries().any(|(_, of)| of.is_over(second));
            over.then_some(Change::AgeMdb { segment: entry.id, now })
        };
        self.segments.values().filter_map(|entry| stale(entry)).collect()
    }
}

/// Entries of the multicast database of a segment.
pub(super) fn memberships(segment: &SegmentEntry) -> usize {
    snooping(segment).map_or(0, |database| database.learned + database.statics)
}

fn snooping(segment: &SegmentEntry) -> Option<&Database> {
    segment.bridge()?.mdb.as_deref()
}
