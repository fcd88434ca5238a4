//! The search against paths that carry so much and no more, and lose, delay and repeat what they carry.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const FLOOR: u32 = 552;

/// A path and who is at its other end.
#[derive(Clone, Copy, Debug)]
struct Path {
    mtu: u32,
    answers: bool,
    round_trip: Duration,
}

const GOOD: Path = Path { mtu: 1500, answers: true, round_trip: Duration::from_millis(1) };

struct World {
    search: Search,
    now: Duration,
    path: Path,
    ceiling: u32,
    /// Whether it is a router that says so.
    refused: bool,
    asked: Vec<Ask>,
    holes: Vec<u32>,
}

impl World {
    fn new(path: Path, ceiling: u32) -> Self {
        let now = Duration::from_secs(100);
        let search = Search::new(Probing::default(), FLOOR, now);
        Self { search, now, path, ceiling, refused: false, asked: Vec::new(), holes: Vec::new() }
    }

    /// Does what is due until then.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let (ask, hole) = self.search.step(self.now, self.ceiling, self.refused);
            self.holes.extend(hole);
            if let Some(ask) = ask {
                self.asked.push(ask);
                assert!(ask.size <= self.ceiling, "{ask:?}");
                assert!((1..=self.ceiling).contains(&ask.size));
                if self.path.answers && ask.size <= self.path.mtu {
                    self.now += self.path.round_trip;
                    assert!(self.search.answered(self.now, ask.sequence, ask.size));
                    assert!(!self.search.answered(self.now, ask.sequence, ask.size), "once");
                    continue;
                }
            }
            let due = self.search.due();
            assert!(due > self.now || ask.is_none(), "what is asked is waited for");
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
        }
        panic!("no end: {:?}", self.search);
    }

    fn state(&self) -> (ProbeState, Option<u32>) {
        (self.search.state(), self.search.verified())
    }

    /// The same once nothing more is being tried.
    fn settled(&mut self) -> (ProbeState, Option<u32>) {
        for _ in 0..10 {
            if self.search.state() == ProbeState::Searching {
                self.run(10 * SECOND);
            }
        }
        self.state()
    }

    fn sizes(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.asked).iter().map(|ask| ask.size).collect()
    }
}

#[test]
fn a_good_path_takes_two_probes() {
    let mut world = World::new(GOOD, 1500);
    world.run(SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
    assert_eq!(world.sizes(), [1200, 1500]);
    assert_eq!(world.search.round_trip(), Some(Duration::from_millis(1)));
    // And one every ten seconds, by one way after the other.
    world.run(60 * SECOND);
    assert_eq!(world.asked.iter().map(|ask| (ask.size, ask.way)).collect::<Vec<_>>(), {
        (0..6).map(|way| (1500, way)).collect::<Vec<_>>()
    });
    assert_eq!(world.holes, []);
}

#[test]
fn one_who_never_answers_says_nothing_and_is_left_alone() {
    let mut world = World::new(Path { answers: false, ..GOOD }, 1500);
    world.run(4 * SECOND);
    assert_eq!(world.state(), (ProbeState::Error, None));
    assert_eq!(world.sizes(), [1200, 1200, 1200, 552]);
    world.run(3600 * SECOND);
    // 10, 20, 40 ... 600 seconds apart, and a second each to see that there is no answer.
    assert_eq!(world.sizes(), [552; 10]);
    assert_eq!((world.state(), &world.holes[..]), ((ProbeState::Error, None), &[][..]));
    // Whoever speaks up in the end is asked as if he were new.
    world.path = GOOD;
    world.run(601 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
    assert_eq!(world.holes, []);
}

#[test]
fn a_black_hole_is_found_and_told_once() {
    let mut world = World::new(GOOD, 1500);
    world.run(5 * SECOND);
    world.path.mtu = 1400;
    world.sizes();
    world.run(9 * SECOND);
    assert_eq!(world.sizes(), [1500, 1500, 1500, 1200, 1500]);
    assert_eq!(world.holes, [1500]);
    assert_eq!(world.state(), (ProbeState::Searching, Some(1200)), "what is safe holds at once");
    world.run(25 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1400)));
    world.run(500 * SECOND);
    assert_eq!(world.holes, [1500], "and once only");
    // What has become wider is used again when it is tried.
    world.path.mtu = 1500;
    world.run(620 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
    assert_eq!(world.holes, [1500]);
}

#[test]
fn what_was_lost_by_chance_is_back_at_once() {
    let mut world = World::new(GOOD, 9000);
    world.path.mtu = 1500;
    world.run(60 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
    let (mut lost, mut low) = (0, None);
    world.sizes();
    while low.is_none() || world.search.state() != ProbeState::Complete {
        let (ask, hole) = world.search.step(world.now, 9000, false);
        low = low.or(hole.and(world.search.verified()));
        match ask {
            Some(ask) if ask.size == 1500 && lost < 3 => lost += 1,
            Some(ask) => assert!(world.search.answered(world.now, ask.sequence, ask.size)),
            None => world.now = world.search.due(),
        }
        world.asked.extend(ask);
    }
    assert_eq!(low, Some(1200));
    assert_eq!(world.sizes(), [1500, 1500, 1500, 1200, 1500]);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
}

#[test]
fn a_path_that_was_narrow_from_the_first_is_one_too() {
    let mut world = World::new(Path { mtu: 1300, ..GOOD }, 9000);
    world.run(2 * SECOND);
    assert_eq!(world.state(), (ProbeState::Searching, None), "it may be a matter of chance");
    world.run(2 * SECOND);
    assert_eq!((world.state().1, &world.holes[..]), (Some(1200), &[9000][..]));
    world.run(60 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1300)));
}

