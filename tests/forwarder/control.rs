//! The control socket: each verb against a running forwarder, and clients that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use overplane_lab::{Namespace, Vxlan, ping_ok, privileged};
use serde_json::{Value, json};

use super::program::{PATIENCE, Running, command, pair, read};

/// The control socket of one test.
pub(super) struct Socket(pub(super) PathBuf);

impl Socket {
    pub(super) fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("overplane-{}-{name}.sock", std::process::id())))
    }

    /// Asks: the exit code, what is printed, and errors.
    pub(super) fn ask(&self, arguments: &str) -> (Option<i32>, String, String) {
        let mut asking = command(arguments);
        let Output { status, stdout, stderr } =
            asking.arg("--control").arg(&self.0).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Asks for what there has to be, as text.
    pub(super) fn text(&self, arguments: &str) -> String {
        let (code, out, err) = self.ask(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments}");
        out
    }

    /// The same as JSON.
    pub(super) fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{arguments} -j"))).unwrap()
    }

    /// Asks for what is refused: the exit code, and why.
    pub(super) fn refused(&self, arguments: &str) -> (i32, String) {
        let (code, out, err) = self.ask(arguments);
        assert_eq!(out, "", "{arguments}");
        (code.unwrap(), err)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A forwarder with this control socket, which answers.
    pub(super) fn start(&self, host: &Namespace, arguments: &str) -> Running {
        let mut forwarder =
            Running::start(host, &format!("{arguments} --control {}", self.0.display()));
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.0).is_err() {
            if let Some(status) = forwarder.0.try_wait().unwrap() {
                panic!("{status}: {}", read(forwarder.0.stderr.take()));
            }
            assert!(Instant::now() < deadline, "no control socket");
            thread::sleep(Duration::from_millis(10));
        }
        forwarder
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const VXLAN: &str =
    "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24";

/// What lets a forwarder make devices while it runs: nothing, where everybody may open the file for it, as under udev.
pub(super) fn to_make_devices() -> &'static str {
    let mode = fs::metadata("/dev/net/tun").unwrap().permissions().mode();
    if mode & 0o006 == 0o006 { "" } else { "--keep-user" }
}

/// Hosts with a forwarder on the first and the kernel's VXLAN on the second.
fn with_kernel(socket: &Socket) -> ([Namespace; 2], Running) {
    let hosts = pair();
    let forwarder = socket.start(&hosts[0], &format!("{VXLAN} {}", to_make_devices()));
    let (local, remotes) = ([10, 9, 0, 2].into(), [[10, 9, 0, 1].into()]);
    hosts[1].add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vxlan0", 42, local) }).unwrap();
    hosts[1].add_address("vxlan0", "10.8.0.2/24").unwrap();
    hosts[1].up("vxlan0").unwrap();
    hosts[1].wait_up("vxlan0", PATIENCE).unwrap();
    (hosts, forwarder)
}

