//! ICMP errors: when they may be sent, and what they say.
//!
//! An error is built in place: its headers go into the headroom of the packet it is about, and the packet, cut to
//! length, is the quotation. In a bridge segment the frame goes back to where it came from: with its MAC addresses
//! swapped and its VLAN tags kept.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, icmpv4,
    icmpv6,
};

use crate::batch::{Batch, Span};
use crate::tables::Answers;
use crate::wire::ip::{PROTO_ICMP, PROTO_ICMPV6, V4_HEADER_LEN, V6_HEADER_LEN};
use crate::wire::{Fragment, FrameInfo, L3, eth};

/// Largest ICMPv4 error, in bytes of the whole packet (RFC 1812 §4.3.2.3).
const MAX_V4: usize = 576;
/// Largest ICMPv6 error, in bytes of the whole packet: the smallest IPv6 MTU (RFC 4443 §2.4 (c)).
const MAX_V6: usize = 1280;
/// ICMP header with the unused or MTU word.
const ICMP_HEADER: usize = 8;
/// Longest link header in front of a packet: Ethernet with the VLAN tags that are looked behind.
const MAX_LINK_HEADER: usize = eth::HEADER_LEN + 2 * eth::VLAN_TAG_LEN;
/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5): no sender goes below it, whatever it is told.
const MIN_MTU_V6: u32 = 1280;
/// TTL and hop limit of errors (kernel `net.ipv4.ip_default_ttl`).
const TTL: u8 = 64;

/// Errors that a forwarder may make a second, and at once (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f);
/// the burst is that of kernel `net.ipv4.icmp_msgs_burst`).
pub(super) const ERRORS: (u32, u32) = (100, 50);

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Its TTL or hop limit ran out.
    TimeExceeded,
    /// No route leads to its destination.
    NoRoute,
    /// The route to its destination says that it cannot be reached.
    Unreachable,
    /// It exceeds the MTU, given in bytes.
    TooBig(u32),
}

/// A token bucket of what a forwarder makes of its own accord.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: u32,
    burst: u32,
    tokens: u32,
    refilled: Duration,
}

