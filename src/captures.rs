//! Captures that are open: what their readers and the workers share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crossbeam::channel::{self, Receiver, Sender, TrySendError};

use crate::Error;
use crate::batch::MAX_FRAME;
use crate::capture::{CaptureFilter, Captured, Direction, Fate, FateFilter};
use crate::control::Control;
use crate::shared::{Shared, lock};

/// The most captures that are open at once.
pub const MAX_CAPTURES: usize = 16;

/// Default and largest number of captured frames that wait to be read.
pub const DEFAULT_CAPTURED: usize = 8192;
/// See [`DEFAULT_CAPTURED`].
pub const MAX_CAPTURED: usize = 1 << 20;

/// Default and largest number of bytes of captured frames that wait to be read.
pub const DEFAULT_CAPTURED_BYTES: usize = 16 << 20;
/// See [`DEFAULT_CAPTURED_BYTES`].
pub const MAX_CAPTURED_BYTES: usize = 1 << 30;

/// How much a capture keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureOptions {
    /// Bytes of each frame that are kept at most, 1 to [`MAX_FRAME`]; by default that, so that frames are whole.
    pub snap: usize,
    /// Frames that wait to be read at most, 1 to [`MAX_CAPTURED`]; by default [`DEFAULT_CAPTURED`].
    pub frames: usize,
    /// Bytes of frames that wait to be read at most, [`MAX_FRAME`] to [`MAX_CAPTURED_BYTES`]; by default
    /// [`DEFAULT_CAPTURED_BYTES`].
    pub bytes: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { snap: MAX_FRAME, frames: DEFAULT_CAPTURED, bytes: DEFAULT_CAPTURED_BYTES }
    }
}

impl CaptureOptions {
    fn check(&self) -> Result<(), Error> {
        let within =
            |what, value: usize, range: std::ops::RangeInclusive<usize>, allowed| match range
                .contains(&value)
            {
                true => Ok(()),
                false => Err(Error::invalid(what, value.to_string(), allowed)),
            };
        within("bytes of a captured frame", self.snap, 1..=MAX_FRAME, "1 to 65600")?;
        within("captured frames that wait", self.frames, 1..=MAX_CAPTURED, "1 to 1048576")?;
        let bytes = MAX_FRAME..=MAX_CAPTURED_BYTES;
        within("bytes of captured frames that wait", self.bytes, bytes, "65600 to 1073741824")
    }
}

/// A capture as the workers see it.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) filter: CaptureFilter,
    pub(crate) snap: usize,
    /// Bytes that may wait, and those that do.
    bytes: usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
    sender: Sender<Captured>,
}

impl Open {
    /// Whether it may want any frame that passes this way.
    pub(crate) fn wants(&self, direction: Direction) -> bool {
        match self.filter.fate {
            Some(FateFilter::Is(fate)) => fate.direction() == direction,
            Some(FateFilter::Dropped) | None => true,
        }
    }

    /// Whether it wants nothing of what went well.
    pub(crate) fn wants_drops_only(&self) -> bool {
        matches!(self.filter.fate, Some(FateFilter::Dropped | FateFilter::Is(Fate::Dropped(_))))
    }

    /// Reserves room for `bytes` bytes; without any the frame is lost.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let room = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes;
        if !room {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// Hands on a frame for whose bytes there is room; with too many waiting it is lost.
    pub(crate) fn push(&self, frame: Captured) {
        match self.sender.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Full(frame)) => {
                self.taken(&frame);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody reads any more, which the worker will hear of.
            Err(TrySendError::Disconnected(frame)) => self.taken(&frame),
        }
    }

    fn taken(&self, frame: &Captured) {
        self.waiting.fetch_sub(frame.bytes.len(), Ordering::Relaxed);
    }
}

/// The captures of a dataplane.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// Counts the changes of the list. All that a worker looks at while there is none.
    generation: AtomicU64,
    open: Mutex<Vec<Arc<Open>>>,
}

impl Captures {
    /// The number of the list as it is now. The list itself is behind a lock, so that an old number costs no more than
    /// being a moment late.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The list, with its number.
    pub(crate) fn list(&self) -> (u64, Vec<Arc<Open>>) {
        let open = lock(&self.open);
        (self.generation.load(Ordering::Relaxed), open.clone())
    }

