//! TAP ports of routed segments, to whose host the dataplane is the router of its link.
//!
//! Packets are routed without their Ethernet header: it is taken off where they come in, and what leaves by such a port gets one
//! in the output's arena, for within a train there is no room in front of a packet.

use std::net::IpAddr;

use crate::batch::{Batch, Span};
use crate::capture::Fate;
use crate::drop_reason::DropReason;
use crate::output::{Deliver, Output};
use crate::segment::{Location, PortId};
use crate::tables::{Attached, PortEntry, Routed, SegmentEntry};
use crate::wire::eth;
use crate::wire::neighbour::{self, Answer, Message};
use crate::wire::{L3, VnetHeader};

use super::lookahead::AHEAD;
use super::routed::follow;
use super::routed_vxlan::check;
use super::{Context, Forwarder};

/// The header of the frames in which packets are delivered to a port.
pub(super) type LinkHeader = [u8; eth::HEADER_LEN];

/// Takes the Ethernet header off the packets for the gateway among the frames from `first` on, as many as are looked up
/// together, and returns which of them are something else, one bit each.
pub(super) fn take_off(gateway: &Attached, batch: &mut Batch, first: usize) -> u32 {
    let count = AHEAD.min(batch.len() - first);
    let mut others = 0;
    for place in 0..count {
        let frame = batch.frame(first + place);
        let speaks = neighbour::may_be(frame) && neighbour::parse(frame).is_some();
        match eth::address_numbers(frame) {
            Some((_, from)) if !speaks && check(frame, gateway.mac).is_ok() => {
                gateway.heard(from);
                batch.take_off(first + place, eth::HEADER_LEN);
            }
            _ => others |= 1 << place,
        }
    }
    others
}

/// The header for packets that go to a port; none for a TUN.
#[inline]
pub(super) fn link_header(port: &PortEntry, l3: L3) -> Result<Option<LinkHeader>, DropReason> {
    let Some(gateway) = &port.gateway else { return Ok(None) };
    let host = gateway.host().ok_or(DropReason::Unresolved)?;
    Ok(Some(eth::header(host, gateway.mac, l3.ethertype())))
}

/// Puts a link header in front of what was decided last.
#[cold]
#[inline(never)]
pub(super) fn frame_last(link: &LinkHeader, output: &mut Output) {
    let Some(deliver) = output.delivers.last_mut() else { return };
    let start = output.headers.len();
    output.headers.extend_from_slice(link);
    output.headers.extend_from_within(deliver.head.range());
    deliver.head = Span { start: start as u32, len: (output.headers.len() - start) as u32 };
    deliver.vnet = deliver.vnet.behind(eth::HEADER_LEN as u16);
}

/// Whether requests for an address are answered to the host behind a port.
fn answers(
    gateway: &Attached,
    (segment, routed): (&SegmentEntry, &Routed),
    port: PortId,
    target: IpAddr,
) -> bool {
    let behind = || {
        let route = routed.fib.lookup(target);
        route.and_then(|route| follow((segment, routed), route, || 0).ok())
    };
    gateway.addresses.contains(&target)
        || gateway.answer_all && behind() != Some(Location::Port(port))
}

impl Forwarder {
    /// Decides about a frame that [`take_off`] left: no packet for the gateway.
    #[inline(never)]
    pub(super) fn gateway_frame(
        &mut self,
        context: &Context<'_>,
        (port, segment, routed): (&PortEntry, &SegmentEntry, &Routed),
        batch: &mut Batch,
        index: usize,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let frame = batch.frame(index);
        let Some(gateway) = &port.gateway else { return Err(DropReason::Detached) };
        let (to, from) = eth::address_numbers(frame).ok_or(DropReason::Truncated)?;
        let message = neighbour::parse(frame);
        if !to.is_multicast() && message.is_none() {
            return Err(check(frame, gateway.mac).err().unwrap_or(DropReason::NotIp));
        }
        if !from.is_individual() || from == gateway.mac {
            return Err(DropReason::InvalidSource);
        }
        gateway.heard(from);
        let Some(Message::Request { target, sender: Some(asker) }) = message else {
            return Err(DropReason::NoDestination);
        };
        if !answers(gateway, (segment, routed), port.id, target) {
            return Err(DropReason::NoDestination);
        }
        let answer = neighbour::answer((target, gateway.mac.into(), true), asker);
        let answer = answer.ok_or(DropReason::NoDestination)?;
        self.say(context, (port, segment), &answer, output);
        output.note(index, Fate::Answered);
        self.tally.answered();
        Ok(())
    }

    /// Asks the host behind a port for its MAC address, if its errors are not too many already.
    #[cold]
    pub(super) fn ask_host(
        &mut self,
        context: &Context<'_>,
        (port, segment): (&PortEntry, &SegmentEntry),
        target: IpAddr,
        output: &mut Output,
    ) {
        let Some(gateway) = &port.gateway else { return };
        let own = gateway.addresses.iter().copied().find(|own| own.is_ipv4() == target.is_ipv4());
        let request = neighbour::request(target, (own, gateway.mac.into()));
        if let Some(request) = request.filter(|_| self.icmp.take(context.now)) {
            self.say(context, (port, segment), &request, output);
        }
    }

    /// Delivers a frame of the gateway's own.
    fn say(
        &mut self,
        context: &Context<'_>,
        (port, segment): (&PortEntry, &SegmentEntry),
        answer: &Answer,
        output: &mut Output,
    ) {
        let head = output.put(answer.bytes());
        let whole = Deliver::whole(port.id, VnetHeader::default(), Span::default());
        self.emitter(context, segment, output).generate(Deliver { head, ..whole });
    }
}