#[test]
fn a_bridge_segment_is_shown_and_changed_while_it_forwards() {
    if !privileged("a_bridge_segment_is_shown_and_changed_while_it_forwards") {
        return;
    }
    let socket = Socket::new("bridge");
    let (hosts, forwarder) = with_kernel(&socket);
    assert_eq!(fs::metadata(&socket.0).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));

    // FDB: what was learned, entries that come and go, and flushes.
    let learned = socket.json("fdb show");
    let is_learned =
        |entry: &&Value| entry["origin"] == "learned" && entry["vtep"] == "10.9.0.2:4789";
    let remote = learned.as_array().unwrap().iter().find(is_learned).unwrap()["mac"].clone();
    let remote = remote.as_str().unwrap();
    let line = format!("{remote} vtep 10.9.0.2:4789 segment 42@4789 learned");
    assert!(socket.text("fdb show").lines().any(|have| have.starts_with(&line)));
    socket.text("fdb add 02:00:00:00:00:07 --vtep 10.9.0.2");
    socket.text("fdb add 02:00:00:00:00:08 --port ovl0 --segment 42");
    socket.text("fdb add 02:00:00:00:00:09 --vtep 10.9.0.2:4789 --extern --segment 42@4789");
    let one = |mac: &str| socket.json(&format!("fdb show --mac {mac}"))[0].clone();
    let entry = json!({
        "segment": { "udp_port": 4789, "vni": 42 }, "mac": "02:00:00:00:00:07", "vtep": "10.9.0.2:4789",
        "port": null, "vni": null, "origin": "static", "age": null,
    });
    assert_eq!(one("02:00:00:00:00:07"), entry);
    assert_eq!(one("02:00:00:00:00:08")["port"], "ovl0");
    assert_eq!(one("02:00:00:00:00:09")["origin"], "extern");
    socket.text("fdb del 02:00:00:00:00:07");
    assert_eq!(one("02:00:00:00:00:07"), Value::Null);
    let (code, why) = socket.refused("fdb del 02:00:00:00:00:07");
    assert_eq!(code, 3, "{why}");
    assert!(why.starts_with("error: ") && why.contains("02:00:00:00:00:07"), "{why}");
    // Unless the kernel has just said something there, and it was learned again.
    let is_forgotten = || {
        socket.text("fdb flush --vtep 10.9.0.2");
        one(remote) == Value::Null
    };
    assert!((0..10).any(|_| is_forgotten()));
    assert_eq!(one("02:00:00:00:00:08")["port"], "ovl0", "static entries stay");
    socket.text("fdb flush");
    socket.text("fdb flush --port ovl0");
    assert_eq!(socket.refused("fdb flush --port ovl9").0, 3);
    assert_eq!(socket.refused("fdb flush --vtep 10.9.0.99").0, 3);

    // VTEPs, ports and segments.
    socket.text("vtep add 10.9.0.3");
    let vteps = socket.json("vtep show");
    assert_eq!(vteps[1]["vtep"], "10.9.0.3:4789");
    assert_eq!(vteps[0]["segments"][0]["vni"], 42);
    let flood = |of: usize| socket.json("segment show")[of]["flood"].clone();
    assert_eq!(flood(0), json!(["10.9.0.2:4789", "10.9.0.3:4789"]));
    socket.text("vtep del 10.9.0.3");
    assert_eq!(flood(0), json!(["10.9.0.2:4789"]));
    socket.text("segment add 43 --udp-port 4790");
    socket.text("vtep add 10.9.0.2 --no-flood --segment 43");
    let segments = socket.json("segment show");
    assert_eq!(segments[1]["segment"], json!({ "udp_port": 4790, "vni": 43 }));
    assert_eq!((&segments[1]["flood"], &segments[1]["mtu"]), (&json!([]), &json!(1450)));
    assert_eq!(segments[1]["peers"], json!(["10.9.0.2:4790"]));
    let (code, why) = socket.refused("fdb add 02:00:00:00:00:07 --vtep 10.9.0.2");
    assert_eq!((code, why.as_str()), (2, "error: name a bridge segment: 42@4789, 43@4790\n"));
    socket.text("port add tap43 --segment 43 --address 10.43.0.1/24");
    hosts[0].wait_up("tap43", PATIENCE).unwrap();
    assert_eq!(hosts[0].mtu("tap43").unwrap(), 1450);
    assert_eq!(socket.json("port show")[1]["device"], "tap43");
    assert!(socket.text("port show").contains("  tap43"));
    socket.text("port del tap43");
    assert!(!hosts[0].exists("tap43"));
    socket.text("segment del 43");
    assert_eq!(socket.refused("segment del 43"), (3, "error: there is no segment 43\n".into()));
    assert_eq!(socket.refused("port del tap43").0, 3);

    // What it does, on a page and in numbers.
    let page = socket.json("show");
    assert_eq!(
        (&page["local"], &page["ports"][0]["device"]),
        (&json!(["10.9.0.1"]), &json!("ovl0"))
    );
    assert!(page["totals"]["received"].as_u64() > Some(0));
    let page = socket.text("show");
    for part in ["forwarder 0.", "42@4789", "ovl0", "10.9.0.2:4789", "frames: ", "offloads on: "] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(socket.json("stats")["layout"], 1);
    assert!(socket.text("stats").contains("port ovl0"));
    // The kernel's VXLAN has sent it nothing that it does not know.
    let other = Vxlan::new("vxlan1", 77, [10, 9, 0, 2].into());
    hosts[1].add_vxlan(&Vxlan { remotes: &[[10, 9, 0, 1].into()], ..other }).unwrap();
    hosts[1].add_address("vxlan1", "10.77.0.2/24").unwrap();
    hosts[1].up("vxlan1").unwrap();
    assert!(!ping_ok(&hosts[1], [10, 77, 0, 1].into(), 56));
    let drops = socket.json("drops");
    let unknown = drops.as_array().unwrap().iter().find(|drop| drop["reason"] == "unknown_vni");
    assert!(unknown.unwrap()["count"].as_u64() > Some(0), "{drops}");
    let text = socket.text("drops");
    assert!(text.contains("unknown_vni: ") && text.lines().count() >= 5, "{text}");
    let all = socket.json("drops --all");
    assert!(all.as_array().unwrap().len() > 30, "{all}");
    let state = |name: &str| {
        let all = socket.json("offload show");
        let known = all.as_array().unwrap().iter().find(|entry| entry["offload"] == name);
        known.unwrap()["state"].clone()
    };
    assert_eq!(state("udp-gso"), "on");
    socket.text("offload set off");
    assert_eq!(state("udp-gso"), "off");
    socket.text("offload set auto");
    assert_eq!(state("udp-gso"), "on");
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 1400), "and it has forwarded all the time");

    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(!socket.0.exists());
    let (code, why) = socket.refused("show");
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("is a forwarder running"), "{why}");
}

