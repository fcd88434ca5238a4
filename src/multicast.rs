//! The multicast database of a segment that snoops: who has joined which group, where multicast routers are, and whether anybody
//! asks.
//!
//! Who is a member is part of the snapshot: what a report brings that is new becomes a change. When it was last heard of is in
//! timers that successive snapshots share, for every report sets them; so does a leave, which changes nothing else.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::fdb::seconds;
use crate::segment::{Location, Snooping};
use crate::shards::Shards;
use crate::wire::multicast::Asker;

/// Seconds for which answers to a leaving host's group are waited for after the last question; with those between the
/// questions, Linux's two times `mcast_last_member_interval`.
const LAST_WAIT: u32 = 1;

/// How often the group of a leaving host is asked for, a second apart (RFC 3376 §8.9).
const LAST_QUESTIONS: u32 = 2;

/// Seconds for which a membership is left alone once its time is over, so that no worker is about to prolong it.
const GRACE: u32 = 2;

/// The multicast database of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Mdb {
    pub(crate) options: Arc<Snooping>,
    pub(crate) groups: Shards<IpAddr, Group>,
    /// Places with multicast routers, which get all groups.
    pub(crate) routers: SmallVec<[Member; 2]>,
    /// Learned entries of groups, and static ones of all kinds.
    pub(crate) learned: usize,
    pub(crate) statics: usize,
    pub(crate) state: Arc<State>,
}

/// A group that somebody has joined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: SmallVec<[Member; 2]>,
    /// Until when everybody gets its frames, because not all who have joined are known.
    pub(crate) flooded: Arc<AtomicU32>,
}

/// A place where somebody has joined a group, or a multicast router is.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) at: Location,
    /// `None` if the control plane has said so.
    pub(crate) timer: Option<Arc<Timer>>,
}

/// How long a learned entry holds.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Second from which on it does not.
    until: AtomicU32,
    /// Questions that are still to be asked because somebody has left.
    questions: AtomicU32,
}

/// What workers find out about a segment's multicast.
#[derive(Debug, Default)]
pub(crate) struct State {
    queriers: [QuerierState; 2],
    /// Until when groups that nobody is known to have joined are flooded, because not all who have joined are known.
    overflow: AtomicU32,
    /// Until when another refusal is no news.
    refused: AtomicU32,
    /// Whether the group of a leaving host is to be asked for.
    leaving: AtomicBool,
}

/// Who asks over one family.
#[derive(Debug, Default)]
struct QuerierState {
    /// Until when there is somebody who asks.
    until: AtomicU32,
    /// From when on everybody has had the time to answer.
    reliable: AtomicU32,
    /// Until when this node leaves it to another one.
    yields: AtomicU32,
    /// When this node asks next, and how often it has asked.
    next: AtomicU32,
    asked: AtomicU32,
}

impl Timer {
    pub(crate) fn new(until: u32) -> Arc<Self> {
        Arc::new(Self { until: AtomicU32::new(until), questions: AtomicU32::new(0) })
    }

    /// Second from which on the entry does not hold.
    pub(crate) fn until(&self) -> u32 {
        self.until.load(Ordering::Relaxed)
    }

    /// Somebody has reported.
    pub(crate) fn prolong(&self, until: u32) {
        if self.questions.load(Ordering::Relaxed) != 0 {
            self.questions.store(0, Ordering::Relaxed);
        }
        if self.until() != until {
            self.until.store(until, Ordering::Relaxed);
        }
    }

    /// Gives it up at a time, unless somebody reports.
    pub(crate) fn shorten(&self, until: u32) {
        self.until.fetch_min(until, Ordering::Relaxed);
    }

    /// Takes one of the questions that are to be asked, if there is any.
    fn take_question(&self) {
        let left = self.questions.load(Ordering::Relaxed);
        // A report in this very moment has its say: then there are none.
        if left > 0 {
            let (new, relaxed) = (left - 1, Ordering::Relaxed);
            let _ = self.questions.compare_exchange(left, new, relaxed, relaxed);
        }
    }
}

impl Member {
    /// Whether it counts in this second.
    #[inline]
    pub(crate) fn holds(&self, second: u32) -> bool {
        self.timer.as_ref().is_none_or(|timer| second < timer.until())
    }

