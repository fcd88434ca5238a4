//! The standalone forwarder as a program: arguments, exit codes, messages, and traffic through it.
#![cfg(all(feature = "io", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "forwarder/capture.rs"]
mod capture;
#[path = "forwarder/control.rs"]
mod control;
#[path = "forwarder/deployment.rs"]
mod deployment;
#[path = "forwarder/doctor.rs"]
mod doctor;
#[path = "forwarder/metrics.rs"]
mod metrics;
#[path = "forwarder/privileges.rs"]
mod privileges;
#[path = "common/program.rs"]
mod program;
#[path = "forwarder/reload.rs"]
mod reload;
#[path = "forwarder/service.rs"]
mod service;
#[path = "forwarder/threads.rs"]
mod threads;
#[path = "common/tshark.rs"]
mod tshark;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Ping, Transfer, Vxlan, ping, ping_ok, privileged, tcp_transfer};
use program::{PATIENCE, Running, command, pair};

fn run(arguments: &str) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn check_says_what_a_file_holds() {
    let (code, out, err) = run("check examples/forwarder/forwarder.toml");
    let summary = "examples/forwarder/forwarder.toml: 4 segments, 6 ports, 3 flood list entries, 1 peer, \
                   4 FDB entries, 7 routes\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), summary, ""));
}

#[test]
fn check_and_run_report_all_errors_of_a_file_and_exit_with_2() {
    let file = env::temp_dir().join(format!("forwarder-{}.toml", std::process::id()));
    let text = "[dataplane]\nlocal = \"10.9.0.1\"\n[[segment]]\nkind = \"bridge\"\nvni = 16777216\nopen = 1\n";
    fs::write(&file, text).unwrap();
    let name = file.display();
    let expected = format!(
        "error: 2 errors in {name}\n\
         {name}:5: segment.vni: 16777216 is not allowed; allowed: 0 to 16777215\n\
         {name}:6: segment.open: 1 is not allowed; allowed: true or false\n"
    );
    for verb in ["check", "run"] {
        let (code, out, err) = run(&format!("{verb} {name}"));
        assert_eq!((code, out.as_str(), err.as_str()), (Some(2), "", expected.as_str()), "{verb}");
    }
    fs::remove_file(&file).unwrap();
    let (code, _, err) = run(&format!("check {name}"));
    assert_eq!(code, Some(2));
    assert!(err.starts_with(&format!("error: reading {name}: No such file")), "{err}");
}

