//! The rows of `docs/vtep.md` on real devices, a module a theme, mostly against the kernel's VXLAN device and bridge.

mod mtu;
mod neighbours;
mod outer;
mod peers;
mod routed_vxlan;
mod scope;
mod soak;
mod sockets;
mod storms;
