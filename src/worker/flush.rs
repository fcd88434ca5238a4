//! Carrying an output out: datagrams to the underlay, news to whom they concern.

use std::time::Duration;

use crate::batch::Batch;
use crate::change::Change;
use crate::config::DontFragment;
use crate::control::Control;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::io::{Heading, SendQueue, UdpSocket, underlay_reason};
use crate::offload::Offload;
use crate::output::{Output, SourcePort, Transmit};
use crate::shared::Shared;
use crate::tables::Tables;
use crate::trouble::{Place, Troubles};

use super::record::Recorder;
use super::{Kind, Source, Worker, outlets};

/// Shortest time between two rounds of discovery by one worker, for each costs a publication.
const DISCOVERY_INTERVAL: Duration = Duration::from_millis(100);

impl Worker {
    /// Carries the output out and empties it.
    pub(super) fn flush(&mut self, now: Duration) {
        self.flush_delivers(now);
        self.flush_transmits(now);
        if self.recorder.is_open() {
            let (tables, written) = (self.reader.value(), self.shared.now());
            self.recorder.record(tables, &self.batch, &self.output, written);
        }
        self.flush_news(now);
        self.output.clear();
    }

    fn flush_transmits(&mut self, now: Duration) {
        if self.output.transmits.is_empty() {
            return;
        }
        self.sort_transmits();
        let Self { by_entropy, by_listener, entropy, sources, listener_source, .. } = self;
        let inherits_df = self.shared.config.dont_fragment == DontFragment::Inherit;
        let listener = |at: (u16, bool)| match sources.get(*listener_source.get(&at)?)? {
            Some(Source { kind: Kind::Socket { socket, .. }, .. }) => Some(&**socket),
            _ => None,
        };
        let by_entropy = by_entropy.iter().zip(entropy.iter().map(Some));
        let by_listener = by_listener.iter().map(|((udp_port, ipv6, may_fragment), list)| {
            let socket = listener((*udp_port, *ipv6));
            if let (true, false, Some(socket)) = (inherits_df, list.is_empty(), socket) {
                // This worker's own: nobody else sends from it meanwhile.
                let _ = socket.set_may_fragment(*may_fragment);
            }
            (list, socket)
        });
        let mut outlet = Outlet {
            tables: self.reader.value(),
            forwarder: &self.forwarder,
            output: &self.output,
            batch: &self.batch,
            queue: &mut self.send_queue,
            recorder: &mut self.recorder,
            troubles: &mut self.troubles,
            shared: &self.shared,
            gso: self.offloads.contains(Offload::UdpGso),
            now,
        };
        for (list, socket) in by_entropy.chain(by_listener).filter(|(list, _)| !list.is_empty()) {
            outlet.send(socket, list);
        }
        self.learn_paths(now);
    }

    /// Sorts transmits by the socket they leave from; the order of each flow stays.
    fn sort_transmits(&mut self) {
        self.by_entropy.iter_mut().for_each(Vec::clear);
        self.by_listener.iter_mut().for_each(|(_, list)| list.clear());
        let config = &self.shared.config;
        let tables = self.reader.value();
        for (index, transmit) in self.output.transmits.iter().enumerate() {
            let Some(to) = tables.vtep(transmit.vtep).map(|vtep| vtep.address.ip()) else {
                let datagrams = transmit.datagrams.into();
                self.forwarder.unsent(tables, transmit, datagrams, DropReason::VtepGone);
                self.recorder.all_unsent(index, DropReason::VtepGone);
                continue;
            };
            let may_fragment = transmit.outer.may_fragment;
            let udp_port = match transmit.source {
                SourcePort::Entropy { flow, .. } if config.source_ports > 0 => {
                    let place = outlets::place(config, flow, may_fragment, to);
                    self.by_entropy[place].push(index as u32);
                    continue;
                }
                SourcePort::Entropy { listener, .. } | SourcePort::Listener(listener) => listener,
            };
            let key = (udp_port, to.is_ipv6(), may_fragment);
            match self.by_listener.iter_mut().find(|(other, _)| *other == key) {
                Some((_, list)) => list.push(index as u32),
                None => self.by_listener.push((key, vec![index as u32])),
            }
        }
    }

    /// Hands on what forwarding found out.
    pub(super) fn flush_news(&mut self, now: Duration) {
        for event in self.output.events.drain(..) {
            self.shared.event(event);
        }
        self.flush_echoes(now);
        if self.output.events_lost > 0 {
            self.shared.events_lost(self.output.events_lost);
        }
        if !self.output.discovered.is_empty() && now >= self.next_discovery {
            self.next_discovery = now + DISCOVERY_INTERVAL;
            let discover = |(segment, address)| Change::Discover { segment, address };
            let changes = self.output.discovered.drain(..).map(discover).collect();
            self.apply(changes);
        }
        if !self.output.heard.is_empty() {
            self.take_heard(now);
        }
    }

