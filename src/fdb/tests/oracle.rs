//! The table beside a plain map, one step at a time.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const MACS: u64 = 60;
const DOMAINS: usize = 2;
/// Of which each domain has half.
const PLACES: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    Learn { place: usize, mac: u64 },
    Wait(u32),
    Sweep,
    FlushPlace(usize),
    FlushDomain(usize),
    Forget { domain: usize, mac: u64 },
    RemoveOlder { domain: usize, age: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..PLACES, 0..MACS).prop_map(|(place, mac)| Step::Learn { place, mac }),
        3 => (0_u32..3).prop_map(Step::Wait),
        1 => (0_u32..400).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        1 => (0..PLACES).prop_map(Step::FlushPlace),
        1 => (0..DOMAINS).prop_map(Step::FlushDomain),
        1 => (0..DOMAINS, 0..MACS).prop_map(|(domain, mac)| Step::Forget { domain, mac }),
        1 => (0..DOMAINS, 0_u32..300).prop_map(|(domain, age)| Step::RemoveOlder { domain, age }),
    ]
}

fn some_limits() -> impl Strategy<Value = Limits> {
    (5_usize..40, prop::option::of(1_usize..20), any::<bool>(), any::<bool>()).prop_map(
        |(entries, entries_per_place, evict, ages)| Limits {
            entries,
            entries_per_place,
            evict,
            ageing: ages.then_some(Duration::from_secs(300)),
        },
    )
}

#[derive(Clone, Copy, Debug)]
struct Known {
    place: usize,
    seen: u32,
    moved: bool,
}

/// What the table should hold.
struct Oracle {
    limits: [Limits; DOMAINS],
    known: HashMap<(usize, u64), Known>,
    now: u32,
}

fn domain_of(place: usize) -> usize {
    place % DOMAINS
}

impl Oracle {
    fn is_old(&self, domain: usize, entry: &Known) -> bool {
        self.limits[domain].ageing.is_some_and(|ageing| self.now - entry.seen >= seconds(ageing))
    }

    fn lookup(&self, domain: usize, mac: u64) -> Option<u32> {
        let entry = self.known.get(&(domain, mac)).filter(|entry| !self.is_old(domain, entry))?;
        Some(entry.place as u32)
    }

    fn at(&self, place: usize) -> usize {
        self.known.values().filter(|entry| entry.place == place).count()
    }

    /// What learning should come to, if there is room.
    fn learn(&mut self, mac: u64, place: usize) -> Learned {
        let (domain, now) = (domain_of(place), self.now);
        let fresh = Known { place, seen: now, moved: false };
        let Some(entry) = self.known.get(&(domain, mac)).copied() else {
            self.known.insert((domain, mac), fresh);
            return Learned::New;
        };
        let (learned, after) = match entry {
            Known { place: from, seen, moved } if from == place => {
                (Learned::Known, Known { moved: moved && seen == now, ..fresh })
            }
            _ if self.is_old(domain, &entry) => (Learned::New, fresh),
            Known { seen, moved: true, .. } if seen == now => (Learned::MovedAlready, entry),
            Known { place: from, .. } => {
                (Learned::Moved { from: from as u32 }, Known { moved: true, ..fresh })
            }
        };
        self.known.insert((domain, mac), after);
        learned
    }
}

struct Both {
    fdb: Fdb,
    domains: Vec<Domain>,
    places: Vec<Place>,
    oracle: Oracle,
}

impl Both {
    fn new(capacity: usize, limits: [Limits; DOMAINS]) -> Self {
        let fdb = Fdb::new(capacity).unwrap();
        let domains = (0..).zip(limits).map(|(n, limits)| fdb.add_domain(limits, n).unwrap());
        let domains = domains.collect();
        let places = (0..PLACES).map(|label| fdb.add_place(label as u32).unwrap()).collect();
        Self { fdb, domains, places, oracle: Oracle { limits, known: HashMap::new(), now: 0 } }
    }