#[test]
fn wrong_arguments_exit_with_2_and_help_with_0() {
    for arguments in ["", "fly", "vxlan", "vxlan --vni 16777216 --local 10.9.0.1", "run"] {
        assert_eq!(run(arguments).0, Some(2), "{arguments}");
    }
    let (code, _, err) = run("vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.1 --dev ovl0");
    let message = "error: --remote 10.9.0.1: 10.9.0.1:4789 is this node itself\n";
    assert_eq!((code, err.as_str()), (Some(2), message));
    for verb in ["", "vxlan ", "udp ", "flannel ", "run ", "check ", "demo "] {
        let (code, out, _) = run(&format!("{verb}--help"));
        assert_eq!(code, Some(0), "{verb}");
        assert!(out.contains("Usage: forwarder"), "{out}");
    }
    let version = format!("forwarder {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run("--version"), (Some(0), version, String::new()));
}

/// A forwarder on each of two hosts, with its device up.
fn start_both(hosts: &[Namespace; 2], arguments: [&str; 2], device: &str) -> [Running; 2] {
    let mut forwarders =
        [0, 1].map(|number: usize| Running::start(&hosts[number], arguments[number]));
    for (forwarder, host) in forwarders.iter_mut().zip(hosts) {
        forwarder.wait_for(host, device);
    }
    forwarders
}

/// Pings around the MTU, which is the kernel's for the device too, and bulk TCP, in both directions.
fn exchange(hosts: &[Namespace; 2], addresses: [&str; 2], mtu: u32, link: &str) {
    let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    let headers = if addresses[0].is_ipv4() { 28 } else { 48 };
    let full = mtu as usize - headers;
    for (from, to) in [(0, 1), (1, 0)] {
        let (host, address) = (&hosts[from], addresses[to]);
        assert!(ping_ok(host, address, 56), "{address}");
        for (payload, whole) in
            [(0, true), (full - 1, true), (full, true), (full + 1, false), (4000, false)]
        {
            let how = Ping { payload, dont_fragment: whole, ..Ping::default() };
            let report = ping(host, address, how).unwrap();
            assert_eq!((report.received, report.surplus), (3, 0), "{payload} bytes to {address}");
        }
        let too_large = Ping {
            payload: full + 1,
            dont_fragment: true,
            count: 1,
            timeout: Duration::from_millis(300),
            ..Ping::default()
        };
        assert_eq!(ping(host, address, too_large).unwrap().received, 0, "to {address}");
        let what = Transfer::of_bytes(20_000_000);
        let report = tcp_transfer(host, &hosts[to], SocketAddr::new(address, 0), what).unwrap();
        assert_eq!(report.bytes, 20_000_000);
    }
    assert_eq!(hosts[0].mtu(link).unwrap(), mtu);
}

#[test]
fn vxlan_talks_to_the_kernels_and_leaves_nothing_behind() {
    if !privileged("vxlan_talks_to_the_kernels_and_leaves_nothing_behind") {
        return;
    }
    let hosts = pair();
    let mut forwarder = Running::start(
        &hosts[0],
        "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24 --address fd08::1/64",
    );
    let (local, remotes) = ([10, 9, 0, 2].into(), [[10, 9, 0, 1].into()]);
    hosts[1].add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vxlan0", 42, local) }).unwrap();
    hosts[1].set_mtu("vxlan0", 1450).unwrap();
    hosts[1].add_address("vxlan0", "10.8.0.2/24").unwrap();
    hosts[1].add_address("vxlan0", "fd08::2/64").unwrap();
    hosts[1].up("vxlan0").unwrap();
    hosts[1].wait_up("vxlan0", PATIENCE).unwrap();
    forwarder.wait_for(&hosts[0], "ovl0");
    exchange(&hosts, ["10.8.0.1", "10.8.0.2"], 1450, "ovl0");
    exchange(&hosts, ["fd08::1", "fd08::2"], 1450, "ovl0");

    let (code, out, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("frames: "), "{out}");
    for line in ["segment VXLAN 42 on UDP port 4789: ", "port ovl0: ", "VTEP 10.9.0.2:4789: "] {
        assert!(out.lines().any(|have| have.starts_with(line)), "{line}: {out}");
    }
    for line in [
        " INFO VXLAN 42 on UDP port 4789: MTU 1450 over eth0",
        " INFO forwarding",
        " INFO stopping",
    ] {
        assert!(err.contains(line), "{line}: {err}");
    }
    assert!(!hosts[0].exists("ovl0"));
}

#[test]
fn row_25_counters_are_json_at_a_signal_and_at_the_end() {
    if !privileged("row_25_counters_are_json_at_a_signal_and_at_the_end") {
        return;
    }
    let hosts = pair();
    let arguments = "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24 --stats json";
    let mut forwarder = Running::start(&hosts[0], arguments);
    let (local, remotes) = ([10, 9, 0, 2].into(), [[10, 9, 0, 1].into()]);
    hosts[1].add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vxlan0", 42, local) }).unwrap();
    hosts[1].add_address("vxlan0", "10.8.0.2/24").unwrap();
    hosts[1].up("vxlan0").unwrap();
    forwarder.wait_for(&hosts[0], "ovl0");
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));
    forwarder.signal(libc::SIGUSR1);
    // All of it comes in one line, which is here before the end is asked for.
    let mut lines = BufReader::new(forwarder.0.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    forwarder.signal(libc::SIGTERM);
    let last = next();
    for document in [&first, &last] {
        assert_eq!(document["layout"], 1);
        assert_eq!(document["segments"][0]["segment"]["vni"], 42);
        assert_eq!(document["ports"][0]["name"], "ovl0");
        assert_eq!(document["vteps"][0]["address"], "10.9.0.2:4789");
        for place in ["segments", "ports", "vteps"] {
            for direction in ["received", "sent"] {
                let traffic = &document[place][0]["traffic"][direction];
                let count = |key: &str| traffic[key].as_u64().unwrap();
                assert!(count("unicast") > 0 && count("bytes") > 0, "{place} {traffic}");
                let parts = ["unicast", "multicast", "broadcast"].map(count);
                assert_eq!(parts.iter().sum::<u64>(), count("packets"), "{place} {traffic}");
            }
        }
        // The ping began with a neighbour request to everybody.
        assert!(document["vteps"][0]["traffic"]["sent"]["broadcast"].as_u64() > Some(0));
    }
    assert!(first["totals"]["received"].as_u64() <= last["totals"]["received"].as_u64());
}

