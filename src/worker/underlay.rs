//! Following the host: the MTU of the underlay's interface and routes, and devices that go down and come up.
//!
//! One worker does it for all. News say that something has changed, not what: after a moment, in which more may come, all
//! of it is asked for anew, a few VTEPs a turn.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::change::{Change, Flush};
use crate::config::DontFragment;
use crate::event::Event;
use crate::io::{PortQueue, Routes, Watch, netns_identity, path_mtu};
use crate::path::PathSource;
use crate::segment::{PortId, VtepId};
use crate::tables::Tables;

use super::Worker;

/// From the first news to the questions: changes mostly come several at a time.
const PATIENCE: Duration = Duration::from_millis(50);

/// Shortest time between two looks for VTEPs that are new, for all of them are looked through.
const PAUSE: Duration = Duration::from_millis(100);

/// VTEPs whose routes are asked for in one turn; each costs some microseconds.
const EACH_TURN: usize = 32;

/// Most network namespaces whose links are watched; devices in others are not followed.
const MAX_NAMESPACES: usize = 256;

/// Tokens of the watches, from the highest that is not the waker's downwards.
const FIRST_TOKEN: usize = usize::MAX - 1;

/// A device whose link is watched.
#[derive(Debug)]
struct PortLink {
    port: PortId,
    name: String,
    /// The watch that hears of it.
    watch: usize,
    index: u32,
    up: bool,
}

/// A network namespace that is watched: its identity, unless it is the dataplane's own, which is always there.
#[derive(Debug)]
struct Watched {
    namespace: Option<(u64, u64)>,
    watch: Watch,
    heard: bool,
}

/// What follows the host.
#[derive(Debug)]
pub(super) struct Follower {
    routes: Routes,
    /// By token; gaps are reused. The first is the dataplane's own namespace.
    watched: Vec<Option<Watched>>,
    links: Vec<PortLink>,
    /// Whether any watch has something to say.
    heard: bool,
    /// When to ask for everything anew, if there was news.
    due: Option<Duration>,
    /// VTEPs whose routes are to be asked for, and those that were.
    waiting: VecDeque<SocketAddr>,
    asked: HashSet<VtepId>,
    /// What could not be changed because somebody else was changing the tables.
    left: Vec<Change>,
    /// [`Tables::vteps_made`] of when VTEPs were looked through last, and when they may be again.
    vteps_made: u64,
    next_look: Duration,
}

impl Follower {
    /// Follows the underlay of the network namespace of the calling thread.
    pub(super) fn open() -> std::io::Result<Self> {
        let watch = Watch::of_routes()?;
        Ok(Self {
            routes: Routes::open()?,
            watched: vec![Some(Watched { namespace: None, watch, heard: true })],
            links: Vec::new(),
            heard: true,
            due: Some(Duration::ZERO),
            waiting: VecDeque::new(),
            asked: HashSet::new(),
            left: Vec::new(),
            vteps_made: 0,
            next_look: Duration::ZERO,
        })
    }

    /// Asks what segments are to assume of the underlay.
    pub(super) fn interface_mtu(&mut self, local: std::net::IpAddr) -> Option<u32> {
        self.routes.interface_mtu(local).ok().flatten()
    }

    pub(super) fn register(&self, registry: &Registry) {
        for (index, watched) in self.watched.iter().enumerate() {
            if let Some(watched) = watched {
                listen(registry, index, &watched.watch);
            }
        }
    }

    /// Takes note of an event, if it is one of a watch.
    pub(super) fn heard(&mut self, token: Token) {
        if let Some(Some(watched)) =
            FIRST_TOKEN.checked_sub(token.0).and_then(|index| self.watched.get_mut(index))
        {
            watched.heard = true;
            self.heard = true;
        }
    }

    /// When there is something to do, if nothing is heard before.
    pub(super) fn next(&self) -> Option<Duration> {
        if self.waiting.is_empty() { self.due } else { Some(Duration::ZERO) }
    }

