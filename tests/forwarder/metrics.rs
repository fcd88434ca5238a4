//! Counters over HTTP: what they say, and who asks for them.

#[path = "exposition.rs"]
mod exposition;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Ping, Transfer, ping, ping_ok, privileged, tcp_transfer};

use self::exposition::{Format, Scrape, parse};
use super::program::{PATIENCE, Running, command, pair};
use super::start_both;

/// Where the first forwarder listens; the other host asks.
const ENDPOINT: ([u8; 4], u16) = ([10, 9, 0, 1], 9472);

/// Scrapes at shorter intervals get the same numbers.
const FRESH: Duration = Duration::from_millis(300);

/// Two hosts with a forwarder each, the first with metrics.
fn start(hosts: &[Namespace; 2], options: &str) -> [Running; 2] {
    let arguments = [1, 2].map(|number| {
        let other = 3 - number;
        format!(
            "vxlan --vni 42 --local 10.9.0.{number} --remote 10.9.0.{other} --dev ovl0 --address 10.8.0.{number}/24 {}",
            if number == 1 { options } else { "" }
        )
    });
    let forwarders = start_both(hosts, [&arguments[0], &arguments[1]], "ovl0");
    let end = Instant::now() + PATIENCE;
    while !ping_ok(&hosts[0], [10, 8, 0, 2].into(), 56) {
        assert!(Instant::now() < end, "no connection");
    }
    forwarders
}

