//! A user without any privilege makes hosts.
//!
//! Without the test harness, as entering a user namespace needs a process of one thread.

#![allow(clippy::unwrap_used)]

fn main() {
    #[cfg(target_os = "linux")]
    unprivileged();
}

#[cfg(target_os = "linux")]
fn unprivileged() {
    use overplane_lab::{Namespace, enter_user_namespace, ping_ok};

    const NOBODY: libc::uid_t = 65534;
    // SAFETY: these calls touch no memory of this process, which has one thread.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
            assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
            // A process that changed its user may not write to its own files in /proc otherwise.
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
        }
    }
    if let Err(e) = enter_user_namespace() {
        // Not every system lets its users do this.
        eprintln!("SKIPPED an unprivileged user makes hosts: {e}");
        return;
    }
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    Namespace::veth(&left, "eth0", &right, "eth0").unwrap();
    left.add_address("eth0", "10.0.0.1/24").unwrap();
    right.add_address("eth0", "10.0.0.2/24").unwrap();
    left.up("eth0").unwrap();
    right.up("eth0").unwrap();
    assert!(ping_ok(&left, [10, 0, 0, 2].into(), 1000));
    assert!(ping_ok(&Namespace::current().unwrap(), [127, 0, 0, 1].into(), 0));
    println!("an unprivileged user makes hosts: ok");
}
