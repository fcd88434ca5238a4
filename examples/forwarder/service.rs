//! What a service manager is told: that forwarding has begun, how it goes, that it ends (`sd_notify(3)`). Nothing where
//! there is none.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use overplane::Control;
use sd_notify::NotifyState;
use tracing::{error, warn};

use crate::overlay::Overlay;

/// How often the status is told anew.
const STATUS: Duration = Duration::from_secs(5);

/// For how long a worker may be silent at least before the watchdog is left alone: workers are heard of once a second.
const SILENCE: Duration = Duration::from_secs(3);

/// A service manager, or none.
#[derive(Debug)]
pub struct Service {
    /// Connected to where it listens.
    socket: Option<UnixDatagram>,
    /// Within which time it wants to hear that all is well.
    watchdog: Option<Duration>,
    next_ping: Instant,
    next_status: Instant,
    /// Whether a worker hangs.
    hangs: bool,
    /// Whether telling failed the last time.
    failed: bool,
}

impl Service {
    /// The service manager that the environment names. To be called while privileges last: what is connected by then stays
    /// within reach.
    pub fn from_environment() -> Self {
        let now = Instant::now();
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|at| match connect(&at) {
            Ok(socket) => Some(socket),
            Err(e) => {
                warn!("no service manager is told: NOTIFY_SOCKET {}: {e}", at.display());
                None
            }
        });
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        Self { socket, watchdog, next_ping: now, next_status: now, hangs: false, failed: false }
    }

    /// How often [`Service::turn`] should be called at least, where `usual` would do otherwise.
    pub fn turn_time(&self, usual: Duration) -> Duration {
        self.ping_time().map_or(usual, |ping| usual.min(ping))
    }

    /// Twice as often as it wants to hear of us (`sd_watchdog_enabled(3)`).
    fn ping_time(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// Forwarding has begun.
    pub fn ready(&mut self, overlay: &Overlay) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status(overlay.control()))]);
    }

    /// Tells what is due. A worker that hangs is no reason to end, but one to leave the watchdog alone, which then has the
    /// service started anew.
    pub fn turn(&mut self, overlay: &Overlay) {
        let now = Instant::now();
        let silence = overlay.silence();
        let longest = self.ping_time().unwrap_or(SILENCE).max(SILENCE);
        let hangs = silence > longest;
        if hangs && !self.hangs {
            error!("a worker has not been heard of for {} s", silence.as_secs());
        }
        if hangs != self.hangs {
            self.next_status = now;
        }
        self.hangs = hangs;
        if let Some(time) = self.ping_time().filter(|_| now >= self.next_ping && !hangs) {
            self.next_ping = now + time;
            self.tell(&[NotifyState::Watchdog]);
        }
        if now >= self.next_status {
            self.next_status = now + STATUS;
            let status = match hangs {
                true => format!("A worker has not been heard of for {} s", silence.as_secs()),
                false => status(overlay.control()),
            };
            self.tell(&[NotifyState::Status(&status)]);
        }
    }

    /// Forwarding ends.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
    }

    /// Never waits: a manager that does not listen hears less.
    fn tell(&mut self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let told = socket.send(message.as_bytes());
        if let Err(e) = &told
            && !self.failed
        {
            warn!("telling the service manager: {e}");
        }
        self.failed = told.is_err();
    }
}

/// Connects to a socket with a path, or with an abstract name behind `@`.
fn connect(at: &OsStr) -> io::Result<UnixDatagram> {
    let address = match at.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(at)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One line about what is forwarded.
fn status(control: &Control) -> String {
    let stats = control.stats();
    let dropped: u64 = stats.totals.drop_reasons().map(|(_, frames)| frames).sum();
    let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    format!(
        "Forwarding: {}, {}, {}; {} frames received, {dropped} dropped",
        many(stats.segments.len(), "segment"),
        many(stats.ports.len(), "port"),
        many(stats.vteps.len(), "VTEP"),
        stats.totals.received,
    )
}
