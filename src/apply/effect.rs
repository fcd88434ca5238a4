//! What is to be done to the learned part of the FDBs once a change is certain.

use std::net::IpAddr;
use std::sync::Arc;

use crate::fdb::{Domain, Fdb, Place};
use crate::multicast::{Mdb, Timer};
use crate::neighbours::Snooped;
use crate::wire::MacAddr;

/// A change of shared learned state, done once nothing can fail any more.
///
/// What is retired has been replaced in the new tables. A worker that still goes by the old ones learns under the old
/// name, which nobody looks at.
#[derive(Debug)]
pub(crate) enum Effect {
    Forget(Arc<Domain>, MacAddr),
    Retire(Place),
    RetireAll(Arc<Domain>),
    RemoveOlder(Arc<Domain>, u32),
    ForgetNeighbour(Arc<Snooped>, IpAddr),
    /// Has a membership hold until a second.
    Prolong(Arc<Timer>, u32),
    /// Gives a place that was not asked for its groups all of them.
    Welcome(Box<Mdb>, Arc<Timer>),
    /// Floods a multicast group of which a member was refused.
    FloodGroup(Box<Mdb>, IpAddr),
}

impl Effect {
    pub(crate) fn run(&self, fdb: &Fdb, second: u32) {
        match self {
            Self::Forget(domain, mac) => _ = fdb.forget(domain, *mac),
            Self::Retire(place) => place.retire(),
            Self::RetireAll(domain) => domain.retire(),
            Self::ForgetNeighbour(snooped, address) => snooped.forget_surely(*address),
            Self::Prolong(timer, until) => timer.prolong(*until),
            Self::Welcome(mdb, timer) => mdb.welcome(timer, second),
            Self::FloodGroup(mdb, group) => _ = mdb.flood(*group, second),
            Self::RemoveOlder(domain, age) => fdb.remove_older(domain, *age, second),
        }
    }
}
