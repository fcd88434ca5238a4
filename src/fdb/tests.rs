//! What the table promises, one by one. That it behaves as a plain map is in `oracle`.

mod oracle;

use super::*;

fn mac(number: u64) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 | number)
}

fn limits(entries: usize) -> Limits {
    Limits { entries, ..Limits::default() }
}

/// A table with one domain and some places, labelled from 0 on.
struct World {
    fdb: Fdb,
    domain: Domain,
    places: Vec<Place>,
}

impl World {
    fn new(capacity: usize, limits: Limits, places: u32) -> Self {
        let fdb = Fdb::new(capacity).unwrap();
        let domain = fdb.add_domain(limits, 0).unwrap();
        let places = (0..places).map(|label| fdb.add_place(label).unwrap()).collect();
        Self { fdb, domain, places }
    }

    fn learn(&self, number: u64, place: usize, second: u32) -> Learned {
        self.fdb.learn(&self.domain, mac(number), &self.places[place], second, |_| ())
    }

    fn lookup(&self, number: u64, second: u32) -> Option<u32> {
        self.fdb.lookup(&self.domain, mac(number), second)
    }

    fn sweep(&self, second: u32) -> Vec<Removed> {
        let mut removed = Vec::new();
        // At most so many calls for all of the table.
        (0..60).for_each(|_| _ = self.fdb.sweep(second, |entry| removed.push(entry)));
        removed
    }

    /// Replaces a place by a new one with the same label.
    fn flush(&mut self, place: usize) {
        let fresh = self.fdb.add_place(place as u32).unwrap();
        std::mem::replace(&mut self.places[place], fresh).retire();
    }
}

#[test]
fn learns_finds_and_moves() {
    let world = World::new(16, limits(16), 2);
    assert_eq!(world.lookup(1, 0), None);
    assert_eq!(world.learn(1, 0, 0), Learned::New);
    assert_eq!(world.learn(1, 0, 0), Learned::Known);
    assert_eq!(world.learn(1, 1, 5), Learned::Moved { from: 0 });
    assert_eq!((world.lookup(1, 5), world.lookup(2, 5)), (Some(1), None));
    assert_eq!((world.domain.entries(), world.places[0].entries()), (1, 0));
}

#[test]
fn domains_do_not_see_each_other() {
    let world = World::new(16, limits(16), 1);
    let other = world.fdb.add_domain(limits(16), 1).unwrap();
    let place = world.fdb.add_place(9).unwrap();
    assert_eq!(world.learn(1, 0, 0), Learned::New);
    assert_eq!(world.fdb.lookup(&other, mac(1), 0), None);
    assert_eq!(world.fdb.learn(&other, mac(1), &place, 0, |_| ()), Learned::New);
    assert_eq!((world.lookup(1, 0), world.fdb.lookup(&other, mac(1), 0)), (Some(0), Some(9)));
    assert_eq!(world.fdb.list(&other, 0), [Entry { mac: mac(1), place: 9, age: 0 }]);
}

#[test]
fn a_batch_finds_what_single_lookups_find() {
    let world = World::new(1000, limits(1000), 7);
    for n in 0..1000 {
        let _ = world.learn(n * 2, n as usize % 7, 0);
    }
    for length in [0, 1, 31, 32, 33, 100, 2000] {
        let macs: Vec<MacAddr> = (0..length).map(mac).collect();
        let mut found = vec![Some(99); macs.len()];
        world.fdb.lookup_batch(&world.domain, &macs, 0, &mut found);
        let singly: Vec<_> = (0..length).map(|n| world.lookup(n, 0)).collect();
        assert_eq!(found, singly);
        assert!(length < 3 || found.contains(&None) && found.iter().any(Option::is_some));
    }
}

#[test]
fn a_forgotten_mac_leaves_its_room_to_others() {
    let world = World::new(1, Limits { evict: false, ..limits(1) }, 1);
    assert_eq!(world.learn(1, 0, 0), Learned::New);
    assert_eq!(world.learn(2, 0, 0), Learned::Full);
    assert!(!world.fdb.forget(&world.domain, mac(2)));
    assert!(world.fdb.forget(&world.domain, mac(1)));
    assert_eq!((world.lookup(1, 0), world.domain.entries()), (None, 0));
    assert_eq!(world.learn(2, 0, 0), Learned::New);
}

#[test]
fn an_entry_lives_for_the_ageing_time_after_its_last_frame() {
    let world = World::new(16, limits(16), 1);
    let _ = world.learn(1, 0, 0);
    assert_eq!(world.learn(1, 0, 200), Learned::Known);
    assert_eq!(world.lookup(1, 499), Some(0));
    assert_eq!(world.lookup(1, 500), None, "a lookup does not trust it even before it is swept");
    assert!(world.sweep(499).is_empty());
    let aged = Removed { domain: 0, mac: mac(1), place: 0, expired: true };
    assert_eq!((world.sweep(500), world.domain.entries()), (vec![aged], 0));
}