#[test]
fn routes_are_shown_looked_up_and_changed() {
    if !privileged("routes_are_shown_looked_up_and_changed") {
        return;
    }
    let (socket, hosts) = (Socket::new("routes"), pair());
    let arguments =
        "udp --local 10.9.0.1 --dev tun0 --address 10.7.1.1/16 --route 10.7.2.0/24=10.9.0.2";
    let forwarder = socket.start(&hosts[0], arguments);
    socket.text("route add 10.7.3.0/24 --vtep 10.9.0.3");
    socket.text("route add 10.7.3.128/25 --blackhole");
    socket.text("route add 10.7.4.0/24 --port tun0 --segment udp:8285");
    let shown = "10.7.2.0/24 vtep 10.9.0.2:8285 segment udp:8285\n\
                 10.7.3.0/24 vtep 10.9.0.3:8285 segment udp:8285\n\
                 blackhole 10.7.3.128/25 segment udp:8285\n\
                 10.7.4.0/24 port tun0 segment udp:8285\n";
    assert_eq!(socket.text("route show"), shown);
    for (address, line) in [("10.7.3.1", 1), ("10.7.3.129", 2), ("10.7.4.255", 3)] {
        let line = shown.lines().nth(line).unwrap();
        assert_eq!(socket.text(&format!("route get {address}")), format!("{line}\n"));
    }
    assert_eq!(socket.refused("route get 10.7.9.1").0, 3);
    let route = &socket.json("route get 10.7.2.9")[0];
    assert_eq!(route["via"], json!([{ "vtep": "10.9.0.2:8285", "port": null, "weight": 1 }]));
    socket.text("route del 10.7.3.128/25");
    assert!(socket.text("route get 10.7.3.129").starts_with("10.7.3.0/24 vtep 10.9.0.3:8285"));
    assert_eq!(socket.refused("route del 10.7.3.128/25").0, 3);
    let (code, why) = socket.refused("route add 10.7.5.0/24");
    assert_eq!(code, 2, "{why}");
    assert_eq!(forwarder.end(libc::SIGTERM).0, Some(0));
}

