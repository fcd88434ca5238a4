//! Forwarding until a signal says to stop.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use overplane::{Control, SegmentInfo, Stats};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info};

use crate::capture::Opened;
use crate::control::{Forwarding, Listeners, Server};
use crate::events;
use crate::failure::Failure;
use crate::links;
use crate::metrics::Endpoint;
use crate::overlay::Overlay;
use crate::plan::Plan;
use crate::reload::Loaded;
use crate::report::Format;
use crate::service::Service;

/// How often events are taken care of.
const TURN: Duration = Duration::from_secs(1);

/// The same while somebody follows them.
const LIVE_TURN: Duration = Duration::from_millis(100);

/// Runs a plan in the foreground and prints its counters at the end and whenever it is asked to, as the plan says if
/// `stats` does not. `origin` is the file that the plan is from, which can be loaded again, with the plan as it says.
pub fn run(
    mut plan: Plan,
    origin: Option<(&Path, Plan)>,
    stats: Option<Format>,
) -> Result<(), Failure> {
    // Before anything is made, so that a signal never leaves it half made.
    let reloads = origin.is_some().then_some(SIGHUP);
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1].into_iter().chain(reloads))?;
    let format = stats.unwrap_or(plan.stats);
    let endpoint = plan.metrics.map(Endpoint::bind).transpose()?;
    let fdb_capacity = plan.config.fdb_capacity;
    let server = plan.control.take().map(Server::bind).transpose()?;
    let mut privileges = plan.privileges.clone();
    privileges.sockets.extend(server.iter().map(|server| server.path().to_owned()));
    let low_ports = links::has_low_ports(&plan);
    let capture = plan.capture.take();
    let mut overlay = Overlay::prepare(plan)?;
    // The file belongs to whoever starts the process.
    let opened = capture.map(|capture| Opened::open(overlay.control(), capture)).transpose()?;
    let mut service = Service::from_environment();
    // Threads have the privileges of the one that makes them: there is none before this.
    let given_up = privileges.give_up(low_ports)?;
    let signals = receive(signals)?;
    let recording = opened.map(Opened::start).transpose()?;
    overlay.start()?;
    let listeners = Listeners::default();
    let (control, site) = (overlay.control().clone(), Arc::clone(overlay.site()));
    let loaded = origin.map(|(file, plan)| {
        let names = overlay.names().clone();
        Arc::new(Loaded::new(file, plan, names, control.clone(), Arc::clone(&site)))
    });
    if let Some(server) = &server {
        let (started, loaded) = (Instant::now(), loaded.clone());
        server.serve(Forwarding { control, site, started, loaded }, &listeners)?;
    }
    let serve = |endpoint: Endpoint| endpoint.serve(overlay.control().clone(), fdb_capacity);
    let serving = endpoint.map(serve).transpose()?;
    given_up.verify()?;
    info!("forwarding");
    service.ready(&overlay);
    let follow = || events::follow(overlay.site().host(), overlay.control(), &listeners);
    follow();
    // A worker that ended by itself has failed; stopping says how.
    while overlay.is_running() {
        let turn = if listeners.is_empty() { TURN } else { LIVE_TURN };
        match signals.recv_timeout(service.turn_time(turn)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(SIGUSR1) => print(format, overlay.control(), &overlay.control().stats())?,
            Ok(SIGHUP) => {
                if let Some(Err(failure)) = loaded.as_ref().map(|loaded| loaded.reload(false)) {
                    error!("loading the file again: {failure}");
                }
            }
            _ => break,
        }
        follow();
        service.turn(&overlay);
    }
    info!("stopping");
    service.stopping();
    follow();
    drop(serving);
    let control = overlay.control().clone();
    let stats = overlay.stop();
    // With all that was forwarded until now.
    drop(recording);
    print(format, &control, &stats?)
}

/// Prints counters, and who has joined which groups, at once, whoever reads them.
fn print(format: Format, control: &Control, stats: &Stats) -> Result<(), Failure> {
    let listed = |segment: SegmentInfo| Some((segment.id, control.mdb(segment.id).ok()?));
    let groups: Vec<_> = control.segments().into_iter().filter_map(listed).collect();
    let mut out = io::stdout();
    out.write_all(format.print(stats, &groups).as_bytes())?;
    Ok(out.flush()?)
}

/// The signals of a list, as they come.
pub fn signals(which: &[i32]) -> Result<Receiver<i32>, Failure> {
    receive(Signals::new(which)?)
}

/// Signals as they come, those first that have come already.
fn receive(mut signals: Signals) -> Result<Receiver<i32>, Failure> {
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