    /// Changes the tables on behalf of the data path; false if that cannot be done now.
    pub(super) fn apply(&self, changes: Vec<Change>) -> bool {
        // What does not fit never will: it concerns what is gone.
        Control::new(self.shared.clone()).try_apply(changes).unwrap_or(true)
    }
}

/// What sending needs of a worker, apart from the sockets.
struct Outlet<'a> {
    tables: &'a Tables,
    forwarder: &'a Forwarder,
    output: &'a Output,
    batch: &'a Batch,
    queue: &'a mut SendQueue,
    recorder: &'a mut Recorder,
    troubles: &'a mut Troubles,
    shared: &'a Shared,
    gso: bool,
    now: Duration,
}

impl Outlet<'_> {
    /// Sends the listed transmits from one socket.
    fn send(&mut self, socket: Option<&UdpSocket>, list: &[u32]) {
        let (tables, output, batch) = (self.tables, self.output, self.batch);
        let transmits = list.iter().map(|index| &output.transmits[*index as usize]);
        let Some(socket) = socket else {
            for (transmit, index) in transmits.zip(list) {
                let (datagrams, reason) = (transmit.datagrams.into(), DropReason::UnderlayFailed);
                self.forwarder.unsent(tables, transmit, datagrams, reason);
                self.recorder.all_unsent(*index as usize, reason);
            }
            return;
        };
        let addressed = transmits.clone().filter_map(|transmit| {
            // Sorting has left out those whose VTEP is gone.
            Some((transmit, tables.vtep_address(transmit.vtep)?))
        });
        let messages = addressed.flat_map(|(transmit, to)| {
            let heading = Heading { to, outer: transmit.outer };
            output.datagrams(batch, transmit).map(move |parts| (heading, parts))
        });
        let (forwarder, shared, now) = (self.forwarder, self.shared, self.now);
        let (troubles, recorder) = (&mut *self.troubles, &mut *self.recorder);
        let mut outcomes = Outcomes::new(transmits, |transmit, datagrams, bytes| {
            forwarder.sent(tables, transmit, datagrams, bytes);
        });
        let refusal =
            self.queue.send(socket, messages, self.gso && socket.sends_trains(), |_, outcome| {
                let (Some(transmit), Err(error)) = (outcomes.next(outcome.as_ref().ok()), outcome)
                else {
                    return;
                };
                let reason = underlay_reason(&error);
                forwarder.unsent(tables, transmit, 1, reason);
                let (place, datagram) = outcomes.last(transmit);
                recorder.unsent(list[place] as usize, datagram, reason);
                let place = Place::Vtep(transmit.vtep);
                let name = || match tables.vtep_address(transmit.vtep) {
                    Some(address) => format!("VTEP {address}"),
                    None => "a VTEP that is gone".to_owned(),
                };
                shared.report(troubles.report(place, reason, &error, now, name));
            });
        if let Some(error) = refusal {
            self.gso = false;
            self.shared.offload_failed(Offload::UdpGso, &error);
        }
    }
}

/// Gathers the outcomes of datagrams, which come in order, by the descriptors that they belong to.
struct Outcomes<'a, I, F> {
    transmits: I,
    /// Descriptors that were begun.
    begun: usize,
    current: Option<&'a Transmit>,
    /// Datagrams of the current descriptor whose outcome is to come, and what was sent of it so far.
    left: u32,
    sent: u64,
    bytes: u64,
    report: F,
}

impl<'a, I: Iterator<Item = &'a Transmit>, F: FnMut(&Transmit, u64, u64)> Outcomes<'a, I, F> {
    fn new(transmits: I, report: F) -> Self {
        Self { transmits, begun: 0, current: None, left: 0, sent: 0, bytes: 0, report }
    }

    /// The descriptor of the next datagram, of which so many bytes were sent; none if it was not.
    #[inline]
    fn next(&mut self, bytes: Option<&usize>) -> Option<&'a Transmit> {
        if self.left == 0 {
            self.current = self.transmits.next();
            self.left = self.current?.datagrams;
            self.begun += 1;
        }
        self.left -= 1;
        if let Some(bytes) = bytes {
            self.sent += 1;
            self.bytes += *bytes as u64;
        }
        if self.left == 0 && self.sent > 0 {
            (self.report)(
                self.current?,
                std::mem::take(&mut self.sent),
                std::mem::take(&mut self.bytes),
            );
        }
        self.current
    }

    /// The place of the descriptor that the last outcome was of, and the number of the datagram in it.
    #[cold]
    fn last(&self, current: &Transmit) -> (usize, u32) {
        (self.begun - 1, current.datagrams - 1 - self.left)
    }
}
