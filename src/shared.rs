//! What the control handles and the workers of one dataplane share.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use mio::Waker;

use crate::captures::Captures;
use crate::config::Config;
use crate::event::Event;
use crate::io::{PortQueue, UdpSocket};
use crate::offload::Offload;
use crate::output::Echo;
use crate::prober::Prober;
use crate::segment::PortId;
use crate::snapshot::Publisher;
use crate::switches::Switches;
use crate::tables::Tables;

/// Answers to probes that wait to be heard.
const MAX_ECHOES: usize = 1024;

/// Devices and sockets on their way to a worker. They wait until the worker's snapshot names them.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) queues: Vec<(PortId, PortQueue)>,
    pub(crate) sockets: Vec<(u16, Arc<UdpSocket>)>,
}

/// One worker as the others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) waker: Waker,
    /// Datagrams the kernel dropped at this worker's sockets.
    pub(crate) overflows: AtomicU64,
    /// When it was heard of last, in milliseconds of the dataplane's clock.
    heard: AtomicU64,
}

/// A UDP port that segments receive on.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// The socket of each worker. The workers hold them; here they can be found again when the port is
    /// given up and taken up anew before a worker has noticed.
    pub(crate) sockets: Vec<Weak<UdpSocket>>,
    /// Buffer sizes that the kernel granted, in bytes.
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
}

/// What only control calls touch; its lock also serialises them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) listeners: HashMap<u16, Listener>,
}

/// The common state of one dataplane.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Network namespace of the underlay sockets; `None` where `/proc` is not mounted.
    pub(crate) namespace: Option<OwnedFd>,
    /// The most datagrams that the kernel takes as one train.
    pub(crate) max_train: usize,
    origin: Instant,
    pub(crate) tables: Arc<Publisher<Tables>>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) switches: Switches,
    pub(crate) captures: Captures,
    /// What one worker probes paths by, and the answers that all of them hear.
    pub(crate) prober: Mutex<Prober>,
    pub(crate) echoes: ArrayQueue<(Duration, Echo)>,
    /// Ports whose devices are gone.
    pub(crate) lost: Mutex<HashSet<PortId>>,
    /// The version of the tables that each worker has brought its devices and sockets in step with.
    seen: Mutex<Vec<u64>>,
    caught_up: Condvar,
    /// Whether the workers run on threads of the dataplane's own.
    pub(crate) threaded: AtomicBool,
    stop: AtomicBool,
    events: ArrayQueue<Event>,
    events_lost: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Locks a mutex whose value no panic can leave half-changed: each is changed by whole assignments or pushes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same if nobody else has it.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        namespace: Option<OwnedFd>,
        tables: Tables,
        wakers: Vec<Waker>,
        max_train: usize,
        prober: Prober,
    ) -> Self {
        let seat = |waker| Seat {
            inbox: Mutex::default(),
            waker,
            overflows: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        };
        #[allow(clippy::disallowed_methods, reason = "the origin of the dataplane's clock")]
        let origin = Instant::now();
        Self {
            namespace,
            max_train,
            origin,
            tables: Arc::new(Publisher::new(tables)),
            registry: Mutex::default(),
            seats: wakers.into_iter().map(seat).collect(),
            switches: Switches::new(config.offloads),
            captures: Captures::default(),
            prober: Mutex::new(prober),
            echoes: ArrayQueue::new(MAX_ECHOES),
            lost: Mutex::default(),
            seen: Mutex::new(vec![0; config.workers]),
            caught_up: Condvar::new(),
            threaded: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            events: ArrayQueue::new(config.events),
            events_lost: AtomicU64::new(0),
            config,
        }
    }

    /// The dataplane's clock: time since it was built.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Makes every worker look at the tables, its inbox and the stop flag.
    pub(crate) fn wake(&self) {
        for seat in &self.seats {
            // Writing to an eventfd fails only when its counter is at the maximum, and then a wake-up is pending.
            let _ = seat.waker.wake();
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Under the lock, so that nobody who has just looked goes to sleep after this.
        let seen = lock(&self.seen);
        self.caught_up.notify_all();
        drop(seen);
        self.wake();
    }

    /// A worker is in step with a version of the tables.
    pub(crate) fn in_step(&self, worker: usize, version: u64) {
        lock(&self.seen)[worker] = version;
        self.caught_up.notify_all();
    }

    /// Waits until all workers are in step with a version of the tables, at most `timeout`, and says whether they are.
    /// A dataplane that is stopped has no workers to wait for.
    pub(crate) fn wait_for(&self, version: u64, timeout: Duration) -> bool {
        let behind =
            |seen: &mut Vec<u64>| !self.stopping() && seen.iter().any(|seen| *seen < version);
        let waited = self.caught_up.wait_timeout_while(lock(&self.seen), timeout, behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// A worker lets itself be heard of.
    pub(crate) fn hear(&self, worker: usize, now: Duration) {
        self.seats[worker].heard.store(now.as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since each worker was heard of.
    pub(crate) fn silence(&self) -> impl Iterator<Item = Duration> {
        let now = self.now();
        let heard = |seat: &Seat| Duration::from_millis(seat.heard.load(Ordering::Relaxed));
        self.seats.iter().map(move |seat| now.saturating_sub(heard(seat)))
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn event(&self, event: Event) {
        #[cfg(feature = "log")]
        match &event {
            Event::Trouble { .. }
            | Event::Storm { .. }
            | Event::Damped { .. }
            | Event::BlackHole { .. }
            | Event::DeviceLost { .. }
            | Event::SmallBuffer { .. }
            | Event::OffloadFailed { .. } => log::warn!("{event}"),
            _ => log::debug!("{event}"),
        }
        if self.events.push(event).is_err() {
            self.events_lost(1);
        }
    }

    /// Hands on an event if there is one.
    pub(crate) fn report(&self, news: Option<Event>) {
        if let Some(event) = news {
            self.event(event);
        }
    }

    /// Reports that a device is gone, once, however many workers find out.
    pub(crate) fn device_lost(&self, port: PortId, name: &str) {
        if lock(&self.lost).insert(port) {
            self.event(Event::DeviceLost { port, name: name.to_owned() });
        }
    }

    /// Takes an offload that failed out of use, and reports so once, however many workers find out.
    pub(crate) fn offload_failed(&self, offload: Offload, error: &std::io::Error) {
        let error = error.to_string();
        if self.switches.fail(offload, &error) {
            self.event(Event::OffloadFailed { offload, error });
        }
    }

    pub(crate) fn events_lost(&self, events: u64) {
        self.events_lost.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn next_event(&self) -> Option<Event> {
        self.events.pop()
    }

    pub(crate) fn lost_events(&self) -> u64 {
        self.events_lost.load(Ordering::Relaxed)
    }
}
