//! The same rules in a process of their own, which then tries what it may not.

use std::env;
use std::fs::{self, File};
use std::io;
use std::process::{self, Command};
use std::ptr;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::*;

/// Set in the process that tries.
const TRIES: &str = "FORWARDER_TRIES";

/// Runs this very test in a process of its own; says in which of the two it is.
fn in_a_process_of_its_own(test: &str) -> bool {
    if env::var_os(TRIES).is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("privileges::tests::{test}"), "--nocapture"])
        .env(TRIES, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{error}");
    false
}

/// Makes a system call with these arguments, and returns how it was refused.
fn refusal(call: libc::c_long, arguments: [libc::c_long; 4]) -> Option<i32> {
    let [a, b, c, d] = arguments;
    // SAFETY: all callers pass numbers, null, or pointers to what lives through the call, as the call takes them.
    let result = unsafe { libc::syscall(call, a, b, c, d) };
    (result < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
}

#[test]
fn what_is_not_allowed_is_refused_by_name() {
    if !in_a_process_of_its_own("what_is_not_allowed_is_refused_by_name") {
        return;
    }
    let directory = env::temp_dir().join(format!("forwarder-privileges-{}", process::id()));
    fs::create_dir(&directory).unwrap();
    let outside = directory.with_extension("outside");
    fs::write(&outside, "outside").unwrap();
    let stays = Privileges {
        user: User::Keep,
        keep_capabilities: true,
        writable: vec![directory.clone()],
        ..Privileges::default()
    };
    let given_up = stays.give_up(false).unwrap();
    println!("{:?}", given_up.states);
    let zero = [0; 4];
    let path = c"/etc/shadow".as_ptr() as libc::c_long;
    let memory =
        |rights: i32| [0, 4096, rights.into(), (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into()];
    let fork = [libc::SIGCHLD.into(), 0, 0, 0];
    let user = [(libc::CLONE_THREAD | libc::CLONE_NEWUSER).into(), 0, 0, 0];
    let (raw, inet) = (libc::SOCK_RAW.into(), libc::SOCK_DGRAM.into());
    for (what, call, arguments, refused) in [
        ("execve", libc::SYS_execve, [path, 0, 0, 0], Some(libc::EPERM)),
        ("execveat", libc::SYS_execveat, [libc::AT_FDCWD.into(), path, 0, 0], Some(libc::EPERM)),
        ("ptrace", libc::SYS_ptrace, zero, Some(libc::EPERM)),
        ("mount", libc::SYS_mount, [path, path, 0, 0], Some(libc::EPERM)),
        ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0], Some(libc::EPERM)),
        ("setns", libc::SYS_setns, [-1, libc::CLONE_NEWNET.into(), 0, 0], Some(libc::EPERM)),
        ("fork", libc::SYS_clone, fork, Some(libc::EPERM)),
        ("a user namespace", libc::SYS_clone, user, Some(libc::EPERM)),
        ("clone3", libc::SYS_clone3, zero, Some(libc::ENOSYS)),
        ("bpf", libc::SYS_bpf, zero, Some(libc::EPERM)),
        ("setuid", libc::SYS_setuid, zero, Some(libc::EPERM)),
        ("capset", libc::SYS_capset, zero, Some(libc::EPERM)),
        ("init_module", libc::SYS_init_module, zero, Some(libc::EPERM)),
        ("kill", libc::SYS_kill, zero, Some(libc::EPERM)),
        ("tgkill", libc::SYS_tgkill, [1, 1, 0, 0], Some(libc::EPERM)),
        ("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0], Some(libc::EPERM)),
        ("packets", libc::SYS_socket, [libc::AF_PACKET.into(), raw, 0, 0], Some(libc::EPERM)),
        ("code", libc::SYS_mmap, memory(libc::PROT_READ | libc::PROT_EXEC), Some(libc::EPERM)),
        ("typing", libc::SYS_ioctl, [0, libc::TIOCSTI as libc::c_long, 0, 0], Some(libc::EPERM)),
        ("datagrams", libc::SYS_socket, [libc::AF_INET.into(), inet, 0, 0], None),
        ("memory", libc::SYS_mmap, memory(libc::PROT_READ), None),
        ("itself", libc::SYS_tgkill, [process::id().into(), process::id().into(), 0, 0], None),
    ] {
        // The last two arguments of mmap, which has no file behind it here.
        let got = if call == libc::SYS_mmap && refused.is_none() {
            // SAFETY: asks for new memory, which nobody uses.
            let memory = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    4096,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            (memory == libc::MAP_FAILED).then_some(libc::EINVAL)
        } else {
            refusal(call, arguments)
        };
        assert_eq!(got, refused, "{what}");
    }
    assert_eq!(
        Command::new("/bin/true").status().unwrap_err().raw_os_error(),
        Some(libc::EPERM),
        "a program"
    );
    std::thread::spawn(|| ()).join().unwrap();
    // Even root gets at no other files; those in directories that are named can be made, renamed and deleted.
    assert!(File::open("/proc/sys/net/core/rmem_max").is_ok());
    let there = directory.join("capture");
    fs::write(&there, "frames").unwrap();
    fs::rename(&there, directory.join("older")).unwrap();
    fs::remove_file(directory.join("older")).unwrap();
    if given_up.states.iter().any(|state| state == "landlock missing") {
        eprintln!("SKIPPED files and listeners: this kernel has no landlock");
        return;
    }
    for file in ["/etc/shadow", "/etc/passwd", outside.to_str().unwrap()] {
        let refused = File::open(file).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{file}");
    }
    assert!(fs::write("/proc/sys/net/ipv4/ip_forward", "1").is_err());
    assert!(fs::write(directory.with_extension("new"), "").is_err());
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    if given_up.states.iter().any(|state| state.starts_with("landlock on (")) {
        assert_eq!(listener.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_user_that_is_not_there_and_a_directory_that_is_not_there_are_said() {
    let nobody =
        Privileges { user: User::Named("nobody-of-the-sort".into()), ..Privileges::default() };
    let why = user::wanted(&nobody.user).unwrap_err().to_string();
    assert!(why.contains("there is no user \"nobody-of-the-sort\" here; allowed: "), "{why}");
    let missing = Privileges { writable: vec!["/nowhere/at/all".into()], ..Privileges::default() };
    let why = filesystem::rules(&missing).unwrap_err().to_string();
    assert!(
        why.contains("/nowhere/at/all cannot be opened") && why.ends_with("make it first"),
        "{why}"
    );
}

/// Filters stand in for such a kernel: they are what it does not have.
#[test]
fn a_kernel_without_filters_is_lived_with() {
    if !in_a_process_of_its_own("a_kernel_without_filters_is_lived_with") {
        return;
    }
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp];
    let missing = SeccompFilter::new(
        calls.map(|call| (call, Vec::new())).into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        env::consts::ARCH.try_into().unwrap(),
    );
    let missing: BpfProgram = missing.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&missing).unwrap();
    let settings =
        Privileges { user: User::Keep, keep_capabilities: true, ..Privileges::default() };
    let given_up = settings.give_up(false).unwrap();
    for state in ["no new privileges", "landlock missing", "seccomp missing"] {
        assert!(given_up.states.iter().any(|it| it == state), "{:?}", given_up.states);
    }
}

/// Threads that are there already would keep what this one gives up.
#[test]
fn a_thread_that_was_there_before_is_found() {
    const NAME: &str = "a_thread_that_was_there_before_is_found";
    if !overplane_lab::privileged(NAME) || !in_a_process_of_its_own(NAME) {
        return;
    }
    // The harness has one: it waits for this one.
    let given_up = Privileges { seccomp: false, landlock: false, ..Privileges::default() };
    let given_up = given_up.give_up(false).unwrap();
    let why = given_up.verify().unwrap_err().to_string();
    assert!(why.starts_with("a thread (") && why.contains("has kept privileges: its "), "{why}");
}

#[test]
fn every_system_call_and_capability_is_documented() {
    let page = include_str!("../../../docs/operating.md");
    for (group, calls) in syscalls::ALLOWED {
        assert!(page.contains(group), "{group}");
        for (name, _) in *calls {
            let name = name.trim_start_matches("SYS_");
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
    for (name, what, ..) in syscalls::restricted() {
        let row = format!("`{name}`: {what}");
        assert!(page.contains(&row), "{row}");
    }
}