#[test]
fn a_narrow_path_costs_three_probes_each_time_it_is_tried() {
    let mut world = World::new(Path { mtu: 1400, ..GOOD }, 1500);
    world.run(60 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1400)));
    world.sizes();
    world.run(600 * SECOND);
    let tried = world.sizes();
    assert_eq!(tried.iter().filter(|size| **size != 1400).collect::<Vec<_>>(), [&1408; 3]);
}

#[test]
fn one_who_falls_silent_is_unknown_again_and_no_black_hole() {
    let mut world = World::new(Path { mtu: 1400, ..GOOD }, 1500);
    world.run(60 * SECOND);
    assert_eq!((world.state().1, world.holes.len()), (Some(1400), 1));
    world.path.answers = false;
    world.run(20 * SECOND);
    assert_eq!(world.state(), (ProbeState::Error, None));
    world.path.answers = true;
    world.run(100 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1400)));
    assert_eq!(world.holes, [1500, 1500], "found anew");
}

#[test]
fn one_who_falls_silent_in_the_middle_of_a_search_is_no_black_hole() {
    let mut world = World::new(GOOD, 1500);
    let (ask, _) = world.search.step(world.now, 1500, false);
    assert!(world.search.answered(world.now, ask.unwrap().sequence, 1200));
    world.path.answers = false;
    world.run(60 * SECOND);
    assert_eq!((world.state(), &world.holes[..]), ((ProbeState::Error, None), &[][..]));
}

#[test]
fn a_path_narrower_than_the_base_size_is_found_by_the_smallest() {
    let mut world = World::new(Path { mtu: 1000, ..GOOD }, 1500);
    world.run(8 * SECOND);
    assert_eq!(world.holes, [1200]);
    assert!((552..=1000).contains(&world.state().1.unwrap()), "{:?}", world.state());
    world.run(60 * SECOND);
    let (state, verified) = world.state();
    assert_eq!(state, ProbeState::Complete);
    assert!((993..=1000).contains(&verified.unwrap()), "{verified:?}");
    world.path.mtu = 1500;
    world.run(620 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
}

#[test]
fn what_others_say_of_the_path_is_heeded_at_once() {
    let mut world = World::new(GOOD, 1500);
    world.run(5 * SECOND);
    world.ceiling = 1400;
    world.path.mtu = 1400;
    let (ask, hole) = world.search.step(world.now, 1400, true);
    assert_eq!((ask, hole, world.state().1), (None, None, Some(1400)));
    world.run(60 * SECOND);
    assert_eq!((world.state(), &world.holes[..]), ((ProbeState::Complete, Some(1400)), &[][..]));
    // Nobody says so any more, and so it is tried, with probes and not with what hosts send.
    world.ceiling = 1500;
    world.run(60 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1400)));
    assert_eq!(world.holes, []);
    world.path.mtu = 1500;
    world.run(601 * SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1500)));
}

