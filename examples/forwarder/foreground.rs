//! Forwarding until a signal says to stop.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use overplane_lab::Namespace;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use crate::events;
use crate::failure::Failure;
use crate::overlay::Overlay;
use crate::plan::Plan;

/// How often events are logged.
const TURN: Duration = Duration::from_secs(1);

/// Runs a plan in the foreground and prints its counters at the end.
pub fn run(plan: Plan) -> Result<(), Failure> {
    // Before anything is made, so that a signal never leaves it half made.
    let stop = signals()?;
    let overlay = Overlay::start(&Namespace::current()?, plan)?;
    info!("forwarding");
    events::log(overlay.control());
    // A worker that ended by itself has failed; stopping says how.
    while stop.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) && overlay.is_running() {
        events::log(overlay.control());
    }
    info!("stopping");
    events::log(overlay.control());
    print!("{}", overlay.stop()?);
    Ok(())
}

/// SIGINT and SIGTERM, as they come.
pub fn signals() -> Result<Receiver<i32>, Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            if sender.send(signal).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}
