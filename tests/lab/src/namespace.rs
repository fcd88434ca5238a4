//! A host: a network namespace held by this process alone.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use netlink_packet_route::RouteNetlinkMessage;

use crate::error::Attempt;
use crate::netlink::Netlink;

/// A network namespace without a name, held only by this process.
///
/// It disappears when the last clone, the last thread inside and the last socket made in it are
/// gone, and so with the process at the latest, even when that is killed.
///
/// A socket belongs to the namespace it was made in wherever it is used afterwards, so only the
/// making needs [`run`](Self::run).
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    netlink: Mutex<Netlink>,
}

impl Namespace {
    /// Makes a namespace with its loopback up, in which IPv6 addresses are usable at once.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, for want of `CAP_SYS_ADMIN` for one.
    pub fn new() -> io::Result<Self> {
        let made = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: `unshare` touches no memory; it moves this thread alone, which ends here.
                if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
                    return Err(io::Error::last_os_error());
                }
                let namespace = Self::current()?;
                for which in ["default", "all"] {
                    // Without IPv6 there is nothing to set.
                    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0");
                }
                Ok(namespace)
            });
            worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        });
        let namespace = made.attempt(|| "making a network namespace")?;
        namespace.up("lo")?;
        Ok(namespace)
    }

    /// The namespace that the calling thread is in, as it is.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let fd = File::open(path).attempt(|| format!("opening {path}"))?.into();
        let netlink = Netlink::open().attempt(|| "opening a netlink socket")?;
        Ok(Self { inner: Arc::new(Inner { fd, netlink: Mutex::new(netlink) }) })
    }

    /// The namespace that a path names, such as `/proc/1/ns/net` or another process's
    /// [`path`](Self::path).
    ///
    /// # Errors
    ///
    /// When there is no network namespace at that path, or entering it is refused.
    pub fn open(path: &str) -> io::Result<Self> {
        let opened = || {
            let fd = OwnedFd::from(File::open(path)?);
            thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    enter(fd.as_fd())?;
                    Netlink::open()
                });
                worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
            })
            .map(|netlink| Self { inner: Arc::new(Inner { fd, netlink: Mutex::new(netlink) }) })
        };
        opened().attempt(|| format!("opening the network namespace {path}"))
    }

    /// A path at which other processes of the same user can [`open`](Self::open) the namespace as
    /// long as it is held here.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.inner.fd.as_raw_fd())
    }

    /// Runs `f` on a thread of its own inside the namespace and returns what it returns.
    ///
    /// # Panics
    ///
    /// When `f` does, with the same payload, or when the namespace can not be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                f()
            });
            worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Starts a thread inside the namespace.
    ///
    /// # Panics
    ///
    /// When no thread can be started; that thread does when the namespace can not be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter();
            drop(namespace);
            f()
        })
    }

    /// Writes `value` to a setting of the namespace, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// When there is no such setting or the value is refused.
    pub fn sysctl(&self, setting: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{setting}"), value))
            .attempt(|| format!("setting {setting} to {value}"))
    }

    /// Makes a netlink request in the namespace.
    pub(crate) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.netlink(|netlink| netlink.request(message, flags))
    }

    /// Lists what a netlink request matches in the namespace.
    pub(crate) fn list(
        &self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.netlink(|netlink| netlink.list(message))
    }

    fn netlink<T>(&self, f: impl FnOnce(&mut Netlink) -> T) -> T {
        // A request that panicked leaves at most answers of an old number behind.
        f(&mut self.inner.netlink.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves the calling thread into the namespace.
    fn enter(&self) {
        let done = enter(self.inner.fd.as_fd());
        assert!(done.is_ok(), "entering a network namespace: {done:?}");
    }
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `setns` touches no memory; the descriptor is open as long as it is borrowed.
    let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}
