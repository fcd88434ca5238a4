//! Captures into files, at nobody else's expense.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use overplane::pcapng::Writer;
use overplane::{Capture, CaptureFilter, CaptureOptions, Control};
use tracing::{error, info};

use crate::failure::Failure;

/// After so long without a frame, what there is goes to the file.
const IDLE: Duration = Duration::from_millis(100);

/// Bytes that are written at once while frames keep coming.
const BLOCK: usize = 256 << 10;

/// What is captured, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// Overwritten; those who may read it see the traffic.
    pub file: PathBuf,
    pub filter: CaptureFilter,
    pub options: CaptureOptions,
}

/// How a capture ended.
#[derive(Debug)]
pub struct Written {
    /// Frames that were written, and those that were lost before that.
    pub frames: u64,
    pub lost: u64,
    /// Why no more could be.
    pub failure: Option<io::Error>,
}

/// Writes what is captured as pcapng until there is to be no more, and then what waits still, or until that fails.
pub fn write(capture: &Capture, out: impl Write, ended: &dyn Fn() -> bool) -> Written {
    let mut frames = 0;
    let failure = write_all(capture, out, ended, &mut frames).err();
    Written { frames, lost: capture.lost(), failure }
}

fn write_all(
    capture: &Capture,
    out: impl Write,
    ended: &dyn Fn() -> bool,
    frames: &mut u64,
) -> io::Result<()> {
    let program = concat!("overplane forwarder ", env!("CARGO_PKG_VERSION"));
    let out = BufWriter::with_capacity(BLOCK, out);
    let mut writer = Writer::new(out, capture.epoch(), program)?;
    // Whoever opens the file meanwhile sees that it is one.
    writer.flush()?;
    loop {
        // Before looking, so that nothing comes after a look that finds nothing.
        let last = ended();
        match capture.next_within(if last { Duration::ZERO } else { IDLE }) {
            Some(frame) => {
                writer.write(&frame, capture.lost())?;
                *frames += 1;
            }
            None if last => break,
            None => writer.flush()?,
        }
    }
    writer.finish(capture.lost())?.into_inner().map(drop).map_err(|error| error.into_error())
}

/// A capture whose file is there, and whose frames wait.
#[derive(Debug)]
pub struct Opened {
    name: String,
    capture: Capture,
    file: File,
}

impl Opened {
    /// Makes the file and begins to capture. Nothing is written before [`Opened::start`].
    pub fn open(control: &Control, plan: CapturePlan) -> Result<Self, Failure> {
        let name = plan.file.display().to_string();
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&plan.file);
        let failed = |error| Failure::run(format_args!("capturing into {name}: {error}"));
        let file = file.map_err(failed)?;
        let capture = control.capture(plan.filter, plan.options)?;
        Ok(Self { name, capture, file })
    }

    /// Begins to write, on a thread with the privileges that the calling one has now.
    pub fn start(self) -> Result<Recording, Failure> {
        let Self { name, capture, file } = self;
        info!("capturing into {name}{}", Filtered(capture.filter()));
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = ended.clone();
        let write = move || {
            let written = write(&capture, file, &|| is_over.load(Ordering::Acquire));
            // At once, so that nothing is captured for nobody.
            drop(capture);
            report(&name, &written);
        };
        let thread = thread::Builder::new().name("capture".into()).spawn(write)?;
        Ok(Recording { ended, thread: Some(thread) })
    }
}

/// A capture that is being written. Dropping it ends it, when all that was captured until then is written.
#[derive(Debug)]
pub struct Recording {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // What there was to say of it has been said.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn report(name: &str, Written { frames, lost, failure }: &Written) {
    match failure {
        None => info!("captured {frames} frames into {name}; {lost} lost"),
        Some(error) => error!(
            "capturing into {name}: {error}; the capture ends here, after {frames} frames, and forwarding goes on"
        ),
    }
}

/// A filter, in front of which something was said.
struct Filtered<'a>(&'a CaptureFilter);

impl fmt::Display for Filtered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == CaptureFilter::default() {
            f.write_str(": every frame")
        } else {
            write!(f, ": {}", self.0)
        }
    }
}
