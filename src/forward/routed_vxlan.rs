//! Routed segments in VXLAN: IP packets by prefix, in Ethernet frames from VTEP to VTEP.
//!
//! There is no bridge on this Ethernet, and nothing on it is learned, resolved or flooded: each VTEP takes what is for its
//! own MAC address, and knows those of the others from the control plane.

use crate::batch::Batch;
use crate::drop_reason::DropReason;
use crate::output::Output;
use crate::source_key::SourceKey;
use crate::tables::{Link, Routed, SegmentEntry, SegmentTable, Tables, VtepEntry};
use crate::wire::eth::{self, MacNumber};
use crate::wire::{Vni, u16_at, vxlan};

use super::bridge::Origins;
use super::{Context, Forwarder, admit_stranger};

/// The VNI and sender of a datagram of a routed segment, and what was found for them.
#[derive(Clone, Copy)]
pub(super) struct RoutedOrigin<'a> {
    vni: Vni,
    source: SourceKey,
    pub(super) segment: &'a SegmentEntry,
    routed: &'a Routed,
    link: &'a Link,
    /// `None` when the segment does not know the sender.
    pub(super) vtep: Option<&'a VtepEntry>,
}

impl<'a> RoutedOrigin<'a> {
    pub(super) fn new(
        tables: &'a Tables,
        segment: &'a SegmentEntry,
        vni: Vni,
        source: SourceKey,
    ) -> Option<Self> {
        let SegmentTable::Routed(routed) = &segment.table else { return None };
        let vtep = segment.peers.get(&source).and_then(|peer| tables.vtep(peer.vtep));
        Some(Self { vni, source, segment, routed, link: routed.link.as_ref()?, vtep })
    }

    #[inline]
    pub(super) fn is(&self, vni: Vni, source: SourceKey) -> bool {
        self.vni == vni && self.source == source
    }
}

/// Whether a frame is one IP packet for `mac`.
pub(super) fn check(frame: &[u8], mac: MacNumber) -> Result<(), DropReason> {
    let (to, from) = eth::address_numbers(frame).ok_or(DropReason::Truncated)?;
    if to != mac {
        return Err(DropReason::OtherMac);
    }
    // Its own frames come back to a VTEP only when the underlay loops.
    if !from.is_individual() || from == mac {
        return Err(DropReason::InvalidSource);
    }
    let version = frame.get(eth::HEADER_LEN).map(|byte| byte >> 4);
    match (u16_at(frame, eth::HEADER_LEN - 2), version) {
        (Some(eth::TYPE_IPV4), Some(4)) | (Some(eth::TYPE_IPV6), Some(6)) => Ok(()),
        _ => Err(DropReason::NotIp),
    }
}

impl Forwarder {
    /// Decides about one VXLAN datagram that is for no bridge segment.
    #[inline(never)]
    pub(super) fn unwrap_routed_frame(
        &mut self,
        context: &Context<'_>,
        origins: &mut Origins<'_>,
        batch: &mut Batch,
        index: usize,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let origin = origins.routed.ok_or(DropReason::UnknownVni)?;
        let segment = origin.segment;
        if origin.vtep.is_none() {
            admit_stranger(context, segment, batch.source(index), output)?;
        }
        let datagram = batch.frame(index);
        origins.accepted(datagram.len());
        check(datagram.get(vxlan::HEADER_LEN..).unwrap_or_default(), origin.link.mac)?;
        batch.strip(index, vxlan::HEADER_LEN + eth::HEADER_LEN);
        self.deliver_packet(context, (segment, origin.routed), batch, index, output)
    }
}
