//! overplane
#![deny(unsafe_code)]

mod batch;
mod change;
mod counters;
mod drop_reason;
mod error;
mod event;
mod fdb;
mod fib;
mod forward;
pub mod gso;
mod hash;
mod listing;
pub mod mtu;
mod output;
mod segment;
mod slots;
mod snapshot;
mod stats;
mod tables;
pub mod wire;

pub use batch::{Batch, Span};
pub use change::{Change, Flush};
pub use drop_reason::{DropReason, Stage};
pub use error::Error;
pub use event::Event;
pub use fib::{ParsePrefixError, Prefix};
pub use forward::Forwarder;
pub use listing::{FdbEntry, Origin, PortInfo, Route, SegmentInfo};
pub use output::{Deliver, Output, SourcePort, Transmit};
pub use segment::{Destination, Kind, PortId, Segment, SegmentId, VtepId};
pub use snapshot::{Publisher, Reader};
pub use stats::{PortStats, SegmentStats, Stats, Totals, Traffic, VtepStats};
pub use tables::Tables;
pub use wire::{MacAddr, Vni};

/// Bounds and defaults: nothing in a dataplane grows beyond these.
pub mod limits {
    pub use crate::batch::{DEFAULT_SLOTS, HEADROOM, MAX_FRAME, MAX_SLOTS};
    pub use crate::change::{MAX_DISCOVERED, MAX_ENTRIES, MAX_SEGMENTS};
    pub use crate::fdb::MAX_LIMIT as MAX_FDB_LIMIT;
    pub use crate::output::MAX_OUTPUT;
    pub use crate::segment::{DEFAULT_AGEING, DEFAULT_FDB_LIMIT, FLANNEL_UDP_PORT, MAX_FLOOD};
    pub use crate::tables::MAX_WORKERS;
}
