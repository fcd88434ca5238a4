//! Probes of paths: sending, answering, and hearing the answers. None of it is on the way of other frames: what arrives
//! is found among what is dropped.

use std::time::Duration;

use crate::batch::{Batch, Span};
use crate::capture::Fate;
use crate::drop_reason::DropReason;
use crate::mtu;
use crate::output::{Echo, Output, SourcePort, Transmit};
use crate::prober::Probe;
use crate::segment::{OuterHeader, VtepId};
use crate::tables::{SegmentEntry, Tables, VtepEntry};
use crate::wire::eth::{self, Cast};
use crate::wire::probe::{self, Kind};
use crate::wire::{FrameInfo, MacAddr, Vni, vxlan};

use super::bridge::Origins;
use super::{Context, Forwarder};

/// Probes that a forwarder answers a second, and at once.
pub(super) const ANSWERS: (u32, u32) = (1000, 250);

/// The source of this node's probes: any address of its own, which kernel peers may learn for a while.
fn own_mac(tables: &Tables) -> MacAddr {
    let random = tables.token(&"the source of probes");
    let [a, b, c, d, e, f, ..] = random.to_be_bytes();
    // Locally administered, and of one station (RFC 9542 §2.1).
    MacAddr([a & !0x03 | 0x02, b, c, d, e, f])
}

/// What shows that a probe was this node's.
fn token(tables: &Tables, vtep: &VtepEntry, sequence: u32, size: u32) -> u64 {
    tables.token(&(vtep.address, sequence, size))
}

/// Bytes of the Ethernet frame inside an outer IP packet of `size` bytes.
fn frame_len(segment: &SegmentEntry, vtep: &VtepEntry, size: u32) -> usize {
    let outer = mtu::overhead(segment.kind, vtep.address.is_ipv6()) - eth::HEADER_LEN as u32;
    size.saturating_sub(outer) as usize
}

/// The VNI under which a VTEP of a segment in VXLAN hears, where it may be that of a frame.
fn vni_for(segment: &SegmentEntry, vtep: VtepId, of_frame: Option<Vni>) -> Option<Vni> {
    let of_frame = of_frame.filter(|_| segment.header.any_vni);
    of_frame.or_else(|| segment.vnis.get(&vtep).copied()).or(segment.id.vni)
}

impl Forwarder {
    /// Makes the datagram of a probe, and adds it to `output`; nothing if its segment or VTEP is gone.
    pub fn probe(&mut self, tables: &Tables, now: Duration, probe: &Probe, output: &mut Output) {
        let Probe { segment, vtep, sequence, size, way } = *probe;
        let Some((segment, to)) = tables.segment(segment).zip(tables.vtep(vtep)) else { return };
        let len = frame_len(segment, to, size);
        let Some(vni) = vni_for(segment, vtep, None).filter(|_| len >= probe::MIN_LEN) else {
            return;
        };
        let message = probe::Probe {
            kind: Kind::Request,
            // IP packets are no longer than that.
            size: size as u16,
            sequence,
            token: token(tables, to, sequence, size),
        };
        let context = self.context(tables, now);
        context.counters.probes.add(1);
        self.say_to_vtep(&context, segment, (vtep, vni, way), (&message, len), output);
    }

    /// What becomes of a datagram that would be dropped: it may be a probe, or the answer to one.
    #[cold]
    #[inline(never)]
    pub(super) fn refused(
        &mut self,
        context: &Context<'_>,
        origins: &Origins<'_>,
        (batch, index): (&Batch, usize),
        reason: DropReason,
        output: &mut Output,
    ) {
        let frame = match reason {
            DropReason::LinkLocal => Some(batch.frame(index)),
            // Of a routed segment; its header is still there.
            DropReason::OtherMac => batch.frame(index).get(vxlan::HEADER_LEN..),
            _ => None,
        };
        let taken = match (frame, origins.place()) {
            (Some(frame), Some((segment, Some(vtep)))) if probe::is_for_probes(frame) => {
                match probe::Probe::parse(frame) {
                    None => Err(DropReason::BadProbe),
                    Some(message) => {
                        let heard = (&message, frame.len());
                        self.take_probe(context, (segment, vtep), (batch, index), heard, output)
                    }
                }
            }
            _ => Err(reason),
        };
        match taken {
            Ok(()) => {
                output.note(index, Fate::Answered);
                self.tally.answered();
            }
            Err(reason) => {
                output.note_drop(index, reason);
                origins.dropped(reason);
                self.tally.dropped(reason, context.counters);
            }
        }
    }

    /// Answers a probe of a VTEP that the segment knows, or notes its answer.
    fn take_probe(
        &mut self,
        context: &Context<'_>,
        (segment, from): (&SegmentEntry, &VtepEntry),
        (batch, index): (&Batch, usize),
        (message, len): (&probe::Probe, usize),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let peer = segment.peers.get(&batch.source_key(index)).ok_or(DropReason::LinkLocal)?;
        let (sequence, size) = (message.sequence, u32::from(message.size));
        if message.kind == Kind::Answer {
            if message.token != token(context.tables, from, sequence, size) {
                return Err(DropReason::BadProbe);
            }
            output.echo(Echo { vtep: peer.vtep, sequence, size });
            return Ok(());
        }
        let of_frame = batch.metadata(index).vni;
        let vni = vni_for(segment, peer.vtep, of_frame).filter(|_| segment.answers_probes);
        let vni = vni.ok_or(DropReason::LinkLocal)?;
        // What was cut on the way, or grew, shows nothing.
        if len != frame_len(segment, from, size) {
            return Err(DropReason::BadProbe);
        }
        if !self.probes.take(context.now) {
            return Err(DropReason::ProbeLimit);
        }
        context.counters.probes_answered.add(1);
        let answer = (&probe::Probe { kind: Kind::Answer, ..*message }, probe::MIN_LEN);
        self.say_to_vtep(context, segment, (peer.vtep, vni, sequence), answer, output);
        Ok(())
    }

    /// Sends a message in a frame of `len` bytes to a VTEP, under a VNI and from a port chosen by a flow.
    fn say_to_vtep(
        &mut self,
        context: &Context<'_>,
        segment: &SegmentEntry,
        (vtep, vni, flow): (VtepId, Vni, u32),
        (message, len): (&probe::Probe, usize),
        output: &mut Output,
    ) {
        let frame = message.encode(own_mac(context.tables));
        let outer = match FrameInfo::parse(&frame) {
            Some(info) => segment.outer.header(&frame, &info),
            None => OuterHeader::default(),
        };
        let Span { start, .. } = output.put(&vxlan::encode(vni));
        output.put(&frame);
        let len = vxlan::HEADER_LEN + len;
        output.headers.resize(start as usize + len, 0);
        let source = SourcePort::Entropy {
            // Multiples of the golden ratio: each next one is far from those before.
            flow: flow.wrapping_mul(0x9e37_79b9),
            listener: segment.id.udp_port,
        };
        // It is the way there without fragments that is to be known.
        let cast = if segment.kind.is_ethernet() { Cast::Multicast } else { Cast::Unicast };
        let outer = OuterHeader { may_fragment: false, cast, ..outer };
        let whole = Transmit::whole(vtep, (source, outer), Span::default());
        let head = Span { start, len: len as u32 };
        let mut emitter = self.emitter(context, segment, output);
        emitter.generate_datagram(Transmit { head, ..whole });
    }
}
