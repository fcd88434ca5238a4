//! Routed segments: IP packets by longest prefix.
//!
//! A node decrements the TTL once, when a packet enters the overlay from a port; the node that takes it out again
//! does not count as a second hop.

use std::mem::take;
use std::net::IpAddr;

use crate::batch::Batch;
use crate::drop_reason::DropReason;
use crate::fib::NextHopId;
use crate::next_hop::Hop;
use crate::output::Output;
use crate::segment::{Location, VtepId};
use crate::source_key::SourceKey;
use crate::tables::{Link, PortEntry, Routed, SegmentEntry, VtepEntry};
use crate::wire::eth::{self, Cast};
use crate::wire::{FrameInfo, IpError, L3, VnetHeader, ip};

use super::clamp;
use super::emit::Emitter;
use super::gateway::{LinkHeader, link_header, take_off};
use super::lookahead::{AHEAD, look_ahead};
use super::recognise::recognise;
use super::{Context, Forwarder, admit_stranger, dropped_from_underlay};

fn refusal(error: &IpError) -> DropReason {
    match error {
        IpError::Truncated => DropReason::Truncated,
        IpError::Version => DropReason::NotIp,
        _ => DropReason::BadIpHeader,
    }
}

fn destination(packet: &[u8], info: &FrameInfo) -> Result<IpAddr, DropReason> {
    let (from, to) = info.addresses(packet).ok_or(DropReason::BadIpHeader)?;
    // Groups and link-local addresses are not routed (RFC 4291 §2.5.6, RFC 3927 §2.7): hosts use them on every link,
    // so these are no errors to answer.
    let of_the_link = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    };
    if of_the_link(to) || of_the_link(from) { Err(DropReason::NoDestination) } else { Ok(to) }
}

/// Where a route leads a packet.
#[inline(always)]
pub(super) fn follow(
    (segment, routed): (&SegmentEntry, &Routed),
    route: NextHopId,
    flow: impl FnOnce() -> u32,
) -> Result<Location, DropReason> {
    match routed.next_hops.hop(route).ok_or(DropReason::NoRoute)? {
        Hop::At(location) => Ok(location),
        Hop::Group(handle) => {
            let member = routed.next_hops.group(handle).and_then(|group| group.member(flow()));
            member.ok_or(DropReason::Unreachable)
        }
        Hop::Blackhole => Err(DropReason::Blackhole),
        Hop::Unreachable => Err(DropReason::Unreachable),
        Hop::Local => segment.ports.first().copied().map(Location::Port).ok_or(DropReason::NoRoute),
    }
}

/// Takes one from the hops that a packet may still make.
fn count_hop(packet: &mut [u8], l3: L3) {
    match l3 {
        L3::Ipv4 => ip::decrement_ttl_v4(packet),
        _ => ip::decrement_hop_limit(packet),
    }
}

/// Emits a packet to a VTEP in an Ethernet frame.
fn emit_framed(
    emitter: Emitter<'_>,
    link: &Link,
    batch: &mut Batch,
    index: usize,
    (vnet, info): (VnetHeader, FrameInfo),
    vtep: VtepId,
) -> Result<(), DropReason> {
    let mac = link.mac_of(vtep).ok_or(DropReason::NoVtepMac)?;
    batch.grow(index, &eth::header(mac, link.mac, info.l3.ethertype()));
    let (vnet, info) = (vnet.behind(eth::HEADER_LEN as u16), info.behind(eth::HEADER_LEN as u16));
    let emitted = emitter.emit_to_vtep(batch, index, vnet, Some(&info), vtep);
    if emitted.is_err() {
        // Whoever reports the packet to its sender quotes the packet.
        batch.strip(index, eth::HEADER_LEN);
    }
    emitted
}

/// Whether the underlay may fragment what a packet is sent in.
#[cold]
fn may_fragment(segment: &SegmentEntry, packet: &[u8], info: FrameInfo) -> bool {
    segment.outer.header(packet, &info).may_fragment
}

/// Largest packet that a segment carries to a location.
#[cold]
fn limit(context: &Context<'_>, segment: &SegmentEntry, hop: Location) -> u32 {
    match hop {
        Location::Vtep(vtep) => context.tables.limit_to(segment, vtep),
        Location::Port(_) => segment.mtu,
    }
}

