//! Hosts, links and traffic, all in the kernel.

#![cfg(target_os = "linux")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane_lab::{
    Namespace, Ping, Sniffer, Transfer, Vxlan, ping, ping_ok, privileged, tcp_echo_latency,
    tcp_transfer, udp_flood, udp_send_recv,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 0)
}

/// Two hosts with IPv4 and IPv6 on a wire.
fn pair() -> io::Result<(Namespace, Namespace)> {
    let (left, right) = (Namespace::new()?, Namespace::new()?);
    Namespace::veth(&left, "eth0", &right, "eth0")?;
    for (host, number) in [(&left, 1), (&right, 2)] {
        host.add_address("eth0", format!("10.0.0.{number}/24"))?;
        host.add_address("eth0", (ip(&format!("fd00::{number}")), 64))?;
        host.up("eth0")?;
    }
    for host in [&left, &right] {
        host.wait_up("eth0", Duration::from_secs(2))?;
    }
    Ok((left, right))
}

#[test]
fn addresses_are_listed_with_their_links() -> io::Result<()> {
    if !privileged("addresses_are_listed_with_their_links") {
        return Ok(());
    }
    let (left, _right) = pair()?;
    let addresses: Vec<String> =
        left.addresses()?.iter().map(|(link, address)| format!("{link} {address}")).collect();
    for expected in ["lo 127.0.0.1/8", "eth0 10.0.0.1/24", "lo ::1/128", "eth0 fd00::1/64"] {
        assert!(addresses.iter().any(|address| address == expected), "{expected}: {addresses:?}");
    }
    Ok(())
}

#[test]
fn pings_of_many_sizes_pass_and_are_counted() -> io::Result<()> {
    if !privileged("pings_of_many_sizes_pass_and_are_counted") {
        return Ok(());
    }
    let (left, _right) = pair()?;
    for to in ["10.0.0.2", "fd00::2", "10.0.0.1", "fd00::1", "127.0.0.1", "::1"] {
        for payload in [0, 1, 56, 1000, 1452, 1473, 9000, 65_000] {
            let report = ping(&left, ip(to), Ping { payload, count: 2, ..Ping::default() })?;
            assert_eq!((report.sent, report.received, report.surplus), (2, 2, 0), "{to} {payload}");
            assert!(report.median() > Duration::ZERO);
        }
    }
    assert!(ping_ok(&left, ip("10.0.0.2"), 100));
    Ok(())
}

#[test]
fn what_does_not_fit_or_has_no_answer_is_lost() -> io::Result<()> {
    if !privileged("what_does_not_fit_or_has_no_answer_is_lost") {
        return Ok(());
    }
    let (left, right) = pair()?;
    let how = Ping { count: 1, dont_fragment: true, ..Ping::default() };
    for (to, fits) in [("10.0.0.2", 1500 - 28), ("fd00::2", 1500 - 48)] {
        assert_eq!(ping(&left, ip(to), Ping { payload: fits, ..how })?.received, 1, "{to}");
        let report = ping(&left, ip(to), Ping { payload: fits + 1, ..how })?;
        assert_eq!((report.sent, report.received), (1, 0), "{to}");
    }
    let short = Ping { count: 2, timeout: Duration::from_millis(20), ..how };
    assert_eq!(ping(&left, ip("10.0.0.9"), short)?.received, 0);
    right.down("eth0")?;
    assert_eq!(ping(&left, ip("10.0.0.2"), short)?.received, 0);
    let error = ping(&left, ip("192.0.2.1"), short).expect_err("no route");
    assert!(error.to_string().starts_with("pinging 192.0.2.1"), "{error}");
    Ok(())
}

#[test]
fn tcp_carries_a_checked_stream() -> io::Result<()> {
    if !privileged("tcp_carries_a_checked_stream") {
        return Ok(());
    }
    let (left, right) = pair()?;
    for to in ["10.0.0.2", "fd00::2"] {
        let what = Transfer { streams: 3, ..Transfer::of_bytes(10_000_001) };
        let report = tcp_transfer(&left, &right, at(to), what)?;
        assert_eq!(report.bytes, 10_000_001);
        assert!(report.gbps() > 0.0);
        let what = Transfer::of_duration(Duration::from_millis(200));
        let report = tcp_transfer(&left, &right, at(to), what)?;
        assert!(report.bytes > 0 && report.elapsed >= Duration::from_millis(190), "{report:?}");
        assert_eq!(tcp_echo_latency(&left, &right, at(to), 300)?.len(), 300);
    }
    Ok(())
}

