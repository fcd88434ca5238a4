//! Becoming another user.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, chown, setgroups, setresgid, setresuid};
use tracing::warn;

use super::User;
use crate::failure::Failure;

/// What Linux maps to whom it does not know, and what distributions give `nobody` (kernel
/// `Documentation/admin-guide/sysctl/fs.rst`, `overflowuid`).
const NOBODY: u32 = 65_534;

/// A user that can be become.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// Gives files to the user.
    pub(super) fn own(&self, files: &[PathBuf]) {
        let Self { name, uid, gid } = self;
        for file in files {
            // Who may not do that may not become the user either, and that is what matters.
            if let Err(error) = chown(file, Some(*uid), Some(*gid)) {
                warn!("giving {} to {name} ({uid}:{gid}): {error}", file.display());
            }
        }
    }
}

/// Looks a user up; `None` if the process is to stay who it is.
pub(super) fn wanted(user: &User) -> Result<Option<Account>, Failure> {
    let (name, fallback) = match user {
        User::Keep => return Ok(None),
        User::Nobody if !Uid::effective().is_root() => return Ok(None),
        User::Nobody => ("nobody", Some(NOBODY)),
        User::Named(name) => (name.as_str(), name.parse().ok()),
    };
    let by_name = nix::unistd::User::from_name(name).ok().flatten();
    let found = match (by_name, fallback) {
        (None, Some(uid)) => nix::unistd::User::from_uid(uid.into()).ok().flatten(),
        (found, _) => found,
    };
    match (found, fallback) {
        (Some(found), _) => Ok(Some(Account { name: found.name, uid: found.uid, gid: found.gid })),
        // Containers have no list of users, mostly.
        (None, Some(id)) => Ok(Some(Account { name: name.into(), uid: id.into(), gid: id.into() })),
        (None, None) => Err(Failure::run(format_args!(
            "privileges.user: there is no user {name:?} here; allowed: a name of /etc/passwd, or a number"
        ))),
    }
}

/// Becomes a user, without supplementary groups; says who the process is then.
///
/// Where it was not asked for, as a container's root without the capabilities for it cannot, the process stays who it is.
pub(super) fn become_user(account: Option<Account>, asked: &User) -> Result<String, Failure> {
    let stays = || format!("user {}", Uid::effective());
    let Some(Account { name, uid, gid }) = account else { return Ok(stays()) };
    let changed = setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid));
    match changed {
        Ok(()) => Ok(format!("user {name} ({uid}:{gid})")),
        // As itself it only has groups that it came with.
        Err(_) if uid == Uid::effective() && gid == Gid::effective() => Ok(stays()),
        Err(error @ (Errno::EPERM | Errno::EINVAL)) if *asked == User::Nobody => {
            warn!(
                "becoming {name} ({uid}:{gid}): {error}; going on as root: needs CAP_SETUID and CAP_SETGID, and in a \
                 user namespace that user, or keep_user"
            );
            Ok(stays())
        }
        Err(error) => Err(Failure::run(format_args!(
            "becoming {name} ({uid}:{gid}): {error}; needs CAP_SETUID and CAP_SETGID, and in a user namespace that user"
        ))),
    }
}
