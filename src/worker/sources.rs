//! Keeping a worker's sources in step with the tables.

use std::net::IpAddr;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::shared::lock;

use super::{Kind, Source, Worker};

impl Worker {
    /// Takes up what the new snapshot names and closes what it does not name any more. Most snapshots differ in neither
    /// ports nor UDP ports from the one before, and then there is nothing to do.
    pub(super) fn reconcile(&mut self) {
        let tables = self.reader.value().clone();
        if self.attachments.replace(tables.attachments) == Some(tables.attachments) {
            return;
        }
        for index in 0..self.sources.len() {
            let gone = self.sources[index].as_ref().is_some_and(|source| match &source.kind {
                Kind::Port { id, .. } => tables.port(*id).is_none(),
                Kind::Socket { udp_port, socket, .. } => {
                    !tables.receives_at(*udp_port, socket.group())
                }
            });
            if gone {
                self.close(index);
            }
        }
        self.by_listener.retain(|((udp_port, ..), _)| tables.receives_on(*udp_port));
        let (queues, sockets) = {
            let mut inbox = lock(&self.shared.seats[self.index].inbox);
            // What this snapshot does not name belongs to the next one.
            let queues: Vec<_> =
                inbox.queues.extract_if(.., |(port, _)| tables.port(*port).is_some()).collect();
            let sockets: Vec<_> = inbox
                .sockets
                .extract_if(.., |(udp_port, socket)| tables.receives_at(*udp_port, socket.group()))
                .collect();
            (queues, sockets)
        };
        for (id, queue) in queues {
            let name = tables.port(id).map_or_else(String::new, |port| port.name.clone());
            if let Some(index) = self.open(Kind::Port { id, name, queue, lost: false }) {
                self.port_source.insert(id, index);
            }
        }
        for (udp_port, socket) in sockets {
            // Given up and taken up again before this worker noticed: it is the same socket, or as good.
            let (group, ipv6) = (socket.group(), socket.local_addr().is_ipv6());
            if self.has_socket(udp_port, ipv6, group) {
                continue;
            }
            let drops = socket.drops().unwrap_or(0);
            let index = self.open(Kind::Socket { udp_port, socket, drops, gro: false });
            if let (Some(index), None) = (index, group) {
                self.listener_source.insert((udp_port, ipv6), index);
            }
        }
    }

    fn has_socket(&self, udp_port: u16, ipv6: bool, group: Option<IpAddr>) -> bool {
        self.sources.iter().flatten().any(|source| match &source.kind {
            Kind::Socket { udp_port: other, socket, .. } => {
                (*other, socket.local_addr().is_ipv6(), socket.group()) == (udp_port, ipv6, group)
            }
            Kind::Port { .. } => false,
        })
    }

    fn open(&mut self, mut kind: Kind) -> Option<usize> {
        kind.set_offloads(self.offloads, self.index);
        if let (Some(follower), Kind::Port { id, queue, .. }) = (&mut self.follower, &kind) {
            follower.add_port(*id, queue, self.poll.registry());
        }
        // Ready at first: what arrived before the registration makes no edge.
        let mut source = Source { kind, ready: true, failed: false };
        let index = self.sources.iter().position(Option::is_none).unwrap_or(self.sources.len());
        match source.fd() {
            Some(fd) => {
                if let Err(error) = self.poll.registry().register(
                    &mut SourceFd(&fd),
                    Token(index),
                    Interest::READABLE,
                ) {
                    let place = match &source.kind {
                        Kind::Port { name, .. } => name.clone(),
                        Kind::Socket { udp_port, .. } => format!("UDP port {udp_port}"),
                    };
                    let error = error.to_string();
                    self.shared.event(Event::Trouble {
                        place,
                        reason: match &source.kind {
                            Kind::Port { .. } => DropReason::PortLost,
                            Kind::Socket { .. } => DropReason::UnderlayFailed,
                        },
                        error,
                    });
                    return None;
                }
            }
            None => source.ready = false,
        }
        if index == self.sources.len() {
            self.sources.push(Some(source));
        } else {
            self.sources[index] = Some(source);
        }
        Some(index)
    }

    fn close(&mut self, index: usize) {
        let Some(mut source) = self.sources[index].take() else { return };
        if let Some(fd) = source.fd() {
            // Closing alone would not do where another queue shares the open file.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        self.overflows += source.new_drops();
        match source.kind {
            Kind::Port { id, .. } => {
                self.port_source.remove(&id);
                if let Some(follower) = &mut self.follower {
                    follower.remove_port(id, self.poll.registry());
                }
            }
            Kind::Socket { udp_port, socket, .. } => {
                if socket.group().is_none() {
                    self.listener_source.remove(&(udp_port, socket.local_addr().is_ipv6()));
                }
            }
        }
    }
}
