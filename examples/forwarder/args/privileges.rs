//! What of its privileges the process keeps.

use std::path::PathBuf;

use clap::Args;

use super::read::word;
use crate::privileges::{self, User};
use crate::values;

/// What of its privileges the process keeps once everything is set up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Privileges")]
pub struct Privileges {
    /// User to become, by name or number, when everything is set up [default: nobody where root starts it].
    #[arg(long, value_name = "USER", conflicts_with = "keep_user", value_parser = word(values::user, values::USER))]
    user: Option<User>,
    /// Stay the user that started it.
    #[arg(long)]
    keep_user: bool,
    /// Keep all capabilities, not only CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE for UDP ports that need it.
    #[arg(long)]
    keep_capabilities: bool,
    /// Do without a seccomp filter.
    #[arg(long)]
    no_seccomp: bool,
    /// Do without landlock.
    #[arg(long)]
    no_landlock: bool,
    /// Do without no_new_privs, which both filters rule out.
    #[arg(long, requires_all = ["no_seccomp", "no_landlock"])]
    allow_new_privs: bool,
    /// Directory in which files are made later; can be repeated.
    #[arg(long, value_name = "DIRECTORY", value_parser = word(values::directory, values::DIRECTORY))]
    writable: Vec<PathBuf>,
}

impl Privileges {
    pub fn settings(self) -> privileges::Privileges {
        let user = match (self.user, self.keep_user) {
            (Some(user), _) => user,
            (None, true) => User::Keep,
            (None, false) => User::default(),
        };
        privileges::Privileges {
            user,
            keep_capabilities: self.keep_capabilities,
            allow_new_privs: self.allow_new_privs,
            seccomp: !self.no_seccomp,
            landlock: !self.no_landlock,
            writable: self.writable,
            readable: Vec::new(),
            sockets: Vec::new(),
        }
    }
}