fn connect(from: &Namespace) -> TcpStream {
    let stream =
        from.run(|| TcpStream::connect_timeout(&SocketAddr::from(ENDPOINT), PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What is answered to bytes, until the other side closes.
fn exchange(from: &Namespace, bytes: &[u8]) -> String {
    let mut stream = connect(from);
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The head and the body of an answer.
fn get(from: &Namespace, path: &str, accept: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
    let answer = exchange(from, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}", body.len());
    assert!(head.lines().any(|line| line == length), "{head}");
    (head.to_owned(), body.to_owned())
}

fn scrape(from: &Namespace, format: Format) -> Scrape {
    let (accept, content_type) = match format {
        Format::Text => ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        Format::OpenMetrics => (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    };
    let (head, body) = get(from, "/metrics", accept);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Type: {content_type}\r\n")), "{head}");
    parse(&body, format).unwrap_or_else(|why| panic!("{why}"))
}

/// Panics when a counter has gone back or away.
fn only_grown(before: &Scrape, after: &Scrape) {
    let later = after.counters();
    for (series, value) in before.counters() {
        assert!(later.get(series).is_some_and(|now| *now >= value), "{series:?}: {value}");
    }
}

#[test]
fn counters_only_grow_and_both_formats_hold_while_traffic_flows() {
    if !privileged("counters_only_grow_and_both_formats_hold_while_traffic_flows") {
        return;
    }
    let hosts = pair();
    let forwarders = start(&hosts, "--metrics 10.9.0.1:9472 --workers 2");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = End(&over);
        let traffic = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let what = Transfer::of_bytes(5_000_000);
                let to = SocketAddr::from(([10, 8, 0, 2], 0));
                tcp_transfer(&hosts[0], &hosts[1], to, what).unwrap();
            }
        });
        let formats = [Format::Text, Format::OpenMetrics];
        let mut before = formats.map(|format| scrape(&hosts[1], format));
        for _ in 0..3 {
            thread::sleep(FRESH);
            let after = formats.map(|format| scrape(&hosts[1], format));
            for (before, after) in before.iter().zip(&after) {
                only_grown(before, after);
                let bytes = |scrape: &Scrape| {
                    scrape.sum("overplane_vtep_bytes_total", &[("direction", "sent")])
                };
                assert!(bytes(after) > bytes(before), "traffic is counted");
            }
            // The same series under the same names, whatever the format.
            let series = |scrape: &Scrape| scrape.samples.keys().cloned().collect::<Vec<_>>();
            assert_eq!(series(&after[0]), series(&after[1]));
            before = after;
        }
        drop(end);
        traffic.join().unwrap();
    });
    // The tool of Prometheus, where it is installed.
    let (_, body) = get(&hosts[1], "/metrics", "");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    match promtool {
        Ok(mut child) => {
            child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(_) => eprintln!("promtool is not installed: its opinion was not asked for"),
    }
    drop(forwarders);
}

#[test]
fn metrics_are_what_stats_say_and_frames_are_conserved() {
    if !privileged("metrics_are_what_stats_say_and_frames_are_conserved") {
        return;
    }
    let hosts = pair();
    let options = "--metrics 10.9.0.1:9472 --workers 2 --probe --stats json";
    let mut forwarders = start(&hosts, options);
    // To a host that is not there, and one packet that is too big for anybody.
    let nobody = Ping { count: 1, timeout: Duration::from_millis(50), ..Ping::default() };
    assert_eq!(ping(&hosts[0], [10, 8, 0, 9].into(), nobody).unwrap().received, 0);
    let what = Transfer::of_bytes(1_000_000);
    tcp_transfer(&hosts[0], &hosts[1], SocketAddr::from(([10, 8, 0, 2], 0)), what).unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(forwarders[0].0.stdout.take().unwrap()));
    let end = Instant::now() + PATIENCE;
    // Until nothing has happened from one scrape to the next; what was printed between them is of the same moment.
    let (scraped, stats) = loop {
        let before = scrape(&hosts[1], Format::Text);
        forwarders[0].signal(libc::SIGUSR1);
        let stats: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        thread::sleep(FRESH);
        let after = scrape(&hosts[1], Format::Text);
        if before.counters() == after.counters() {
            break (before, stats);
        }
        assert!(Instant::now() < end, "it never gets quiet");
    };
    let same = |name: &str, labels: &[(&str, &str)], value: &serde_json::Value| {
        let value = value.as_f64().unwrap_or_else(|| panic!("{name}: {value}"));
        assert_eq!(scraped.sum(name, labels), value, "{name} {labels:?}");
    };
    for (name, key) in [
        ("frames_received", "received"),
        ("frames_forwarded", "forwarded"),
        ("frame_chunks", "chunks"),
        ("frames_flooded", "flooded"),
        ("flood_copies", "copies"),
        ("frames_answered", "answered"),
        ("frames_generated", "generated"),
        ("datagrams_sent", "sent"),
        ("frames_delivered", "delivered"),
        ("frames_coalesced", "coalesced"),
        ("fdb_learning_refused", "learning_refused"),
        ("fdb_moves_refused", "moves_refused"),
        ("fdb_evicted", "evicted"),
        ("icmp_errors_withheld", "answers_withheld"),
        ("neighbour_conflicts", "neighbour_conflicts"),
        ("probes_sent", "probes"),
        ("probes_answered", "probes_answered"),
        ("memberships_refused", "memberships_refused"),
    ] {
        let name = format!("overplane_{name}_total");
        same(&name, &[], &stats["totals"][key]);
        for (number, worker) in stats["workers"].as_array().unwrap().iter().enumerate() {
            same(&name, &[("worker", &number.to_string())], &worker[key]);
        }
    }
    let (port, vtep) = ([("port", "ovl0")], [("vtep", "10.9.0.2:4789")]);
    for (place, labels, stats) in [
        ("segment", [("segment", "42@4789")], &stats["segments"][0]),
        ("port", port, &stats["ports"][0]),
        ("vtep", vtep, &stats["vteps"][0]),
    ] {
        for direction in ["received", "sent"] {
            let traffic = &stats["traffic"][direction];
            let labels = [labels[0], ("direction", direction)];
            for (name, key) in
                [("packets", "packets"), ("bytes", "bytes"), ("dropped_packets", "dropped")]
            {
                same(&format!("overplane_{place}_{name}_total"), &labels, &traffic[key]);
            }
            for cast in ["multicast", "broadcast"] {
                let labels = [labels[0], labels[1], ("cast", cast)];
                same(&format!("overplane_{place}_group_packets_total"), &labels, &traffic[cast]);
            }
        }
    }
    let segment = &stats["segments"][0];
    same("overplane_segment_fdb_entries", &[], &segment["learned"]);
    same("overplane_segment_fdb_limit", &[], &segment["fdb_limit"]);
    same("overplane_segment_multicast_memberships", &[], &segment["memberships"]);
    let probe = &stats["vteps"][0]["probe"];
    same("overplane_vtep_probes_sent_total", &vtep, &probe["sent"]);
    same("overplane_vtep_probes_answered_total", &vtep, &probe["answered"]);
    same("overplane_vtep_black_holes_total", &vtep, &probe["black_holes"]);
    let state = probe["state"].as_str().unwrap();
    assert_eq!(scraped.sum("overplane_vtep_probe_state", &[("state", state)]), 1.0, "{state}");
    assert_eq!(scraped.sum("overplane_vtep_probe_state", &[]), 1.0);
    same("overplane_socket_overflows_total", &[], &stats["socket_overflows"]);
    same("overplane_events_lost_total", &[], &stats["events_lost"]);
    let offloads = stats["offloads"].as_array().unwrap();
    for offload in offloads {
        let label = ("offload", offload["name"].as_str().unwrap());
        same("overplane_offload_failures_total", &[label], &offload["failures"]);
        let on = f64::from(offload["state"] == "on");
        assert_eq!(scraped.sum("overplane_offload_state", &[label, ("state", "on")]), on);
    }
    assert_eq!(scraped.sum("overplane_offload_state", &[]), offloads.len() as f64);
    for (reason, drops) in stats["totals"]["drops"].as_object().unwrap() {
        same("overplane_drops_total", &[("reason", reason)], drops);
    }

    // The two equations of `Totals`, by worker and for all.
    let frames = |name: &str, labels: &[(&str, &str)]| {
        scraped.sum(&format!("overplane_{name}_total"), labels)
    };
    for labels in [&[][..], &[("worker", "0")], &[("worker", "1")]] {
        let drops = |stage| frames("worker_drops", &[labels, &[("stage", stage)]].concat());
        let decided = ["frames_forwarded", "frames_flooded", "frames_answered"];
        let decided: f64 = decided.iter().map(|name| frames(name, labels)).sum();
        assert_eq!(frames("frames_received", labels), decided + drops("decision"), "{labels:?}");
        let made = ["frames_forwarded", "frame_chunks", "flood_copies", "frames_generated"];
        let made: f64 = made.iter().map(|name| frames(name, labels)).sum();
        let put = frames("datagrams_sent", labels) + frames("frames_delivered", labels);
        assert_eq!(made, put + drops("output"), "{labels:?}");
    }
    for stage in ["decision", "output"] {
        let by_worker = frames("worker_drops", &[("stage", stage)]);
        assert_eq!(frames("drops", &[("stage", stage)]), by_worker);
    }
}

