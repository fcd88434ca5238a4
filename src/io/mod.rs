//! Devices and underlay sockets on Linux: batches in, descriptors out.
//!
//! Everything here is non-blocking, and everything `unsafe` is in [`sys`].

mod channel;
mod device;
mod kernel;
mod negotiate;
mod netlink;
mod netns;
mod probe;
mod queue;
mod reason;
mod sys;
mod tun;
mod udp;
mod underlay;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)]
mod tests;

use std::io;

pub use channel::{ChannelError, ChannelPort};
pub use device::{Device, DeviceKind};

pub(crate) use kernel::{Version, spoiled};
pub(crate) use netns::{current as current_netns, run_in};
pub(crate) use probe::{Verdict, probe};
pub(crate) use queue::PortQueue;
pub(crate) use reason::{port_reason, underlay_reason};
pub(crate) use sys::send::Heading;
pub(crate) use udp::{PathLesson, Receiver, SendQueue, SocketOptions, UdpSocket};
pub(crate) use underlay::{Routes, Watch, identity as netns_identity, path_mtu};

/// What one bounded read from a port or an underlay socket came to, besides the frames in the batch.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Whether there was nothing more to read: the next readiness event says when there is again.
    ///
    /// Also set after a failure that reading on would only repeat.
    pub(crate) drained: bool,
    /// Frames that were cut short in reading, and are not in the batch.
    pub(crate) truncated: usize,
    /// The last error, other than that there is nothing to read.
    pub(crate) failure: Option<io::Error>,
}
