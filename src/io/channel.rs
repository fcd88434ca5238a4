//! A device inside the process: the embedder is on its other side.
//!
//! # How a worker is woken
//!
//! The worker sleeps on an event counter. A sender puts its frame into the channel, then swaps `notified` to `true`,
//! and only if it was `false` writes to the counter. A worker that finds the channel empty swaps `notified` to
//! `false` and then looks once more. No frame is left behind, because the swaps of one flag have one order:
//!
//! * If the sender's swap is before the worker's, the worker's swap reads from it (or from a later one that does),
//!   so that the frame is there when the worker looks once more.
//! * If it is after, either it finds `false` and writes, or another sender's swap was in between, found `false` and
//!   writes. Either way the counter becomes readable after the worker began to look, and it will look again, with
//!   its next swap behind both.
//!
//! The counter is never read: with edge-triggered polling every write is an event.

use std::error;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender, TryRecvError, TrySendError};

use super::Received;
use super::sys;
use crate::batch::{Batch, MAX_FRAME};
use crate::metadata::Metadata;
use crate::wire::VnetHeader;

#[derive(Debug)]
struct Wake {
    counter: File,
    notified: AtomicBool,
}

impl Wake {
    fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then it is readable.
        let _ = (&self.counter).write(&1_u64.to_ne_bytes());
    }

    /// To be followed by one more look at what there is.
    fn rearm(&self) {
        self.notified.swap(false, Ordering::AcqRel);
    }
}

/// Why a frame could not be put into a channel; gives the frame back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelError {
    /// As many frames are waiting as the channel holds.
    Full(Bytes),
    /// The frame is larger than [`MAX_FRAME`].
    TooLarge(Bytes),
    /// The device was detached, or its dataplane has stopped.
    Closed(Bytes),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full",
            Self::TooLarge(_) => "the frame is larger than a batch slot",
            Self::Closed(_) => "the device is detached",
        })
    }
}

impl error::Error for ChannelError {}

/// The embedder's side of a channel device; clones are the same side, usable from all threads.
///
/// Frames are copied once between [`Bytes`] and the worker's batch, in both directions. The device counts as lost
/// when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct ChannelPort(Arc<Embedder>);

/// A frame with what is known of it beside its bytes.
type Described = (Bytes, Metadata);

#[derive(Debug)]
struct Embedder {
    // An `Option` so that it can be dropped before the worker is woken.
    to_worker: Option<Sender<Described>>,
    from_worker: Receiver<Described>,
    wake: Arc<Wake>,
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.to_worker = None;
        self.wake.notify();
    }
}

impl ChannelPort {
    /// Gives the dataplane a frame, as a host behind the device would; does not wait.
    ///
    /// The frame is an Ethernet frame without frame check sequence for
    /// [`DeviceKind::Tap`](crate::DeviceKind::Tap) and an IP packet for [`DeviceKind::Tun`](crate::DeviceKind::Tun),
    /// with all checksums complete.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], with the frame.
    pub fn send(&self, frame: Bytes) -> Result<(), ChannelError> {
        self.send_with(frame, Metadata::default())
    }

    /// The same, and says how the frame is to leave, where the segment leaves that to the frame.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], with the frame.
    pub fn send_with(&self, frame: Bytes, metadata: Metadata) -> Result<(), ChannelError> {
        if frame.len() > MAX_FRAME {
            return Err(ChannelError::TooLarge(frame));
        }
        let Some(to_worker) = &self.0.to_worker else { return Err(ChannelError::Closed(frame)) };
        match to_worker.try_send((frame, metadata)) {
            Ok(()) => {
                self.0.wake.notify();
                Ok(())
            }
            Err(TrySendError::Full((frame, _))) => Err(ChannelError::Full(frame)),
            Err(TrySendError::Disconnected((frame, _))) => Err(ChannelError::Closed(frame)),
        }
    }

    /// The next frame that the dataplane delivered, or `None` if there is none now.
    #[must_use]
    pub fn try_receive(&self) -> Option<Bytes> {
        self.try_receive_with().map(|(frame, _)| frame)
    }

