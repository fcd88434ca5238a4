//! The FDB by itself, shared by threads.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::MacAddr;
use overplane::fdb::{Fdb, Learned, Limits, MAX_CAPACITY, Place};

const MACS: u64 = 200;
const PLACES: u64 = 8;

fn mac(number: u64) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 | number)
}

/// Resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_not_used_is_not_taken() {
    let before = resident();
    let fdb = Fdb::new(MAX_CAPACITY).unwrap();
    let domain = fdb.add_domain(Limits::default(), 0).unwrap();
    let place = fdb.add_place(0).unwrap();
    assert_eq!(fdb.learn(&domain, mac(1), &place, 0, |_| ()), Learned::New);
    fdb.sweep(0, |_| ());
    // The other test of this file may take some meanwhile.
    let taken = resident().saturating_sub(before);
    assert!(fdb.bytes() > 22 * MAX_CAPACITY && taken < fdb.bytes() / 4, "{taken} bytes");
}

/// A MAC address is at one place only, so a reader that sees another one has taken somebody else's entry.
#[test]
fn threads_that_learn_forget_flush_and_sweep_leave_readers_and_counts_right() {
    let fdb = Fdb::new(64).unwrap();
    let limits = Limits { entries: 60, entries_per_place: Some(20), ..Limits::default() };
    let domain = fdb.add_domain(limits, 0).unwrap();
    let places: Vec<Place> = (0..PLACES).map(|n| fdb.add_place(n as u32).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(2);
    thread::scope(|scope| {
        for seed in 1..=2_u64 {
            let (fdb, domain, places, stop) = (&fdb, &domain, &places, &stop);
            scope.spawn(move || {
                let mut random = seed;
                while !stop.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let (n, second) = (random % MACS, (random >> 32) as u32 % 4);
                    match random >> 60 {
                        0 => _ = fdb.forget(domain, mac(n)),
                        1 => _ = fdb.sweep(second, |_| ()),
                        // Its names come and go.
                        2 => {
                            let passing = fdb.add_place((MACS + n) as u32).unwrap();
                            let other = mac(1_000_000 + n);
                            let _ = fdb.learn(domain, other, &passing, second, |_| ());
                        }
                        _ => {
                            let place = &places[(n % PLACES) as usize];
                            let _ = fdb.learn(domain, mac(n), place, second, |_| ());
                        }
                    }
                }
            });
        }
        while Instant::now() < end {
            for n in 0..MACS {
                let found = fdb.lookup(&domain, mac(n), 3);
                assert!(
                    found.is_none_or(|place| u64::from(place) == n % PLACES),
                    "{n} at {found:?}"
                );
                let passing = fdb.lookup(&domain, mac(1_000_000 + n), 3);
                assert!(passing.is_none_or(|place| u64::from(place) == MACS + n), "{passing:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    (0..60).for_each(|_| _ = fdb.sweep(3, |_| ()));
    let listed = fdb.list(&domain, 3);
    let distinct: HashSet<MacAddr> = listed.iter().map(|entry| entry.mac).collect();
    assert_eq!(distinct.len(), listed.len(), "no address twice");
    assert_eq!(domain.entries(), listed.len());
    for (n, place) in places.iter().enumerate() {
        let here = listed.iter().filter(|entry| entry.place as usize == n).count();
        assert_eq!(place.entries(), here);
    }
}