impl Budget {
    /// Full, of so many a second and so many at once.
    pub(crate) fn new((per_second, burst): (u32, u32)) -> Self {
        Self { per_second, burst, tokens: burst, refilled: Duration::ZERO }
    }

    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let interval = Duration::from_secs(1) / self.per_second;
        let elapsed = now.saturating_sub(self.refilled);
        let new = elapsed.as_nanos() / interval.as_nanos();
        if new >= u128::from(self.burst) {
            self.tokens = self.burst;
            self.refilled = now;
        } else {
            self.tokens = self.burst.min(self.tokens + new as u32);
            self.refilled += interval * new as u32;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// Whether an error may be sent about this packet: not about ICMP errors, group or unspecified addresses, or
/// fragments after the first (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
pub(crate) fn may_answer(packet: &[u8], info: &FrameInfo) -> bool {
    let Some((source, destination)) = info.addresses(packet) else { return false };
    let individual = |address: IpAddr| match address {
        IpAddr::V4(v4) => {
            !(v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified() || v4.is_loopback())
        }
        IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_unspecified() || v6.is_loopback()),
    };
    let kind = packet.get(usize::from(info.l4_offset)).copied();
    let about_error = match (info.protocol, kind) {
        // Echo, router discovery, timestamps and the other queries (IANA "ICMP Type Numbers"); all else is an error.
        (PROTO_ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        // Errors are below 128 (RFC 4443 §2.1); redirects are not to be answered either (§2.4 (e.2)).
        (PROTO_ICMPV6, Some(kind)) => kind < 128 || kind == 137,
        (PROTO_ICMP | PROTO_ICMPV6, None) => true,
        _ => false,
    };
    info.fragment != Fragment::Later
        && !about_error
        && individual(source)
        && individual(destination)
}

/// What to tell the sender of a packet above an MTU of `mtu` bytes.
///
/// Nothing of one that may be fragmented, which is nobody's error (RFC 1191 §3), for IPv6 routers never fragment; and
/// nothing of one that no IPv6 sender would make smaller.
pub(crate) fn too_big(frame: &[u8], info: &FrameInfo, mtu: u32) -> Option<Problem> {
    match info.l3 {
        L3::Ipv4 => (!info.may_be_fragmented(frame)).then_some(Problem::TooBig(mtu)),
        L3::Ipv6 => {
            let packet = frame.len().saturating_sub(info.l3_offset.into());
            (packet > MIN_MTU_V6 as usize).then_some(Problem::TooBig(mtu.max(MIN_MTU_V6)))
        }
        L3::Other => None,
    }
}

/// Builds the error about frame `index` of the batch, addressed to its sender, and says where it lies.
///
/// It comes from the segment's address, or else from where the packet was going: an address that the sender has just
/// routed this way, so that no reverse-path filter objects (kernel `net/ipv4/ip_tunnel_core.c`, `iptunnel_pmtud_build_icmp`).
/// `None` when the packet cannot be quoted. The frame has lost its link header then.
pub(crate) fn answer(
    batch: &mut Batch,
    index: usize,
    info: &FrameInfo,
    problem: Problem,
    answers: &Answers,
) -> Option<Span> {
    let l3 = usize::from(info.l3_offset);
    let frame = batch.frame(index);
    let addresses = info.addresses(frame)?;
    let mut header = [0; MAX_LINK_HEADER + V6_HEADER_LEN + ICMP_HEADER];
    let (link, header_of_packet) = header.split_at_mut_checked(l3)?;
    link.copy_from_slice(frame.get(..l3)?);
    if let Some((macs, _)) = link.split_first_chunk_mut::<12>() {
        macs.rotate_left(6);
    }
    let packet = frame.get(l3..info.ip_end as usize)?;
    // The error goes where the packet came from.
    let (len, quoted) = match addresses {
        (IpAddr::V4(to), IpAddr::V4(target)) => {
            let from = answers.v4.unwrap_or(target).octets();
            let quote = &packet[..packet.len().min(MAX_V4 - V4_HEADER_LEN - ICMP_HEADER)];
            let icmp = Icmpv4Header::with_checksum(v4_type(problem), quote).to_bytes();
            let payload = u16::try_from(icmp.len() + quote.len()).ok()?;
            let mut ip = Ipv4Header::new(payload, TTL, IpNumber::ICMP, from, to.octets()).ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            (concat(header_of_packet, &ip.to_bytes(), &icmp)?, quote.len())
        }
        (IpAddr::V6(to), IpAddr::V6(target)) => {
            let from = answers.v6.unwrap_or(target).octets();
            let quote = &packet[..packet.len().min(MAX_V6 - V6_HEADER_LEN - ICMP_HEADER)];
            let icmp = Icmpv6Header::with_checksum(v6_type(problem), from, to.octets(), quote)
                .ok()?
                .to_bytes();
            let ip = Ipv6Header {
                payload_length: u16::try_from(icmp.len() + quote.len()).ok()?,
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: TTL,
                source: from,
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            (concat(header_of_packet, &ip.to_bytes(), &icmp)?, quote.len())
        }
        _ => return None,
    };
    batch.strip(index, l3);
    Some(batch.prepend(index, &header[..l3 + len], quoted))
}

/// Puts two headers next to each other and returns their length.
fn concat(into: &mut [u8], first: &[u8], second: &[u8]) -> Option<usize> {
    let len = first.len() + second.len();
    into.get_mut(..first.len())?.copy_from_slice(first);
    into.get_mut(first.len()..len)?.copy_from_slice(second);
    Some(len)
}

fn v4_type(problem: Problem) -> Icmpv4Type {
    match problem {
        Problem::TimeExceeded => {
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit)
        }
        Problem::NoRoute => {
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Network)
        }
        Problem::Unreachable => {
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host)
        }
        // RFC 1191 §4.
        Problem::TooBig(mtu) => {
            let next_hop_mtu = mtu.min(u32::from(u16::MAX)) as u16;
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu,
            })
        }
    }
}

fn v6_type(problem: Problem) -> Icmpv6Type {
    match problem {
        Problem::TimeExceeded => {
            Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded)
        }
        Problem::NoRoute | Problem::Unreachable => {
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute)
        }
        // RFC 4443 §3.2.
        Problem::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_a_steady_rate() {
        let mut budget = Budget::new(ERRORS);
        let burst = ERRORS.1 as usize;
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, Duration::ZERO), burst);
        assert_eq!(taken(&mut budget, Duration::from_millis(100)), 10);
        assert_eq!(taken(&mut budget, Duration::from_secs(3600)), burst);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut budget = Budget::new(ERRORS);
        while budget.take(Duration::from_secs(10)) {}
        assert!(!budget.take(Duration::from_secs(5)));
    }
}
