//! Captures by the program.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use overplane_lab::{ping_ok, privileged};

use crate::control::Socket;
use crate::program::{Running, command, pair};
use crate::{run, tshark};

fn file(name: &str) -> PathBuf {
    let file = env::temp_dir().join(format!("forwarder-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&file);
    file
}

const LEFT: &str =
    "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24";

const RIGHT: &str = r#"
dataplane = { local = "10.9.0.2" }
[[segment]]
kind = "bridge"
vni = 42
flood = ["10.9.0.1"]
port = [{ device = "ovl0", addresses = ["10.8.0.2/24"] }]
"#;

/// Over the control socket, with a filter, for as long as somebody wants it.
#[test]
fn captures_of_a_running_forwarder_come_over_its_socket() {
    if !privileged("captures_of_a_running_forwarder_come_over_its_socket") {
        return;
    }
    let hosts = pair();
    let (socket, toml, out) = (Socket::new("capture"), file("socket.toml"), file("socket.pcapng"));
    fs::write(&toml, RIGHT).unwrap();
    let mut left = socket.start(&hosts[0], LEFT);
    let mut right = Running::start(&hosts[1], &format!("run {}", toml.display()));
    left.wait_for(&hosts[0], "ovl0");
    right.wait_for(&hosts[1], "ovl0");
    let asked =
        format!("capture net=10.8.0.2,fate=delivered --snap 100 -w {} --seconds 1", out.display());
    std::thread::scope(|scope| {
        let capturing = scope.spawn(|| socket.text(&asked));
        while !fs::metadata(&out).is_ok_and(|file| file.len() > 0) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 1000));
        assert_eq!(capturing.join().unwrap(), "");
    });
    let bytes = fs::read(&out).unwrap();
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a section header");
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(has(b"delivered") && !has(b"forwarded"));
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    if let Some(rows) = tshark::fields(&out, &["icmp.type"]) {
        assert!(rows.iter().any(|row| row[0] == "0"), "an answer: {rows:?}");
    }
    assert_eq!(socket.refused("capture colour=red -w /dev/null").0, 2);
    let (code, why) = socket.refused("capture -w /dev/full --seconds 2");
    assert!(code == 1 && why.contains("writing the capture to /dev/full"), "{code} {why}");
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56));
    for (forwarder, file) in [(left, &out), (right, &toml)] {
        assert_eq!(forwarder.end(libc::SIGTERM).0, Some(0));
        fs::remove_file(file).unwrap();
    }
}

/// One by flags, the other by a file; the one of a ping, the other of what is dropped.
#[test]
fn captures_from_the_start_are_in_their_files() {
    if !privileged("captures_from_the_start_are_in_their_files") {
        return;
    }
    let hosts = pair();
    let (pings, drops, toml) = (file("pings.pcapng"), file("drops.pcapng"), file("right.toml"));
    let capture = format!("[capture]\nfile = {drops:?}\nfilter = \"fate=dropped,net=10.8.0.9\"");
    fs::write(&toml, format!("{RIGHT}{capture}\n")).unwrap();
    let filter = "--capture-filter net=10.8.0.2 --capture-snap 64";
    let line = format!("{LEFT} --capture {} {filter}", pings.display());
    let mut left = Running::start(&hosts[0], &line);
    let mut right = Running::start(&hosts[1], &format!("run {}", toml.display()));
    left.wait_for(&hosts[0], "ovl0");
    right.wait_for(&hosts[1], "ovl0");
    assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 1000));
    // Frames for a MAC address that is reserved to bridges; the packet in them is from somebody else.
    let sniffer = overplane_lab::Sniffer::open(&hosts[1], "ovl0").unwrap();
    let mut frame = vec![0; 60];
    frame[..14].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0xe, 2, 0, 0, 0, 0, 9, 8, 0]);
    frame[14] = 0x45;
    frame[26..34].copy_from_slice(&[10, 8, 0, 9, 10, 8, 0, 1]);
    sniffer.inject(&frame).unwrap();
    // The frame has been read when one that comes after it has been answered.
    assert!(ping_ok(&hosts[1], [10, 8, 0, 1].into(), 56));
    for (forwarder, file) in [(left, &pings), (right, &drops)] {
        let (code, _, err) = forwarder.end(libc::SIGTERM);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains(&format!("frames into {}; 0 lost", file.display())), "{err}");
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "traffic is nobody else's business");
    }
    let fields =
        ["frame.interface_name", "frame.comment", "frame.len", "frame.cap_len", "icmp.type"];
    if let (Some(pings), Some(drops)) =
        (tshark::fields(&pings, &fields), tshark::fields(&drops, &fields))
    {
        let request = |at: &str, fate: &str| {
            let [len, kept] = ["1042", "64"].map(str::to_owned);
            vec![at.into(), fate.into(), len, kept, "8".into()]
        };
        assert!(pings.contains(&request("ovl0", "forwarded")), "{pings:?}");
        assert!(pings.contains(&request("vtep 10.9.0.2", "sent")), "{pings:?}");
        let [drop] = &drops[..] else { panic!("one was dropped: {drops:?}") };
        assert_eq!((drop[0].as_str(), drop[2].as_str()), ("ovl0", "60"));
        assert!(drop[1].starts_with("dropped: link_local: "), "{drop:?}");
    }
    for file in [pings, drops, toml] {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_full_disk_ends_a_capture_and_nothing_else() {
    if !privileged("a_full_disk_ends_a_capture_and_nothing_else") {
        return;
    }
    let hosts = pair();
    let toml = file("full.toml");
    fs::write(&toml, RIGHT).unwrap();
    let mut left = Running::start(&hosts[0], &format!("{LEFT} --capture /dev/full"));
    let mut right = Running::start(&hosts[1], &format!("run {}", toml.display()));
    left.wait_for(&hosts[0], "ovl0");
    right.wait_for(&hosts[1], "ovl0");
    for _ in 0..2 {
        assert!(ping_ok(&hosts[0], [10, 8, 0, 2].into(), 1000));
        std::thread::sleep(Duration::from_millis(150));
    }
    let (code, out, err) = left.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{err}");
    let said = "ERROR capturing into /dev/full: No space left on device (os error 28); the capture ends here, after ";
    assert_eq!(err.matches(said).count(), 1, "{err}");
    assert!(out.starts_with("frames: "), "{out}");
    drop(right);
    fs::remove_file(toml).unwrap();
}

#[test]
fn captures_that_cannot_be_are_refused() {
    let line = format!("{LEFT} --capture a.pcapng --capture-filter fate=lost");
    let (code, _, err) = run(&line);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--capture-filter") && err.contains("allowed: forwarded, "), "{err}");
    assert_eq!(run(&format!("{LEFT} --capture-filter vni=1")).0, Some(2), "without a file");
    if !privileged("captures_that_cannot_be_are_refused") {
        return;
    }
    let hosts = pair();
    let line = format!("{LEFT} --capture /nowhere/a.pcapng");
    let output = hosts[0].run(|| command(&line).output()).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let said = "error: capturing into /nowhere/a.pcapng: No such file or directory (os error 2)\n";
    assert!(output.status.code() == Some(1) && err.ends_with(said), "{err}");
    assert!(!hosts[0].exists("ovl0"), "nothing is left behind");
}