impl Forwarder {
    pub(super) fn route_from_port(
        &mut self,
        context: &Context<'_>,
        port: &PortEntry,
        segment: &SegmentEntry,
        routed: &Routed,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let mut routes = [None; AHEAD];
        // Those among them that are no packets; frames of a TAP alone.
        let mut others = 0_u32;
        let link = if port.gateway.is_some() { eth::HEADER_LEN as u32 } else { 0 };
        for index in 0..batch.len() {
            if index % AHEAD == 0 {
                if let Some(gateway) = &port.gateway {
                    others = take_off(gateway, batch, index);
                }
                look_ahead(&routed.fib, batch, index, &mut routes);
            }
            let from = (port, segment, routed);
            let packet = (index, routes[index % AHEAD]);
            let is_other = others >> (index % AHEAD) & 1 != 0;
            let bytes = batch.span(index).len + if is_other { 0 } else { link };
            let decided = match is_other {
                false => self.route_packet(context, from, batch, packet, output),
                true => self.gateway_frame(context, from, batch, index, output),
            };
            self.tally.received(bytes, Cast::Unicast);
            if let Err(reason) = decided {
                if !is_other {
                    self.report(context, (port, segment), batch, index, reason, output);
                }
                output.note_drop(index, reason);
                self.drop_from_port(context, port, segment, reason);
            }
        }
        take(&mut self.tally).flush_from_port(context, port, segment, batch.len());
    }

    /// Decides about one packet from a port, whose route was looked up.
    #[inline]
    fn route_packet(
        &mut self,
        context: &Context<'_>,
        (port, segment, routed): (&PortEntry, &SegmentEntry, &Routed),
        batch: &mut Batch,
        (index, route): (usize, Option<NextHopId>),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let packet = batch.frame_mut(index);
        let parsed = FrameInfo::parse_ip(packet);
        let info = parsed.as_ref().map_err(refusal)?;
        destination(packet, info)?;
        let route = route.ok_or(DropReason::NoRoute)?;
        let flow = || info.flow_hash(packet, context.spread);
        let hop = follow((segment, routed), route, flow)?;
        if info.ttl(packet) <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let len = packet.len();
        let vnet = batch.vnet(index);
        if !vnet.is_zero() && vnet.validate(len).is_err() {
            return Err(DropReason::BadOffload);
        }
        if !vnet.is_gso()
            && len as u32 > segment.narrowest
            && len as u32 > limit(context, segment, hop)
            && (len as u32 > segment.mtu || !may_fragment(segment, batch.frame(index), *info))
        {
            return Err(DropReason::TooBig);
        }
        match hop {
            Location::Vtep(vtep) => {
                if !context.tables.has_vtep(vtep) {
                    return Err(DropReason::NoRoute);
                }
                if segment.most_mss != 0 {
                    clamp::towards(context, segment, &[vtep], batch, index);
                }
                count_hop(batch.frame_mut(index), info.l3);
                let emitter = self.emitter(context, segment, output);
                match &routed.link {
                    Some(link) => emit_framed(emitter, link, batch, index, (vnet, *info), vtep),
                    None => emitter.emit_to_vtep(batch, index, vnet, Some(info), vtep),
                }
            }
            Location::Port(other) if other == port.id => Err(DropReason::SamePort),
            Location::Port(other) => {
                let to = context.tables.port(other).ok_or(DropReason::NoRoute)?;
                let link = match to.gateway {
                    None => None,
                    Some(_) => {
                        let packet = (batch.frame(index), *info);
                        self.link_to(context, (to, segment), packet, output)?
                    }
                };
                count_hop(batch.frame_mut(index), info.l3);
                let mut emitter = self.emitter(context, segment, output);
                emitter.link = link;
                emitter.emit_to_port(batch, index, vnet, Some(info), to)
            }
        }
    }

