//! Captured frames of a running forwarder, into a file or a pipe.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Asked;
use crate::control::Verb;
use crate::failure::Failure;
use crate::foreground;

/// Asks for a capture and copies it to where it goes, until a signal comes, or the time is over.
pub fn run(
    asked: &mut Asked,
    verb: &Verb,
    file: &Path,
    seconds: Option<u32>,
) -> Result<(), Failure> {
    let name = if file == Path::new("-") {
        "the standard output".into()
    } else {
        file.display().to_string()
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Pipe,
        _ => Failure::run(format_args!("writing the capture to {name}: {error}")),
    };
    let mut out: Box<dyn Write> = if file == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "capture: -w FILE, or a pipe to read it: it is no text".into(),
            ));
        }
        Box::new(io::stdout())
    } else {
        // Those who may read it see the traffic.
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        Box::new(options.open(file).map_err(failed)?)
    };
    let signals = foreground::signals(&[SIGINT, SIGTERM])?;
    asked.ask(verb, &mut |_| Ok(()))?;
    let stream = asked.stream.try_clone()?;
    let time = seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into()));
    std::thread::spawn(move || {
        let _ = signals.recv_timeout(time);
        // The forwarder sends what waits still, and the end.
        let _ = stream.shutdown(Shutdown::Write);
    });
    asked.stream.set_read_timeout(None)?;
    io::copy(&mut asked.lines, &mut out).and_then(|_| out.flush()).map_err(failed)
}
