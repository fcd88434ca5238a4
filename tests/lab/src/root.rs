//! What a process may do, and what it lacks.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::panic;
use std::sync::OnceLock;
use std::thread;

use crate::Namespace;
use crate::error::Attempt;

const TUN: &str = "/dev/net/tun";

/// Whether a test that needs hosts and TUN or TAP devices can run here; says so if not.
///
/// Where it can not, `SKIPPED <test>: <reason>` goes to the standard error.
///
/// # Panics
///
/// When it can not and the environment has `CI`, where such tests have to run.
#[must_use]
pub fn privileged(test: &str) -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let Some(reason) = REASON.get_or_init(why_not) else { return true };
    assert!(env::var_os("CI").is_none(), "{test} has to run in CI, but: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    false
}

/// What is missing to make hosts and TUN or TAP devices, as a sentence; none if nothing is.
#[must_use]
pub fn why_not() -> Option<String> {
    // On a thread of its own, as it ends up in another namespace.
    thread::scope(|scope| {
        let worker = scope.spawn(|| namespace_missing().or_else(tun_missing));
        worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// Makes an unprivileged process root in a user and network namespace of its own, loopback up.
///
/// It can make hosts then, and devices where it may open `/dev/net/tun`; outside of that it is what
/// it was. Everything it started before has to have ended: threads, for one.
///
/// # Errors
///
/// When the process has more than one thread, or the system does not let its users do this.
pub fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: these calls have no preconditions and can not fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: `unshare` touches no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } < 0 {
        let e = io::Error::last_os_error();
        let hint = match e.raw_os_error() {
            Some(libc::EPERM) => {
                " (a policy may forbid it: see the settings kernel.unprivileged_userns_clone and \
                 kernel.apparmor_restrict_unprivileged_userns)"
            }
            Some(libc::EINVAL) => " (a process with several threads can not)",
            Some(libc::ENOSPC | libc::EUSERS) => " (see the setting user.max_user_namespaces)",
            _ => "",
        };
        return Err(e).attempt(|| format!("making a user namespace{hint}"));
    }
    // Without this an unprivileged process may not map a group; old kernels do not have it.
    match fs::write("/proc/self/setgroups", "deny") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).attempt(|| "writing /proc/self/setgroups");
        }
        _ => {}
    }
    for (file, id) in [("/proc/self/uid_map", uid), ("/proc/self/gid_map", gid)] {
        fs::write(file, format!("0 {id} 1")).attempt(|| format!("writing {file}"))?;
    }
    Namespace::current()?.up("lo")
}

/// Why no namespace can be made; leaves the thread in a new one otherwise.
fn namespace_missing() -> Option<String> {
    // SAFETY: `unshare` touches no memory; it moves this thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        return None;
    }
    let e = io::Error::last_os_error();
    Some(match e.raw_os_error() {
        Some(libc::EPERM) => "making a network namespace was refused: run as root, or with the \
                              capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN"
            .into(),
        Some(libc::EINVAL) => {
            "this kernel has no network namespaces: it was built without CONFIG_NET_NS".into()
        }
        Some(libc::ENOSPC) => {
            "no more network namespaces are allowed: raise the setting user.max_net_namespaces"
                .into()
        }
        _ => format!("making a network namespace failed: {e}"),
    })
}

/// Why no TUN device can be made in this thread's namespace.
fn tun_missing() -> Option<String> {
    let tun = match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(tun) => tun,
        Err(e) => return Some(cannot_open(&e)),
    };
    let e = make_tun(&tun).err()?;
    Some(match e.raw_os_error() {
        Some(libc::EPERM) => {
            "making a TUN device was refused: the capability CAP_NET_ADMIN is missing".into()
        }
        _ => format!("making a TUN device failed: {e}"),
    })
}

fn cannot_open(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::ENOENT) => format!(
            "{TUN} does not exist: load the tun module (modprobe tun), or give the container the \
             device (--device {TUN}), or make the node (mknod {TUN} c 10 200)"
        ),
        Some(libc::ENODEV | libc::ENXIO) => format!(
            "{TUN} exists but nothing is behind it: load the tun module (modprobe tun), or a kernel \
             that has it"
        ),
        Some(libc::EPERM) => format!(
            "opening {TUN} was refused by the device cgroup: give the container the device \
             (--device {TUN})"
        ),
        Some(libc::EACCES) => format!(
            "opening {TUN} was refused by the permissions of the file: run as root, or give this \
             user access (chmod 0666 {TUN})"
        ),
        _ => format!("opening {TUN} failed: {e}"),
    }
}

/// Makes a TUN device, which is gone when the file is closed.
fn make_tun(tun: &File) -> io::Result<()> {
    // SAFETY: an interface request is plain integers, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open as long as `tun` is borrowed, and the kernel reads and writes
    // one interface request.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