#[test]
fn events_are_told_as_they_happen() {
    if !privileged("events_are_told_as_they_happen") {
        return;
    }
    let socket = Socket::new("events");
    let (hosts, forwarder) = with_kernel(&socket);
    let mut following = command("monitor -j");
    following.arg("--control").arg(&socket.0).stdout(Stdio::piped());
    let mut following = Running(following.spawn().unwrap());
    let lines = BufReader::new(following.0.stdout.take().unwrap()).lines();
    let (sender, events) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap();
            let _ = sender.send(event);
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let wait_for = |what: &dyn Fn(&Value) -> bool, mut act: Box<dyn FnMut() + '_>| loop {
        // It may follow only from a moment on.
        act();
        let seen = events.recv_timeout(Duration::from_millis(500));
        if seen.is_ok_and(|event| what(&event)) {
            return;
        }
        assert!(Instant::now() < deadline, "no such event");
    };
    let learn = || {
        socket.text("fdb flush");
        assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));
    };
    let learned =
        |event: &Value| event["event"] == "learned" && event["at"]["vtep"] == "10.9.0.2:4789";
    wait_for(&learned, Box::new(learn));
    let mut up = true;
    let flip = || {
        up = !up;
        let _ = if up { hosts[0].up("ovl0") } else { hosts[0].down("ovl0") };
    };
    let down = |event: &Value| event["event"] == "link_down" && event["device"] == "ovl0";
    wait_for(&down, Box::new(flip));
    assert_eq!(forwarder.end(libc::SIGTERM).0, Some(0));
    reader.join().unwrap();
}

/// Nothing that comes over the socket disturbs forwarding, or those who ask decently.
#[test]
fn clients_that_misbehave_are_told_and_hurt_nobody() {
    if !privileged("clients_that_misbehave_are_told_and_hurt_nobody") {
        return;
    }
    let socket = Socket::new("clients");
    let (hosts, forwarder) = with_kernel(&socket);
    let say = |bytes: &[u8]| -> Value {
        let mut stream = socket.connect();
        stream.write_all(bytes).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    for (bytes, why) in [
        (&b"\n"[..], "EOF"),
        (b"\xff\xfe\n", "expected value"),
        (b"{\"version\":2,\"verb\":\"show\"}\n", "version 2: this is version 1"),
        (b"{\"version\":1,\"verb\":{\"fly\":{}}}\n", "unknown variant"),
        (&[b'['; 70_000], "65536 bytes at most"),
    ] {
        let answer = say(bytes);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(answer["error"]["kind"] == "invalid" && message.contains(why), "{why}: {answer}");
    }
    // After a mistake the same client goes on, and a request may come in pieces.
    let mut stream = socket.connect();
    stream.write_all(b"nonsense\n{\"version\":1,\"ver").unwrap();
    thread::sleep(Duration::from_millis(50));
    stream.write_all(b"b\":{\"show\":{}}}\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    assert!(lines.next().unwrap().contains("error"));
    assert!(lines.next().unwrap().contains("\"entry\""));
    assert_eq!(lines.next().unwrap(), "{\"done\":true}");
    drop(lines);

    // A thousand who say nothing: those who come late are told so, and all is well when they are gone.
    let mut silent: Vec<UnixStream> =
        (0..1000).filter_map(|_| UnixStream::connect(&socket.0).ok()).collect();
    assert!(silent.len() > 100, "{}", silent.len());
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56), "forwarding goes on");
    let last = silent.last_mut().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = String::new();
    let _ = last.read_to_string(&mut told);
    assert!(told.contains("too many clients"), "{told}");
    drop(silent);
    let deadline = Instant::now() + PATIENCE;
    while socket.ask("show").0 != Some(0) {
        assert!(Instant::now() < deadline, "nobody is answered any more");
        thread::sleep(Duration::from_millis(50));
    }

    // One that asks and asks and never reads is given up.
    let mut greedy = socket.connect();
    greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = b"{\"version\":1,\"verb\":{\"drops\":{\"all\":true}}}\n".repeat(1000);
    let full = (0..100).find_map(|_| greedy.write_all(&request).err());
    assert!(full.is_some(), "it was never made to wait");
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));
    assert!(socket.text("show").contains("ovl0"));

    // A second forwarder does not take the socket away.
    let (code, _, err) = {
        let mut other = command(
            "udp --local 10.9.0.2 --dev tun0 --address 10.7.1.1/16 --route 10.7.2.0/24=10.9.0.1",
        );
        let output = hosts[1].run(|| other.arg("--control").arg(&socket.0).output()).unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("another forwarder answers there"), "{err}");
    assert!(socket.text("show").contains("ovl0"));
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}