#[test]
fn a_clock_that_is_behind_makes_nothing_old() {
    let world = World::new(16, limits(16), 2);
    let _ = world.learn(1, 0, 1000);
    assert_eq!(world.lookup(1, 990), Some(0));
    assert_eq!(world.learn(1, 0, 990), Learned::Known);
    assert_eq!(world.fdb.list(&world.domain, 1299)[0].age, 299, "and does not set time back");
}

#[test]
fn without_ageing_nothing_is_forgotten_however_far_the_clock_runs() {
    let world = World::new(4, Limits { ageing: None, ..limits(4) }, 1);
    let _ = world.learn(1, 0, 0);
    let mut second = 0_u32;
    // Past several turns of the clock in the entry, swept once a day.
    for _ in 0..60 {
        second += 86_400;
        assert!(world.sweep(second).is_empty());
        assert_eq!(world.lookup(1, second), Some(0));
    }
    let age = world.fdb.list(&world.domain, second)[0].age;
    assert_eq!(Duration::from_secs(age.into()), MAX_AGEING, "ages count up to there");
}

#[test]
fn the_limit_of_a_domain_is_hard_and_known_macs_still_move() {
    let world = World::new(1000, Limits { evict: false, ..limits(100) }, 2);
    for n in 0..100 {
        assert_eq!(world.learn(n, 0, 0), Learned::New, "{n}");
    }
    assert_eq!(world.learn(100, 0, 0), Learned::Full);
    assert_eq!(world.learn(7, 1, 0), Learned::Moved { from: 0 });
    assert_eq!(world.domain.entries(), 100);
}

#[test]
fn the_limit_of_a_place_is_hard_also_for_what_moves_there() {
    let few = Limits { entries_per_place: Some(3), evict: false, ..limits(100) };
    let world = World::new(1000, few, 2);
    for n in 0..3 {
        assert_eq!(world.learn(n, 0, 0), Learned::New);
    }
    assert_eq!(world.learn(3, 0, 0), Learned::Full);
    assert_eq!(world.learn(4, 1, 0), Learned::New);
    assert_eq!(world.learn(4, 0, 1), Learned::Full);
    assert_eq!((world.lookup(4, 1), world.domain.entries()), (Some(1), 4));
}

#[test]
fn a_place_at_its_limit_gives_its_own_oldest_entry() {
    let few = Limits { entries_per_place: Some(3), ..limits(100) };
    let world = World::new(1000, few, 2);
    for n in 0..3 {
        let _ = world.learn(n, 0, 10 + (n as u32 + 1) % 3);
        let _ = world.learn(10 + n, 1, 0);
    }
    let mut gone = Vec::new();
    let place = &world.places[0];
    let learned = world.fdb.learn(&world.domain, mac(5), place, 20, |entry| gone.push(entry));
    assert_eq!(learned, Learned::New);
    assert_eq!(gone, [Removed { domain: 0, mac: mac(2), place: 0, expired: false }]);
    assert_eq!((place.entries(), world.places[1].entries()), (3, 3));
}

#[test]
fn who_floods_displaces_its_own_and_leaves_room_for_others() {
    let world = World::new(4096, limits(1000), 3);
    for n in 0..100 {
        assert_eq!(world.learn(n, 1, 0), Learned::New);
    }
    for n in 0..50_000 {
        let _ = world.learn(1_000_000 + n, 0, 1);
    }
    assert!((0..100).all(|n| world.lookup(n, 1) == Some(1)), "nobody else lost anything");
    assert_eq!(world.domain.entries(), 1000);
    for n in 0..400 {
        assert_eq!(world.learn(1000 + n, 2, 1), Learned::New, "there is room for who holds less");
    }
    // Of whoever holds the most; now and then none of theirs is in reach.
    assert!((500..510).contains(&world.places[0].entries()), "{:?}", world.places);
}

#[test]
fn a_domain_that_floods_a_full_table_displaces_its_own() {
    let world = World::new(1000, limits(MAX_CAPACITY), 1);
    let quiet = world.fdb.add_domain(limits(1000), 1).unwrap();
    // As many places as it likes: that makes it no smaller.
    let places: Vec<_> = (0..64).map(|label| world.fdb.add_place(100 + label).unwrap()).collect();
    for n in 0..200 {
        let _ = world.fdb.learn(&quiet, mac(n), &world.places[0], 0, |_| ());
    }
    for n in 0..20_000 {
        let place = &places[n % places.len()];
        let _ = world.fdb.learn(&world.domain, mac(n as u64), place, 0, |_| ());
    }
    assert_eq!(quiet.entries(), 200);
    assert!((0..200).all(|n| world.fdb.lookup(&quiet, mac(n), 0) == Some(0)));
    assert!(world.domain.entries() > 1000, "the rest of the table is used");
}

#[test]
fn a_full_table_lets_nearly_all_in_that_it_was_made_for() {
    let world = World::new(50_000, limits(MAX_CAPACITY), 1);
    let mut evicted = 0;
    for n in 0..50_000 {
        let place = &world.places[0];
        let learned = world.fdb.learn(&world.domain, mac(n), place, 0, |_| evicted += 1);
        assert_eq!(learned, Learned::New);
    }
    assert!(evicted < 20, "{evicted} of 50,000 had to go");
    let bytes = world.fdb.bytes() as f64 / 50_000.0;
    assert!(bytes < 23.0, "{bytes} bytes for each entry");
}