    fn add(&self, capture: &Arc<Open>) -> Result<(), Error> {
        let mut open = lock(&self.open);
        if open.len() == MAX_CAPTURES {
            return Err(Error::Limit { what: "captures at once", limit: MAX_CAPTURES });
        }
        open.push(capture.clone());
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, capture: &Arc<Open>) {
        let mut open = lock(&self.open);
        open.retain(|other| !Arc::ptr_eq(other, capture));
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

/// An open capture: a queue of frames with their fates. Dropping it ends it.
///
/// Frames of one worker come batch by batch, each when it is finished: first what was received, then the copies that left.
#[derive(Debug)]
pub struct Capture {
    open: Arc<Open>,
    frames: Receiver<Captured>,
    epoch: Duration,
    shared: Arc<Shared>,
}

impl Capture {
    /// The next frame that waits; `None` if none does.
    #[must_use]
    pub fn try_next(&self) -> Option<Captured> {
        self.frames.try_recv().ok().inspect(|frame| self.open.taken(frame))
    }

    /// The next frame; `None` if there is none for as long as `timeout`.
    #[must_use]
    pub fn next_within(&self, timeout: Duration) -> Option<Captured> {
        self.frames.recv_timeout(timeout).ok().inspect(|frame| self.open.taken(frame))
    }

    /// Frames that were captured, but lost because too many waited to be read already. Traffic never waits for a capture.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.open.lost.load(Ordering::Relaxed)
    }

    /// What the wall clock showed, as time since 1970 (UTC), when [`Captured::time`] was zero, by the clock as it was when
    /// the capture was opened.
    #[must_use]
    pub fn epoch(&self) -> Duration {
        self.epoch
    }

    /// What is captured.
    #[must_use]
    pub fn filter(&self) -> &CaptureFilter {
        &self.open.filter
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.captures.remove(&self.open);
    }
}

impl Control {
    /// Captures the frames that a filter lets through, with what becomes of them, until the capture is dropped.
    ///
    /// A frame is captured when it is received and once more for each copy that leaves: a frame that is forwarded makes
    /// two. At a VTEP it is the frame inside the datagram. Workers follow before their next batch. Copies that were never
    /// made, since the batch had no room for them ([`DropReason::OutputFull`](crate::DropReason::OutputFull)) or one VTEP
    /// of a flood list could not take them, are counted and not captured.
    ///
    /// While no capture is open, forwarding pays one load of a number for each batch; for each open one it compares what
    /// its filter names, and copies what is let through.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an option out of range, [`Error::Limit`] if [`MAX_CAPTURES`] are open.
    pub fn capture(
        &self,
        filter: CaptureFilter,
        options: CaptureOptions,
    ) -> Result<Capture, Error> {
        options.check()?;
        let (sender, frames) = channel::bounded(options.frames);
        let open = Arc::new(Open {
            filter,
            snap: options.snap,
            bytes: options.bytes,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            sender,
        });
        let shared = self.shared().clone();
        #[allow(clippy::disallowed_methods, reason = "the anchor of captured times")]
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let epoch = wall.saturating_sub(shared.now());
        shared.captures.add(&open)?;
        Ok(Capture { open, frames, epoch, shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CapturePoint, Layer};

    fn open(filter: &str, frames: usize, bytes: usize) -> (Open, Receiver<Captured>) {
        let (sender, receiver) = channel::bounded(frames);
        let filter = filter.parse().unwrap();
        let (waiting, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        (Open { filter, snap: MAX_FRAME, bytes, waiting, lost, sender }, receiver)
    }

    fn frame(len: usize) -> Captured {
        Captured {
            time: Duration::ZERO,
            worker: 0,
            at: CapturePoint::Vtep([10, 9, 0, 1].into()),
            segment: None,
            vni: None,
            fate: Fate::Forwarded,
            layer: Layer::Datagram,
            len,
            bytes: vec![0; len].into(),
        }
    }

    #[test]
    fn what_exceeds_the_frames_or_the_bytes_is_lost_and_counted() {
        let (open, receiver) = open("", 2, 1000);
        let offer = |len| {
            if open.reserve(len) {
                open.push(frame(len));
            }
            open.lost.load(Ordering::Relaxed)
        };
        assert_eq!((offer(600), offer(500), offer(400)), (0, 1, 1));
        assert_eq!(offer(0), 2, "two wait already");
        open.taken(&receiver.try_recv().unwrap());
        assert_eq!((offer(601), offer(600)), (3, 3));
        assert_eq!(receiver.len(), 2);
        drop(receiver);
        assert_eq!(offer(0), 3, "nobody reads: nothing is lost");
    }

    #[test]
    fn captures_rule_out_what_cannot_have_their_fate() {
        for (text, received, sent, drops) in [
            ("", true, true, false),
            ("fate=dropped", true, true, true),
            ("fate=flooded", true, false, false),
            ("fate=sent", false, true, false),
            ("fate=no_route", true, false, true),
            ("fate=port_down", false, true, true),
        ] {
            let (open, _) = open(text, 1, MAX_FRAME);
            let wants = (open.wants(Direction::Received), open.wants(Direction::Sent));
            assert_eq!((wants, open.wants_drops_only()), ((received, sent), drops), "{text:?}");
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let check = |set: fn(&mut CaptureOptions)| {
            let mut options = CaptureOptions::default();
            set(&mut options);
            options.check().is_ok()
        };
        assert!(check(|_| ()) && check(|options| options.snap = 1));
        assert!(!check(|options| options.snap = 0));
        assert!(!check(|options| options.snap = MAX_FRAME + 1));
        assert!(!check(|options| options.frames = 0));
        assert!(!check(|options| options.bytes = MAX_FRAME - 1));
    }
}
