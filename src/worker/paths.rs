//! What the underlay teaches of the paths to VTEPs.

use std::net::SocketAddr;
use std::time::Duration;

use crate::change::Change;
use crate::event::Event;
use crate::io::{PathLesson, path_mtu};
use crate::path::PathSource;
use crate::tables::Tables;

use super::Worker;

/// Shortest time between two lessons of one worker, for each costs a publication.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long what this node's kernel has refused, but would not refuse any more, is believed: its route may have become
/// wider before the refusal was heard of. It may also lead over several links of which one is narrower, and then the next
/// refusal comes soon.
const DOUBT: Duration = Duration::from_secs(2);

impl Worker {
    /// Takes over what was found out of paths since the last time.
    pub(super) fn learn_paths(&mut self, now: Duration) {
        if self.send_queue.news().is_empty() || now < self.next_lesson {
            return;
        }
        self.next_lesson = now + INTERVAL;
        let source = PathSource::Learned;
        let tables = self.reader.value();
        let (mut changes, mut vteps) = (Vec::new(), Vec::new());
        let config = &self.shared.config;
        for PathLesson { to, mtu, local } in self.send_queue.news().drain() {
            let allowed = || path_mtu(config.local_for(to)?, to).ok();
            let doubtful = local && allowed().is_some_and(|allowed| allowed > mtu);
            let believed = if doubtful { DOUBT } else { Duration::MAX };
            let until = now + config.path_mtu_expiry.min(believed);
            // A path is the same for all UDP ports.
            for vtep in tables.vtep_by_address.keys().copied().filter(|vtep| vtep.ip() == to) {
                let known = tables.path_mtu(vtep).unwrap_or_default();
                let mut then = known;
                then.set(to, source, Some(mtu), until);
                if then.limit() != known.limit() {
                    changes.push(Change::SetPathMtu { vtep, source, mtu: Some(mtu), until });
                    vteps.push(vtep);
                }
            }
        }
        self.change_paths(changes, vteps);
    }

    /// Hears what came of datagrams that were sent last, and gives up what was learned too long ago. For one worker of
    /// all.
    pub(super) fn tick_paths(&mut self, now: Duration) {
        for socket in self.entropy.iter() {
            self.send_queue.news().hear(socket);
        }
        self.learn_paths(now);
        let changes = self.reader.value().expired_paths(now);
        let vteps = changes.iter().filter_map(|change| match change {
            Change::SetPathMtu { vtep, .. } => Some(*vtep),
            _ => None,
        });
        let vteps = vteps.collect();
        self.change_paths(changes, vteps);
    }

    fn change_paths(&self, changes: Vec<Change>, vteps: Vec<SocketAddr>) {
        let before = self.reader.value();
        // What cannot be changed now comes up again.
        if changes.is_empty() || !self.apply(changes) {
            return;
        }
        let tables = self.shared.tables.current();
        for vtep in vteps {
            let limit = |tables: &Tables| tables.path_mtu(vtep).map(|path| path.limit());
            // What was learned may have been verified since.
            if let Some(mtu) = limit(&tables).filter(|mtu| limit(before) != Some(*mtu)) {
                self.shared.event(Event::PathMtu { vtep, mtu });
            }
        }
    }
}
