//! The FDB: entries that change hands, keys that are inserted twice, counts.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use overplane::MacAddr;
use overplane::fdb::{Domain, Fdb, Learned, Limits, Place};

const K: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const L: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A table of one bucket with a domain and two places, labelled 0 and 1.
struct World {
    fdb: Fdb,
    domain: Domain,
    places: [Place; 2],
}

impl World {
    fn new(entries: usize) -> Arc<Self> {
        let fdb = Fdb::with_names(1, 1, 2).unwrap();
        let limits = Limits { entries, ..Limits::default() };
        let domain = fdb.add_domain(limits, 0).unwrap();
        let places = [0, 1].map(|label| fdb.add_place(label).unwrap());
        Arc::new(Self { fdb, domain, places })
    }

    fn learn(&self, mac: MacAddr, place: usize, second: u32) -> Learned {
        self.fdb.learn(&self.domain, mac, &self.places[place], second, |_| ())
    }

    fn lookup(&self, mac: MacAddr) -> Option<u32> {
        self.fdb.lookup(&self.domain, mac, 0)
    }

    /// Each address once, and everything counted: to be called when all is quiet.
    fn check(&self) {
        let listed = self.fdb.list(&self.domain, 0);
        for entry in &listed {
            assert_eq!(listed.iter().filter(|other| other.mac == entry.mac).count(), 1);
        }
        assert_eq!(self.domain.entries(), listed.len());
        for (label, place) in (0..).zip(&self.places) {
            let here = listed.iter().filter(|entry| entry.place == label).count();
            assert_eq!(place.entries(), here);
        }
    }
}

/// Runs through the orders of events with at most `switches` switches between threads that no wait forces.
///
/// loom goes back only to the latest access that another thread made to a word. So the thread that changes an entry runs
/// first in each test, and the one that merely reads it is spawned: the other way round hardly any order would be seen.
fn model(switches: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 100_000;
    builder.check(check);
}

#[test]
fn a_reader_takes_no_place_of_another_mac_while_a_slot_changes_hands_twice() {
    model(3, || {
        let world = World::new(4);
        assert_eq!(world.learn(K, 0, 0), Learned::New);
        let reader = thread::spawn({
            let world = world.clone();
            move || assert!(matches!(world.lookup(K), None | Some(0)))
        });
        assert!(world.fdb.forget(&world.domain, K));
        assert_eq!(world.learn(L, 1, 0), Learned::New);
        assert!(world.fdb.forget(&world.domain, L));
        assert_eq!(world.learn(K, 0, 0), Learned::New);
        reader.join().unwrap();
        assert_eq!((world.lookup(K), world.lookup(L)), (Some(0), None));
        world.check();
    });
}

#[test]
fn a_reader_takes_no_place_of_another_mac_while_one_is_evicted() {
    model(3, || {
        let world = World::new(1);
        assert_eq!(world.learn(K, 0, 0), Learned::New);
        let reader = thread::spawn({
            let world = world.clone();
            move || (world.lookup(K), world.lookup(L))
        });
        assert_eq!(world.learn(L, 1, 0), Learned::Full, "who holds as much need not give");
        assert_eq!(world.learn(L, 0, 0), Learned::New);
        assert!(matches!(reader.join().unwrap(), (None | Some(0), None | Some(0))));
        assert_eq!((world.lookup(K), world.lookup(L)), (None, Some(0)));
        world.check();
    });
}

#[test]
fn a_mac_that_two_workers_learn_is_in_the_table_once() {
    model(3, || {
        let world = World::new(4);
        let other = thread::spawn({
            let world = world.clone();
            move || world.learn(K, 1, 0)
        });
        let (here, there) = (world.learn(K, 0, 0), other.join().unwrap());
        assert!(here == Learned::New || there == Learned::New);
        assert!(world.lookup(K).is_some());
        world.check();
    });
}

#[test]
fn two_newcomers_do_not_exceed_the_limit() {
    model(3, || {
        let world = World::new(1);
        let other = thread::spawn({
            let world = world.clone();
            move || _ = world.learn(K, 0, 0)
        });
        let _ = world.learn(L, 1, 0);
        assert!(world.domain.entries() <= 1);
        other.join().unwrap();
        world.check();
    });
}

#[test]
fn a_refresh_does_not_reach_whoever_has_the_slot_next() {
    model(2, || {
        let world = World::new(4);
        assert_eq!(world.learn(K, 0, 0), Learned::New);
        let other = thread::spawn({
            let world = world.clone();
            move || _ = world.learn(K, 0, 1)
        });
        assert!(world.fdb.forget(&world.domain, K));
        let _ = world.learn(L, 0, 0);
        other.join().unwrap();
        for entry in world.fdb.list(&world.domain, 1) {
            assert_eq!(entry.age, u32::from(entry.mac == L));
        }
        world.check();
    });
}

#[test]
fn a_move_and_a_refresh_leave_one_entry_and_the_right_counts() {
    model(3, || {
        let world = World::new(4);
        assert_eq!(world.learn(K, 0, 0), Learned::New);
        let other = thread::spawn({
            let world = world.clone();
            move || world.learn(K, 1, 1)
        });
        let _ = world.learn(K, 0, 1);
        assert!(matches!(other.join().unwrap(), Learned::Moved { from: 0 } | Learned::Later));
        assert!(world.lookup(K).is_some());
        world.check();
    });
}

#[test]
fn a_name_that_is_given_out_again_does_not_show_in_old_entries() {
    model(3, || {
        let fdb = Arc::new(Fdb::with_names(1, 1, 1).unwrap());
        let domain = Arc::new(fdb.add_domain(Limits::default(), 0).unwrap());
        let place = fdb.add_place(0).unwrap();
        assert_eq!(fdb.learn(&domain, K, &place, 0, |_| ()), Learned::New);
        let reader = thread::spawn({
            let (fdb, domain) = (fdb.clone(), domain.clone());
            move || assert!(matches!(fdb.lookup(&domain, K, 0), None | Some(0)))
        });
        drop(place);
        // There is no other name, so that of the place before comes back.
        let _again = fdb.add_place(1).unwrap();
        reader.join().unwrap();
        assert_eq!(fdb.lookup(&domain, K, 0), None);
    });
}
