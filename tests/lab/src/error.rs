//! Errors that say what was attempted on what.

use std::fmt::Display;
use std::io;

/// Puts what was attempted in front of an error's message.
pub(crate) trait Attempt<T> {
    /// Turns `Err(e)` into an error of the same kind that reads "`what`: `e`".
    fn attempt<W: Display>(self, what: impl FnOnce() -> W) -> io::Result<T>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt<W: Display>(self, what: impl FnOnce() -> W) -> io::Result<T> {
        self.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", what())))
    }
}

/// An error for an argument that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

/// An error for content that is not what it should be.
pub(crate) fn corrupt(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Whether a socket operation merely ran out of its time.
pub(crate) fn timed_out(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
