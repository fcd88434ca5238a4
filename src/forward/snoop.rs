//! Multicast in segments that snoop: what reports and queries say is noted, and frames for groups go to whoever listens.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::batch::Batch;
use crate::change::Change;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::fdb::seconds;
use crate::multicast::{Mdb, Member};
use crate::output::Output;
use crate::segment::{Location, PortId, PortOptions, SegmentId, Traits, VtepId};
use crate::tables::{Bridge, PortEntry, SegmentEntry, Tables};
use crate::wire::eth::MacNumber;
use crate::wire::multicast::{self, Message};
use crate::wire::{FrameInfo, VnetHeader};

use super::flood::{Apart, Receivers, audience};
use super::{Context, Forwarder};

/// Where a frame came from; a VTEP that an open segment has not heard from before, by its address.
type Sender = Result<Location, IpAddr>;

/// Those who get a frame for a group, in place of everybody.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    ports: Vec<PortId>,
    vteps: Vec<VtepId>,
}

/// Who gets a frame: those chosen, or everybody.
fn receivers<'a>(
    (segment, bridge, to): (&'a SegmentEntry, &'a Bridge, MacNumber),
    chosen: Option<&'a Chosen>,
) -> Receivers<'a> {
    match chosen {
        // A port that has asked for it gets it, whatever it is flooded with.
        Some(chosen) => (&chosen.ports, &chosen.vteps, Traits::default()),
        None => audience(segment, bridge, to),
    }
}

impl Chosen {
    /// Adds those of some places that count, of the VTEPs those that are in the flood list, which is in order; says
    /// whether any VTEP counts.
    fn add(&mut self, flood: &[VtepId], places: &[Member], second: u32) -> bool {
        let mut remote = false;
        for member in places.iter().filter(|member| member.holds(second)) {
            match member.at {
                Location::Port(port) => self.ports.push(port),
                Location::Vtep(vtep) => {
                    remote = true;
                    if flood.binary_search(&vtep).is_ok() {
                        self.vteps.push(vtep);
                    }
                }
            }
        }
        remote
    }

    /// Adds the groups of the underlay that are in the flood list: they stand for whatever VTEP.
    #[cold]
    fn add_underlay_groups(&mut self, tables: &Tables, flood: &[VtepId]) {
        for vtep in flood {
            let address = tables.vtep_address(*vtep);
            if address.is_some_and(|at| at.ip().is_multicast()) {
                self.vteps.push(*vtep);
            }
        }
    }

    /// Has everybody once, whatever they were added for.
    fn dedup(&mut self) {
        self.ports.sort_unstable();
        self.ports.dedup();
        self.vteps.sort_unstable();
        self.vteps.dedup();
    }
}

/// What a segment that snoops knows, for a frame that it may be about.
#[inline]
pub(super) fn snooped(bridge: &Bridge, to: MacNumber) -> Option<&Mdb> {
    bridge.mdb.as_deref().filter(|_| to.is_multicast() && !to.is_broadcast())
}

impl Forwarder {
    /// Floods frame `index` of a batch from a port among those who listen, where that is known.
    #[cold]
    pub(super) fn snoop_from_port(
        &mut self,
        context: &Context<'_>,
        (of, mdb): ((&PortEntry, &SegmentEntry, &Bridge), &Mdb),
        batch: &mut Batch,
        frame: (usize, MacNumber, MacNumber),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let ((port, segment, bridge), (index, to, _)) = (of, frame);
        let (known, heard) = ((segment, bridge, mdb), (to, batch.frame(index)));
        let chosen = self.choose(context, known, heard, Ok(Location::Port(port.id)), output);
        let receivers = receivers((segment, bridge, to), chosen.as_ref());
        let flooded = self.flood_among_from_port(context, of, batch, frame, receivers, output);
        self.settle(chosen, flooded)
    }

    /// The same for a frame from the underlay.
    #[cold]
    pub(super) fn snoop_from_underlay(
        &mut self,
        context: &Context<'_>,
        (of, mdb): ((&SegmentEntry, &Bridge, Apart), &Mdb),
        batch: &mut Batch,
        frame: (usize, MacNumber, MacNumber),
        unfinished: (VnetHeader, FrameInfo),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let ((segment, bridge, (_, sender)), (index, to, _)) = (of, frame);
        let (known, heard) = ((segment, bridge, mdb), (to, batch.frame(index)));
        let at = sender.map(Location::Vtep).ok_or_else(|| batch.source(index));
        let chosen = self.choose(context, known, heard, at, output);
        let all = (unfinished, receivers((segment, bridge, to), chosen.as_ref()));
        let flooded = self.flood_among_from_underlay(context, of, batch, frame, all, output);
        self.settle(chosen, flooded)
    }