/// Larger packets are sent before they are verified where nobody has said that they do not fit: as without probes.
#[test]
fn packets_are_limited_only_where_something_did_not_get_there() {
    let mut world = World::new(Path { mtu: 9000, ..GOOD }, 1500);
    world.run(5 * SECOND);
    assert_eq!((world.state().1, world.search.limit()), (Some(1500), None));
    world.ceiling = 9000;
    let (_, _) = world.search.step(world.now, 9000, false);
    assert_eq!(world.search.limit(), None);
    world.run(SECOND);
    assert_eq!((world.state(), world.search.limit()), ((ProbeState::Complete, Some(9000)), None));
    world.ceiling = 1500;
    world.run(11 * SECOND);
    assert_eq!((world.state().1, world.search.limit()), (Some(1500), None));
    // What was not lost stays usable while it is found out how much more is.
    (world.ceiling, world.path.mtu) = (9000, 4000);
    world.sizes();
    world.run(4 * SECOND);
    assert_eq!(world.sizes()[..4], [9000, 9000, 9000, 1200]);
    assert_eq!((world.search.limit(), &world.holes[..]), (Some(1500), &[9000][..]));
    world.run(60 * SECOND);
    assert_eq!(
        (world.state(), world.search.limit()),
        ((ProbeState::Complete, Some(4000)), Some(4000))
    );
    // Who says nothing any more limits nothing.
    world.path.answers = false;
    world.run(20 * SECOND);
    assert_eq!((world.state(), world.search.limit()), ((ProbeState::Error, None), None));
}

#[test]
fn what_a_router_refused_is_tried_by_probes_first() {
    for late in [false, true] {
        let mut world = World::new(Path { mtu: 1400, ..GOOD }, 1500);
        if late {
            world.path.mtu = 1500;
            world.run(5 * SECOND);
            world.path.mtu = 1400;
        }
        (world.ceiling, world.refused) = (1400, true);
        world.run(20 * SECOND);
        assert_eq!((world.state().1, world.search.limit()), (Some(1400), Some(1400)));
        (world.ceiling, world.refused) = (1500, false);
        world.run(20 * SECOND);
        assert_eq!((world.search.limit(), world.holes.len()), (Some(1400), 0));
        world.path.mtu = 1500;
        world.run(601 * SECOND);
        assert_eq!((world.state().1, world.search.limit()), (Some(1500), None));
    }
}

#[test]
fn an_error_about_a_probe_ends_it() {
    let mut world = World::new(Path { mtu: 1400, ..GOOD }, 1500);
    let ask = |world: &mut World, ceiling| {
        world.search.step(world.now, ceiling, ceiling < 1500).0.unwrap()
    };
    let first = ask(&mut world, 1500);
    assert!(world.search.answered(world.now, first.sequence, 1200));
    let second = ask(&mut world, 1500);
    assert_eq!(second.size, 1500);
    let third = ask(&mut world, 1400);
    assert_eq!(third.size, 1400);
    assert!(!world.search.answered(world.now, second.sequence, 1500), "too late");
    assert!(world.search.answered(world.now, third.sequence, 1400));
    world.ceiling = 1400;
    world.run(SECOND);
    assert_eq!(world.state(), (ProbeState::Complete, Some(1400)));
}

