//! Neighbours of bridge segments: what is heard of them, and what is answered in their place.

use crate::batch::Batch;
use crate::capture::Fate;
use crate::event::Event;
use crate::neighbours::{Binding, Neighbours};
use crate::output::{Deliver, Output};
use crate::segment::{Location, SegmentId};
use crate::tables::{Macs, PortEntry, SegmentEntry};
use crate::wire::VnetHeader;
use crate::wire::eth;
use crate::wire::neighbour::{self, Message};

use super::news::News;
use super::{At, Context, Forwarder};

/// Learns from a message that came from `at`.
fn hear(
    context: &Context<'_>,
    segment: SegmentId,
    neighbours: &Neighbours,
    message: &Message,
    at: At,
    news: &mut News,
    output: &mut Output,
) {
    let (address, mac, router) = match *message {
        Message::Announcement { address, mac, router } => (address, mac, Some(router)),
        Message::Request { sender: Some((address, mac)), .. } => (address, mac, None),
        Message::Request { sender: None, .. } => return,
    };
    if let Some(known) = neighbours.statics.get(&address) {
        if known.mac != mac.into() {
            context.counters.neighbour_conflicts.add(1);
            if news.take(at.place)
                && let Some(at) = context.tables.destination(at.location)
            {
                output.event(Event::NeighbourConflict { segment, address, claimed_by: mac, at });
            }
        }
        return;
    }
    let Some(snooped) = &neighbours.snooped else { return };
    let known = snooped.lookup(address, context.second);
    let router = match (router, known) {
        (Some(router), _) => router,
        // Only an advertisement says whether it is a router; the one before holds for the same station.
        (None, Some(known)) if address.is_ipv6() && known.mac == mac.into() => known.router,
        (None, Some(_)) if address.is_ipv6() => {
            snooped.forget(address);
            return;
        }
        (None, None) if address.is_ipv6() => return,
        (None, _) => false,
    };
    let binding = Binding { mac: mac.into(), router };
    if !snooped.refresh(address, binding, context.second) && news.take(at.place) {
        snooped.hear(address, binding, context.second);
    }
}

/// Learns from a frame of a VTEP, if it is of this kind.
#[inline(never)]
pub(super) fn hear_from_underlay(
    context: &Context<'_>,
    segment: SegmentId,
    neighbours: &Neighbours,
    frame: &[u8],
    at: At,
    news: &mut News,
    output: &mut Output,
) {
    if let Some(message) = neighbour::parse(frame) {
        hear(context, segment, neighbours, &message, at, news, output);
    }
}

impl Forwarder {
    /// Learns from a frame of a port that may be of this kind, and answers it if it is a request that a binding answers;
    /// `None` if it is to be forwarded.
    #[inline(never)]
    pub(super) fn neighbour_from_port(
        &mut self,
        context: &Context<'_>,
        (port, segment, macs, neighbours): (&PortEntry, &SegmentEntry, &Macs<'_>, &Neighbours),
        batch: &mut Batch,
        index: usize,
        news: &mut News,
        output: &mut Output,
    ) -> Option<()> {
        let frame = batch.frame(index);
        let message = neighbour::parse(frame)?;
        let (to, _) = eth::address_numbers(frame)?;
        let here = Location::Port(port.id);
        if let Some(at) = At::new(port.place.as_ref(), here) {
            hear(context, segment.id, neighbours, &message, at, news, output);
        }
        let Message::Request { target, sender: Some(asker) } = message else { return None };
        if !to.is_multicast() || !batch.vnet(index).is_zero() {
            return None;
        }
        let pinned = neighbours.statics.get(&target).copied();
        let snooped = || neighbours.snooped.as_ref()?.lookup(target, context.second);
        let binding = pinned.or_else(snooped)?;
        if asker.1 == binding.mac.into() {
            return None;
        }
        let location = macs.lookup(binding.mac, context.second);
        match location.filter(|location| context.tables.has(*location)) {
            Some(location) if location == here => return None,
            None if pinned.is_none() => return None,
            _ => {}
        }
        let answer = neighbour::answer((target, binding.mac.into(), binding.router), asker)?;
        let body = batch.prepend(index, answer.bytes(), 0);
        let answer = Deliver::whole(port.id, VnetHeader::default(), body);
        self.emitter(context, segment, output).generate(answer);
        output.note(index, Fate::Answered);
        self.tally.answered();
        Some(())
    }
}
