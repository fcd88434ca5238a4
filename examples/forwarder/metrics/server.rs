//! The thread that serves clients: all of them, and none for long.
//!
//! mio, which the library waits with, too: the small HTTP servers there are take a thread for each connection and wait for
//! slow clients without end. Of HTTP there is one request and one answer for each connection.

use std::io;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use super::client::{Answer, Client, Progress};
use super::request::Parsed;

/// Clients that are served at the same time; others wait in the listener's queue.
pub const MAX_CLIENTS: usize = 128;

/// How long a client may take for all.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client is served undisturbed while others wait for its place.
const GRACE: Duration = Duration::from_millis(100);

/// When a connection is tried to be accepted again that could not be, for want of descriptors, say.
const AGAIN: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(MAX_CLIENTS);
/// Whose event ends the thread.
pub const END: Token = Token(MAX_CLIENTS + 1);

/// A listener with its clients.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    /// Whether connections may wait to be accepted.
    arrivals: bool,
    /// Until when accepting is not tried.
    pause: Option<Instant>,
}

impl Server {
    pub fn new(poll: Poll, mut listener: TcpListener) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let clients = (0..MAX_CLIENTS).map(|_| None).collect();
        Ok(Self { poll, listener, clients, arrivals: true, pause: None })
    }

    /// Serves until there is an event of [`END`].
    pub fn run(mut self, mut answer: impl FnMut(Parsed) -> Answer) -> io::Result<()> {
        let mut events = Events::with_capacity(MAX_CLIENTS);
        loop {
            let now = Instant::now();
            self.part_with_the_slow(now);
            self.accept(now);
            match self.poll.poll(&mut events, self.timeout(now)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    END => return Ok(()),
                    LISTENER => self.arrivals = true,
                    Token(place) => self.serve(place, &mut answer),
                }
            }
        }
    }

    fn serve(&mut self, place: usize, answer: impl FnOnce(Parsed) -> Answer) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        if let Some(client) = slot
            && client.go_on(answer) == Progress::Done
        {
            // Closed, and with that forgotten by the poll.
            *slot = None;
        }
    }

    /// Closes connections that took too long, and those that took long if somebody waits for a place.
    fn part_with_the_slow(&mut self, now: Instant) {
        let age = |client: &Client| now.saturating_duration_since(client.since);
        for slot in &mut self.clients {
            if slot.as_ref().is_some_and(|client| age(client) >= PATIENCE) {
                *slot = None;
            }
        }
        if !self.arrivals || self.clients.iter().any(Option::is_none) {
            return;
        }
        // Those that have not asked for anything go first, all whose grace is over.
        for asked in [false, true] {
            let mut room = false;
            for slot in &mut self.clients {
                let goes = |client: &Client| client.has_asked() == asked && age(client) >= GRACE;
                if slot.as_ref().is_some_and(goes) {
                    *slot = None;
                    room = true;
                }
            }
            if room {
                return;
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        if self.pause.is_some_and(|until| now < until) {
            return;
        }
        self.pause = None;
        while self.arrivals {
            let Some(place) = self.clients.iter().position(Option::is_none) else { return };
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    // Without it the connection would wait in vain, and is closed.
                    if self.poll.registry().register(&mut stream, Token(place), both).is_ok() {
                        self.clients[place] = Some(Client::new(stream, now));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.arrivals = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Of the connection (it is gone already) or of this process (no descriptors).
                Err(_) => {
                    self.pause = Some(now + AGAIN);
                    return;
                }
            }
        }
    }

    /// Time until something is due.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let full = self.clients.iter().all(Option::is_some);
        let patience = if self.arrivals && full { GRACE } else { PATIENCE };
        let oldest = self.clients.iter().flatten().map(|client| client.since + patience);
        let due = oldest.chain(self.pause).min()?;
        // A timeout is rounded down to milliseconds.
        Some(due.saturating_duration_since(now) + Duration::from_millis(1))
    }
}