    /// The header for a packet to a port with a gateway; asks the host for its MAC address if it is not known.
    fn link_to(
        &mut self,
        context: &Context<'_>,
        (port, segment): (&PortEntry, &SegmentEntry),
        (packet, info): (&[u8], FrameInfo),
        output: &mut Output,
    ) -> Result<Option<LinkHeader>, DropReason> {
        let link = link_header(port, info.l3);
        if link.is_err()
            && let Some((_, to)) = info.addresses(packet)
        {
            self.ask_host(context, (port, segment), to, output);
        }
        link
    }

    pub(super) fn route_from_underlay(
        &mut self,
        context: &Context<'_>,
        segment: &SegmentEntry,
        routed: &Routed,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        // Neighbours in a batch mostly share their sender.
        let (mut last, mut sender) = (SourceKey::NONE, None);
        for index in 0..batch.len() {
            let key = batch.source_key(index);
            if key != last {
                let peer = segment.peers.get(&key);
                (last, sender) = (key, peer.and_then(|peer| context.tables.vtep(peer.vtep)));
            }
            let from = (sender, segment, routed);
            if let Err(reason) = self.unwrap_packet(context, from, batch, index, output) {
                output.note_drop(index, reason);
                dropped_from_underlay(context.worker, sender, segment, reason);
                self.tally.dropped(reason, context.counters);
            }
        }
        self.coalescer.end_all(batch, output);
        take(&mut self.tally).flush(context.counters, batch.len());
    }

    /// Decides about one datagram of a routed segment.
    #[inline]
    fn unwrap_packet(
        &mut self,
        context: &Context<'_>,
        (sender, segment, routed): (Option<&VtepEntry>, &SegmentEntry, &Routed),
        batch: &mut Batch,
        index: usize,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let bytes = u64::from(batch.span(index).len);
        match sender {
            Some(vtep) => vtep.counters.of(context.worker).received(1, bytes),
            None => admit_stranger(context, segment, batch.source(index), output)?,
        }
        segment.counters.of(context.worker).received(1, bytes);
        if self.coalescer.follow(batch, index, 0, output) {
            return Ok(());
        }
        self.deliver_packet(context, (segment, routed), batch, index, output)
    }

    /// Decides about one packet from the underlay, out of its encapsulation.
    #[inline(always)]
    pub(super) fn deliver_packet(
        &mut self,
        context: &Context<'_>,
        (segment, routed): (&SegmentEntry, &Routed),
        batch: &mut Batch,
        index: usize,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let tables = context.tables;
        let size = batch.vnet(index).gso_size;
        let outer_ecn = batch.ecn(index);
        let packet = batch.frame_mut(index);
        let parsed = FrameInfo::parse_ip(packet);
        let info = parsed.as_ref().map_err(refusal)?;
        let route = routed.fib.lookup(destination(packet, info)?);
        let flow = || info.flow_hash(packet, context.spread);
        let hop = route.map(|route| follow((segment, routed), route, flow)).transpose()?;
        let port = match hop {
            Some(Location::Port(port)) => tables.port(port),
            // With one port there is no choice: the host behind it knows what is its own, also where a route to
            // another node covers this node's addresses. Should the packet come back, its TTL bounds the loop.
            other => match (&segment.ports[..], other) {
                ([port], _) => tables.port(*port),
                (_, Some(_)) => return Err(DropReason::SplitHorizon),
                (_, None) => return Err(DropReason::NoRoute),
            },
        };
        let port = port.ok_or(DropReason::NoRoute)?;
        if outer_ecn != 0 && segment.outer.merges_ecn && !info.merge_ecn(packet, outer_ecn) {
            return Err(DropReason::CeOnNotEct);
        }
        let unfinished = recognise(packet, info, segment.mtu, size);
        let link = match port.gateway {
            None => None,
            Some(_) => {
                self.link_to(context, (port, segment), (batch.frame(index), *info), output)?
            }
        };
        if segment.most_mss != 0 {
            let sender = segment.peers.get(&batch.source_key(index));
            let vtep = sender.map(|peer| peer.vtep);
            let packet = batch.frame_mut(index);
            clamp::backwards(context, segment, vtep, (packet, info), unfinished.is_some());
        }
        let mut emitter = self.emitter(context, segment, output);
        emitter.link = link;
        emitter.deliver_recognised(batch, index, unfinished, info, port)
    }
}
