//! Routes are changed and published as the input says, and looked up as a scan over them would.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overplane::fib::{Fib, NextHopId, Prefix, Rib};

use crate::cursor::Cursor;

/// Most tables that are kept to see that they stay as they are.
const KEPT: usize = 4;

/// Most changes, which bounds the time.
const CHANGES: usize = 400;

type Model = BTreeMap<Prefix, NextHopId>;

pub fn run(input: &[u8]) {
    let mut input = Cursor(input);
    let (mut rib, mut model) = (Rib::new(), Model::new());
    let mut published: Vec<(Fib, Model)> = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..CHANGES {
        if input.is_empty() {
            break;
        }
        let step = input.u8();
        if step == 0xff && published.len() < KEPT {
            published.push((rib.publish(), model.clone()));
            continue;
        }
        let Some(prefix) = prefix(&mut input, &seen) else { continue };
        seen.push(prefix);
        if step % 4 == 0 {
            assert_eq!(rib.remove(prefix), model.remove(&prefix));
        } else {
            // Few, so that neighbours have the same; and some that take four bytes.
            let number = (u32::from(input.u8() % 8) << (4 * (step % 8))).min(NextHopId::MAX);
            let next_hop = NextHopId::new(number).expect("not above the largest");
            assert_eq!(rib.insert(prefix, next_hop), model.insert(prefix, next_hop));
        }
        assert_eq!(rib.len(), model.len());
    }
    assert!(rib.iter().eq(model.iter().map(|(prefix, next_hop)| (*prefix, *next_hop))));
    published.push((rib.publish(), model));
    for (fib, model) in &published {
        for prefix in &seen {
            check(fib, model, *prefix);
        }
    }
}

/// A prefix: a new one, or one near to one before, so that they nest and collide.
fn prefix(input: &mut Cursor<'_>, seen: &[Prefix]) -> Option<Prefix> {
    let (kind, len) = (input.u8(), input.u8());
    if let (0..128, Some(near)) = (kind, input.pick(seen)) {
        let bit = u32::from(input.u8());
        return match near.address() {
            IpAddr::V4(at) => {
                let flipped = at.to_bits() ^ 1_u32.checked_shl(bit).unwrap_or(0);
                Prefix::new(Ipv4Addr::from_bits(flipped).into(), len % 33)
            }
            IpAddr::V6(at) => {
                let flipped = at.to_bits() ^ 1_u128.checked_shl(bit).unwrap_or(0);
                Prefix::new(Ipv6Addr::from_bits(flipped).into(), len % 129)
            }
        };
    }
    if kind % 2 == 0 {
        Prefix::new(Ipv4Addr::from(input.array()).into(), len % 33)
    } else {
        Prefix::new(Ipv6Addr::from(input.array()).into(), len % 129)
    }
}

/// Looks up the first and the last address of a prefix and their neighbours outside, singly and in a batch.
fn check(fib: &Fib, model: &Model, prefix: Prefix) {
    let expected = |address: IpAddr| {
        let containing = model.iter().filter(|(prefix, _)| prefix.contains(address));
        containing.max_by_key(|(prefix, _)| prefix.len()).map(|(_, next_hop)| *next_hop)
    };
    let mut found = [None; 4];
    match prefix.address() {
        IpAddr::V4(first) => {
            let first = first.to_bits();
            let last = first | u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            let addresses = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            fib.lookup_batch_v4(&addresses, &mut found);
            for (address, found) in addresses.into_iter().zip(found) {
                assert_eq!(found, expected(Ipv4Addr::from_bits(address).into()));
                assert_eq!(found, fib.lookup_v4(address));
            }
        }
        IpAddr::V6(first) => {
            let first = first.to_bits();
            let last = first | u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            let addresses = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            // Twice, for eight are looked up in step.
            let mut found = [None; 8];
            fib.lookup_batch_v6(&[addresses, addresses].concat(), &mut found);
            for (address, found) in addresses.into_iter().zip(found) {
                assert_eq!(found, expected(Ipv6Addr::from_bits(address).into()));
                assert_eq!(found, fib.lookup_v6(address));
            }
        }
    }
}
