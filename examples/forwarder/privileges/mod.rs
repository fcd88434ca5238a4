//! Least privilege: what a forwarder that is set up can do without is given up for good.
//!
//! Credentials, capabilities and filters belong to threads, and a new thread has those of the one that makes it. So all
//! of this happens between set-up and the first thread; [`GivenUp::verify`] looks at every thread afterwards.

mod capabilities;
mod filesystem;
mod status;
mod syscalls;
mod user;

use std::path::PathBuf;

use nix::sys::prctl;
use tracing::{info, warn};

use crate::failure::Failure;
use capabilities::Capabilities;
use status::Status;

/// What is to be given up, and what is needed nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    pub user: User,
    /// Leave capabilities as they are.
    pub keep_capabilities: bool,
    /// Do without `no_new_privs`, which both filters set, too.
    pub allow_new_privs: bool,
    pub seccomp: bool,
    pub landlock: bool,
    /// Directories in which files and sockets are made and deleted later.
    pub writable: Vec<PathBuf>,
    /// Files and directories that are read later.
    pub readable: Vec<PathBuf>,
    /// Sockets that are there by then: they become the user's, and can be removed.
    pub sockets: Vec<PathBuf>,
}

impl Default for Privileges {
    fn default() -> Self {
        Self {
            user: User::default(),
            keep_capabilities: false,
            allow_new_privs: false,
            seccomp: true,
            landlock: true,
            writable: Vec::new(),
            readable: Vec::new(),
            sockets: Vec::new(),
        }
    }
}

/// Whose rights a process has that was started by root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum User {
    /// Those of `nobody`, if the process may become that.
    #[default]
    Nobody,
    /// Those of a user, by name or number.
    Named(String),
    /// Those that it has.
    Keep,
}

/// What stands against these settings.
pub const NEW_PRIVS: &str = "both filters rule it out: switch seccomp and landlock off as well";

/// What was given up.
#[derive(Debug)]
pub struct GivenUp {
    states: Vec<String>,
    /// What the kernel says of the calling thread; `None` where `/proc` is not mounted.
    status: Option<Status>,
}

impl Privileges {
    /// Gives up what can be done without, in the calling thread, which has to be the only one. `low_ports` says whether
    /// ports are used that are not for everybody.
    ///
    /// What this kernel does not have is left out with a warning; what goes wrong otherwise is a failure.
    pub fn give_up(&self, low_ports: bool) -> Result<GivenUp, Failure> {
        let mut states = Vec::new();
        // Paths are opened and names looked up while that is still allowed.
        let rules = self.landlock.then(|| filesystem::rules(self)).transpose()?;
        let user = user::wanted(&self.user)?;
        if let Some(user) = &user {
            user.own(&self.sockets);
        }
        let kept = match self.keep_capabilities {
            true => Capabilities::all(),
            false => Capabilities::of_a_forwarder(low_ports),
        };
        let bounded = kept.bound()?;
        states.push(user::become_user(user, &self.user)?);
        states.push(kept.apply(bounded)?);
        if self.allow_new_privs {
            states.push("new privileges allowed".into());
        } else {
            prctl::set_no_new_privs()
                .map_err(|e| Failure::run(format_args!("giving up new privileges: {e}")))?;
            states.push("no new privileges".into());
        }
        states.push(match rules {
            Some(rules) => filesystem::restrict(rules)?,
            None => "landlock off".into(),
        });
        self.warn_of_unusable();
        states.push(match self.seccomp {
            true => syscalls::restrict()?,
            false => "seccomp off".into(),
        });
        Ok(GivenUp { states, status: Status::of_this_thread().ok() })
    }

    /// Says what cannot be made or read later, now that it can be tried.
    fn warn_of_unusable(&self) {
        for directory in &self.writable {
            if let Err(e) = nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK) {
                let at = directory.display();
                warn!("{at}: {e}: nothing can be made there; give the directory to the user");
            }
        }
        for file in self.readable.iter().filter(|path| !path.is_dir()) {
            if let Err(e) = nix::unistd::access(file, nix::unistd::AccessFlags::R_OK) {
                let at = file.display();
                warn!("{at}: {e}: it cannot be loaded again; let the user read it");
            }
        }
    }
}

impl GivenUp {
    /// Checks that every thread has given up the same, and reports what that is.
    pub fn verify(&self) -> Result<(), Failure> {
        let verified = match &self.status {
            Some(status) => {
                let threads = status.check_all_threads()?;
                format!("in all {threads} threads")
            }
            None => "not checked: /proc is not mounted".into(),
        };
        info!("privileges: {} ({verified})", self.states.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
