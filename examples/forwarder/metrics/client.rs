//! One connection: a request is read, an answer written, and the connection closed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::request::{self, MAX_REQUEST, Parsed};

/// What is read in one piece.
const PIECE: usize = 2048;

/// Most that is read and thrown away behind a request, in bytes, so that what is under way does not reset the connection before the
/// client has read the answer.
const MAX_LEFTOVER: usize = 64 << 10;

/// An answer, whose body may be another client's, too.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: String,
    pub body: Arc<str>,
}

/// How far an exchange is.
enum State {
    Reading(Vec<u8>),
    Writing {
        answer: Answer,
        written: usize,
    },
    /// Until the client closes, too.
    Closing {
        thrown_away: usize,
    },
}

/// A client.
pub struct Client {
    pub stream: TcpStream,
    /// When it came.
    pub since: Instant,
    state: State,
}

/// Whether a client is still of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Waits,
    Done,
}

impl Client {
    pub fn new(stream: TcpStream, since: Instant) -> Self {
        Self { stream, since, state: State::Reading(Vec::new()) }
    }

    /// Whether it has asked for something, all of it.
    pub fn has_asked(&self) -> bool {
        matches!(self.state, State::Writing { .. })
    }

    /// Goes on as far as the connection lets it; `answer` is asked once.
    pub fn go_on(&mut self, answer: impl FnOnce(Parsed) -> Answer) -> Progress {
        let gone_on = self.read(answer).and_then(|()| self.write()).and_then(|()| self.close());
        match gone_on {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Waits,
            // The end, or a client that went before it.
            _ => Progress::Done,
        }
    }

    fn read(&mut self, answer: impl FnOnce(Parsed) -> Answer) -> io::Result<()> {
        let State::Reading(request) = &mut self.state else { return Ok(()) };
        let mut piece = [0; PIECE];
        let parsed = loop {
            let room = PIECE.min(MAX_REQUEST - request.len());
            match retried(|| self.stream.read(&mut piece[..room]))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => request.extend_from_slice(&piece[..length]),
            }
            match request::parse(request) {
                // There is room left, or it would have been refused.
                Parsed::Part => {}
                parsed => break parsed,
            }
        };
        self.state = State::Writing { answer: answer(parsed), written: 0 };
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let State::Writing { answer, written } = &mut self.state else { return Ok(()) };
        let (head, body) = (answer.head.as_bytes(), answer.body.as_bytes());
        while *written < head.len() + body.len() {
            let rest = match head.get(*written..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &body[*written - head.len()..],
            };
            match retried(|| self.stream.write(rest))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                length => *written += length,
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.state = State::Closing { thrown_away: 0 };
        Ok(())
    }

    /// Waits for the client to close, for closing with something unread would reset the connection, and the answer could be
    /// lost with it (RFC 9112 §9.6).
    fn close(&mut self) -> io::Result<()> {
        let State::Closing { thrown_away } = &mut self.state else { return Ok(()) };
        let mut piece = [0; PIECE];
        while *thrown_away < MAX_LEFTOVER {
            match retried(|| self.stream.read(&mut piece))? {
                0 => break,
                length => *thrown_away += length,
            }
        }
        Ok(())
    }
}

fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