#[test]
fn answers_count_for_what_is_asked_now_alone() {
    let mut world = World::new(GOOD, 1500);
    let ask = |world: &mut World| world.search.step(world.now, 1500, false).0.unwrap();
    let first = ask(&mut world);
    assert!(!world.search.answered(world.now, first.sequence, 1201), "another size");
    assert!(!world.search.answered(world.now, first.sequence + 1, 1200), "not asked yet");
    assert!(!world.search.answered(world.now, first.sequence.wrapping_sub(1), 1200));
    world.now += SECOND;
    let again = ask(&mut world);
    assert_eq!((again.size, again.sequence), (1200, first.sequence + 1));
    // The answer to the first one was slow; how slow is not known then.
    assert!(world.search.answered(world.now, first.sequence, 1200));
    assert_eq!(world.search.round_trip(), None);
    assert!(!world.search.answered(world.now, again.sequence, 1200), "nothing is asked");
}

/// With several ways there, of which one is narrow, it is that one which is tried again before packets grow.
#[test]
fn the_narrowest_of_several_ways_counts() {
    let mut world = World::new(GOOD, 1500);
    let narrow = |ask: &Ask| ask.way % 4 == 2;
    let (mut found, mut grown) = (0, 0);
    for _ in 0..4000 {
        let (ask, hole) = world.search.step(world.now, 1500, false);
        found += hole.iter().count();
        match ask {
            Some(ask) if !narrow(&ask) || ask.size <= 1400 => {
                let before = world.search.verified();
                assert!(world.search.answered(world.now, ask.sequence, ask.size));
                grown += usize::from(world.search.verified() == Some(1500) && found > 0);
                assert!(before.is_none_or(|before| Some(before) <= world.search.verified()));
            }
            Some(_) => {}
            None => world.now = world.search.due().max(world.now),
        }
    }
    assert_eq!((found, grown), (1, 0), "{:?}", world.search);
    assert_eq!(world.search.verified(), Some(1400));
}

proptest! {
    #[test]
    fn the_size_found_is_that_of_the_path(
        mtu in 552..9100_u32, ceiling in 600..9100_u32, later in 552..9100_u32
    ) {
        let mut world = World::new(Path { mtu, ..GOOD }, ceiling);
        for mtu in [mtu, later] {
            world.path.mtu = mtu;
            world.run(1500 * SECOND);
            let (state, verified) = world.settled();
            prop_assert_eq!(state, ProbeState::Complete);
            let (most, verified) = (mtu.min(ceiling), verified.unwrap());
            prop_assert!(verified <= most && most < verified + STEP, "{} of {}", verified, most);
            let exact = COMMON.contains(&most) || most == ceiling || most == FLOOR;
            prop_assert!(!exact || verified == most, "{} of {}", verified, most);
        }
    }

    /// Whatever is lost, late, repeated or forged: no size is taken for verified that was never answered, and a good path is
    /// good in the end.
    #[test]
    fn chance_misleads_for_a_while_only(
        mtu in 552..2000_u32,
        events in prop::collection::vec((0..10_u8, 0..3000_u64, 0..4_u32), 0..300)
    ) {
        let mut world = World::new(Path { mtu, ..GOOD }, 1500);
        let mut answered = vec![0];
        for (kind, millis, sequence) in events {
            world.now += Duration::from_millis(millis);
            if kind == 9 {
                world.ceiling = 1500 - 50 * sequence;
            }
            let (ask, hole) = world.search.step(world.now, world.ceiling, false);
            world.asked.extend(ask);
            prop_assert!(hole.is_none() || world.search.limit() == world.search.verified());
            let back = world.asked.iter().rev().nth(sequence as usize).copied();
            match back {
                Some(ask) if kind < 6 && ask.size <= mtu => {
                    answered.push(ask.size);
                    world.search.answered(world.now, ask.sequence, ask.size);
                }
                Some(ask) if kind == 6 => {
                    prop_assert!(!world.search.answered(world.now, ask.sequence, ask.size + 1));
                }
                _ => {}
            }
            let most = answered.iter().copied().max().unwrap();
            let verified = world.search.verified();
            prop_assert!(verified.is_none_or(|verified| verified <= most && verified <= 1500));
        }
        world.ceiling = 1500;
        world.run(2500 * SECOND);
        let (state, verified) = world.settled();
        prop_assert_eq!(state, ProbeState::Complete);
        let most = mtu.min(1500);
        prop_assert!(verified.is_some_and(|verified| verified <= most && most < verified + STEP));
    }
}
