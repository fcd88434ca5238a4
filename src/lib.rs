//! The forwarding path of overlay networks, in userspace.
//!
//! overplane moves frames between TAP/TUN devices and UDP sockets: it looks up where a frame goes (learned MAC
//! addresses, longest-prefix routes), wraps it in VXLAN (RFC 7348) or in bare UDP as flannel's udp backend does, and
//! sends it, and back. An overlay-network agent or a proxy embeds it and keeps the control plane; overplane is the part
//! that must be fast, correct and impossible to knock over.
//!
//! # Hello world
//!
#![cfg_attr(feature = "io", doc = "```no_run")]
#![cfg_attr(not(feature = "io"), doc = "```ignore")]
//! use overplane::{Config, Dataplane, Device, Segment, Vni};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dataplane = Dataplane::start(Config::new("192.0.2.1".parse()?))?; // this node's underlay address
//! let control = dataplane.control();
//! let red = control.add_segment(Segment::bridge(Vni::new(100)?))?;
//! control.attach(red, Device::tap("ovl0")?)?;
//! control.add_flood(red, "192.0.2.2:4789".parse()?)?; // from any thread, while traffic flows
//! println!("{}", dataplane.stats());
//! dataplane.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! The peer can be another overplane, or Linux's own VXLAN device:
//! `ip link add ovl0 type vxlan id 100 dstport 4789 local 192.0.2.2 remote 192.0.2.1`.
//!
//! # What it is not
//!
//! It does not find peers, hand out addresses or encrypt, and it does not configure the host's links and routes: the
//! agent does, as the `forwarder` example shows. It installs no logger and no signal handler, reads no environment,
//! and has no global state: two dataplanes in one process do not know of each other.
//!
//! # Layers
//!
//! Dependencies point down only.
//!
//! | layer | modules | what it knows |
//! |---|---|---|
//! | 4 running (feature `io`, Linux) | [`Dataplane`], [`Control`], [`Worker`], [`Device`] | devices, sockets, threads, the clock |
//! | 3 forwarding | [`Forwarder`], [`Batch`], [`Output`], [`Prober`], [`gso`], [`pcapng`] | what to do with a batch of frames |
//! | 2 tables | [`Tables`], [`Change`], [`Segment`], [`NextHop`], [`fib`], [`fdb`], [`rate`], [`Publisher`], [`mtu`] | where frames go |
//! | 1 bytes | [`wire`] | what frames mean |
//!
//! Layers 1 to 3 are a function from frames, tables and a time to descriptors. Without default features they are all
//! there is; the `replay` example drives them from a capture file:
//!
//! ```
//! use std::time::Duration;
//! use overplane::{Batch, Change, Forwarder, Output, Segment, Tables, Vni};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (now, mut tables) = (Duration::ZERO, Tables::new("192.0.2.1".parse()?, 1)?);
//! let segment = Segment::bridge(Vni::new(100)?);
//! let red = segment.id();
//! let ports = tables.apply(now, [
//!     Change::AddSegment(segment),
//!     Change::AddPort { segment: red, name: "a".into(), offload: false, options: Default::default() },
//!     Change::AddFlood { segment: red, vtep: "192.0.2.2:4789".parse()? },
//! ])?;
//! let (mut batch, mut output) = (Batch::new(64), Output::new());
//! let mut frame = [0; 60];
//! frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
//! assert!(batch.push(&frame, Default::default()));
//! Forwarder::new(0).from_port(&tables, now, ports[0], &mut batch, &mut output);
//! let datagram = output.transmits()[0];
//! assert_eq!(batch.bytes(datagram.body).len(), 8 + 60, "a VXLAN header in front of the frame");
//! # Ok(())
//! # }
//! ```
//!
//! # Fates
//!
//! Every frame ends in exactly one named way: sent, delivered, flooded in so many copies, or dropped for a
//! [`DropReason`] that says what it means and what to do. [`Totals::is_conserved`] checks that the sums agree.
//! [`CaptureFilter`] says of which frames a capture shows the fate; [`pcapng`] writes it down.
//!
//! # Glossary
//!
//! - **underlay / overlay**: the network that carries datagrams, and the one whose frames are inside them.
//! - **VTEP**: an underlay socket address that encapsulates. **VNI**: the 24-bit number of a VXLAN segment.
//! - **segment**: one forwarding domain, bridge or routed. **port**: a device attached to a segment.
//! - **FDB**: MAC address → VTEP or port; entries are *static* or *learned*, learned ones *age* and *move*.
//! - **FIB**: IP prefix → next hop, of which the **RIB** is the side that is changed. **group**: next hops that share
//!   flows by weight (ECMP); a flow hashes to a **bucket**, and a bucket belongs to a member.
//! - **BUM**: broadcast, unknown-unicast and multicast frames; they go to the segment's other ports and by *ingress
//!   replication* to each VTEP of its *flood list*. **Split horizon**: never from VTEP to VTEP, unless their
//!   *groups* differ (see [`Scope`]); a node that does so *relays*.
//! - **encap / decap**: wrapping and unwrapping. **entropy**: the outer source port, from the inner flow.
//! - **MDB**: multicast group → VTEPs and ports behind which somebody has joined it, learned by *snooping* on IGMP and
//!   MLD, or static. **querier**: who asks hosts what they have joined; **multicast router**: who gets all groups.
//! - **binding**: an IP address with the MAC address that a segment answers requests with. **path MTU**: the largest
//!   packet that gets through to a VTEP, as far as is known. **black hole**: a path on which larger ones vanish without a
//!   word. **probe**: an echo between VTEPs by which that is found out.
//! - **super-frame**: a frame above the MTU that stands for several; its *chunks* are what a wire carries.
//! - **train**: datagrams of one length to one VTEP that are sent or received in one piece; its **stride** is that length.
//! - **joined** (coalesced) frames: those of one flow that arrived together and are written to a device as a super-frame.
//! - **offload**: what the kernel does for many frames at once, or is spared; see [`Offload`].
//! - **batch**: frames handled together. **snapshot / version**: the tables as a worker sees them during a batch.
//!
//! # Features
//!
//! - `io` (default): devices, sockets, workers and control, on Linux.
//! - `tun-tap` (default): adopt a `tun_tap::Iface`.
//! - `log`: report trouble through the `log` facade as well as through [`Event`]s.
#![deny(unsafe_code)]

