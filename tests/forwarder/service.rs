//! What a service manager hears, at a socket of its own.

use std::env;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, privileged};

use super::program::{PATIENCE, Running, command, pair};
use super::threads::{VXLAN, threads};

/// A socket that a service manager would listen on.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("forwarder-{name}-{}.sock", process::id()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        // As systemd's: for everybody.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Starts a forwarder that is told of this.
    fn start(&self, host: &Namespace, watchdog: Duration) -> Running {
        start(self.path.to_str().unwrap(), host, watchdog)
    }

    fn next(&self) -> String {
        let mut memory = [0; 1024];
        let len = self.socket.recv(&mut memory).unwrap();
        String::from_utf8(memory[..len].to_vec()).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A forwarder that is told of a manager at `address`.
fn start(address: &str, host: &Namespace, watchdog: Duration) -> Running {
    let mut command = command(VXLAN);
    command.env("NOTIFY_SOCKET", address);
    command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    command.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
    Running(host.run(|| command.spawn()).unwrap())
}

#[test]
fn a_service_manager_hears_of_start_life_and_end() {
    if !privileged("a_service_manager_hears_of_start_life_and_end") {
        return;
    }
    let hosts = pair();
    let manager = Manager::new("notify");
    let forwarder = manager.start(&hosts[0], Duration::from_millis(400));
    let first = manager.next();
    // Frames may have come already: the kernel's own neighbour discovery.
    let ready = "READY=1\nSTATUS=Forwarding: 1 segment, 1 port, 1 VTEP; ";
    assert!(first.starts_with(ready) && first.ends_with(" dropped\n"), "{first}");
    assert!(hosts[0].exists("ovl0"), "ready before it was");
    let mut pings = 0;
    let start = Instant::now();
    while pings < 5 {
        let message = manager.next();
        pings += u32::from(message == "WATCHDOG=1\n");
        assert!(
            message == "WATCHDOG=1\n" || message.starts_with("STATUS=Forwarding: "),
            "{message}"
        );
    }
    // Every 200 ms, which leaves room for a machine that is busy.
    let took = start.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&took), "{took:?}");
    forwarder.signal(libc::SIGTERM);
    let last = loop {
        let message = manager.next();
        if !message.starts_with("WATCHDOG=1") && !message.starts_with("STATUS=Forwarding") {
            break message;
        }
    };
    assert_eq!(last, "STOPPING=1\nSTATUS=Stopping\n");
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}

/// A thread of another process that stands still, until this is dropped.
struct Held(libc::pid_t);

impl Held {
    fn new(forwarder: &Running, name: &str) -> Self {
        let pid: libc::pid_t = threads(forwarder)[name]["Pid"].parse().unwrap();
        let nothing = std::ptr::null_mut::<libc::c_void>();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: both requests take no memory of this process.
            let result = unsafe { libc::ptrace(request, pid, nothing, nothing) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        }
        Self(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither takes memory but for the status, which may be null. It has to have stopped to be let go.
        unsafe {
            libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing);
        }
    }
}

#[test]
fn the_watchdog_is_left_alone_while_a_worker_hangs() {
    if !privileged("the_watchdog_is_left_alone_while_a_worker_hangs") {
        return;
    }
    let hosts = pair();
    let manager = Manager::new("watchdog");
    let forwarder = manager.start(&hosts[0], Duration::from_millis(400));
    while manager.next() != "WATCHDOG=1\n" {}
    let held = Held::new(&forwarder, "overplane-0");
    while !manager.next().starts_with("STATUS=A worker has not been heard of for ") {}
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let mut memory = [0; 1024];
    let quiet = manager.socket.recv(&mut memory);
    assert!(quiet.is_err(), "{:?}", String::from_utf8_lossy(&memory));
    drop(held);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while manager.next() != "WATCHDOG=1\n" {}
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("ERROR a worker has not been heard of for 3 s"), "{err}");
}

/// Abstract sockets are out of reach for landlock, but for this one, which is connected to before.
#[test]
fn a_service_manager_at_an_abstract_socket_is_reached() {
    if !privileged("a_service_manager_at_an_abstract_socket_is_reached") {
        return;
    }
    let hosts = pair();
    let name = format!("forwarder-{}", process::id());
    let socket = hosts[0]
        .run(|| UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let forwarder = start(&format!("@{name}"), &hosts[0], Duration::from_millis(400));
    let mut memory = [0; 1024];
    let mut next = || {
        let len = socket.recv(&mut memory).unwrap();
        String::from_utf8(memory[..len].to_vec()).unwrap()
    };
    assert!(next().starts_with("READY=1\n"));
    while next() != "WATCHDOG=1\n" {}
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}
