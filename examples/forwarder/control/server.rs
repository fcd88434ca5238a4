//! The socket, and who may use it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::net::sockopt::socket_peercred;
use tracing::{debug, warn};

use super::answer::Forwarding;
use super::events::Listeners;
use super::session::{self, Session};
use crate::failure::Failure;

/// Clients at a time; each has a thread. One more is told so.
const MAX_CLIENTS: usize = 64;

/// Stack of a client's thread, in bytes.
const STACK: usize = 256 << 10;

/// A control socket, which is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

impl Server {
    /// Makes the socket. Who connects waits to be served.
    pub fn bind(path: PathBuf) -> Result<Self, Failure> {
        let listener = listen(&path)?;
        Ok(Self { path, listener })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers those who connect, on threads with the privileges that the calling one has now.
    pub fn serve(&self, forwarding: Forwarding, listeners: &Listeners) -> Result<(), Failure> {
        let (listener, listeners) = (self.listener.try_clone()?, listeners.clone());
        let spawn = thread::Builder::new().name("control".into());
        spawn.spawn(move || serve(&listener, &forwarding, &listeners))?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody connects to it any more; the thread ends with the process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds the socket, in place of one that a forwarder left behind which is gone.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let shown = path.display();
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; make its directory first",
            io::ErrorKind::PermissionDenied => "; choose a directory that this user may write to",
            _ => "",
        };
        Failure::run(format_args!("making the control socket {shown}: {error}{advice}"))
    };
    if UnixStream::connect(path).is_ok() {
        return Err(Failure::run(format_args!(
            "making the control socket {shown}: another forwarder answers there; choose another path"
        )));
    }
    let is_socket = |kind: fs::FileType| std::os::unix::fs::FileTypeExt::is_socket(&kind);
    if fs::symlink_metadata(path).is_ok_and(|there| is_socket(there.file_type())) {
        fs::remove_file(path).map_err(failed)?;
    }
    // Nobody connects before it listens to them, and the mode is set by then.
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn serve(listener: &UnixListener, forwarding: &Forwarding, listeners: &Listeners) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // For want of descriptors, most likely: more come free as clients leave.
            thread::sleep(session::PAUSE);
            continue;
        };
        match admit(&stream) {
            Ok(()) if clients.load(Ordering::Relaxed) < MAX_CLIENTS => {
                clients.fetch_add(1, Ordering::Relaxed);
                let leaving = Leaving(Arc::clone(&clients));
                let mut session = Session::new(stream, forwarding.clone(), listeners.clone());
                let client = thread::Builder::new().name("control client".into()).stack_size(STACK);
                let spawned = client.spawn(move || {
                    let _leaving = leaving;
                    if let Err(error) = session.run() {
                        debug!("control client: {error}");
                    }
                });
                if let Err(error) = spawned {
                    warn!("control client: {error}");
                }
            }
            Ok(()) => session::refuse(&stream, "too many clients at once"),
            Err(why) => {
                warn!("control socket: {why}");
                session::refuse(&stream, &why);
            }
        }
    }
}

/// Counts a client out, whatever ends it.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets root in, and the user that the forwarder runs as; whoever else got hold of the socket is turned away.
fn admit(stream: &UnixStream) -> Result<(), String> {
    let peer =
        socket_peercred(stream).map_err(|error| format!("who asks is not known: {error}"))?;
    let own = rustix::process::geteuid();
    match peer.uid.is_root() || peer.uid == own {
        true => Ok(()),
        false => Err(format!("user {} may not control this forwarder", peer.uid.as_raw())),
    }
}
