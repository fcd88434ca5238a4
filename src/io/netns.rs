//! Doing something in another network namespace.
//!
//! A TUN/TAP file belongs to the namespace of the thread that opens `/dev/net/tun`, and a socket to that of the
//! thread that makes it; neither can be moved later.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::thread;

use super::sys;
use crate::error::Error;

/// The network namespace of the calling thread; `None` where `/proc` is not mounted.
pub(crate) fn current() -> Option<OwnedFd> {
    File::open("/proc/thread-self/ns/net").ok().map(OwnedFd::from)
}

/// Runs `work` in `netns`: on a helper thread that enters it, unless the calling thread is there already.
pub(crate) fn run_in<T: Send>(
    netns: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let Some(netns) = netns.filter(|netns| !is_current(*netns)) else { return work() };
    let failed = |what: &'static str, advice: &'static str| {
        move |source: io::Error| Error::io(what, source, advice)
    };
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("overplane-netns".into()).spawn_scoped(scope, || {
            sys::enter_netns(netns).map_err(failed(
                "entering the network namespace",
                "needs CAP_SYS_ADMIN in this and in that namespace, and a file such as /run/netns/NAME",
            ))?;
            work()
        });
        let helper = helper.map_err(failed("starting a helper thread", ""))?;
        helper.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn is_current(netns: BorrowedFd<'_>) -> bool {
    let identity = |file: OwnedFd| {
        let metadata = File::from(file).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let there = netns.try_clone_to_owned().ok().and_then(identity);
    there.is_some() && there == current().and_then(identity)
}