mod apply;
mod batch;
mod capture;
#[cfg(all(feature = "io", target_os = "linux"))]
mod captures;
mod change;
mod coalesce;
#[cfg(all(feature = "io", target_os = "linux"))]
mod config;
#[cfg(all(feature = "io", target_os = "linux"))]
mod control;
mod counters;
mod damper;
#[cfg(all(feature = "io", target_os = "linux"))]
mod dataplane;
mod drop_reason;
mod error;
mod event;
pub mod fdb;
pub mod fib;
mod forward;
pub mod gso;
mod hash;
#[cfg(all(feature = "io", target_os = "linux"))]
mod io;
mod listing;
mod locals;
mod metadata;
pub mod mtu;
mod multicast;
mod neighbours;
mod next_hop;
mod offload;
mod output;
mod pages;
mod path;
pub mod pcapng;
mod prober;
pub mod rate;
mod segment;
mod shards;
#[cfg(all(feature = "io", target_os = "linux"))]
mod shared;
mod slots;
mod snapshot;
mod source_key;
mod stats;
#[cfg(all(feature = "io", target_os = "linux"))]
mod switches;
mod sync;
mod tables;
#[cfg(all(feature = "io", target_os = "linux"))]
mod trouble;
pub mod wire;
#[cfg(all(feature = "io", target_os = "linux"))]
mod worker;