    fn learn(&mut self, mac_number: u64, place: usize) -> Result<(), TestCaseError> {
        let domain = domain_of(place);
        let in_domains: Vec<usize> = self.domains.iter().map(Domain::entries).collect();
        let at_places: Vec<usize> = self.places.iter().map(Place::entries).collect();
        let mut removed = Vec::new();
        let learned = self.fdb.learn(
            &self.domains[domain],
            mac(mac_number),
            &self.places[place],
            self.oracle.now,
            |entry| removed.push(entry),
        );
        for Removed { domain: of, mac, place: at, expired } in removed {
            let (of, at) = (of as usize, at as usize);
            let entry = self.oracle.known.remove(&(of, mac.to_u64() & 0xff_ffff_ffff));
            let entry = entry.expect("what is removed was there");
            prop_assert_eq!((entry.place, self.oracle.is_old(of, &entry)), (at, expired));
            let fair = match of == domain {
                true => at == place || at_places[at] > at_places[place],
                false => in_domains[of] > in_domains[domain],
            };
            prop_assert!(expired || fair, "{at_places:?} {in_domains:?}: {at} went for {place}");
            prop_assert!(expired || self.oracle.limits[domain].evict);
        }
        if learned == Learned::Full {
            let limits = self.oracle.limits[domain];
            let full = in_domains[domain] >= limits.entries
                || limits.entries_per_place.is_some_and(|limit| at_places[place] >= limit)
                || in_domains.iter().sum::<usize>() >= 4;
            prop_assert!(full, "refused with {at_places:?} {in_domains:?}");
        } else {
            prop_assert_eq!(learned, self.oracle.learn(mac_number, place));
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.oracle.now;
        match step {
            Step::Learn { place, mac } => self.learn(mac, place)?,
            Step::Wait(seconds) => self.oracle.now += seconds,
            Step::Sweep => {
                let mut removed = Vec::new();
                (0..60).for_each(|_| _ = self.fdb.sweep(now, |entry| removed.push(entry)));
                for entry in removed {
                    prop_assert!(entry.expired);
                    let key = (entry.domain as usize, entry.mac.to_u64() & 0xff_ffff_ffff);
                    let known = self.oracle.known.remove(&key).expect("it was there");
                    prop_assert!(self.oracle.is_old(key.0, &known));
                }
                let in_domains: usize = self.domains.iter().map(Domain::entries).sum();
                prop_assert_eq!(in_domains, self.oracle.known.len(), "nothing else is left");
            }
            Step::FlushPlace(place) => {
                let fresh = self.fdb.add_place(place as u32).unwrap();
                std::mem::replace(&mut self.places[place], fresh).retire();
                self.oracle.known.retain(|_, entry| entry.place != place);
            }
            Step::FlushDomain(domain) => {
                let limits = self.oracle.limits[domain];
                let fresh = self.fdb.add_domain(limits, domain as u64).unwrap();
                std::mem::replace(&mut self.domains[domain], fresh).retire();
                self.oracle.known.retain(|(of, _), _| *of != domain);
            }
            Step::Forget { domain, mac: number } => {
                let forgotten = self.fdb.forget(&self.domains[domain], mac(number));
                let known = self.oracle.known.remove(&(domain, number));
                prop_assert_eq!(forgotten, known.is_some());
            }
            Step::RemoveOlder { domain, age } => {
                self.fdb.remove_older(&self.domains[domain], age, now);
                self.oracle.known.retain(|(of, _), entry| *of != domain || now - entry.seen < age);
            }
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let Self { fdb, domains, oracle, .. } = self;
        let macs: Vec<MacAddr> = (0..MACS).map(mac).collect();
        for (index, domain) in domains.iter().enumerate() {
            let mut found = vec![None; macs.len()];
            fdb.lookup_batch(domain, &macs, oracle.now, &mut found);
            for number in 0..MACS {
                let known = oracle.lookup(index, number);
                prop_assert_eq!(fdb.lookup(domain, mac(number), oracle.now), known);
                prop_assert_eq!(found[number as usize], known);
            }
            let known = (0..MACS).filter(|number| oracle.lookup(index, *number).is_some());
            prop_assert_eq!(fdb.list(domain, oracle.now).len(), known.count());
            prop_assert!(domain.entries() <= oracle.limits[index].entries);
        }
        for (index, place) in self.places.iter().enumerate() {
            let limit = oracle.limits[domain_of(index)].entries_per_place;
            // Those that a flushed domain left behind are counted until they are swept.
            prop_assert!(place.entries() >= oracle.at(index));
            prop_assert!(limit.is_none_or(|limit| place.entries() <= limit));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The table is a plain map with times, limits and flushes; and what gives way is never a smaller one's.
    #[test]
    fn agrees_with_a_plain_map(
        capacity in 1_usize..60,
        limits in [some_limits(), some_limits()],
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut both = Both::new(capacity, limits);
        for step in steps {
            both.step(step)?;
            both.compare()?;
        }
    }
}
