//! A whole overlay without a kernel: forwarders joined by a simulated underlay, under a clock that tests move.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../common/groups.rs"]
mod groups;
#[path = "../common/packets.rs"]
mod packets;

mod addressing;
mod answers;
mod bridging;
mod counters;
mod fdb_entries;
mod frames;
mod gateway;
mod header;
mod mtu;
mod neighbours;
mod network;
mod next_hops;
mod offload;
mod outer;
mod ports;
mod probes;
mod routed_vxlan;
mod routing;
mod scope;
mod snooping;
mod soak;
mod storms;
mod underlay_group;
mod vlans;