    /// Takes note of what a frame says, and chooses who gets it; `None` if everybody does.
    fn choose(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, mdb): (&SegmentEntry, &Bridge, &Mdb),
        (to, frame): (MacNumber, &[u8]),
        at: Sender,
        output: &mut Output,
    ) -> Option<Chosen> {
        let (tables, second) = (context.tables, context.second);
        let message = if multicast::may_be(frame) { multicast::parse(frame) } else { None };
        let wanted: &[Member] = match message {
            Some(message) => {
                Listener { context, segment: segment.id, mdb, at, output }.hear(&message);
                match message {
                    Message::Report(_) if mdb.is_reliable(multicast::is_ipv6(frame), second) => &[],
                    _ => return None,
                }
            }
            None => {
                let group = multicast::destination(frame)?;
                // What the control plane says of a group address holds.
                if !mdb.is_reliable(group.is_ipv6(), second) || bridge.lists.contains_key(&to) {
                    return None;
                }
                let known = mdb.groups.get(&group);
                if mdb.is_flooded(known, second) {
                    return None;
                }
                known.map_or(&[], |known| &known.members)
            }
        };
        let mut chosen = std::mem::take(&mut self.chosen);
        chosen.ports.clear();
        chosen.vteps.clear();
        // Reports go to all VTEPs: behind them are others who forward by them.
        if message.is_some() {
            chosen.vteps.extend_from_slice(&bridge.flood);
        }
        let joined = chosen.add(&bridge.flood, wanted, second);
        let routers = chosen.add(&bridge.flood, mdb.members(None), second);
        if (joined || routers) && !tables.underlay_groups.is_empty() {
            chosen.add_underlay_groups(tables, &bridge.flood);
        }
        chosen.dedup();
        Some(chosen)
    }

    /// Takes back the room for those who got a frame, and says what became of it.
    fn settle(
        &mut self,
        chosen: Option<Chosen>,
        flooded: Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let Some(chosen) = chosen else { return flooded };
        self.chosen = chosen;
        match flooded {
            Err(DropReason::NoDestination) => Err(DropReason::NoMember),
            flooded => flooded,
        }
    }
}

/// Takes note of what is said at one place.
struct Listener<'a> {
    context: &'a Context<'a>,
    segment: SegmentId,
    mdb: &'a Mdb,
    at: Sender,
    output: &'a mut Output,
}

impl Listener<'_> {
    fn hear(&mut self, message: &Message<'_>) {
        let (mdb, second) = (self.mdb, self.context.second);
        if !matches!(message, Message::Report(_))
            && self.port().is_some_and(|port| !port.multicast_routers)
        {
            return;
        }
        match *message {
            Message::Report(records) => {
                let fast = self.port().is_some_and(|port| port.fast_leave);
                for record in records {
                    match self.at {
                        _ if record.joins => self.learn(Some(record.group)),
                        Ok(at) => mdb.left(record.group, at, fast, second),
                        Err(_) => {}
                    }
                }
            }
            Message::Router => self.learn(None),
            Message::Query(query) => {
                self.learn(None);
                match query.group {
                    None => mdb.asked(query.source, query.response, second),
                    Some(group) if query.decides => mdb.asked_about(group, query.response, second),
                    Some(_) => {}
                }
            }
        }
    }

    /// Somebody here has joined a group, or is a multicast router.
    fn learn(&mut self, group: Option<IpAddr>) {
        let Listener { context, segment, mdb, at, .. } = *self;
        let interval = match group {
            Some(_) => mdb.options.membership_interval,
            None => mdb.options.querier_interval,
        };
        let until = context.second.saturating_add(seconds(interval));
        match at.ok().and_then(|at| mdb.find(group, at)) {
            Some(Member { timer: None, .. }) => return,
            Some(member @ Member { timer: Some(timer), .. }) => {
                let held = member.holds(context.second);
                timer.prolong(until);
                // Once its time was over it may be about to be removed.
                if held {
                    return;
                }
            }
            None if !mdb.has_room(group) => return self.refuse(group),
            None => {}
        }
        let destination = match at {
            Ok(at) => context.tables.destination(at),
            Err(stranger) => Some(SocketAddr::new(stranger, segment.udp_port).into()),
        };
        let Some(destination) = destination else { return };
        let until = Duration::from_secs(until.into());
        if !self.output.hear(Change::LearnMdb { segment, group, destination, until }) {
            self.refuse(group);
        }
    }

    /// There is no room for a member: its group is flooded.
    #[cold]
    fn refuse(&mut self, group: Option<IpAddr>) {
        let Listener { context, segment, mdb, .. } = *self;
        context.counters.memberships_refused.add(1);
        match group {
            Some(group) if mdb.flood(group, context.second) => {
                self.output.event(Event::MdbFull { segment, group });
            }
            Some(_) => {}
            None => mdb.flood_all(context.second),
        }
    }

    /// The options of the port where it is said.
    fn port(&self) -> Option<&PortOptions> {
        let Ok(Location::Port(port)) = self.at else { return None };
        self.context.tables.port(port).map(|port| &port.options)
    }
}
