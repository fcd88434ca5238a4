//! What is known of a frame beside its bytes.

use crate::wire::{GroupPolicy, Vni};

/// What the outer header of a frame said, or is to say, where that is not the same for all frames of the segment.
///
/// It comes with frames that are delivered to an embedder ([`Output::metadata`](crate::Output::metadata),
/// [`ChannelPort::try_receive_with`](crate::ChannelPort::try_receive_with)), and can be given to those that it sends
/// ([`Batch::set_metadata`](crate::Batch::set_metadata),
/// [`ChannelPort::send_with`](crate::ChannelPort::send_with)). TAP and TUN devices have no place for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The VNI that the frame came with, or is to leave with from a segment of
    /// [any VNI](crate::HeaderOptions::any_vni).
    pub vni: Option<Vni>,
    /// The group policy of a segment that speaks the extension, see
    /// [`HeaderOptions::gbp`](crate::HeaderOptions::gbp).
    pub policy: Option<GroupPolicy>,
}
