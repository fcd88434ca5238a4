//! Traffic that runs until it is stopped, and hosts that another process has.

#![cfg(target_os = "linux")]

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, TcpLoad, UdpLoad, UdpSender, privileged};

/// Two hosts on a wire, and where the second can be reached.
fn pair() -> io::Result<([Namespace; 2], SocketAddr)> {
    let hosts = [Namespace::new()?, Namespace::new()?];
    Namespace::veth(&hosts[0], "eth0", &hosts[1], "eth0")?;
    for (host, address) in hosts.iter().zip(["10.0.0.1/24", "10.0.0.2/24"]) {
        host.add_address("eth0", address)?;
        host.up("eth0")?;
    }
    for host in &hosts {
        host.wait_up("eth0", Duration::from_secs(2))?;
    }
    Ok((hosts, SocketAddr::from(([10, 0, 0, 2], 0))))
}

/// Waits until a count rises above `from`.
fn rises(from: u64, count: impl Fn() -> u64) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while count() <= from && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    count() > from
}

#[test]
fn tcp_runs_until_it_is_stopped() -> io::Result<()> {
    if !privileged("tcp_runs_until_it_is_stopped") {
        return Ok(());
    }
    let ([left, right], to) = pair()?;
    for streams in [1, 3] {
        let load = TcpLoad::start(&left, &right, to, streams)?;
        assert!(rises(0, || load.arrived()));
        assert!(rises(load.arrived(), || load.arrived()));
        load.stop()?;
    }
    let load = TcpLoad::start(&left, &right, to, 1)?;
    assert!(rises(0, || load.arrived()));
    right.down("eth0")?;
    let before = Instant::now();
    load.stop()?;
    assert!(before.elapsed() < Duration::from_secs(1), "a way that is cut holds nothing up");
    Ok(())
}

#[test]
fn udp_runs_until_it_is_stopped() -> io::Result<()> {
    if !privileged("udp_runs_until_it_is_stopped") {
        return Ok(());
    }
    let ([left, right], to) = pair()?;
    for (flows, per_call, joined) in
        [(1, 1, false), (16, 1, false), (1, 64, false), (16, 32, false), (1, 64, true)]
    {
        let how = UdpSender { payload: 64, flows, per_call, joined };
        let load = UdpLoad::start(&left, &right, to, how)?;
        assert!(rises(0, || load.arrived()), "{how:?}");
        assert!(rises(load.arrived(), || load.arrived()), "{how:?}");
        load.stop()?;
    }
    let nothing = UdpSender { payload: 64, flows: 0, per_call: 1, joined: false };
    let error = UdpLoad::start(&left, &right, to, nothing).expect_err("no flow");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    Ok(())
}

#[test]
fn a_host_is_opened_by_its_path() -> io::Result<()> {
    if !privileged("a_host_is_opened_by_its_path") {
        return Ok(());
    }
    let host = Namespace::new()?;
    let opened = Namespace::open(&host.path())?;
    opened.add_bridge("here")?;
    assert!(host.exists("here"));
    for wrong in ["/proc/self/ns/none", "/proc/self/ns/mnt", "/dev/null"] {
        let error = Namespace::open(wrong).expect_err("no network namespace");
        assert!(error.to_string().starts_with("opening the network namespace "), "{error}");
    }
    Ok(())
}
