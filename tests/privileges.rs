//! The forwarder with the privileges that it keeps: it does all of its work with these, and has no others.
#![cfg(all(feature = "io", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{self, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Ping, Transfer, Vxlan, ping, ping_ok, privileged, tcp_transfer};
use program::{PATIENCE, Running, command, pair};
use serde_json::Value;

/// CAP_NET_BIND_SERVICE and CAP_NET_ADMIN (kernel `include/uapi/linux/capability.h`).
const BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;

const VXLAN: &str =
    "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24";

/// What the kernel says of each thread of a process, by name of the thread.
fn threads(forwarder: &Running) -> BTreeMap<String, BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", forwarder.0.id())).unwrap();
    let status = |task: fs::DirEntry| -> BTreeMap<String, String> {
        let text = fs::read_to_string(task.path().join("status")).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key.into(), value.trim().replace('\t', " "))).collect()
    };
    tasks.map(|task| status(task.unwrap())).map(|status| (status["Name"].clone(), status)).collect()
}

fn capabilities(status: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).unwrap()
}

/// Waits until the forwarder forwards, with all its threads.
fn wait_for_threads(forwarder: &Running, names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while !names.iter().all(|name| threads(forwarder).contains_key(*name)) {
        assert!(Instant::now() < deadline, "{:?} instead of {names:?}", threads(forwarder).keys());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel's VXLAN device on the second host, as 10.8.0.2.
fn kernel_peer(host: &Namespace) {
    let (local, remotes) = ([10, 9, 0, 2].into(), [[10, 9, 0, 1].into()]);
    host.add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vxlan0", 42, local) }).unwrap();
    host.add_address("vxlan0", "10.8.0.2/24").unwrap();
    host.up("vxlan0").unwrap();
}

/// Asks for counters until `holds` is content with them.
fn counters_when(
    forwarder: &Running,
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        forwarder.signal(libc::SIGUSR1);
        let document: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if holds(&document) {
            return document;
        }
        assert!(Instant::now() < deadline, "{document}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn lines_of(forwarder: &mut Running) -> std::io::Lines<BufReader<ChildStdout>> {
    BufReader::new(forwarder.0.stdout.take().unwrap()).lines()
}

#[test]
fn a_forwarder_does_all_of_its_work_with_what_it_keeps() {
    if !privileged("a_forwarder_does_all_of_its_work_with_what_it_keeps") {
        return;
    }
    let hosts = pair();
    kernel_peer(&hosts[1]);
    let arguments = format!("{VXLAN} --workers 2 --snoop --suppress --probe --stats json");
    let mut forwarder = Running::start(&hosts[0], &arguments);
    let names = ["forwarder", "signals", "overplane-0", "overplane-1"];
    wait_for_threads(&forwarder, &names);
    let threads = threads(&forwarder);
    assert_eq!(threads.len(), names.len(), "{:?}", threads.keys());
    for (name, status) in &threads {
        for (key, value) in [
            ("Uid", "65534 65534 65534 65534"),
            ("Gid", "65534 65534 65534 65534"),
            ("Groups", ""),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(status[key], value, "{key} of {name}");
        }
        for (set, kept) in [
            ("CapEff", NET_ADMIN),
            ("CapPrm", NET_ADMIN),
            ("CapBnd", NET_ADMIN),
            ("CapInh", 0),
            ("CapAmb", 0),
        ] {
            assert_eq!(capabilities(status, set), kept, "{set} of {name}");
        }
    }

    // Traffic, and what is learned from it.
    let mut lines = lines_of(&mut forwarder);
    let peer: IpAddr = [10, 8, 0, 2].into();
    assert!(ping_ok(&hosts[0], peer, 56));
    let server = SocketAddr::new(peer, 0);
    let report = tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(5_000_000)).unwrap();
    assert_eq!(report.bytes, 5_000_000);
    counters_when(&forwarder, &mut lines, |document| {
        document["segments"][0]["learned"].as_u64() >= Some(2)
    });

    // The devices' MTU follows the underlay's.
    hosts[0].set_mtu("eth0", 1400).unwrap();
    eventually("the device follows the underlay's MTU", || hosts[0].mtu("ovl0").unwrap() == 1350);

    // A device that goes is noticed, and the process carries on.
    hosts[0].delete("ovl0").unwrap();
    counters_when(&forwarder, &mut lines, |document| document["layout"] == 1);
    forwarder.signal(libc::SIGTERM);
    let mut err = String::new();
    std::io::Read::read_to_string(&mut forwarder.0.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(forwarder.0.wait().unwrap().code(), Some(0), "{err}");
    assert!(err.contains("device ovl0 (port 0) is gone"), "{err}");
    assert!(!err.contains("not permitted") && !err.contains("denied"), "{err}");
    let line = err.lines().find(|line| line.contains("privileges: ")).unwrap();
    for part in [
        "user nobody (65534:65534)",
        "CAP_NET_ADMIN",
        "no new privileges",
        "seccomp on",
        "in all 4 threads",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// A router between two forwarders with less room behind it: what it refuses is heard of and learned.
#[test]
fn path_mtu_errors_arrive() {
    if !privileged("path_mtu_errors_arrive") {
        return;
    }
    let hosts: [Namespace; 2] = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    let router = Namespace::new().unwrap();
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    for (number, host) in (1..).zip(&hosts) {
        let link = format!("eth{number}");
        Namespace::veth(host, "eth0", &router, &link).unwrap();
        host.add_address("eth0", format!("10.9.{number}.1/24")).unwrap();
        router.add_address(&link, format!("10.9.{number}.254/24")).unwrap();
        host.up("eth0").unwrap();
        router.up(&link).unwrap();
        host.wait_up("eth0", PATIENCE).unwrap();
        let other = 3 - number;
        host.add_route(format!("10.9.{other}.0/24"), Some([10, 9, number, 254].into()), None)
            .unwrap();
    }
    router.set_mtu("eth2", 1300).unwrap();
    let mut forwarders = [1, 2].map(|number: u8| {
        let other = 3 - number;
        let arguments = format!(
            "vxlan --vni 42 --local 10.9.{number}.1 --remote 10.9.{other}.1 --dev ovl0 \
             --address 10.8.0.{number}/24 --stats json"
        );
        Running::start(&hosts[usize::from(number) - 1], &arguments)
    });
    for (forwarder, host) in forwarders.iter_mut().zip(&hosts) {
        forwarder.wait_for(host, "ovl0");
    }
    let peer = [10, 8, 0, 2].into();
    assert!(ping_ok(&hosts[0], peer, 56));
    let large =
        Ping { payload: 1400, count: 1, timeout: Duration::from_millis(200), ..Ping::default() };
    let _lost = ping(&hosts[0], peer, large).unwrap();
    let mut lines = lines_of(&mut forwarders[0]);
    counters_when(&forwarders[0], &mut lines, |document| {
        document["vteps"][0]["path_mtu"]["learned"] == 1300
    });
}

/// Each switch changes its own part alone, as the kernel sees it or, for landlock, as the forwarder says.
#[test]
fn each_switch_switches_off_its_part() {
    if !privileged("each_switch_switches_off_its_part") {
        return;
    }
    let hosts = pair();
    let everything = threads_capabilities();
    let [nobody, root] = ["65534 65534 65534 65534", "0 0 0 0"];
    struct Kept {
        uid: &'static str,
        effective: u64,
        bounding: u64,
        no_new_privs: &'static str,
        seccomp: &'static str,
        landlock: bool,
    }
    let all = || Kept {
        uid: nobody,
        effective: NET_ADMIN,
        bounding: NET_ADMIN,
        no_new_privs: "1",
        seccomp: "2",
        landlock: true,
    };
    for (flags, kept) in [
        ("", all()),
        ("--user 1", Kept { uid: "1 1 1 1", ..all() }),
        ("--keep-user", Kept { uid: root, ..all() }),
        ("--keep-capabilities", Kept { effective: everything, bounding: everything, ..all() }),
        ("--no-seccomp", Kept { seccomp: "0", ..all() }),
        ("--no-landlock", Kept { landlock: false, ..all() }),
        (
            "--no-seccomp --no-landlock --allow-new-privs",
            Kept { seccomp: "0", landlock: false, no_new_privs: "0", ..all() },
        ),
        (
            "--port 89",
            Kept {
                effective: NET_ADMIN | BIND_SERVICE,
                bounding: NET_ADMIN | BIND_SERVICE,
                ..all()
            },
        ),
    ] {
        let forwarder = Running::start(&hosts[0], &format!("{VXLAN} {flags}"));
        wait_for_threads(&forwarder, &["overplane-0", "signals"]);
        for (name, status) in threads(&forwarder) {
            assert_eq!(status["Uid"], kept.uid, "{flags}: {name}");
            assert_eq!(capabilities(&status, "CapEff"), kept.effective, "{flags}: {name}");
            assert_eq!(capabilities(&status, "CapPrm"), kept.effective, "{flags}: {name}");
            assert_eq!(capabilities(&status, "CapBnd"), kept.bounding, "{flags}: {name}");
            assert_eq!(status["NoNewPrivs"], kept.no_new_privs, "{flags}: {name}");
            assert_eq!(status["Seccomp"], kept.seccomp, "{flags}: {name}");
        }
        let (code, _, err) = forwarder.end(libc::SIGTERM);
        assert_eq!(code, Some(0), "{flags}: {err}");
        assert_eq!(err.contains("landlock off"), !kept.landlock, "{flags}: {err}");
    }
}

/// All capabilities that this process has and so can hand down.
fn threads_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Starts a forwarder by `setpriv` of util-linux, which every Debian has; `None` where there is none.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn start_as(host: &Namespace, how: &[String], arguments: &[String]) -> Option<Running> {
    let mut command = process::Command::new("setpriv");
    command.args(how).arg(program::command("").get_program()).args(arguments);
    command.stdin(process::Stdio::null());
    command.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
    match host.run(|| command.spawn()) {
        Ok(child) => Some(Running(child)),
        Err(e) => {
            assert!(env::var_os("CI").is_none(), "setpriv has to be there in CI, but: {e}");
            eprintln!("SKIPPED: setpriv of util-linux: {e}");
            None
        }
    }
}

/// The value of a key of the systemd unit.
fn of_the_unit(key: &str) -> String {
    let unit = fs::read_to_string("contrib/systemd/overplane-forwarder.service").unwrap();
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{key} is not in the unit")).to_owned()
}

/// Capabilities as `setpriv` has them, and no others.
fn only<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.fold("-all".into(), |list, name| {
        format!("{list},+{}", name.trim().trim_start_matches("CAP_").to_lowercase())
    })
}

/// A start as by the systemd unit, by a user with the capabilities that it gives.
#[test]
fn who_is_not_root_stays_who_it_is_and_keeps_no_more_than_it_needs() {
    if !privileged("who_is_not_root_stays_who_it_is_and_keeps_no_more_than_it_needs") {
        return;
    }
    let hosts = pair();
    assert_eq!(of_the_unit("AmbientCapabilities"), of_the_unit("CapabilityBoundingSet"));
    // Who may open /dev/net/tun is udev's to say, and it is not at work everywhere.
    let unit = of_the_unit("AmbientCapabilities");
    let given = only(unit.split(' ').chain(["CAP_DAC_OVERRIDE"]));
    let how = [
        "--reuid=1".to_owned(),
        "--regid=1".to_owned(),
        "--clear-groups".to_owned(),
        "--no-new-privs".to_owned(),
        format!("--bounding-set={given}"),
        format!("--inh-caps={given}"),
        format!("--ambient-caps={given}"),
    ];
    let arguments: Vec<String> = VXLAN.split_whitespace().map(str::to_owned).collect();
    let Some(forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    for (name, status) in threads(&forwarder) {
        assert_eq!(status["Uid"], "1 1 1 1", "{name}");
        for (set, kept) in
            [("CapEff", NET_ADMIN), ("CapPrm", NET_ADMIN), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(capabilities(&status, set), kept, "{set} of {name}");
        }
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("user 1; CAP_NET_ADMIN (bounding set left: no CAP_SETPCAP)"), "{err}");
}

/// A start as by the DaemonSet: its arguments, and root with its capabilities.
#[test]
fn a_containers_root_becomes_nobody_with_one_capability() {
    if !privileged("a_containers_root_becomes_nobody_with_one_capability") {
        return;
    }
    let hosts = pair();
    let text = fs::read_to_string("contrib/kubernetes/daemonset.yaml").unwrap();
    let lines = || text.lines().map(str::trim);
    let given = lines().find_map(|line| line.strip_prefix("add: [")?.strip_suffix(']')).unwrap();
    assert!(lines().any(|line| line == "allowPrivilegeEscalation: false"));
    let given = only(given.split(','));
    let how = [
        "--no-new-privs".to_owned(),
        format!("--bounding-set={given}"),
        format!("--inh-caps={given}"),
    ];
    let arguments: Vec<String> = lines()
        .skip_while(|line| *line != "args:")
        .skip(1)
        .map_while(|line| line.strip_prefix("- "))
        .map(|argument| argument.replace("$(NODE_ADDRESS)", "10.9.0.1"))
        .collect();
    let Some(mut forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    forwarder.wait_for(&hosts[0], "ovl0");
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    for (name, status) in threads(&forwarder) {
        assert_eq!(status["Uid"], "65534 65534 65534 65534", "{name}");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(capabilities(&status, set), NET_ADMIN, "{set} of {name}");
        }
        assert_eq!(capabilities(&status, "CapInh"), 0, "{name}");
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}

/// Root that may not become anybody else is told so and goes on, unless it was asked for by name.
#[test]
fn root_that_cannot_become_nobody_goes_on_and_says_so() {
    if !privileged("root_that_cannot_become_nobody_goes_on_and_says_so") {
        return;
    }
    let hosts = pair();
    let given = only(["net_admin"].into_iter());
    let how = [format!("--bounding-set={given}"), format!("--inh-caps={given}")];
    let mut arguments: Vec<String> = VXLAN.split_whitespace().map(str::to_owned).collect();
    let Some(forwarder) = start_as(&hosts[0], &how, &arguments) else { return };
    wait_for_threads(&forwarder, &["overplane-0", "signals"]);
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("WARN becoming nobody (65534:65534): EPERM"), "{err}");
    assert!(err.contains("privileges: user 0; CAP_NET_ADMIN; "), "{err}");
    arguments.extend(["--user".into(), "nobody".into()]);
    let Some(mut refused) = start_as(&hosts[0], &how, &arguments) else { return };
    let mut err = String::new();
    std::io::Read::read_to_string(&mut refused.0.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(refused.0.wait().unwrap().code(), Some(1), "{err}");
    assert!(err.contains("error: becoming nobody (65534:65534): EPERM"), "{err}");
    assert!(!hosts[0].exists("ovl0"));
}

#[test]
fn the_configuration_of_the_package_is_right() {
    let output = command("check contrib/debian/overplane.toml").output().unwrap();
    let expected = "contrib/debian/overplane.toml: 1 segment, 1 port, 1 flood list entry, 0 peers, \
                    0 FDB entries, 0 routes\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
}

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

    fn start(&self, host: &Namespace, watchdog: Duration) -> Running {
        let mut command = command(VXLAN);
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        command.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
        Running(host.run(|| command.spawn()).unwrap())
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
