//! Traffic that runs until it is stopped, counted where it arrives: for measuring over a window.

mod tcp;
mod udp;

use std::io;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use tcp::TcpLoad;
pub use udp::{UdpLoad, UdpSender};

/// How long a socket operation blocks before the thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(20);

/// The threads of a load; they end with it, however that goes.
#[derive(Debug, Default)]
struct Threads {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    handles: Vec<JoinHandle<io::Result<()>>>,
}

impl Threads {
    fn spawn(&mut self, work: impl FnOnce(Shared) -> io::Result<()> + Send + 'static) {
        let shared = Shared { stop: Arc::clone(&self.stop), arrived: Arc::clone(&self.arrived) };
        self.handles.push(thread::spawn(move || work(shared)));
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends the threads and returns the first error that one of them met.
    fn stop(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = self
            .handles
            .drain(..)
            .map(|handle| handle.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
            .collect();
        ended.into_iter().collect()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a thread of a load shares with the load.
struct Shared {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn arrived(&self, count: u64) {
        self.arrived.fetch_add(count, Ordering::Relaxed);
    }
}

/// Whether an error means no more than that it is time to look whether to stop.
fn again(e: &io::Error) -> bool {
    crate::error::timed_out(e) || e.kind() == io::ErrorKind::Interrupted
}