/// Two devices that are kept apart, and broadcasts at a rate that neighbour requests soon exceed.
#[test]
fn options_of_a_command_line_hold() {
    if !privileged("options_of_a_command_line_hold") {
        return;
    }
    let hosts = pair();
    let arguments = "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24 \
                     --add-dev tap1 --isolated --port-storm-broadcast 1/2 --vlan untagged --stats json";
    let mut forwarder = Running::start(&hosts[0], arguments);
    for link in ["ovl0", "tap1"] {
        forwarder.wait_for(&hosts[0], link);
    }
    let mut lines = BufReader::new(forwarder.0.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // The devices are up a moment before there is anybody to send to.
    let deadline = Instant::now() + PATIENCE;
    loop {
        forwarder.signal(libc::SIGUSR1);
        if next()["vteps"].as_array().is_some_and(|vteps| !vteps.is_empty()) {
            break;
        }
        assert!(Instant::now() < deadline, "no VTEP");
        thread::sleep(Duration::from_millis(10));
    }
    let nobody = Ping { count: 1, timeout: Duration::from_millis(100), ..Ping::default() };
    for number in 3..13 {
        assert_eq!(ping(&hosts[0], [10, 8, 0, number].into(), nobody).unwrap().received, 0);
    }
    forwarder.signal(libc::SIGTERM);
    let document = next();
    let [ovl0, tap1] = ["ovl0", "tap1"].map(|name| {
        let ports = document["ports"].as_array().unwrap();
        &ports.iter().find(|port| port["name"] == name).unwrap()["traffic"]
    });
    let drops = &document["segments"][0]["drops"];
    assert!(drops["storm_broadcast"].as_u64() >= Some(1), "{document}");
    assert!(ovl0["received"]["broadcast"].as_u64() >= Some(2), "{document}");
    let vtep = &document["vteps"][0]["traffic"];
    assert!(vtep["sent"]["broadcast"].as_u64() >= Some(1), "{document}");
    assert_eq!(tap1["sent"]["broadcast"], 0, "{document}");
}

/// One of two forwarders probes the path, and says what has come of it.
#[test]
fn row_19_a_probed_path_is_in_the_counters() {
    if !privileged("row_19_a_probed_path_is_in_the_counters") {
        return;
    }
    let hosts = pair();
    let arguments = [
        "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --probe --stats json",
        "vxlan --vni 42 --local 10.9.0.2 --remote 10.9.0.1 --dev ovl0 --stats json",
    ];
    let mut forwarders = start_both(&hosts, arguments, "ovl0");
    let mut lines = BufReader::new(forwarders[0].0.stdout.take().unwrap()).lines();
    let deadline = Instant::now() + PATIENCE;
    let vtep = loop {
        forwarders[0].signal(libc::SIGUSR1);
        let document: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let vtep = document["vteps"][0].clone();
        if vtep["probe"]["state"] == "complete" {
            break vtep;
        }
        assert!(Instant::now() < deadline, "{vtep}");
        thread::sleep(Duration::from_millis(50));
    };
    let probe = &vtep["probe"];
    assert_eq!(probe["verified"], 1500, "{vtep}");
    assert!(vtep["path_mtu"]["verified"].is_null(), "{vtep}");
    assert!(probe["answered"].as_u64() >= Some(2) && probe["sent"].is_u64(), "{vtep}");
    assert!(probe["last_answer_ms"].is_u64() && probe["round_trip_us"].is_u64(), "{vtep}");
    assert_eq!(probe["black_holes"], 0);
    // The other one has only answered.
    let [_, other] = forwarders;
    let (_, out, _) = other.end(libc::SIGTERM);
    let document: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(document["vteps"][0]["probe"].is_null(), "{out}");
    assert!(document["totals"]["probes_answered"].as_u64() >= Some(2), "{out}");
}

#[test]
fn udp_talks_to_udp() {
    if !privileged("udp_talks_to_udp") {
        return;
    }
    let hosts = pair();
    let arguments = [
        "udp --local 10.9.0.1 --dev flannel0 --address 10.7.1.0/16 --route 10.7.2.0/24=10.9.0.2 --log warn",
        "udp --local 10.9.0.2 --dev flannel0 --address 10.7.2.0/16 --route 10.7.1.0/24=10.9.0.1 --log warn --workers 2",
    ];
    let forwarders = start_both(&hosts, arguments, "flannel0");
    exchange(&hosts, ["10.7.1.0", "10.7.2.0"], 1472, "flannel0");
    for (forwarder, host) in forwarders.into_iter().zip(&hosts) {
        let (code, out, err) = forwarder.end(libc::SIGINT);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("segment IP in UDP on port 8285: "), "{out}");
        assert!(!host.exists("flannel0"));
    }
}

