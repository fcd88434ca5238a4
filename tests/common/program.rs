//! The forwarder as a program, between hosts.

use std::env;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::Namespace;

/// How long a process may take to start or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The program. Cargo builds an example for a test run only where it has no tests of its own, so this does.
static FORWARDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = env::current_exe().unwrap();
    let profile_dir = test.parent().and_then(|deps| deps.parent()).unwrap();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut features = vec!["io"];
    features.extend(cfg!(feature = "tun-tap").then_some("tun-tap"));
    features.extend(cfg!(feature = "log").then_some("log"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "forwarder", "--profile", profile])
        .args(["--no-default-features", "--features", &features.join(",")])
        .arg("--target-dir")
        .arg(profile_dir.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success(), "the forwarder does not build");
    profile_dir.join("examples/forwarder")
});

pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(&*FORWARDER);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A running forwarder; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(host: &Namespace, arguments: &str) -> Self {
        let mut command = command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A child is where the thread is that starts it.
        Self(host.run(|| command.spawn()).unwrap())
    }

    /// Waits until a link is up; panics with what the process said if it ended instead.
    pub(crate) fn wait_for(&mut self, host: &Namespace, link: &str) {
        let deadline = Instant::now() + PATIENCE;
        while host.wait_up(link, Duration::from_millis(100)).is_err() {
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("{status}: {}", read(self.0.stderr.take()));
            }
            assert!(Instant::now() < deadline, "{link} does not come up");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the call touches no memory; the process is a child that was not waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: i32) -> (Option<i32>, String, String) {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                let (out, err) = (read(self.0.stdout.take()), read(self.0.stderr.take()));
                return (status.code(), out, err);
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn read(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    pipe.unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Two hosts, 10.9.0.1 and 10.9.0.2, on a wire.
pub(crate) fn pair() -> [Namespace; 2] {
    let hosts = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    Namespace::veth(&hosts[0], "eth0", &hosts[1], "eth0").unwrap();
    for (number, host) in (1..).zip(&hosts) {
        host.add_address("eth0", format!("10.9.0.{number}/24")).unwrap();
        host.up("eth0").unwrap();
    }
    for host in &hosts {
        host.wait_up("eth0", PATIENCE).unwrap();
    }
    hosts
}