    /// Watches the link of a port's device, if it has one.
    pub(super) fn add_port(&mut self, port: PortId, queue: &PortQueue, registry: &Registry) {
        let Some((namespace, name)) = queue.link() else { return };
        let Some(identity) = netns_identity(&namespace) else { return };
        let known = self.watched.iter().position(|watched| {
            watched.as_ref().is_some_and(|watched| watched.namespace == Some(identity))
        });
        let watch = match known {
            Some(watch) => watch,
            None => {
                let Ok(watch) = Watch::of_links(namespace.as_fd()) else { return };
                let free = self.watched.iter().position(Option::is_none);
                let index = free.unwrap_or(self.watched.len());
                if index >= MAX_NAMESPACES {
                    return;
                }
                listen(registry, index, &watch);
                // It may have changed before it was listened to.
                self.heard = true;
                let watched = Watched { namespace: Some(identity), watch, heard: true };
                if index == self.watched.len() {
                    self.watched.push(Some(watched));
                } else {
                    self.watched[index] = Some(watched);
                }
                index
            }
        };
        let Some(Some(Watched { watch: there, .. })) = self.watched.get(watch) else { return };
        if let Some((index, up)) = there.link(&name) {
            self.links.push(PortLink { port, name, watch, index, up });
        }
    }

    /// Watches the link of a port no more, nor its namespace if it was the last.
    pub(super) fn remove_port(&mut self, port: PortId, registry: &Registry) {
        let Some(at) = self.links.iter().position(|link| link.port == port) else { return };
        let gone = self.links.swap_remove(at).watch;
        if self.links.iter().all(|link| link.watch != gone)
            && let Some(watched) = self.watched[gone].take()
        {
            let _ = registry.deregister(&mut SourceFd(&watched.watch.as_fd().as_raw_fd()));
        }
    }

    /// Takes in what was heard; returns ports whose links are up now, or down, in order.
    fn listen(&mut self, now: Duration) -> Vec<(PortId, String, bool)> {
        let mut flips = Vec::new();
        if !std::mem::take(&mut self.heard) {
            return flips;
        }
        let mut flip = |link: &mut PortLink, up: bool| {
            if std::mem::replace(&mut link.up, up) != up {
                flips.push((link.port, link.name.clone(), up));
            }
        };
        for (at, watched) in self.watched.iter_mut().enumerate() {
            let Some(watched) = watched.as_mut().filter(|watched| watched.heard) else { continue };
            watched.heard = false;
            let changes = watched.watch.drain();
            if at == 0 && changes.any && self.due.is_none() {
                self.due = Some(now + PATIENCE);
            }
            for link in self.links.iter_mut().filter(|link| link.watch == at) {
                let own = link.index;
                for (_, up) in changes.links.iter().filter(|(index, _)| *index == own) {
                    flip(link, *up);
                }
                if changes.lost
                    && let Some((_, up)) = watched.watch.link(&link.name)
                {
                    flip(link, up);
                }
            }
        }
        flips
    }

    /// Puts all VTEPs on the list if there was news, or else new ones.
    fn look_through(&mut self, tables: &Tables, now: Duration, all: bool) {
        let is_new = self.vteps_made != tables.vteps_made && now >= self.next_look;
        if !all && !is_new {
            return;
        }
        // Those that are gone are to be forgotten, too.
        if all || self.asked.len() > 2 * tables.vtep_by_address.len() {
            self.asked.clear();
            self.waiting.clear();
        }
        self.next_look = now + PAUSE;
        self.vteps_made = tables.vteps_made;
        for (vtep, known) in tables.vtep_by_address.iter() {
            if self.asked.insert(known.id) {
                self.waiting.push_back(*vtep);
            }
        }
    }
}

fn listen(registry: &Registry, index: usize, watch: &Watch) {
    let fd = watch.as_fd().as_raw_fd();
    // Where it cannot be, there is no news, and all stays as it was found at first.
    let _ = registry.register(&mut SourceFd(&fd), Token(FIRST_TOKEN - index), Interest::READABLE);
}

