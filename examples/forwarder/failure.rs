//! Why the forwarder ends without success, and with which exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// An error for people.
#[derive(Debug)]
pub enum Failure {
    /// Something was asked for that makes no sense: exit code 2, as for wrong arguments.
    Usage(String),
    /// Something went wrong: exit code 1.
    Run(String),
    /// A running forwarder has nothing of the name: exit code 3.
    NotFound(String),
    /// What is asked for cannot be done while it forwards: exit code 5.
    Refused(String),
    /// No forwarder can be asked: exit code 4.
    Unreachable(String),
    /// Nobody reads what is printed any more.
    Pipe,
}

impl Failure {
    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Run(_) | Self::Pipe => ExitCode::FAILURE,
            Self::NotFound(_) => ExitCode::from(3),
            Self::Unreachable(_) => ExitCode::from(4),
            Self::Refused(_) => ExitCode::from(5),
        }
    }

    /// A failure to run, of anything that says what it is.
    pub fn run(message: impl fmt::Display) -> Self {
        Self::Run(message.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message)
            | Self::Run(message)
            | Self::NotFound(message)
            | Self::Refused(message)
            | Self::Unreachable(message) => f.write_str(message),
            Self::Pipe => f.write_str("nobody reads the output any more"),
        }
    }
}

impl From<overplane::Error> for Failure {
    fn from(error: overplane::Error) -> Self {
        Self::run(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::run(error),
        }
    }
}
