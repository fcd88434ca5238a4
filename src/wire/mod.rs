//! Layer 1: what the bytes of a frame mean, and nothing else.
//!
//! Every function here takes byte slices and returns plain values: no allocation, no clock, no
//! system call, and no panic whatever the bytes are. Numbers are in host order once parsed;
//! addresses stay in the order they have on the wire. Each rule names the RFC section or the kernel
//! file it comes from.

pub mod checksum;
pub mod ecn;
pub mod eth;
mod frame;
mod group_policy;
pub mod ip;
pub mod l4;
mod mix;
pub mod mss;
pub mod multicast;
pub mod neighbour;
pub mod probe;
pub mod vnet;
pub mod vxlan;

pub use eth::MacAddr;
pub use frame::{Fragment, FrameInfo, IpError, L3, L4};
pub use group_policy::GroupPolicy;
pub(crate) use neighbour::is_host;
pub use vnet::VnetHeader;
pub use vxlan::Vni;

/// The `N` bytes at `at`, or `None` where the slice ends before them.
#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// The big-endian 16-bit number at `at`, or `None` where the slice ends before it.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(|field| u16::from_be_bytes(*field))
}

/// Stores a big-endian 16-bit number at `at`; `false`, and nothing written, where the slice ends
/// before it.
#[inline]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> bool {
    match bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        Some(field) => {
            *field = value.to_be_bytes();
            true
        }
        None => false,
    }
}
