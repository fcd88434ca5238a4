//! Which system calls the process may make: a seccomp filter. All others fail with `EPERM`, so that whoever makes one says
//! which it was, instead of a process that is killed without a word.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::process;

use libc::c_long;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};
use tracing::warn;

use crate::failure::Failure;

/// System calls under their names.
macro_rules! calls {
    ($($call:ident)*) => { &[$((stringify!($call), libc::$call)),*] };
}

/// System calls with what they are for.
pub(super) type Group = (&'static str, &'static [(&'static str, c_long)]);

/// What may be called with any arguments. A path that a call takes is landlock's matter.
pub(super) const ALLOWED: &[Group] = &[
    (
        "frames",
        calls!(SYS_read SYS_readv SYS_write SYS_writev SYS_recvfrom SYS_recvmsg SYS_recvmmsg SYS_sendto SYS_sendmsg SYS_sendmmsg),
    ),
    (
        "waiting",
        calls!(SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_eventfd2 SYS_pipe2 SYS_futex SYS_nanosleep SYS_clock_nanosleep SYS_restart_syscall SYS_sched_yield),
    ),
    (
        "sockets",
        calls!(SYS_bind SYS_connect SYS_listen SYS_accept4 SYS_shutdown SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt),
    ),
    (
        "files",
        calls!(SYS_openat SYS_close SYS_fstat SYS_newfstatat SYS_statx SYS_lseek SYS_fcntl SYS_dup SYS_dup3 SYS_ftruncate SYS_fsync SYS_fdatasync SYS_fchmod SYS_fchmodat SYS_getdents64 SYS_readlinkat SYS_unlinkat SYS_renameat2 SYS_faccessat SYS_faccessat2),
    ),
    ("memory", calls!(SYS_munmap SYS_mremap SYS_madvise SYS_brk)),
    (
        "threads",
        calls!(SYS_set_robust_list SYS_rseq SYS_sched_getaffinity SYS_exit SYS_exit_group SYS_sigaltstack SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn),
    ),
    (
        "itself",
        calls!(SYS_getpid SYS_gettid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getrusage SYS_uname SYS_sysinfo SYS_getcpu SYS_getrandom),
    ),
    ("time", calls!(SYS_clock_gettime SYS_clock_getres SYS_gettimeofday)),
    ("old names", OLD),
];

/// What newer machines have under other names only, and C libraries still call on this one.
#[cfg(target_arch = "x86_64")]
const OLD: &[(&str, c_long)] = calls!(SYS_poll SYS_epoll_wait SYS_readlink SYS_unlink SYS_rename SYS_chmod SYS_access SYS_open SYS_stat SYS_lstat);
#[cfg(target_arch = "aarch64")]
// By its number (kernel `include/uapi/asm-generic/unistd.h`), which the libc crate does not have everywhere.
const OLD: &[(&str, c_long)] = &[("SYS_renameat", 38)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLD: &[(&str, c_long)] = &[];

/// The requests to devices and links that the library makes (its `io/sys/ioctl.rs`), and those of the standard library.
#[allow(clippy::unnecessary_cast, reason = "the type of each depends on the C library")]
const REQUESTS: &[u64] = &[
    libc::TUNSETIFF as u64,
    libc::TUNGETIFF as u64,
    libc::TUNSETQUEUE as u64,
    libc::TUNSETOFFLOAD as u64,
    libc::TUNSETVNETHDRSZ as u64,
    libc::TUNGETVNETHDRSZ as u64,
    libc::TUNGETDEVNETNS as u64,
    libc::SIOCGIFHWADDR as u64,
    libc::SIOCGIFMTU as u64,
    libc::SIOCGIFFLAGS as u64,
    libc::SIOCGIFINDEX as u64,
    libc::SIOCETHTOOL as u64,
    libc::FIONBIO as u64,
    libc::FIOCLEX as u64,
    libc::TCGETS as u64,
    libc::TIOCGWINSZ as u64,
];

/// What is allowed with some arguments: the number of an argument, the bits of it that count, and what these may be.
type Condition = (u8, u32, u64);

/// Every bit of an argument counts.
const WHOLE: u32 = u32::MAX;

/// The system calls that are restricted, with why, and the conditions of which one has to hold.
pub(super) fn restricted() -> Vec<(&'static str, &'static str, c_long, Vec<Condition>)> {
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_UNIX];
    let executable = libc::PROT_EXEC as u32;
    let threads = (libc::CLONE_THREAD | NEW) as u32;
    let names = [libc::PR_SET_NAME, libc::PR_GET_NAME, PR_SET_VMA];
    let whole = |value: i32| (0, WHOLE, value as u64);
    vec![
        (
            "socket",
            "of IPv4, IPv6, netlink and unix",
            libc::SYS_socket,
            families.map(whole).to_vec(),
        ),
        (
            "ioctl",
            "about TUN, TAP and links",
            libc::SYS_ioctl,
            REQUESTS.iter().map(|request| (1, WHOLE, *request)).collect(),
        ),
        ("mmap", "not executable", libc::SYS_mmap, vec![(2, executable, 0)]),
        ("mprotect", "not executable", libc::SYS_mprotect, vec![(2, executable, 0)]),
        (
            "clone",
            "threads, in the same namespaces",
            libc::SYS_clone,
            vec![(0, threads, libc::CLONE_THREAD as u64)],
        ),
        ("prctl", "names of threads and memory", libc::SYS_prctl, names.map(whole).to_vec()),
        // Aborting is sending oneself a signal.
        ("tgkill", "to itself", libc::SYS_tgkill, vec![(0, WHOLE, process::id().into())]),
    ]
}

/// New namespaces of any kind (kernel `include/uapi/linux/sched.h`).
const NEW: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Kernel `include/uapi/linux/prctl.h`.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Puts all threads of the process under the filter; says what the filter is.
pub(super) fn restrict() -> Result<String, Failure> {
    let failed = |what: String| Failure::run(format_args!("seccomp: {what}"));
    let Ok(target) = TargetArch::try_from(ARCH) else {
        warn!("system calls are not restricted: there is no filter for {ARCH}");
        return Ok("seccomp missing".into());
    };
    let programs = programs(target).map_err(|e| failed(e.to_string()))?;
    for program in &programs {
        match apply_filter_all_threads(program) {
            Ok(()) => {}
            Err(Error::Seccomp(e))
                if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
            {
                warn!(
                    "system calls are not restricted: {e}: the kernel is built without seccomp filters"
                );
                return Ok("seccomp missing".into());
            }
            Err(e) => return Err(failed(e.to_string())),
        }
    }
    let allowed: usize = ALLOWED.iter().map(|(_, calls)| calls.len()).sum();
    let restricted = restricted().len();
    Ok(format!("seccomp on ({allowed} system calls, {restricted} in part)"))
}

/// The filters, in the order in which they are put up.
fn programs(target: TargetArch) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (_, call) in ALLOWED.iter().flat_map(|(_, calls)| *calls) {
        rules.insert(*call, Vec::new());
    }
    for (_, _, call, conditions) in restricted() {
        let rules = rules.entry(call).or_default();
        for (argument, mask, value) in conditions {
            let masked = SeccompCmpOp::MaskedEq(mask.into());
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, value)?;
            rules.push(SeccompRule::new(vec![condition])?);
        }
    }
    rules.insert(libc::SYS_clone3, Vec::new());
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let main = SeccompFilter::new(rules, refused, SeccompAction::Allow, target)?;
    // What it is asked for is in memory, where no filter sees it. C libraries fall back to `clone`, but for this error
    // only, which takes a filter of its own: the severest action counts.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, missing, target)?;
    Ok([clone3.try_into()?, main.try_into()?])
}