#[test]
fn run_sets_up_what_a_file_says() {
    if !privileged("run_sets_up_what_a_file_says") {
        return;
    }
    let hosts = pair();
    let file = env::temp_dir().join(format!("forwarder-run-{}.toml", std::process::id()));
    fs::copy("examples/forwarder/forwarder.toml", &file).unwrap();
    let mut forwarder = Running::start(&hosts[0], &format!("run {}", file.display()));
    for (link, mtu) in [("ovl0", 1450), ("ovl1", 1450), ("ovl2", 1400), ("flannel0", 1472)] {
        forwarder.wait_for(&hosts[0], link);
        assert_eq!(hosts[0].mtu(link).unwrap(), mtu, "{link}");
    }
    let addresses = hosts[0].addresses().unwrap();
    for (link, address) in
        [("ovl0", "10.8.0.1/24"), ("ovl0", "fd08::1/64"), ("flannel0", "10.7.1.0/16")]
    {
        let there = (link.to_owned(), address.parse().unwrap());
        assert!(addresses.contains(&there), "{there:?}: {addresses:?}");
    }
    // Devices follow the underlay, but for one with an MTU of its own.
    hosts[0].set_mtu("eth0", 1490).unwrap();
    let follow = || {
        let mtus = ["ovl0", "ovl1", "ovl2", "flannel0"].map(|link| hosts[0].mtu(link).unwrap());
        mtus == [1440, 1440, 1400, 1462]
    };
    let end = Instant::now() + Duration::from_secs(5);
    while !follow() {
        assert!(Instant::now() < end, "devices do not follow the underlay's MTU");
        thread::sleep(Duration::from_millis(20));
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    fs::remove_file(file).unwrap();
}

#[test]
fn what_cannot_be_set_up_is_said_and_exits_with_1() {
    if !privileged("what_cannot_be_set_up_is_said_and_exits_with_1") {
        return;
    }
    let hosts = pair();
    let fails = |arguments: &str| {
        let output = hosts[0].run(|| command(arguments).output()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    };
    let err = fails("vxlan --vni 42 --local 10.9.0.9 --remote 10.9.0.2 --dev ovl0");
    let expected = "error: the local address 10.9.0.9 is on no interface; the addresses here: \
                    127.0.0.1 (lo), 10.9.0.1 (eth0)\n";
    assert_eq!(err, expected);
    hosts[0].set_mtu("eth0", 1000).unwrap();
    let err =
        fails("vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address fd08::1/64");
    assert!(
        err.ends_with("error: ovl0: IPv6 needs an MTU of 1280 or more, and the segment's is 950\n"),
        "{err}"
    );
    let err = fails("vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev eth0");
    assert!(err.starts_with("error: ") && err.contains("eth0"), "{err}");
    assert!(!hosts[0].exists("ovl0"));
}

/// The slowest: it measures speed.
#[test]
fn demo_passes() {
    if !privileged("demo_passes") {
        return;
    }
    let (code, out, err) = run("demo");
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("kernel VXLAN") && out.contains("of the kernel's"), "{out}");
    assert!(out.trim_end().ends_with("steps passed"), "{out}");
}

#[test]
fn demo_ends_at_once_when_interrupted() {
    if !privileged("demo_ends_at_once_when_interrupted") {
        return;
    }
    let here = Namespace::current().unwrap();
    let demo = Running::start(&here, "demo");
    thread::sleep(Duration::from_millis(700));
    let start = Instant::now();
    let (code, out, _) = demo.end(libc::SIGINT);
    assert_eq!(code, Some(130), "{out}");
    assert!(out.ends_with("\ninterrupted\n"), "{out}");
    assert!(start.elapsed() < Duration::from_secs(1));
}
