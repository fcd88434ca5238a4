//! Lookups of a whole batch at once: while one waits for memory, others are under way.
//!
//! The routes of packets are looked up together. Where frames go by MAC address the lookups come later, one by one, for
//! each frame can teach what the next one needs; here the memory that they will read is sent for.

use crate::batch::Batch;
use crate::fib::{Fib, NextHopId};
use crate::tables::{Bridge, Macs, SegmentEntry, Tables};
use crate::wire::eth::{self, MacNumber};
use crate::wire::vxlan::{self, Header};

/// Packets that are looked up together.
pub(super) const AHEAD: usize = 32;

/// The routes of up to [`AHEAD`] packets; of those that are no IP packets, any.
pub(super) type Routes = [Option<NextHopId>; AHEAD];

/// Looks up the destinations of the packets from `first` on.
#[inline]
pub(super) fn look_ahead(fib: &Fib, batch: &Batch, first: usize, routes: &mut Routes) {
    let count = AHEAD.min(batch.len() - first);
    let mut destinations = [0; AHEAD];
    let mut others = false;
    for (place, destination) in destinations[..count].iter_mut().enumerate() {
        match v4_destination(batch.frame(first + place)) {
            Some(v4) => *destination = v4,
            None => others = true,
        }
    }
    fib.lookup_batch_v4(&destinations[..count], &mut routes[..count]);
    if others {
        look_ahead_v6(fib, batch, first, &mut routes[..count]);
    }
}

/// The same for the IPv6 packets among them.
#[inline(never)]
fn look_ahead_v6(fib: &Fib, batch: &Batch, first: usize, routes: &mut [Option<NextHopId>]) {
    let (mut destinations, mut places, mut count) = ([0; AHEAD], [0; AHEAD], 0);
    for place in 0..routes.len() {
        if let Some(v6) = v6_destination(batch.frame(first + place)) {
            (destinations[count], places[count]) = (v6, place);
            count += 1;
        }
    }
    let mut found = [None; AHEAD];
    fib.lookup_batch_v6(&destinations[..count], &mut found[..count]);
    for (place, route) in places[..count].iter().zip(found) {
        routes[*place] = route;
    }
}

/// Learned entries of a segment above which it pays to send for them: those of smaller ones are in the cache.
const LARGE: usize = 2048;

/// Sends for the entries of the addresses in a frame.
#[inline(always)]
fn prefetch(macs: &Macs<'_>, frame: &[u8], last: &mut Option<(MacNumber, MacNumber)>) {
    let addresses = eth::address_numbers(frame);
    let Some((to, from)) = addresses.filter(|_| addresses != *last) else { return };
    macs.learned.prefetch(to);
    macs.learned.prefetch(from);
    *last = addresses;
}

/// Sends for what the frames of a batch from a port will be looked up in.
#[inline]
pub(super) fn prefetch_frames(bridge: &Bridge, batch: &Batch) {
    if bridge.domain.entries() > LARGE {
        let (macs, mut last) = (bridge.macs(), None);
        (0..batch.len()).for_each(|index| prefetch(&macs, batch.frame(index), &mut last));
    }
}

/// The same for the frames in VXLAN datagrams, if the first of them is of a large segment; others may come with it.
#[inline]
pub(super) fn prefetch_datagrams(tables: &Tables, udp_port: u16, batch: &Batch) {
    let large = |vni| {
        let bridge = tables.bridge_of(udp_port, vni).and_then(SegmentEntry::bridge);
        bridge.filter(|bridge| bridge.domain.entries() > LARGE).map(Bridge::macs)
    };
    let vni = |index| vxlan::decode(batch.frame(index)).map(Header::vni).ok();
    let mut this = if batch.is_empty() { None } else { vni(0) };
    let mut macs = this.and_then(large);
    if macs.is_none() {
        return;
    }
    let mut last = None;
    for index in 0..batch.len() {
        let next = vni(index);
        if next != this {
            (this, last) = (next, None);
            macs = next.and_then(large);
        }
        if let (Some(macs), Some((_, frame))) =
            (&macs, batch.frame(index).split_at_checked(vxlan::HEADER_LEN))
        {
            prefetch(macs, frame, &mut last);
        }
    }
}

#[inline]
fn v4_destination(packet: &[u8]) -> Option<u32> {
    let header: &[u8; 20] = packet.first_chunk()?;
    (header[0] >> 4 == 4)
        .then(|| u32::from_be_bytes([header[16], header[17], header[18], header[19]]))
}

fn v6_destination(packet: &[u8]) -> Option<u128> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let destination = header.last_chunk().filter(|_| header[0] >> 4 == 6)?;
    Some(u128::from_be_bytes(*destination))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::fib::Rib;

    #[test]
    fn each_packet_gets_the_route_of_its_destination() {
        let mut rib = Rib::new();
        for n in 0..200_u32 {
            for (prefix, hop) in
                [(format!("10.0.0.{n}"), 2 * n), (format!("fd00::{n:x}"), 2 * n + 1)]
            {
                rib.insert(prefix.parse().unwrap(), NextHopId::new(hop).unwrap());
            }
        }
        let fib = rib.publish();
        let mut batch = Batch::new(150);
        let mut expected = Vec::new();
        for n in 0..150_u8 {
            let mut packet = vec![0; if n % 7 == 0 { 10 } else { 60 }];
            packet[0] = if n % 3 == 0 { 0x60 } else { 0x45 };
            let to: IpAddr = match n % 3 {
                0 => format!("fd00::{n:x}").parse().unwrap(),
                _ => format!("10.0.0.{n}").parse().unwrap(),
            };
            if packet.len() == 60 {
                match to {
                    IpAddr::V4(to) => packet[16..20].copy_from_slice(&to.octets()),
                    IpAddr::V6(to) => packet[24..40].copy_from_slice(&to.octets()),
                }
            }
            expected.push((packet.len() == 60).then(|| fib.lookup(to)));
            assert!(batch.push(&packet, Default::default()));
        }
        let mut routes = [None; AHEAD];
        for first in (0..150).step_by(AHEAD) {
            look_ahead(&fib, &batch, first, &mut routes);
            for (expected, route) in expected[first..].iter().zip(&routes) {
                assert!(expected.is_none_or(|expected| expected == *route && route.is_some()));
            }
        }
    }
}
