//! Limits of what a bridge segment floods.

use std::time::Duration;

use crate::Error;
use crate::drop_reason::DropReason;
use crate::rate::{Bucket, Pass, RateLimit};

use super::Traits;

/// How many frames for many a second are flooded, by kind: of a port's or of a whole segment's. None by default.
///
/// What exceeds a limit is dropped where it came in, for all receivers alike, as storm control of a switch does; the
/// sender's address is learned all the same. A super-frame counts as the frames it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StormLimits {
    /// Frames for everybody.
    pub broadcast: Option<RateLimit>,
    /// Frames for groups, broadcast apart.
    pub multicast: Option<RateLimit>,
    /// Frames for individual addresses that are not known.
    pub unknown_unicast: Option<RateLimit>,
}

impl StormLimits {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let limits = [self.broadcast, self.multicast, self.unknown_unicast];
        limits.iter().flatten().try_for_each(RateLimit::check)
    }

    /// What keeps the limits, if there are any.
    pub(crate) fn buckets(&self) -> Result<Option<Storm>, Error> {
        if *self == Self::default() {
            return Ok(None);
        }
        let bucket = |limit: Option<RateLimit>| limit.map(Bucket::new).transpose();
        Ok(Some(Storm {
            limits: *self,
            broadcast: bucket(self.broadcast)?,
            multicast: bucket(self.multicast)?,
            unknown_unicast: bucket(self.unknown_unicast)?,
        }))
    }
}

/// The buckets of [`StormLimits`], which the workers share.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) limits: StormLimits,
    broadcast: Option<Bucket>,
    multicast: Option<Bucket>,
    unknown_unicast: Option<Bucket>,
}

/// A limit that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) reason: DropReason,
    /// Whether it was not, lately.
    pub(crate) onset: bool,
}

impl Storm {
    /// Lets frames pass, of the kind that a port with the trait `class` does not get, or not.
    pub(crate) fn admit(&self, class: Traits, frames: u32, now: Duration) -> Result<(), Exceeded> {
        let (bucket, reason) = match class {
            Traits::NO_BROADCAST => (&self.broadcast, DropReason::StormBroadcast),
            Traits::NO_MULTICAST => (&self.multicast, DropReason::StormMulticast),
            _ => (&self.unknown_unicast, DropReason::StormUnknownUnicast),
        };
        let pass = bucket.as_ref().map_or(Pass::Yes, |bucket| bucket.take(frames, now));
        match pass {
            Pass::Yes => Ok(()),
            pass => Err(Exceeded { reason, onset: pass == Pass::NoMore }),
        }
    }
}