    /// Whether its time is over, for good.
    pub(crate) fn is_over(&self, second: u32) -> bool {
        let over = |timer: &Arc<Timer>| timer.until().saturating_add(GRACE) <= second;
        self.timer.as_ref().is_some_and(over)
    }
}

impl Mdb {
    pub(crate) fn new(options: &Snooping, seed: u64) -> Self {
        Self {
            options: Arc::new(options.clone()),
            groups: Shards::new(seed),
            routers: SmallVec::new(),
            learned: 0,
            statics: 0,
            state: Arc::default(),
        }
    }

    /// The same without its entries, for those who need only what workers find out.
    pub(crate) fn bare(&self) -> Self {
        let (options, state) = (self.options.clone(), self.state.clone());
        let (groups, routers) = (Shards::new(0), SmallVec::new());
        Self { options, groups, routers, learned: 0, statics: 0, state }
    }

    /// What is known of a group; without one, of multicast routers.
    pub(crate) fn members(&self, group: Option<IpAddr>) -> &[Member] {
        match group {
            Some(group) => self.groups.get(&group).map_or(&[], |group| &group.members),
            None => &self.routers,
        }
    }

    /// The entry of a place.
    pub(crate) fn find(&self, group: Option<IpAddr>, at: Location) -> Option<&Member> {
        self.members(group).iter().find(|member| member.at == at)
    }

