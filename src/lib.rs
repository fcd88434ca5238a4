//! overplane
#![deny(unsafe_code)]

pub mod batch;
pub mod change;
mod counters;
mod drop_reason;
mod error;
mod event;
pub mod fdb;
mod fib;
mod hash;
// Until the worker uses all of it.
#[cfg(all(feature = "io", target_os = "linux"))]
#[allow(dead_code, unused_imports)]
mod io;
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
#[cfg(all(feature = "io", target_os = "linux"))]
pub use io::{ChannelError, ChannelPort, Device, DeviceKind};
pub use output::{Deliver, Output, SourcePort, Transmit};
pub use segment::{Destination, Kind, PortId, Segment, SegmentId, VtepId};
pub use stats::{PortStats, SegmentStats, Stats, Totals, Traffic, VtepStats};
pub use tables::Tables;
pub use wire::{MacAddr, Vni};
