//! The FIB against a linear scan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Fib, NextHopId, Prefix, Rib};

fn hop(number: u32) -> NextHopId {
    NextHopId::new(number).unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn the_longest_prefix_wins_whatever_the_order() {
    let mut rib = Rib::new();
    for (text, n) in [("10.0.0.0/8", 8), ("0.0.0.0/0", 0), ("10.1.0.0/16", 16), ("10.1.2.3/32", 32)]
    {
        assert_eq!(rib.insert(prefix(text), hop(n)), None);
    }
    let fib = rib.publish();
    let next = |text: &str| fib.lookup(text.parse().unwrap());
    assert_eq!(next("10.1.2.3"), Some(hop(32)));
    assert_eq!(next("10.1.2.4"), Some(hop(16)));
    assert_eq!(next("10.2.0.1"), Some(hop(8)));
    assert_eq!(next("192.0.2.1"), Some(hop(0)));
    assert_eq!(next("2001:db8::1"), None, "an IPv4 default route is none for IPv6");
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    // Few distinct bits, so that prefixes nest and collide.
    let v4 = (0_u32..8, 0_u8..=32)
        .prop_map(|(a, len)| (IpAddr::V4(Ipv4Addr::from_bits(a << 29 | a)), len));
    let v6 = (0_u128..8, 0_u8..=128)
        .prop_map(|(a, len)| (IpAddr::V6(Ipv6Addr::from_bits(a << 125 | a)), len));
    prop_oneof![v4, v6].prop_map(|(address, len)| Prefix::new(address, len).unwrap())
}

fn scan(model: &[(Prefix, NextHopId)], address: IpAddr) -> Option<NextHopId> {
    let containing = model.iter().filter(|(prefix, _)| prefix.contains(address));
    containing.max_by_key(|(prefix, _)| prefix.len()).map(|(_, hop)| *hop)
}

proptest! {
    /// The FIB agrees with a scan over a list of prefixes.
    #[test]
    fn agrees_with_a_linear_scan(
        steps in prop::collection::vec((any_prefix(), prop::option::of(0_u32..9)), 0..60),
        probes in prop::collection::vec(any_prefix(), 0..30),
    ) {
        let (mut rib, mut model) = (Rib::new(), Vec::new());
        for (prefix, change) in steps {
            let old = model.iter().find(|(have, _)| *have == prefix).map(|(_, hop)| *hop);
            model.retain(|(have, _)| *have != prefix);
            match change {
                Some(n) => {
                    prop_assert_eq!(rib.insert(prefix, hop(n)), old);
                    model.push((prefix, hop(n)));
                }
                None => prop_assert_eq!(rib.remove(prefix), old),
            }
        }
        let fib: Fib = rib.publish();
        for probe in probes {
            prop_assert_eq!(fib.lookup(probe.address()), scan(&model, probe.address()));
        }
        model.sort();
        prop_assert_eq!(rib.iter().collect::<Vec<_>>(), model);
    }
}
