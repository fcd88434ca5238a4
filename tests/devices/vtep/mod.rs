//! The rows of `docs/vtep.md` on real devices, a module a theme, mostly against the kernel's VXLAN device and bridge.

mod dual_stack;
mod fdb_entries;
mod follow;
mod gateway;
mod header;
mod mtu;
mod neighbours;
mod outer;
mod path;
mod peers;
mod probe;
mod routed_vxlan;
mod scope;
mod snooping;
mod soak;
mod sockets;
mod storms;
mod underlay_group;
mod vlans;
mod vni;
