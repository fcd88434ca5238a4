//! What is to be done to the learned part of an FDB once a change is certain.

use std::collections::HashSet;
use std::sync::Arc;

use crate::fdb::Fdb;
use crate::segment::{Location, VtepId};
use crate::wire::MacAddr;

/// A change of shared learned state, done once nothing can fail any more.
#[derive(Debug)]
pub(crate) enum Effect {
    Forget(Arc<Fdb>, MacAddr),
    Flush(Arc<Fdb>, Flushed),
}

#[derive(Debug)]
pub(crate) enum Flushed {
    All,
    At(Location),
    Behind(HashSet<VtepId>),
    OlderThan(u32),
}

impl Effect {
    /// Whether a worker that still goes by the tables before could undo it.
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) fn bears_repetition(&self) -> bool {
        matches!(self, Self::Flush(_, Flushed::Behind(_)))
    }

    pub(crate) fn run(&self, second: u32) {
        match self {
            Self::Forget(fdb, mac) => fdb.forget(*mac),
            Self::Flush(fdb, which) => fdb.remove_if(
                second,
                |entry| match &which {
                    Flushed::All => true,
                    Flushed::At(location) => entry.location == *location,
                    Flushed::Behind(vteps) => {
                        entry.location.vtep().is_some_and(|vtep| vteps.contains(&vtep))
                    }
                    Flushed::OlderThan(age) => entry.age >= *age,
                },
                |_| (),
            ),
        }
    }
}
