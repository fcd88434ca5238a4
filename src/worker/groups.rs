//! Multicast databases: what was heard of is published, questions are asked, and what is over is forgotten.

use std::time::Duration;

use super::Worker;

/// Shortest time between two publications of what one worker has heard, for each costs a snapshot.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two searches for memberships that are over: they do not count meanwhile, but take up room.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// So many changes are published at once.
const PUBLISH_AT: usize = 1024;

/// The most changes that wait while another call changes the tables; those beyond are refused.
const MAX_WAITING: usize = 8192;

impl Worker {
    /// Takes over what forwarding has heard of members of groups. It is published at once if that was not done just now: who has
    /// joined is waiting for frames.
    pub(super) fn take_heard(&mut self, now: Duration) {
        for change in self.output.heard.drain(..) {
            if self.heard.len() < MAX_WAITING {
                self.heard.push(change);
            } else {
                self.forwarder.unheard(self.reader.value(), now, &change);
            }
        }
        self.publish_heard(now);
    }

    /// Publishes what waits, if it is time.
    pub(super) fn publish_heard(&mut self, now: Duration) {
        if self.heard.is_empty() || now < self.next_heard && self.heard.len() < PUBLISH_AT {
            return;
        }
        self.next_heard = now + PUBLISH_INTERVAL;
        if self.apply(self.heard.clone()) {
            self.heard.clear();
        }
    }

    /// When what waits is to be published.
    pub(super) fn next_heard(&self) -> Option<Duration> {
        (!self.heard.is_empty()).then_some(self.next_heard)
    }

    /// Asks and forgets what is due, by one worker for all.
    pub(super) fn tick_groups(&mut self, now: Duration) {
        self.batch.clear();
        let tables = self.reader.value();
        self.forwarder.query_groups(tables, now, &mut self.batch, &mut self.output);
        self.flush(now);
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_INTERVAL;
        let expired = self.reader.value().expired_mdb(now);
        if !expired.is_empty() {
            self.apply(expired);
        }
    }
}