#[test]
fn an_address_moves_once_a_second_and_at_once() {
    let world = World::new(16, limits(16), 3);
    let _ = world.learn(1, 0, 4);
    assert_eq!(world.learn(1, 1, 4), Learned::Moved { from: 0 }, "the first move is immediate");
    for _ in 0..3 {
        assert_eq!(world.learn(1, 0, 4), Learned::MovedAlready);
        assert_eq!(world.learn(1, 2, 4), Learned::MovedAlready);
        assert_eq!(world.learn(1, 1, 4), Learned::Known);
    }
    assert_eq!(world.lookup(1, 4), Some(1));
    assert_eq!(world.learn(1, 0, 5), Learned::Moved { from: 1 });
    assert_eq!(world.learn(1, 0, 6), Learned::Known);
    assert_eq!(world.learn(1, 1, 6), Learned::Moved { from: 0 }, "a refresh is no move");
}

#[test]
fn a_flush_is_at_once_and_what_comes_after_is_learned_again() {
    let mut world = World::new(64, limits(64), 2);
    for n in 0..20 {
        let _ = world.learn(n, n as usize % 2, 0);
    }
    world.flush(0);
    for n in 0..20 {
        let left = (n % 2 == 1).then_some(1);
        assert_eq!(world.lookup(n, 0), left);
    }
    assert_eq!(world.fdb.list(&world.domain, 0).len(), 10);
    assert_eq!(world.learn(2, 0, 0), Learned::New, "no move, although its old entry is there");
    assert_eq!(world.learn(4, 1, 0), Learned::New);
    assert_eq!((world.lookup(2, 0), world.lookup(4, 0)), (Some(0), Some(1)));
    assert!(world.sweep(0).is_empty(), "nobody is told about what was flushed");
    assert_eq!(world.domain.entries(), 12);
}

#[test]
fn a_retired_domain_is_empty_at_once_and_its_room_comes_back() {
    let mut world = World::new(64, limits(64), 1);
    for n in 0..40 {
        let _ = world.learn(n, 0, 0);
    }
    let fresh = world.fdb.add_domain(limits(64), 0).unwrap();
    std::mem::replace(&mut world.domain, fresh).retire();
    assert!((0..40).all(|n| world.lookup(n, 0).is_none()));
    assert!(world.sweep(0).is_empty());
    assert_eq!(world.places[0].entries(), 0);
}

#[test]
fn what_is_flushed_makes_room_before_it_is_swept() {
    let mut world = World::new(1000, Limits { evict: false, ..limits(10) }, 2);
    for n in 0..10 {
        let _ = world.learn(n, 0, 0);
    }
    assert_eq!(world.learn(10, 1, 0), Learned::Full);
    world.flush(0);
    assert_eq!(world.learn(10, 1, 0), Learned::New);
    world.sweep(0);
    assert_eq!(world.domain.entries(), 1);
}

#[test]
fn names_are_used_again_but_not_while_an_entry_has_them() {
    let fdb = Fdb::with_names(64, 1, 2).unwrap();
    let domain = fdb.add_domain(limits(64), 0).unwrap();
    let keep = fdb.add_place(1000).unwrap();
    assert!(fdb.add_domain(limits(1), 1).is_none());
    for round in 0..100 {
        let place = fdb.add_place(round).unwrap();
        assert!(fdb.add_place(7).is_none());
        let _ = fdb.learn(&domain, mac(round.into()), &place, 0, |_| ());
        assert_eq!(fdb.lookup(&domain, mac(round.into()), 0), Some(round));
        drop(place);
        assert!((0..=round).all(|n| fdb.lookup(&domain, mac(n.into()), 0).is_none()));
    }
    assert_eq!(keep.entries(), 0);
    assert!(domain.entries() <= 1, "names that ran out were looked for");
}

#[test]
fn a_sweep_goes_through_all_of_a_large_table_in_short_steps() {
    let world =
        World::new(100_000, Limits { ageing: Some(Duration::from_secs(80)), ..limits(100_000) }, 1);
    for n in 0..100_000 {
        let _ = world.learn(n, 0, 0);
    }
    let (mut removed, mut elapsed) = (0, Duration::ZERO);
    while removed < 100_000 - 10 && elapsed < Duration::from_secs(11) {
        let before = removed;
        elapsed += world.fdb.sweep(80, |_| removed += 1);
        assert!(removed - before <= 2048 * 4, "one step is short");
    }
    assert!(removed >= 99_900, "{removed} in {elapsed:?}, an eighth of the ageing time and a bit");
}

#[test]
fn what_is_out_of_range_is_refused() {
    for capacity in [0, MAX_CAPACITY + 1] {
        assert!(Fdb::new(capacity).unwrap_err().to_string().contains("1 to 1048576"));
    }
    assert!(Fdb::with_names(1, 0, 1).is_err() && Fdb::with_names(1, 1 << 16, 1).is_err());
    assert!(Fdb::with_names(1, 1, 0).is_err() && Fdb::with_names(1, 1, 1 << 24).is_err());
}
