//! Trains of a few flows through a node that joins frames and one that does not.

use overplane::{Offload, Offloads, SegmentId};

use crate::cursor::Cursor;
use crate::packets::bridge_id;
use crate::twins::{Arrival, QUIRKS, ROUTED, Recipe, SLOTS, Senders, Twins, encapsulated};

pub fn run(bytes: &[u8]) {
    let mut input = Cursor(bytes);
    let flags = input.u8();
    let offloads = match flags & 3 {
        0 => Offloads::NONE.with(Offload::CoalesceTcp),
        1 => Offloads::NONE.with(Offload::CoalesceUdp),
        _ => Offloads::ALL,
    };
    let mtu = if flags & 4 == 0 { None } else { Some(300) };
    let mut twins = Twins::new(offloads, mtu);
    let mut senders = Senders::default();
    while !input.is_empty() {
        let routed = input.u8() & 3 == 3;
        let udp_port = if routed { ROUTED } else { overplane::wire::vxlan::PORT };
        let mut arrivals = Vec::new();
        while !input.is_empty() && arrivals.len() < SLOTS {
            let head = input.u8();
            if head == 0xff {
                break;
            }
            arrivals.push(arrival(head, routed, &mut senders, &mut input));
        }
        twins.receive(&arrivals, udp_port);
    }
}

/// One datagram, or some of the same kind as one train; sometimes whatever bytes the input has.
fn arrival(head: u8, routed: bool, senders: &mut Senders, input: &mut Cursor<'_>) -> Arrival {
    // Nodes 2 and 3, which all segments know, one that is a stranger, and this one.
    let from = [2, 3, 5, 1][usize::from(head & 3)];
    let segment = match (routed, head >> 2 & 3) {
        (true, _) => SegmentId { udp_port: ROUTED, vni: None },
        (false, n @ 1..) => bridge_id(n.into()),
        (false, _) => bridge_id(1),
    };
    if head >> 4 == 15 {
        let (bytes, stride) = (input.padded(), usize::from(input.u8()) * 8);
        return Arrival { from, bytes, stride };
    }
    let more = usize::from(head >> 4);
    let flow = input.u8();
    let kind = input.u8();
    let to = 1 + (kind & 3);
    let len = match kind >> 2 & 7 {
        0..=2 => 100,
        3 => 60,
        4 => 1300,
        5 => u16::from(input.u8()),
        6 => input.u16() % 9000,
        _ => 8,
    };
    let quirk = if kind & 0x20 != 0 { input.u8() % (QUIRKS + 1) } else { 0 };
    let spoil = (kind & 0x40 != 0).then(|| (input.u16(), input.u8()));
    let reserved = if kind & 0x80 != 0 { input.u8() & 7 } else { 0 };
    let plain = Recipe { flow, to, len, quirk: 0, spoil: None };
    let mut bytes = Vec::new();
    let mut stride = 0;
    for n in 0..=more {
        let last = n == more;
        let recipe = if last { Recipe { quirk, spoil, ..plain } } else { plain.clone() };
        let mut datagram = encapsulated(segment, &recipe.build(senders));
        if last && reserved > 3 && !routed {
            datagram[usize::from(reserved)] ^= 1;
        }
        if bytes.len() + datagram.len() > 65_600 {
            break;
        }
        stride = stride.max(if n == 0 { datagram.len() } else { 0 });
        bytes.extend(datagram);
    }
    // Where the last one is longer than the others, its rest is a datagram of its own.
    let stride = if reserved == 3 { stride / 2 } else { stride };
    Arrival { from, bytes, stride }
}
