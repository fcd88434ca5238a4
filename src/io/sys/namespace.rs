//! Entering network namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_netns(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers, and changes nothing that Rust code relies on.
    checked(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}
