//! A file that is loaded again while traffic flows.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use overplane_lab::{Namespace, Ping, ping, privileged};
use serde_json::json;

use super::control::{Socket, to_make_devices};
use super::program::{PATIENCE, Running, pair};

/// The configuration file of one test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        // In a directory of its own, for that is what a forwarder that has given up its privileges may read.
        let directory = env::temp_dir().join(format!("overplane-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = Self(directory.join("forwarder.toml"));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// A node with a bridge segment and a routed one.
const TEXT: &str = r#"
    dataplane = { local = "10.9.0.ME" }
    [[segment]]
    kind = "bridge"
    vni = 42
    flood = ["10.9.0.PEER"]
    port = [{ device = "ovl0", addresses = ["10.8.0.ME/24"] }]
    [[segment]]
    kind = "routed"
    udp_port = 8285
    port = [{ device = "tun0", addresses = ["10.7.ME.1/16"] }]
    route = [{ prefix = "10.7.PEER.0/24", vtep = "10.9.0.PEER" }]
"#;

fn text(me: u8) -> String {
    // What lets it make devices while it runs, see there.
    let privileges = format!("privileges = {{ keep_user = {} }}", !to_make_devices().is_empty());
    let text = TEXT.replace("ME", &me.to_string()).replace("PEER", &(3 - me).to_string());
    format!("{privileges}\n{text}")
}

fn start(socket: &Socket, host: &Namespace, file: &File) -> Running {
    socket.start(host, &format!("run {}", file.0.display()))
}

/// Pings that leave one after the other while something is changed; none may get lost.
#[test]
fn what_stays_in_a_file_loses_not_a_frame_when_it_is_loaded_again() {
    if !privileged("what_stays_in_a_file_loses_not_a_frame_when_it_is_loaded_again") {
        return;
    }
    let hosts = pair();
    let sockets = [Socket::new("reload-1"), Socket::new("reload-2")];
    let files = [File::new("reload-1", &text(1)), File::new("reload-2", &text(2))];
    let mut forwarders = [0, 1].map(|n| start(&sockets[n], &hosts[n], &files[n]));
    for (forwarder, host) in forwarders.iter_mut().zip(&hosts) {
        forwarder.wait_for(host, "ovl0");
        forwarder.wait_for(host, "tun0");
    }
    let (socket, file) = (&sockets[0], &files[0]);
    let warm = Ping { count: 1, ..Ping::default() };
    for to in [[10, 8, 0, 2], [10, 7, 2, 1]] {
        assert_eq!(ping(&hosts[0], to.into(), warm).unwrap().received, 1);
    }
    let how = Ping { count: 150, interval: Duration::from_millis(10), ..Ping::default() };
    thread::scope(|scope| {
        let hosts = &hosts;
        let flows = [[10, 8, 0, 2], [10, 7, 2, 1]]
            .map(|to| (to, scope.spawn(move || ping(&hosts[0], to.into(), how).unwrap())));
        thread::sleep(Duration::from_millis(100));
        // Entries, options, addresses, ports and segments come, change and go.
        let more = text(1)
            .replace("[\"10.9.0.2\"]", "[\"10.9.0.2\", \"10.9.0.3\"]")
            .replace("port = [{ device = \"ovl0\"", "port = [{ device = \"ovl1\", isolated = true }, { device = \"ovl0\"")
            .replace("\"10.7.1.1/16\"", "\"10.7.1.1/16\", \"fd07:1::1/64\"")
            .replace("route = [", "route = [{ prefix = \"10.7.9.0/24\", via = [{ vtep = \"10.9.0.2\" }, { vtep = \"10.9.0.4\" }] },")
            + "[[segment]]\nkind = \"bridge\"\nvni = 43\nport = [{ device = \"ovl3\" }]\n";
        let less = text(1);
        for round in 0..6 {
            file.write(if round % 2 == 0 { &more } else { &less });
            let shown = socket.text("reload --dry-run");
            let done = socket.text("reload");
            assert_eq!(shown, done);
            let (sign, lines) = if round % 2 == 0 { ("added", 4) } else { ("removed", 4) };
            assert_eq!(done.lines().filter(|line| line.starts_with(sign)).count(), lines, "{done}");
            assert!(done.contains("changed port tun0: addresses"), "{done}");
            assert_eq!(socket.text("reload"), "", "nothing is left to do");
            assert_eq!(hosts[0].exists("ovl3"), round % 2 == 0);
        }
        for (to, flow) in flows {
            let report = flow.join().unwrap();
            assert_eq!((report.received, report.surplus), (150, 0), "to {to:?}");
        }
    });
    for forwarder in forwarders {
        let (code, _, err) = forwarder.end(libc::SIGTERM);
        assert_eq!(code, Some(0), "{err}");
    }
}

#[test]
fn what_cannot_be_changed_or_read_changes_nothing() {
    if !privileged("what_cannot_be_changed_or_read_changes_nothing") {
        return;
    }
    let (hosts, socket) = (pair(), Socket::new("refused"));
    let file = File::new("refused", &text(1));
    let forwarder = start(&socket, &hosts[0], &file);
    let both = text(1).replace("[\"10.9.0.2\"]", "[\"10.9.0.2\", \"10.9.0.3\"]");
    let flood = || socket.json("segment show")[0]["flood"].clone();
    for (broken, code, why) in [
        (both.replace("vni = 42", "vni = 42\nageing = 7"), 5, "VXLAN 42 on UDP port 4789: ageing"),
        (
            both.replace("local = \"10.9.0.1\"", "local = \"10.9.0.1\", workers = 2"),
            5,
            "dataplane: workers",
        ),
        (both.replace("vni = 42", "vni = 16777216"), 2, "segment.vni: 16777216 is not allowed"),
        (both.replace("[[segment]]", "[[segment"), 2, "error"),
    ] {
        file.write(&broken);
        let (exit, said) = socket.refused("reload");
        assert!(exit == code && said.contains(why), "{exit} {said}");
        assert_eq!(flood(), json!(["10.9.0.2:4789"]));
    }
    fs::remove_file(&file.0).unwrap();
    let (exit, said) = socket.refused("reload");
    assert!(exit == 2 && said.contains("No such file"), "{exit} {said}");

    // What was changed by hand stays, and what was removed by hand can be removed from the file.
    socket.text("vtep add 10.9.0.7 --segment 42");
    socket.text("vtep del 10.9.0.2 --segment 42");
    file.write(&text(1).replace("[\"10.9.0.2\"]", "[\"10.9.0.5\"]"));
    forwarder.signal(libc::SIGHUP);
    let deadline = Instant::now() + PATIENCE;
    while flood() != json!(["10.9.0.5:4789", "10.9.0.7:4789"]) {
        assert!(Instant::now() < deadline, "{}", flood());
        thread::sleep(Duration::from_millis(20));
    }
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("2 changes taken over"), "{err}");
}

#[test]
fn a_file_of_a_hundred_thousand_entries_is_loaded_again_at_once() {
    if !privileged("a_file_of_a_hundred_thousand_entries_is_loaded_again_at_once") {
        return;
    }
    let (hosts, socket) = (pair(), Socket::new("large"));
    let routes = |last: u32| {
        let mut list = String::new();
        for n in 0..100_000_u32 {
            let [_, a, b, c] = (n * 4).to_be_bytes();
            let vtep = if n == 99_999 { last } else { 2 + n % 5 };
            let _ =
                writeln!(list, "{{ prefix = \"11.{a}.{b}.{c}/30\", vtep = \"10.9.0.{vtep}\" }},");
        }
        text(1).replace("route = [", &format!("route = [{list}"))
    };
    let file = File::new("large", &routes(2));
    let forwarder = start(&socket, &hosts[0], &file);
    assert_eq!(socket.text("route show").lines().count(), 100_001);
    file.write(&routes(9));
    let done = socket.text("reload");
    assert_eq!(done.lines().count(), 2, "{done}");
    assert!(socket.text("route get 11.6.26.124").contains("10.9.0.9"));
    let (code, _, err) = forwarder.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
}