impl Worker {
    /// Does what the host's changes call for.
    pub(super) fn follow_host(&mut self, now: Duration) {
        let Some(follower) = &mut self.follower else { return };
        let flips = follower.listen(now);
        let mut all = false;
        let mut changes = std::mem::take(&mut follower.left);
        let tables = self.reader.value();
        let config = &self.shared.config;
        if follower.due.is_some_and(|due| now >= due) {
            follower.due = None;
            all = true;
            let narrowest = config.locals().filter_map(|local| follower.interface_mtu(local)).min();
            if let Some(mtu) = narrowest
                && mtu != tables.underlay_mtu
            {
                changes.push(Change::SetUnderlayMtu(mtu));
            }
        }
        follower.look_through(tables, now, all);
        let idle = changes.is_empty() && flips.is_empty() && follower.waiting.is_empty();
        if idle {
            return;
        }
        let asked: Vec<SocketAddr> = {
            let count = follower.waiting.len().min(EACH_TURN);
            follower.waiting.drain(..count).collect()
        };
        let widest = tables.widest_packet(tables.locals.has_ipv6());
        for vtep in asked {
            let Some(local) = config.local_for(vtep.ip()) else { continue };
            let Ok(mtu) = follower.routes.route_mtu(local, vtep.ip()) else { continue };
            let (source, until) = (PathSource::Route, Duration::MAX);
            // Without a route the next one counts, and what is fragmented has no limit.
            let mtu =
                mtu.filter(|mtu| *mtu < widest && config.dont_fragment != DontFragment::Unset);
            let Some(path) = tables.path_mtu(vtep) else { continue };
            if path.route != mtu {
                changes.push(Change::SetPathMtu { vtep, source, mtu, until });
            }
            // The kernel forgets what it has learned when the route is another (`net/ipv4/fib_semantics.c`,
            // `fib_nhc_update_mtu`), and what it has refused for a link that was narrow is over with that.
            if let Some(learned) = path.learned
                && path_mtu(local, vtep.ip()).is_ok_and(|allowed| allowed > learned)
            {
                let source = PathSource::Learned;
                changes.push(Change::SetPathMtu { vtep, source, mtu: None, until });
            }
        }
        for (port, name, up) in flips {
            let entry = tables.port(port).filter(|entry| !up && entry.segment.vni.is_some());
            if let Some(entry) = entry {
                let (segment, which) = (entry.segment, Flush::Port(port));
                changes.push(Change::FlushFdb { segment, which });
            }
            let event =
                if up { Event::LinkUp { port, name } } else { Event::LinkDown { port, name } };
            self.shared.event(event);
        }
        self.change_host(changes);
    }

    /// Applies changes of the host one by one, for one may concern what is gone, and reports what came of them.
    fn change_host(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let before = self.shared.tables.current();
        let mut left = Vec::new();
        for change in changes {
            let vtep = match change {
                Change::SetPathMtu { vtep, .. } => Some(vtep),
                _ => None,
            };
            if !self.apply(vec![change.clone()]) {
                left.push(change);
            }
            let path =
                vtep.and_then(|vtep| Some((vtep, self.shared.tables.current().path_mtu(vtep)?)));
            if let Some((vtep, path)) = path
                && before.path_mtu(vtep).is_some_and(|before| before.limit() != path.limit())
            {
                self.shared.event(Event::PathMtu { vtep, mtu: path.limit() });
            }
        }
        let after = self.shared.tables.current();
        for segment in after.segments() {
            let known = before.segment(segment.id);
            if known.is_some_and(|before| before.mtu != segment.mtu) {
                self.shared.event(Event::MtuChanged { segment: segment.id, mtu: segment.mtu });
            }
        }
        if let Some(follower) = &mut self.follower {
            follower.left = left;
        }
    }
}