/// Says that it is over when it goes, also with a panic: who is waited for has to hear of it.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Raises the number of files that this process may open to `wanted`, if it may.
fn allow_files(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the structure that is handed to them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_cur.max(wanted).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn a_thousand_clients_that_mean_no_good_hurt_nobody() {
    if !privileged("a_thousand_clients_that_mean_no_good_hurt_nobody") {
        return;
    }
    allow_files(4096);
    let hosts = pair();
    let forwarders = start(&hosts, "--metrics 10.9.0.1:9472");
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", forwarders[0].0.id())).unwrap().count();
    let before = descriptors();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = End(&over);
        let pings = scope.spawn(|| {
            let mut lost = 0;
            while !over.load(Ordering::Relaxed) {
                let how = Ping { payload: 1000, ..Ping::default() };
                let report = ping(&hosts[0], [10, 8, 0, 2].into(), how).unwrap();
                lost += 3 - report.received;
            }
            lost
        });
        // Silent ones, some that send a part of a request, some that send none, and some that never read their answer.
        let beginnings: [&[u8]; 4] = [
            b"",
            b"GET /metrics HTTP/1.1\r\nHost:",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 0123456789",
            b"GET /metrics HTTP/1.0\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
        ];
        let crowd: Vec<TcpStream> = (0..1000)
            .map(|number| {
                let mut stream = connect(&hosts[1]);
                // It may be refused by now.
                let _ = stream.write_all(beginnings[number % beginnings.len()]);
                stream
            })
            .collect();
        assert!(descriptors() <= before + 130, "clients are bounded");
        // Somebody who means well is served amid them.
        let start = Instant::now();
        assert!(scrape(&hosts[1], Format::Text).sum("overplane_frames_received_total", &[]) > 0.0);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop(crowd);
        // A thousand who mean well, at once.
        let crowd: Vec<TcpStream> = (0..1000)
            .map(|_| {
                let mut stream = connect(&hosts[1]);
                stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
                stream
            })
            .collect();
        let mut served = 0;
        for mut stream in crowd {
            let mut answer = String::new();
            served += usize::from(
                stream.read_to_string(&mut answer).is_ok() && answer.ends_with("\r\n\r\nok\n"),
            );
        }
        assert_eq!(served, 1000);
        drop(end);
        assert_eq!(pings.join().unwrap(), 0, "not one frame is lost");
    });
    let what = Transfer::of_bytes(5_000_000);
    tcp_transfer(&hosts[0], &hosts[1], SocketAddr::from(([10, 8, 0, 2], 0)), what).unwrap();
    let end = Instant::now() + PATIENCE;
    while descriptors() > before {
        assert!(Instant::now() < end, "{} descriptors, and {before} before", descriptors());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn requests_are_answered_as_http_has_it() {
    if !privileged("requests_are_answered_as_http_has_it") {
        return;
    }
    let hosts = pair();
    let forwarders = start(&hosts, "--metrics 10.9.0.1:9472");
    let status = |request: &str| {
        let answer = exchange(&hosts[1], request.as_bytes());
        answer.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ").to_owned()
    };
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK"),
        ("GET /healthz?full HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET http://a/metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK"),
        ("GET /metricsx HTTP/1.0\r\n\r\n", "404 Not Found"),
        ("GET /../etc/passwd HTTP/1.0\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        ("DELETE / HTTP/1.0\r\n\r\n", "405 Method Not Allowed"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("\r\n\0GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/9.9\r\n\r\n", "400 Bad Request"),
    ] {
        assert_eq!(status(request), expected, "{request:?}");
    }
    let long = format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(100_000));
    assert_eq!(status(&long), "431 Request Header Fields Too Large");
    let head = exchange(&hosts[1], b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // In pieces, as a slow network brings it.
    let mut slow = connect(&hosts[1]);
    for byte in b"GET /healthz HTTP/1.0\r\n\r\n" {
        slow.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");

    // Whoever comes second is told why not, before it has made anything.
    let arguments =
        "vxlan --vni 43 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl1 --metrics 10.9.0.1:9472";
    let output = hosts[0].run(|| command(arguments).output()).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(
        err,
        "error: listening for metrics on 10.9.0.1:9472: Address already in use (os error 98); another process listens \
         there: choose another port, or address (--metrics, or address under [metrics])\n"
    );
    assert!(!hosts[0].exists("ovl1"));
    drop(forwarders);
}
