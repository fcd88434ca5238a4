//! Snooping against a model that is nothing but lists.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What happens: the port of node 1 that it happens at (0 to 2; 3 and 4 are nodes 2 and 3), and the group.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize, usize),
    Leave(usize, usize),
    Ask(usize),
    AskAbout(usize, usize),
    Pass(u64),
    Expire,
    Send(usize, usize),
}

const GROUPS: [&str; 4] = ["239.0.0.1", "239.128.0.1", "224.0.1.1", "239.0.0.2"];
const MEMBERSHIP: u64 = 20;
const QUERIER: u64 = 30;

/// Seconds are those since the beginning; entries hold until theirs.
#[derive(Default)]
struct Model {
    now: u64,
    members: BTreeMap<(usize, usize), u64>,
    routers: BTreeMap<usize, u64>,
    reliable: u64,
    querier: u64,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Join(at, group) => _ = self.members.insert((group, at), self.now + MEMBERSHIP),
            // The querier is another one, and asks or does not.
            Step::Leave(..) | Step::Expire | Step::Send(..) => {}
            Step::Ask(at) => {
                if self.querier <= self.now {
                    self.reliable = self.now + 11;
                }
                self.querier = self.now + QUERIER;
                self.routers.insert(at, self.now + QUERIER);
            }
            Step::AskAbout(at, group) => {
                self.routers.insert(at, self.now + QUERIER);
                for ((_, _), until) in self.members.iter_mut().filter(|((of, _), _)| *of == group) {
                    *until = (*until).min(self.now + 3);
                }
            }
            Step::Pass(seconds) => self.now += seconds,
        }
    }

    /// Who gets what comes in at a place: ports and nodes; a node relays nothing between VTEPs.
    fn audience(&self, from: usize, group: usize) -> BTreeSet<usize> {
        let snoops = (self.reliable..self.querier).contains(&self.now);
        let joined =
            |at: &usize| self.members.get(&(group, *at)).is_some_and(|until| self.now < *until);
        let router = |at: &usize| self.routers.get(at).is_some_and(|until| self.now < *until);
        let places = (0..5).filter(|at| *at != from && (from < 3 || *at < 3));
        places.filter(|at| !snoops || joined(at) || router(at)).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (at, group) = (0..5usize, 0..GROUPS.len());
    prop_oneof![
        3 => (at.clone(), group.clone()).prop_map(|(at, group)| Step::Join(at, group)),
        1 => (at.clone(), group.clone()).prop_map(|(at, group)| Step::Leave(at, group)),
        2 => at.clone().prop_map(Step::Ask),
        1 => (at.clone(), group.clone()).prop_map(|(at, group)| Step::AskAbout(at, group)),
        3 => (0..9u64).prop_map(Step::Pass),
        1 => Just(Step::Expire),
        6 => (at, group).prop_map(|(at, group)| Step::Send(at, group)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn frames_go_where_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let segment = bridge_with(1, |segment| {
            segment.snooping.enabled = true;
            segment.snooping.membership_interval = Duration::from_secs(MEMBERSHIP);
            segment.snooping.querier_interval = Duration::from_secs(QUERIER);
        });
        let mut network = Network::new(1);
        let mut ports = vec![network.add_segment(1, segment, false)];
        ports.extend([(); 2].map(|()| network.add_port(1, bridge_id(1), false)));
        for n in [2, 3] {
            network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(n) });
        }
        // A frame comes in at a place.
        let inject = |network: &mut Network, at: usize, frame: &[u8]| match at {
            0..3 => network.send(1, ports[at], frame),
            _ => network.arrive(1, underlay(at as u8 - 1), 4789, &vxlan(vni(1), frame)),
        };
        let mut model = Model { now: network.now.as_secs(), ..Model::default() };
        for step in steps {
            model.step(step);
            let from = |at: usize| host(10 + at as u8);
            match step {
                Step::Join(at, group) => {
                    let version = 1 + (at + group) as u8 % 3;
                    inject(&mut network, at, &say(from(at), Say::Join(version), ip(GROUPS[group])));
                }
                Step::Leave(at, group) => {
                    inject(&mut network, at, &say(from(at), Say::Leave(2), ip(GROUPS[group])));
                }
                Step::Ask(at) => inject(&mut network, at, &say(from(at), Say::Query(2), all(false))),
                Step::AskAbout(at, group) => {
                    inject(&mut network, at, &say(from(at), Say::Query(3), ip(GROUPS[group])));
                }
                Step::Pass(seconds) => network.now += Duration::from_secs(seconds),
                Step::Expire => network.wait(0),
                Step::Send(at, group) => {
                    who(&mut network, 1, &ports);
                    inject(&mut network, at, &to_group(from(at), ip(GROUPS[group]), b""));
                    let (got, nodes) = who(&mut network, 1, &ports);
                    let got: BTreeSet<usize> = got.into_iter().chain(nodes.iter().map(|n| usize::from(*n) + 1)).collect();
                    prop_assert_eq!(got, model.audience(at, group));
                }
            }
            // The list says the same.
            let now = network.now;
            let listed = network.node(1).tables.mdb(bridge_id(1), now).unwrap();
            let held = |until: &&u64| model.now < **until;
            let expected = model.members.values().filter(held).count() + model.routers.values().filter(held).count();
            prop_assert_eq!(listed.entries.len(), expected);
            prop_assert_eq!(listed.active_v4, (model.reliable..model.querier).contains(&model.now));
        }
    }
}
