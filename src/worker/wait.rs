//! Waiting for something to do: looking again for a moment while traffic flows, sleeping otherwise.

use std::io;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll};

use crate::shared::Shared;

/// Waits in a row that took longer than the spin before spinning is given up.
const PATIENCE: u32 = 4;

/// Shortest spin: a few looks.
const LEAST: Duration = Duration::from_micros(2);

/// When to spin: a sleeping thread takes tens of microseconds to wake, so that looking again pays where the next frame
/// mostly comes sooner than that, and is wasted everywhere else.
#[derive(Debug)]
pub(super) struct Spinner {
    /// How long to spin at most; zero is never.
    limit: Duration,
    /// Waits in a row that took longer than the limit.
    misses: u32,
    /// How long waits within the limit mostly are: a running mean.
    typical: Duration,
}

impl Spinner {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, misses: PATIENCE, typical: Duration::ZERO }
    }

    /// Takes note of how long a wait was, and so whether spinning would have done for it.
    fn waited(&mut self, time: Duration) {
        if time <= self.limit {
            self.misses = 0;
            self.typical = (self.typical * 7 + time) / 8;
        } else {
            self.misses = PATIENCE.min(self.misses + 1);
        }
    }

    /// How long to spin: a few times as long as it mostly takes. What takes longer is likely to take long.
    fn patience(&self) -> Duration {
        self.limit.min(self.typical * 3 + LEAST)
    }

    fn is_worthwhile(&self) -> bool {
        self.misses < PATIENCE && !self.limit.is_zero()
    }

    /// Waits for events, at most `timeout`.
    pub(super) fn poll(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Duration,
        shared: &Shared,
    ) -> io::Result<()> {
        if self.limit.is_zero() || timeout.is_zero() {
            return look(poll, events, timeout);
        }
        let begin = shared.now();
        if self.is_worthwhile() {
            let spin = self.patience().min(timeout);
            while shared.now().saturating_sub(begin) < spin {
                look(poll, events, Duration::ZERO)?;
                if !events.is_empty() {
                    self.waited(shared.now().saturating_sub(begin));
                    return Ok(());
                }
                // Whoever else could use this CPU may well be who makes the next frame.
                thread::yield_now();
            }
        }
        look(poll, events, timeout)?;
        self.waited(shared.now().saturating_sub(begin));
        Ok(())
    }
}

/// Asks for events; none when a signal comes first.
fn look(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_follows_the_traffic() {
        let limit = Duration::from_micros(50);
        let mut spinner = Spinner::new(limit);
        assert!(!spinner.is_worthwhile(), "not before anything came");
        spinner.waited(limit);
        assert!(spinner.is_worthwhile());
        for _ in 1..PATIENCE {
            spinner.waited(limit * 2);
            assert!(spinner.is_worthwhile(), "once is not always");
        }
        spinner.waited(limit * 2);
        assert!(!spinner.is_worthwhile());
        spinner.waited(limit / 2);
        assert!(spinner.is_worthwhile());
    }

    #[test]
    fn a_limit_of_zero_never_spins() {
        let mut spinner = Spinner::new(Duration::ZERO);
        spinner.waited(Duration::ZERO);
        assert!(!spinner.is_worthwhile());
    }
}
