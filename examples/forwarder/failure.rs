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
}

impl Failure {
    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Run(_) => ExitCode::FAILURE,
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
            Self::Usage(message) | Self::Run(message) => f.write_str(message),
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
        Self::run(error)
    }
}
