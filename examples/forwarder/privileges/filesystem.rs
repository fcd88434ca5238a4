//! Which files may be opened, and whom the process can reach otherwise: a landlock domain.
//!
//! What is open already is not affected: devices, sockets, standard streams.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use tracing::warn;

use super::Privileges;
use crate::failure::Failure;

/// The newest interface that the rules make use of: files from 1 on, TCP from 4, ioctl of devices from 5, signals and
/// abstract sockets from 6 (kernel `Documentation/userspace-api/landlock.rst`). An older kernel does what it can.
const NEWEST: ABI = ABI::V6;

/// What is always needed later.
///
/// All of `/proc`, for the kernel gives its deeper parts a new inode whenever it has forgotten the old one, and a rule is
/// about an inode.
const READABLE: &[&str] = &["/proc"];

/// Devices, each with what is done with them: opening further queues and devices.
const DEVICES: &[&str] = &["/dev/net/tun"];

/// Opens what the rules are about.
pub(super) fn rules(privileges: &Privileges) -> Result<RulesetCreated, Failure> {
    let failed = |error: RulesetError| Failure::run(format_args!("landlock: {error}"));
    let handled = || {
        Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            // A forwarder has no TCP connections of its own, and listens before this or not at all.
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()
    };
    let mut rules = handled().map_err(failed)?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let make = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    for (paths, access) in [(READABLE, read), (DEVICES, device)] {
        for path in paths {
            // Some hosts do without: a forwarder of in-process channels has no device.
            if let Ok(parent) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(parent, access)).map_err(failed)?;
            }
        }
    }
    let asked = [(&privileges.readable, read), (&privileges.writable, make)];
    for (paths, access) in asked {
        for path in paths {
            rules = allow(rules, path, access)?;
        }
    }
    for directory in privileges.sockets.iter().filter_map(|socket| socket.parent()) {
        rules = allow(rules, directory, AccessFs::RemoveFile.into())?;
    }
    Ok(rules)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Failure> {
    let at = path.display();
    let parent = PathFd::new(path).map_err(|e| {
        Failure::run(format_args!("privileges: {at} cannot be opened ({e}): make it first"))
    })?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    let added = rules.add_rule(PathBeneath::new(parent, access));
    added.map_err(|e| Failure::run(format_args!("landlock: {at}: {e}")))
}

/// Puts the calling thread under the rules; says how far the kernel goes along.
pub(super) fn restrict(rules: RulesetCreated) -> Result<String, Failure> {
    let status = rules.restrict_self().map_err(|e| Failure::run(format_args!("landlock: {e}")))?;
    let kernel = match status.landlock {
        LandlockStatus::NotImplemented => "the kernel has no landlock: needs Linux 5.13".into(),
        LandlockStatus::NotEnabled => {
            "landlock is not enabled: boot with lsm=landlock,...".to_string()
        }
        LandlockStatus::Available { effective_abi, .. } => {
            format!("interface {}", effective_abi as i32)
        }
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(format!("landlock on ({kernel})")),
        RulesetStatus::PartiallyEnforced => {
            warn!("landlock: {kernel} is old: TCP needs Linux 6.7, devices 6.10, signals 6.12");
            Ok(format!("landlock on in part ({kernel})"))
        }
        RulesetStatus::NotEnforced => {
            warn!("files are not restricted: {kernel}");
            Ok("landlock missing".into())
        }
    }
}