pub use batch::{Arrival, Batch, Span};
pub use capture::{
    CaptureFilter, CapturePoint, Captured, Direction, Fate, FateFilter, Layer, ParseFilterError,
};
pub use change::{Change, Flush};
pub use drop_reason::{DropReason, Stage};
pub use error::Error;
pub use event::Event;
pub use fib::{ParsePrefixError, Prefix};
pub use forward::Forwarder;
pub use listing::{
    FdbEntry, GroupInfo, Mdb, MdbEntry, MemberInfo, NeighbourEntry, Origin, PortInfo, Route,
    SegmentInfo,
};
pub use metadata::Metadata;
pub use next_hop::{GroupId, Member, NextHop};
pub use offload::{Offload, OffloadInfo, OffloadState, Offloads, ParseOffloadsError};
pub use output::{Datagrams, Deliver, Echo, Output, Pieces, SourcePort, Transmit};
pub use path::{PathMtu, PathSource, ProbeState, Probing};
pub use prober::{Probe, Prober, Round};
pub use segment::{
    Destination, Dscp, Ecn, Gateway, HeaderOptions, Kind, LoopGuard, MssClamp, MtuOptions,
    Neighbours, OuterHeader, OuterOptions, PortId, PortOptions, Querier, Scope, Segment, SegmentId,
    Snooping, StormLimits, Ttl, VlanMode, VlanSet, VtepId,
};
pub use snapshot::{Publisher, Reader};
pub use stats::{Drops, PortStats, ProbeStats, SegmentStats, Stats, Totals, Traffic, VtepStats};
pub use tables::Tables;
pub use wire::{GroupPolicy, MacAddr, Vni};
#[cfg(all(feature = "io", target_os = "linux"))]
pub use {
    captures::{Capture, CaptureOptions},
    config::{Config, DontFragment, ZeroChecksums},
    control::{Control, UnderlayInfo},
    dataplane::Dataplane,
    io::{ChannelError, ChannelPort, Device, DeviceKind},
    worker::{Turn, Worker},
};

/// Bounds and defaults: nothing in a dataplane grows beyond these.
pub mod limits {
    pub use crate::batch::{DEFAULT_SLOTS, HEADROOM, MAX_FRAME, MAX_SLOTS, MAX_TRAIN};
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub use crate::captures::{
        DEFAULT_CAPTURED, DEFAULT_CAPTURED_BYTES, MAX_CAPTURED, MAX_CAPTURED_BYTES, MAX_CAPTURES,
    };
    pub use crate::change::{MAX_DISCOVERED, MAX_ENTRIES, MAX_SEGMENTS, MAX_UNDERLAY_GROUPS};
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub use crate::config::MAX_SOURCE_PORTS;
    pub use crate::fdb::{
        DEFAULT_AGEING, DEFAULT_CAPACITY as DEFAULT_FDB_CAPACITY,
        DEFAULT_LIMIT as DEFAULT_FDB_LIMIT, MAX_AGEING, MAX_CAPACITY as MAX_FDB_CAPACITY,
    };
    pub use crate::next_hop::{MAX_GROUPS, MAX_MEMBERS, MAX_WEIGHT};
    pub use crate::output::MAX_OUTPUT;
    pub use crate::path::MIN_LEARNED_MTU;
    pub use crate::prober::MAX_PROBED;
    pub use crate::rate::{MAX_BURST, MAX_RATE};
    pub use crate::segment::{
        DEFAULT_MEMBERSHIPS, DEFAULT_SNOOPED, FLANNEL_UDP_PORT, MAX_FLOOD, MAX_GATEWAY_ADDRESSES,
        MAX_HORIZON_GROUP, MAX_MEMBERSHIPS, MAX_SNOOPED, MAX_VID,
    };
    pub use crate::tables::MAX_WORKERS;
}

/// Keeps the README's code compiling.
#[cfg(all(doctest, feature = "io"))]
#[doc = include_str!("../README.md")]
struct Readme;
