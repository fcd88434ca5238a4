//! One client: requests in, answers out, a line each.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use overplane::{CaptureFilter, CaptureOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Forwarding;
use super::events::Listeners;
use super::names::Text;
use super::refusal::Refusal;
use super::verb::Verb;
use super::{MAX_REQUEST, VERSION};
use crate::capture;

/// How long a client may keep the socket without asking anything.
const IDLE: Duration = Duration::from_secs(60);

/// How long a client may leave what it is sent unread.
const UNREAD: Duration = Duration::from_secs(5);

/// How long an answer may take in all; a slow reader would keep the tables of its beginning in memory meanwhile.
const ANSWER: Duration = Duration::from_secs(60);

/// Between two looks at whether whoever follows events is still there.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[expect(dead_code, reason = "looked at before the rest is read")]
    version: u32,
    verb: Verb,
}

/// A client.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    forwarding: Forwarding,
    listeners: Listeners,
}

/// Says why a client is not listened to. Who does not read it need not.
pub fn refuse(stream: &UnixStream, why: &str) {
    let _ = stream.set_nonblocking(true);
    let mut stream = stream;
    let _ = writeln!(stream, "{}", Refusal::unavailable(why).to_json());
}

impl Session {
    pub fn new(stream: UnixStream, forwarding: Forwarding, listeners: Listeners) -> Self {
        Self { stream, forwarding, listeners }
    }

    /// Answers requests until the client leaves, or is given up.
    pub fn run(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(IDLE))?;
        self.stream.set_write_timeout(Some(UNREAD))?;
        let mut requests = BufReader::new(self.stream.try_clone()?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut requests).take(MAX_REQUEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if !line.ends_with(b"\n") && line.len() as u64 == MAX_REQUEST {
                let why = format_args!("a request has {MAX_REQUEST} bytes at most");
                // What follows is the rest of it: there is nothing to go on with.
                return self.send(&Refusal::invalid(why).to_json());
            }
            match request(&line) {
                Ok(Verb::Monitor {}) => return self.follow(),
                Ok(Verb::Capture { filter: Text(filter), snap, .. }) => {
                    return self.capture(filter, snap);
                }
                Ok(verb) => self.answer(verb)?,
                Err(refusal) => self.send(&refusal.to_json())?,
            }
        }
    }

    /// Carries a verb out: entries, a line each, and a line that ends them.
    fn answer(&self, verb: Verb) -> io::Result<()> {
        let mut out = BufWriter::new(&self.stream);
        let (mut failed, end) = (None, Instant::now() + ANSWER);
        let answered = self.forwarding.answer(verb, &mut |entry| {
            let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
            let sent = writeln!(out, "{}", json!({ "entry": entry }));
            match sent.and_then(|()| if Instant::now() > end { late() } else { Ok(()) }) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        match (failed, answered) {
            (Some(error), _) => return Err(error),
            (None, Ok(())) => writeln!(out, "{}", json!({ "done": true }))?,
            (None, Err(refusal)) => writeln!(out, "{}", refusal.to_json())?,
        }
        out.flush()
    }

    /// Sends events until the client leaves.
    fn follow(&self) -> io::Result<()> {
        let following = self.listeners.listen();
        loop {
            match following.events.recv_timeout(PAUSE) {
                Ok(event) => self.send(&json!({ "entry": event }))?,
                Err(RecvTimeoutError::Timeout) if self.is_gone()? => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Sends what is captured, after a line that says so, until the client has closed its end; then what waits still.
    fn capture(&self, filter: CaptureFilter, snap: Option<usize>) -> io::Result<()> {
        let mut options = CaptureOptions::default();
        options.snap = snap.unwrap_or(options.snap);
        let capture = match self.forwarding.control.capture(filter, options) {
            Ok(capture) => capture,
            Err(error) => return self.send(&Refusal::from(error).to_json()),
        };
        self.send(&json!({ "stream": "pcapng" }))?;
        let next_look = Cell::new(Instant::now());
        let ended = || {
            let now = Instant::now();
            // A call for each frame would cost more than the frame.
            now >= next_look.get() && {
                next_look.set(now + PAUSE);
                self.is_gone().unwrap_or(true)
            }
        };
        capture::write(&capture, &self.stream, &ended).failure.map_or(Ok(()), Err)
    }

    /// Whether the client has closed its end; it has nothing more to say while it is sent events or frames.
    fn is_gone(&self) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let read = (&self.stream).read(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match read {
            Ok(n) => Ok(n == 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&self, line: &Value) -> io::Result<()> {
        writeln!(&self.stream, "{line}")
    }
}

fn request(line: &[u8]) -> Result<Verb, Refusal> {
    let value: Value = serde_json::from_slice(line).map_err(Refusal::invalid)?;
    if !value.is_object() {
        return Err(Refusal::invalid("a request is an object with a version and a verb"));
    }
    // Before the rest, which another version may say in other words.
    if let Some(version) = value.get("version")
        && *version != VERSION
    {
        return Err(Refusal::invalid(format_args!("version {version}: this is version {VERSION}")));
    }
    let Request { verb, .. } = serde_json::from_value(value).map_err(Refusal::invalid)?;
    Ok(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let read = |text: &str| request(text.as_bytes());
        for fine in [
            r#"{"version":1,"verb":{"show":{}}}"#,
            r#"{"version":1,"verb":{"fdb":{"show":{}}}}"#,
            r#"{"version":1,"verb":{"fdb":{"add":{"mac":"02:00:00:00:00:01","vtep":"10.9.0.2"}}}}"#,
            r#"{"version":1,"verb":{"offload":{"set":{"offloads":"off"}}}}"#,
        ] {
            assert!(read(fine).is_ok(), "{fine}: {:?}", read(fine));
        }
        for (wrong, why) in [
            ("", "EOF"),
            ("[]", "a request is an object"),
            (r#"{"verb":{"show":{}}}"#, "missing field `version`"),
            (r#"{"version":2,"tasks":[]}"#, "version 2: this is version 1"),
            (r#"{"version":1,"verb":{"fly":{}}}"#, "unknown variant `fly`"),
            (r#"{"version":1,"verb":{"show":{"all":true}}}"#, "unknown field `all`"),
            (r#"{"version":1,"verb":{"fdb":{"add":{"mac":"x"}}}}"#, "\"x\": "),
            (r#"{"version":1,"verb":{"show":{}},"also":1}"#, "unknown field `also`"),
        ] {
            let said =
                read(wrong).map(|_| ()).unwrap_err().to_json()["error"]["message"].to_string();
            let said = said.replace("\\\"", "\"");
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