    /// All entries, those of multicast routers without a group.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Option<IpAddr>, &Member)> {
        let groups = self.groups.iter();
        let members = groups
            .flat_map(|(group, of)| of.members.iter().map(move |member| (Some(*group), member)));
        self.routers.iter().map(|router| (None, router)).chain(members)
    }

    /// Whether there is room for one more learned entry. For multicast routers there always is: they are as many as places.
    pub(crate) fn has_room(&self, group: Option<IpAddr>) -> bool {
        group.is_none() || self.learned < self.options.limit
    }

    /// Floods a group for a while, because somebody has joined it who is not known, and says whether that is the first one for a
    /// while.
    pub(crate) fn flood(&self, group: IpAddr, second: u32) -> bool {
        let until = second.saturating_add(seconds(self.options.membership_interval));
        let flooded = match self.groups.get(&group) {
            Some(group) => &group.flooded,
            None => &self.state.overflow,
        };
        flooded.fetch_max(until, Ordering::Relaxed);
        self.state.refused.fetch_max(until, Ordering::Relaxed) <= second
    }

    /// Floods everything for a while, because there is a multicast router that is not known.
    pub(crate) fn flood_all(&self, second: u32) {
        let until = second.saturating_add(seconds(self.options.querier_interval));
        for querier in &self.state.queriers {
            querier.reliable.store(until, Ordering::Relaxed);
        }
    }

    /// Whether everybody gets a group, of which `known` is what is known.
    pub(crate) fn is_flooded(&self, known: Option<&Group>, second: u32) -> bool {
        let joined = known.filter(|group| group.members.iter().any(|member| member.holds(second)));
        match joined {
            Some(group) => second < group.flooded.load(Ordering::Relaxed),
            None => {
                let flooded = known.map_or(0, |group| group.flooded.load(Ordering::Relaxed));
                self.options.flood_unregistered
                    || second < self.state.overflow.load(Ordering::Relaxed).max(flooded)
            }
        }
    }

    /// Whether entries of a family are to be relied on: somebody asks, and has asked for long enough.
    #[inline]
    pub(crate) fn is_reliable(&self, ipv6: bool, second: u32) -> bool {
        let querier = &self.state.queriers[usize::from(ipv6)];
        let (from, until) = (&querier.reliable, &querier.until);
        (from.load(Ordering::Relaxed)..until.load(Ordering::Relaxed)).contains(&second)
    }

    /// Somebody asks about all groups, and is answered within `response` milliseconds.
    pub(crate) fn asked(&self, from: IpAddr, response: u32, second: u32) {
        let querier = &self.state.queriers[usize::from(from.is_ipv6())];
        let until = second.saturating_add(seconds(self.options.querier_interval));
        if querier.until.swap(until, Ordering::Relaxed) <= second {
            let answered = second.saturating_add(response.div_ceil(1000)).saturating_add(1);
            querier.reliable.store(answered, Ordering::Relaxed);
        }
        let stronger = |asker: Asker| !from.is_unspecified() && from < asker.address;
        if self.asker(from.is_ipv6()).is_some_and(stronger) {
            querier.yields.store(until, Ordering::Relaxed);
        }
    }

    /// This node, if it is to ask over a family.
    fn asker(&self, ipv6: bool) -> Option<Asker> {
        let mut askers = self.options.querier.iter().flat_map(|querier| querier.askers());
        askers.find(|asker| asker.address.is_ipv6() == ipv6)
    }

    /// The same unless somebody else does.
    pub(crate) fn querier(&self, ipv6: bool, second: u32) -> Option<Asker> {
        let yields = self.state.queriers[usize::from(ipv6)].yields.load(Ordering::Relaxed);
        self.asker(ipv6).filter(|_| yields <= second)
    }

    /// Whether it is time for this node to ask over a family about all groups; then it is up to the caller to do so.
    pub(crate) fn is_due(&self, asker: Asker, second: u32) -> bool {
        let querier = &self.state.queriers[usize::from(asker.address.is_ipv6())];
        if second < querier.next.load(Ordering::Relaxed) {
            return false;
        }
        // The first two follow each other faster (RFC 3376 §8.6, §8.7).
        let first = querier.asked.fetch_add(1, Ordering::Relaxed) == 0;
        let pause = if first { asker.interval / 4 } else { asker.interval };
        querier.next.store(second.saturating_add(pause), Ordering::Relaxed);
        true
    }

    /// A place is new, and whoever has joined groups there was not asked yet: it gets all groups, as if it had a multicast router,
    /// until everybody has been asked. As long as nobody asks at all, everything is flooded anyway.
    pub(crate) fn welcome(&self, timer: &Timer, second: u32) {
        for (querier, ipv6) in self.state.queriers.iter().zip([false, true]) {
            if querier.until.load(Ordering::Relaxed) <= second {
                continue;
            }
            let wait = match self.querier(ipv6, second) {
                Some(asker) => {
                    querier.next.store(second, Ordering::Relaxed);
                    // With the second in which the question is asked, and what is left of this one.
                    u32::from(asker.response) + 2
                }
                None => seconds(self.options.querier_interval),
            };
            timer.until.fetch_max(second.saturating_add(wait), Ordering::Relaxed);
        }
    }

    /// Somebody at a place that has joined a group has left it: unless others there report when they are asked, so has the
    /// place. If this node does not ask, whoever does has heard of it, too, and will.
    pub(crate) fn left(&self, group: IpAddr, at: Location, fast: bool, second: u32) {
        let member = self.find(Some(group), at).filter(|member| member.holds(second));
        let Some(timer) = member.and_then(|member| member.timer.as_ref()) else { return };
        if fast {
            timer.shorten(second);
        } else if self.querier(group.is_ipv6(), second).is_some() {
            timer.questions.store(LAST_QUESTIONS, Ordering::Relaxed);
            // A second for the tick that asks first, and what is left of this one.
            timer.shorten(second.saturating_add(LAST_QUESTIONS + LAST_WAIT + 1));
            self.state.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Somebody asks about a group alone, and is answered within `response` milliseconds: who does not answer has left.
    pub(crate) fn asked_about(&self, group: IpAddr, response: u32, second: u32) {
        let wait = response.saturating_mul(LAST_QUESTIONS).div_ceil(1000);
        let until = second.saturating_add(wait).saturating_add(1);
        let timers = self.members(Some(group)).iter().filter_map(|member| member.timer.as_ref());
        timers.for_each(|timer| timer.shorten(until));
    }

    /// Takes up to `room` groups that are to be asked for because somebody has left.
    pub(crate) fn questions(&self, room: usize) -> SmallVec<[IpAddr; 8]> {
        let mut questions = SmallVec::new();
        if !self.state.leaving.swap(false, Ordering::Relaxed) {
            return questions;
        }
        let mut more = false;
        for (group, of) in self.groups.iter() {
            let timers = of.members.iter().filter_map(|member| member.timer.as_deref());
            let left = |timer: &Timer| timer.questions.load(Ordering::Relaxed);
            if timers.clone().all(|timer| left(timer) == 0) {
                continue;
            }
            if questions.len() < room {
                questions.push(*group);
                timers.clone().for_each(Timer::take_question);
            }
            more |= timers.clone().any(|timer| left(timer) > 0);
        }
        if more {
            self.state.leaving.store(true, Ordering::Relaxed);
        }
        questions
    }
}