#[test]
fn udp_floods_and_single_datagrams_arrive() -> io::Result<()> {
    if !privileged("udp_floods_and_single_datagrams_arrive") {
        return Ok(());
    }
    let (left, right) = pair()?;
    for to in ["10.0.0.2", "fd00::2"] {
        let report = udp_flood(&left, &right, at(to), 64, Duration::from_millis(200))?;
        assert!(report.received > 0 && report.received <= report.sent, "{report:?}");
        assert!(report.loss() < 1.0 && report.packets_per_second() > 0.0);
        let sizes = [0, 1, 100, 1452, 1472, 1473, 9000, 65_000];
        assert_eq!(udp_send_recv(&left, &right, at(to), &sizes)?, sizes);
        let too_large = udp_send_recv(&left, &right, at(to), &[10, 65_600, 20])?;
        assert_eq!(too_large, [10, 20]);
    }
    Ok(())
}

#[test]
fn links_are_changed_and_read() -> io::Result<()> {
    if !privileged("links_are_changed_and_read") {
        return Ok(());
    }
    let (left, right) = pair()?;
    assert!(left.exists("eth0") && left.exists("lo") && !left.exists("eth1"));
    for host in [&left, &right] {
        host.set_mtu("eth0", 9000)?;
        assert_eq!(host.mtu("eth0")?, 9000);
        host.set_txqueuelen("eth0", 2000)?;
        assert_eq!(host.txqueuelen("eth0")?, 2000);
        host.set_gso_max_size("eth0", 30_000)?;
        assert_eq!(host.gso_max_size("eth0")?, 30_000);
    }
    let mac = [2, 0, 0, 0, 0, 7];
    left.set_mac("eth0", mac)?;
    assert_eq!(left.mac("eth0")?, mac);
    right.add_neighbour("eth0", ip("10.0.0.1"), mac)?;
    let how = Ping { payload: 8972, count: 1, dont_fragment: true, ..Ping::default() };
    let before = left.link_stats("eth0")?;
    assert_eq!(ping(&left, ip("10.0.0.2"), how)?.received, 1);
    let after = left.link_stats("eth0")?;
    assert!(after.tx_packets > before.tx_packets && after.rx_bytes >= before.rx_bytes + 9000);

    left.delete_address("eth0", "10.0.0.1/24")?;
    assert!(!right.exists("eth1"));
    let error = left.add_address("eth1", "10.0.0.1/24").expect_err("no such link");
    assert!(error.to_string().starts_with("adding address 10.0.0.1/24 to eth1: "), "{error}");
    let error = right.add_address("eth0", "10.0.0.2/24").expect_err("a duplicate");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
    assert!(left.up("a name that is too long").is_err());
    left.delete("eth0")?;
    assert!(!left.exists("eth0") && !right.exists("eth0"));
    Ok(())
}

#[test]
fn a_router_forwards() -> io::Result<()> {
    if !privileged("a_router_forwards") {
        return Ok(());
    }
    let (left, router) = pair()?;
    let right = Namespace::new()?;
    Namespace::veth(&router, "eth1", &right, "eth0")?;
    router.add_address("eth1", "10.0.1.1/24")?;
    router.add_address("eth1", "fd01::1/64")?;
    right.add_address("eth0", "10.0.1.2/24")?;
    right.add_address("eth0", "fd01::2/64")?;
    router.up("eth1")?;
    right.up("eth0")?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    left.add_route("10.0.1.0/24", Some(ip("10.0.0.2")), None)?;
    left.add_route("fd01::/64", Some(ip("fd00::2")), Some("eth0"))?;
    right.add_route("0.0.0.0/0", Some(ip("10.0.1.1")), None)?;
    right.add_route("::/0", None, Some("eth0"))?;
    right.add_route("fd00::/64", Some(ip("fd01::1")), None)?;
    assert!(ping_ok(&left, ip("10.0.1.2"), 1000));
    assert!(ping_ok(&left, ip("fd01::2"), 1000));
    let error = left.add_route("10.9.0.0/16", None, None).expect_err("nowhere to go");
    assert!(error.to_string().starts_with("adding a route to 10.9.0.0/16: "), "{error}");
    Ok(())
}