    /// The same, with what the outer header said of the frame.
    #[must_use]
    pub fn try_receive_with(&self) -> Option<(Bytes, Metadata)> {
        self.0.from_worker.try_recv().ok()
    }

    /// The next frame that the dataplane delivered, or `None` if there is none within `timeout`.
    ///
    /// Returns at once when the device was detached and nothing is left.
    #[must_use]
    pub fn receive_timeout(&self, timeout: Duration) -> Option<Bytes> {
        self.receive_timeout_with(timeout).map(|(frame, _)| frame)
    }

    /// The same, with what the outer header said of the frame.
    #[must_use]
    pub fn receive_timeout_with(&self, timeout: Duration) -> Option<(Bytes, Metadata)> {
        self.0.from_worker.recv_timeout(timeout).ok()
    }
}

/// The dataplane's side of a channel device.
#[derive(Debug)]
pub(super) struct Channel {
    to_embedder: Sender<Described>,
    from_embedder: Receiver<Described>,
    wake: Arc<Wake>,
}

impl Channel {
    /// Both sides of a channel that holds up to `capacity` frames in each direction.
    pub(super) fn new(capacity: usize) -> io::Result<(Self, ChannelPort)> {
        let wake = Wake { counter: sys::event_counter()?, notified: AtomicBool::new(false) };
        let wake = Arc::new(wake);
        let (to_worker, from_embedder) = channel::bounded(capacity);
        let (to_embedder, from_worker) = channel::bounded(capacity);
        let embedder = Embedder { to_worker: Some(to_worker), from_worker, wake: wake.clone() };
        Ok((Self { to_embedder, from_embedder, wake }, ChannelPort(Arc::new(embedder))))
    }

    /// One end for each of `workers`, of which the first reads.
    pub(super) fn into_queues(self, workers: usize) -> Vec<ChannelQueue> {
        let mut source = Some(self.from_embedder);
        let queue = |_| ChannelQueue {
            to_embedder: self.to_embedder.clone(),
            from_embedder: source.take(),
            wake: self.wake.clone(),
        };
        (0..workers).map(queue).collect()
    }
}

/// The end of a channel device that one worker holds.
#[derive(Debug)]
pub(crate) struct ChannelQueue {
    to_embedder: Sender<Described>,
    from_embedder: Option<Receiver<Described>>,
    wake: Arc<Wake>,
}

impl ChannelQueue {
    pub(super) fn receive(&mut self, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        let Some(source) = &self.from_embedder else {
            received.drained = true;
            return received;
        };
        let mut rearmed = false;
        while batch.free() > 0 {
            match source.try_recv() {
                // `send` lets no frame pass that does not fit.
                Ok((frame, metadata)) => {
                    if batch.push(&frame, VnetHeader::default()) && metadata != Metadata::default()
                    {
                        batch.set_metadata(batch.len() - 1, metadata);
                    }
                }
                Err(TryRecvError::Empty) if !rearmed => {
                    self.wake.rearm();
                    rearmed = true;
                }
                Err(TryRecvError::Empty) => {
                    received.drained = true;
                    break;
                }
                Err(TryRecvError::Disconnected) => {
                    received.drained = true;
                    received.failure = Some(io::Error::from_raw_os_error(libc::EPIPE));
                    break;
                }
            }
        }
        received
    }

    pub(super) fn deliver<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        metadata: Metadata,
    ) -> io::Result<usize> {
        if self.to_embedder.is_full() {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let mut frame = Vec::with_capacity(parts.clone().map(<[u8]>::len).sum());
        parts.for_each(|part| frame.extend_from_slice(part));
        let len = frame.len();
        self.to_embedder.try_send((frame.into(), metadata)).map(|()| len).map_err(|error| {
            match error {
                TrySendError::Full(_) => io::Error::from_raw_os_error(libc::EAGAIN),
                TrySendError::Disconnected(_) => io::Error::from_raw_os_error(libc::EPIPE),
            }
        })
    }

    pub(super) fn reads(&self) -> bool {
        self.from_embedder.is_some()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.counter.as_fd()
    }
}
