//! Dataplanes on real devices and sockets, between hosts that are network namespaces.
//!
//! Needs root and /dev/net/tun; skips loudly without, except in CI.
#![cfg(all(feature = "io", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../common/packets.rs"]
mod packets;
#[path = "../common/tshark.rs"]
mod tshark;

mod adopted;
mod affinity;
mod capture;
mod churn;
mod faults;
mod hosts;
mod kernel_peer;
mod learning;
mod local;
mod mac_flood;
mod next_hops;
mod offloads;
mod process;
mod routed;
mod soak;
mod trouble;
mod vtep;
mod vxlan;
mod wire;
mod workers;
