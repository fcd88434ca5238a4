//! The forwarder with the privileges that it keeps: it does all of its work with these, and has no others.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{self, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Ping, Transfer, Vxlan, ping, ping_ok, privileged, tcp_transfer};
use serde_json::Value;

use super::program::{PATIENCE, Running, command, pair};
use super::threads::{BIND_SERVICE, NET_ADMIN, VXLAN, capabilities, threads, wait_for_threads};

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
    forwarder.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
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

/// What is changed at run time takes sockets, devices, links and addresses that were not there when privileges were given up.
#[test]
fn changes_work_under_the_filters() {
    if !privileged("changes_work_under_the_filters") {
        return;
    }
    let hosts = pair();
    kernel_peer(&hosts[1]);
    let socket = env::temp_dir().join(format!("forwarder-privileges-{}.sock", process::id()));
    let at = socket.display();
    // Root without capabilities may open /dev/net/tun, which is its own; nobody may where udev says so.
    let forwarder =
        Running::start(&hosts[0], &format!("{VXLAN} --keep-user --workers 2 --control {at}"));
    wait_for_threads(&forwarder, &["control", "overplane-1"]);
    let asked = |line: &str| {
        let output = command(&format!("{line} --control {at}")).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), err)
    };
    for line in [
        "port add tap7 --address 10.8.7.1/24",
        "segment add 77 --udp-port 4790",
        "port add tap8 --segment 77",
        "segment add 78 --udp-port 4791",
        "port del tap8",
        "segment del 78",
        "fdb add 02:00:00:00:00:07 --vtep 10.9.0.2 --segment 42",
        "show",
    ] {
        assert_eq!(asked(line), (Some(0), String::new()), "{line}");
    }
    let addresses = hosts[0].addresses().unwrap();
    assert!(addresses.contains(&("tap7".to_owned(), "10.8.7.1/24".parse().unwrap())));
    assert!(!hosts[0].exists("tap8"));
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));
    hosts[0].set_mtu("eth0", 1400).unwrap();
    eventually("a new device follows the underlay's MTU", || hosts[0].mtu("tap7").unwrap() == 1350);
    // What was given up is missed by name.
    let (code, err) = asked("segment add 79 --udp-port 89");
    assert_eq!(code, Some(1));
    assert!(
        err.contains("10.9.0.1:89: Permission denied") && err.contains("CAP_NET_BIND_SERVICE"),
        "{err}"
    );
    for (name, status) in threads(&forwarder) {
        assert_eq!(status["Seccomp"], "2", "{name}");
        assert_eq!(capabilities(&status, "CapEff"), NET_ADMIN, "{name}");
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(!socket.exists(), "the control socket stays");
}

/// Root has read the file, and nobody will not.
#[test]
fn a_file_that_cannot_be_read_again_is_said_at_the_start() {
    if !privileged("a_file_that_cannot_be_read_again_is_said_at_the_start") {
        return;
    }
    let hosts = pair();
    let file = env::temp_dir().join(format!("forwarder-secret-{}.toml", process::id()));
    let text = "dataplane.local = \"10.9.0.1\"\n[[segment]]\nkind = \"bridge\"\nvni = 42\n";
    for (mode, said) in [(0o600, true), (0o644, false)] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let forwarder = Running::start(&hosts[0], &format!("run {}", file.display()));
        wait_for_threads(&forwarder, &["overplane-0"]);
        let (code, _, err) = forwarder.end(libc::SIGTERM);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(err.contains("it cannot be loaded again; let the user read it"), said, "{err}");
    }
    fs::remove_file(&file).unwrap();
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
    let everything = own_capabilities();
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
fn own_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}
