//! Asking a running forwarder over its control socket.

mod capture;
mod page;
mod text;

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::{DEFAULT_SOCKET, VERSION, Verb};
use crate::failure::Failure;

/// Where to look when the command line does not say.
const SOCKET_VARIABLE: &str = "OVERPLANE_CONTROL";

/// How long a forwarder may take to the next line of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// After so long without a question the forwarder may have let go; it does after a minute.
const LONG_AGO: Duration = Duration::from_secs(30);

/// A connection to a running forwarder.
struct Asked {
    path: PathBuf,
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    last: Instant,
}

impl Asked {
    fn connect(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => "only root and the forwarder's user may ask",
                _ => "is a forwarder running with this control socket? --control names another",
            };
            Failure::Unreachable(format!(
                "asking the forwarder at {}: {error}; {advice}",
                path.display()
            ))
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        let lines = BufReader::new(stream.try_clone()?);
        Ok(Self { path: path.to_owned(), stream, lines, last: Instant::now() })
    }

    /// Asks, and hands over the entries of the answer as they come.
    fn ask(
        &mut self,
        verb: &Verb,
        each: &mut dyn FnMut(Value) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.last.elapsed() > LONG_AGO {
            *self = Self::connect(&self.path)?;
        }
        self.last = Instant::now();
        let follows = matches!(verb, Verb::Monitor {});
        self.stream.set_read_timeout((!follows).then_some(PATIENCE))?;
        let ended = |error| Failure::Unreachable(format!("the forwarder ended: {error}"));
        writeln!(self.stream, "{}", json!({ "version": VERSION, "verb": verb })).map_err(ended)?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).map_err(ended)? == 0 {
                return Err(Failure::Unreachable("the forwarder ended".into()));
            }
            let mut answer: Value = serde_json::from_str(&line).map_err(Failure::run)?;
            if let Some(entry) = answer.get_mut("entry") {
                each(entry.take())?;
            } else if let Some(error) = answer.get("error") {
                let message = error["message"].as_str().unwrap_or_default().to_owned();
                return Err(match error["kind"].as_str() {
                    Some("invalid") => Failure::Usage(message),
                    Some("refused") => Failure::Refused(message),
                    Some("not_found") => Failure::NotFound(message),
                    Some("unavailable") => Failure::Unreachable(message),
                    _ => Failure::Run(message),
                });
            } else {
                return Ok(());
            }
        }
    }
}

/// Asks the forwarder at a path, and prints what it says.
pub fn run(verb: Verb, path: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let variable = std::env::var_os(SOCKET_VARIABLE);
    let path = path.or(variable.as_deref().map(Path::new)).unwrap_or(Path::new(DEFAULT_SOCKET));
    let mut asked = Asked::connect(path)?;
    if let Verb::Capture { write, seconds, .. } = &verb {
        return match capture::run(&mut asked, &verb, write, *seconds) {
            // Whoever reads has seen enough.
            Err(Failure::Pipe) => Ok(()),
            other => other,
        };
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = match as_json {
        true => print_json(&mut asked, &verb, &mut out),
        false => text::print(&mut asked, &verb, &mut out),
    };
    // Whoever reads may have seen enough.
    match printed.and_then(|()| Ok(out.flush()?)) {
        Err(Failure::Pipe) => Ok(()),
        other => other,
    }
}

/// Calls `once`, and again each `watch` seconds if that is asked for.
fn repeat(
    watch: Option<u32>,
    mut once: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        once()?;
        let Some(seconds) = watch else { return Ok(()) };
        thread::sleep(Duration::from_secs(seconds.into()));
    }
}

/// One document for what is one, a line for each event and each time of what goes on, and an array for the rest.
fn print_json(asked: &mut Asked, verb: &Verb, out: &mut impl Write) -> Result<(), Failure> {
    match verb {
        Verb::Show {} | Verb::Monitor {} => asked.ask(verb, &mut |entry| {
            writeln!(out, "{entry}")?;
            out.flush()
        }),
        Verb::Stats { watch } => repeat(*watch, || {
            asked.ask(verb, &mut |entry| {
                writeln!(out, "{entry}")?;
                out.flush()
            })
        }),
        _ => {
            let mut before = "[";
            asked.ask(verb, &mut |entry| {
                write!(out, "{before}{entry}")?;
                before = ",\n";
                Ok(())
            })?;
            Ok(writeln!(out, "{}]", if before == "[" { "[" } else { "" })?)
        }
    }
}