#[test]
fn kernel_vxlan_links_reach_each_other_over_both_versions_of_ip() -> io::Result<()> {
    if !privileged("kernel_vxlan_links_reach_each_other_over_both_versions_of_ip") {
        return Ok(());
    }
    let (left, right) = pair()?;
    for (version, a, b) in [(4, "10.0.0.1", "10.0.0.2"), (6, "fd00::1", "fd00::2")] {
        let name = format!("vx{version}");
        let inner = |host| format!("192.168.{version}.{host}");
        for (host, number, local, remote) in [(&left, 1, a, b), (&right, 2, b, a)] {
            let remotes = [ip(remote)];
            let vxlan = Vxlan { remotes: &remotes, ..Vxlan::new(&name, 40 + version, ip(local)) };
            host.add_vxlan(&Vxlan { port: 4789 + version as u16, ageing: Some(30), ..vxlan })?;
            host.add_address(&name, format!("{}/24", inner(number)))?;
            host.up(&name)?;
        }
        assert!(ping_ok(&left, ip(&inner(2)), 1300), "IPv{version}");
        let learned = (right.mac(&name)?, Some(ip(b)));
        let database = left.bridge_fdb(&name)?;
        assert!(database.contains(&learned), "{database:?}");
        assert!(database.contains(&([0; 6], Some(ip(b)))), "{database:?}");
    }
    let more = [ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4")];
    left.add_vxlan(&Vxlan {
        remotes: &more,
        learning: false,
        ..Vxlan::new("vx", 7, ip("10.0.0.1"))
    })?;
    left.bridge_fdb_add("vx", [2, 0, 0, 0, 0, 1], more[1])?;
    let database = left.bridge_fdb("vx")?;
    for remote in more {
        assert!(database.contains(&([0; 6], Some(remote))), "{database:?}");
    }
    assert!(database.contains(&([2, 0, 0, 0, 0, 1], Some(more[1]))), "{database:?}");
    Ok(())
}

#[test]
fn a_bridge_learns_and_a_sniffer_sees_it() -> io::Result<()> {
    if !privileged("a_bridge_learns_and_a_sniffer_sees_it") {
        return Ok(());
    }
    let time = Duration::from_secs(1);
    let switch = Namespace::new()?;
    switch.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    switch.add_bridge("br0")?;
    switch.up("br0")?;
    let hosts: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect::<io::Result<_>>()?;
    for (number, host) in hosts.iter().enumerate() {
        let port = format!("port{number}");
        Namespace::veth(&switch, &port, host, "eth0")?;
        let error = switch.wait_up(&port, Duration::ZERO).expect_err("down");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        host.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")?;
        switch.set_master(&port, "br0")?;
        switch.up(&port)?;
        host.up("eth0")?;
        switch.wait_up(&port, time)?;
        host.wait_up("eth0", time)?;
    }
    let eyes = hosts.iter().map(|host| Sniffer::incoming(host, "eth0"));
    let mut eyes: Vec<Sniffer> = eyes.collect::<io::Result<_>>()?;
    let frame = |to: usize, from: usize, text: u8| -> io::Result<Vec<u8>> {
        let (to, from) = (hosts[to].mac("eth0")?, hosts[from].mac("eth0")?);
        Ok([&to[..], &from[..], &[0x88, 0xb5], &[text; 60]].concat())
    };
    // Unknown, so flooded.
    let first = frame(1, 0, 1)?;
    eyes[0].inject(&first)?;
    assert!(eyes[1].find(time, |seen| seen == first).is_some());
    assert!(eyes[2].find(time, |seen| seen == first).is_some());
    // Known by now.
    let answer = frame(0, 1, 2)?;
    eyes[1].inject(&answer)?;
    assert!(eyes[0].find(time, |seen| seen == answer).is_some());
    let seen = eyes[2].collect(Duration::from_millis(50));
    assert!(!seen.contains(&answer));
    let database = switch.bridge_fdb("br0")?;
    assert!(database.contains(&(hosts[0].mac("eth0")?, None)), "{database:?}");
    assert!(switch.bridge_fdb("port1")?.contains(&(hosts[1].mac("eth0")?, None)));

    // Seen going out too.
    let mut both = Sniffer::open(&hosts[0], "eth0")?;
    let question = frame(1, 0, 3)?;
    eyes[1].drain();
    eyes[0].inject(&question)?;
    assert!(both.find(time, |seen| seen == question).is_some());
    assert!(eyes[1].find(time, |seen| seen == question).is_some());
    assert!(!eyes[0].collect(Duration::from_millis(20)).contains(&question));
    Ok(())
}

#[test]
fn threads_run_inside_and_panics_come_out() -> io::Result<()> {
    if !privileged("threads_run_inside_and_panics_come_out") {
        return Ok(());
    }
    let host = Namespace::new()?;
    host.add_bridge("here")?;
    let here = || Namespace::current().is_ok_and(|namespace| namespace.exists("here"));
    assert!(host.run(here) && !here());
    assert!(host.spawn(here).join().expect("no panic"));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host.run(|| panic!("out of here"));
    }));
    let payload = panic.expect_err("a panic");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"out of here"));
    Ok(())
}
