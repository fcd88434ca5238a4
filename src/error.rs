//! What can go wrong while setting up or controlling a dataplane.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// Why a set-up or control call failed. Nothing was changed.
///
/// The data path returns no errors: what happens to a frame there is counted under a
/// [`DropReason`](crate::DropReason).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A value lies outside its range.
    Invalid {
        /// What the value is for.
        what: &'static str,
        /// The value.
        value: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// Something that the call names does not exist.
    NotFound {
        /// The thing named.
        what: String,
    },
    /// The call contradicts what is already there.
    Conflict {
        /// What was asked for.
        what: String,
        /// What stands against it.
        because: String,
    },
    /// A bound of the dataplane is reached.
    Limit {
        /// What there would be too many of.
        what: &'static str,
        /// The largest number.
        limit: usize,
    },
    /// The operating system refused.
    Io {
        /// What was attempted, on what, as in `opening TAP "ovl0"`.
        attempt: String,
        /// What the operating system said.
        source: io::Error,
        /// What to do about it; may be empty.
        advice: Cow<'static, str>,
    },
}

impl Error {
    pub(crate) fn invalid(
        what: &'static str,
        value: impl Into<String>,
        allowed: &'static str,
    ) -> Self {
        Self::Invalid { what, value: value.into(), allowed }
    }

    /// Whether the operating system says that an address or port is taken.
    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    pub(crate) fn conflict(what: impl fmt::Display, because: impl fmt::Display) -> Self {
        Self::Conflict { what: what.to_string(), because: because.to_string() }
    }

    #[cfg(feature = "io")]
    pub(crate) fn io(
        attempt: impl Into<String>,
        source: io::Error,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Io { attempt: attempt.into(), source, advice: advice.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { what, value, allowed } => {
                write!(f, "{what}: {value} is not allowed; allowed: {allowed}")
            }
            Self::NotFound { what } => write!(f, "{what} does not exist"),
            Self::Conflict { what, because } => write!(f, "{what}: {because}"),
            Self::Limit { what, limit } => write!(f, "too many {what}: at most {limit}"),
            Self::Io { attempt, source, advice } if advice.is_empty() => {
                write!(f, "{attempt}: {source}")
            }
            Self::Io { attempt, source, advice } => write!(f, "{attempt}: {source}; {advice}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<crate::wire::vxlan::VniOutOfRange> for Error {
    fn from(error: crate::wire::vxlan::VniOutOfRange) -> Self {
        Self::conflict("VNI", error)
    }
}
