//! What goes wrong outside the dataplane is counted, reported once and survived.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use overplane::{Config, Control, Device, DropReason, Event, Segment, Vni};
use overplane_lab::{Transfer, Vxlan, ping_ok, privileged, tcp_transfer, udp_flood};

use crate::hosts::{
    INNER_V4, Node, V4, configure, eventually, inner_addresses, ip, pair, underlay,
};

pub(crate) fn events(control: &Control) -> Vec<Event> {
    std::iter::from_fn(|| control.next_event()).collect()
}

#[test]
fn a_device_deleted_under_load_is_lost_once_and_can_be_replaced() {
    if !privileged("a_device_deleted_under_load_is_lost_once_and_can_be_replaced") {
        return;
    }
    let (hosts, left, right) = pair();
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    let mac = hosts[1].mac("ovl0").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let to = SocketAddr::new(ip(INNER_V4[1]), 9999);
                let _ = udp_flood(&hosts[0], &hosts[1], to, 100, Duration::from_millis(500));
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        hosts[1].delete("ovl0").unwrap();
        let mut lost = 0;
        let is_loss =
            |event: &Event| matches!(event, Event::DeviceLost { name, .. } if name == "ovl0");
        eventually(5, "the loss is reported", || {
            lost += events(&right.control).iter().filter(|event| is_loss(event)).count();
            lost > 0
        });
        std::thread::sleep(Duration::from_millis(700));
        lost += events(&right.control).iter().filter(|event| is_loss(event)).count();
        assert_eq!(lost, 1, "reported once");
        stop.store(true, Ordering::Relaxed);
    });
    right.control.detach(right.port).unwrap();
    right.control.attach(right.segment, Device::tap_in(&hosts[1], "ovl0").unwrap()).unwrap();
    hosts[1].set_mac("ovl0", mac).unwrap();
    configure(&hosts[1], "ovl0", 1450, &inner_addresses(1));
    eventually(10, "the new device carries traffic", || ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    left.finish();
    right.finish();
}

#[test]
fn an_underlay_address_that_goes_and_comes_back() {
    if !privileged("an_underlay_address_that_goes_and_comes_back") {
        return;
    }
    let (hosts, left, right) = pair();
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    let cidr = format!("{}/24", V4[0]);
    hosts[0].delete_address("eth0", cidr.as_str()).unwrap();
    assert!(!ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    let unreachable = left.control.stats().totals.drops(DropReason::UnderlayUnreachable);
    assert!(unreachable > 0, "{}", left.control.stats());
    let reports = events(&left.control);
    let troubles = |reason| {
        reports
            .iter()
            .filter(|event| matches!(event, Event::Trouble { reason: r, .. } if *r == reason))
            .count() as u64
    };
    let reported = troubles(DropReason::UnderlayUnreachable);
    assert!(reported > 0 && reported <= unreachable, "{reports:?}");
    hosts[0].add_address("eth0", cidr.as_str()).unwrap();
    eventually(10, "traffic flows again", || ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    left.finish();
    right.finish();
}

#[test]
fn datagrams_above_the_underlays_mtu_are_counted_not_fragmented() {
    if !privileged("datagrams_above_the_underlays_mtu_are_counted_not_fragmented") {
        return;
    }
    let hosts = underlay();
    // Whoever follows the host knows beforehand what it would refuse.
    let mut config = Config::new(ip(V4[0]));
    config.follow_host = false;
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let left = Node::new(&hosts[0], config, segment, &inner_addresses(0));
    left.control.add_flood(left.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let right = Node::vxlan(&hosts[1], V4[1], V4[0], &inner_addresses(1));
    hosts[0].set_mtu("eth0", 1400).unwrap();
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 1200));
    assert!(!ping_ok(&hosts[0], ip(INNER_V4[1]), 1400));
    let totals = left.control.stats().totals;
    assert!(totals.drops(DropReason::UnderlayTooBig) > 0, "{}", left.control.stats());
    let told =
        |event: &Event| matches!(event, Event::Trouble { reason: DropReason::UnderlayTooBig, .. });
    assert!(events(&left.control).iter().any(told));
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 1200), "small frames still pass");
    let path = left.control.stats().vteps[0].path;
    assert_eq!(path.learned, Some(1400), "{}", left.control.stats());
    left.finish();
    right.finish();
}

#[test]
fn a_device_that_is_down_drops_and_recovers() {
    if !privileged("a_device_that_is_down_drops_and_recovers") {
        return;
    }
    let (hosts, left, right) = pair();
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    hosts[1].down("ovl0").unwrap();
    assert!(!ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    assert!(
        right.control.stats().totals.drops(DropReason::PortDown) > 0,
        "{}",
        right.control.stats()
    );
    configure(&hosts[1], "ovl0", 1450, &[]);
    eventually(10, "traffic flows again", || ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    left.finish();
    right.finish();
}

/// A full receive queue loses frames, not the dataplane, and the kernel's losses are counted too.
#[test]
fn a_flood_into_small_buffers_is_survived_and_counted() {
    if !privileged("a_flood_into_small_buffers_is_survived_and_counted") {
        return;
    }
    let hosts = underlay();
    let left = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    let mut config = Config::new(ip(V4[1]));
    config.receive_buffer = 4096;
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let right = Node::new(&hosts[1], config, segment, &inner_addresses(1));
    right.control.add_flood(right.segment, SocketAddr::new(ip(V4[0]), 4789)).unwrap();
    let to = SocketAddr::new(ip(INNER_V4[1]), 9999);
    let report = udp_flood(&hosts[0], &hosts[1], to, 64, Duration::from_secs(1)).unwrap();
    assert!(report.received > 0);
    eventually(5, "the kernel's drops are seen", || right.control.stats().socket_overflows > 0);
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    left.finish();
    right.finish();
}

#[test]
fn row_22_a_udp_port_that_the_kernel_holds_is_refused_with_advice() {
    if !privileged("row_22_a_udp_port_that_the_kernel_holds_is_refused_with_advice") {
        return;
    }
    let hosts = underlay();
    hosts[0].add_vxlan(&Vxlan::new("vx0", 1, ip(V4[0]))).unwrap();
    hosts[0].up("vx0").unwrap();
    let dataplane = hosts[0].run(|| overplane::Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let error = dataplane
        .control()
        .add_segment(Segment::bridge(Vni::new(2).unwrap()))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("opening underlay socket 10.9.0.1:4789: "), "{error}");
    assert!(error.contains("a kernel VXLAN device or another process holds the port"), "{error}");
    assert!(dataplane.control().segments().is_empty());
    hosts[0].delete("vx0").unwrap();
    dataplane.control().add_segment(Segment::bridge(Vni::new(2).unwrap())).unwrap();
    dataplane.stop().unwrap();
}

#[test]
fn an_address_of_nobody_is_refused_with_advice() {
    if !privileged("an_address_of_nobody_is_refused_with_advice") {
        return;
    }
    let hosts = underlay();
    let error = hosts[0]
        .run(|| overplane::Dataplane::start(Config::new(ip("192.0.2.1"))))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the address is not on any interface of this network namespace"),
        "{error}"
    );
}

/// A super-frame's worth of loss: the peer's port closes in the middle of a transfer and comes back.
#[test]
fn a_transfer_outlives_a_link_that_flaps() {
    if !privileged("a_transfer_outlives_a_link_that_flaps") {
        return;
    }
    let (hosts, left, right) = pair();
    let to = SocketAddr::new(ip(INNER_V4[1]), 0);
    std::thread::scope(|scope| {
        let transfer =
            scope.spawn(|| tcp_transfer(&hosts[0], &hosts[1], to, Transfer::of_bytes(200 << 20)));
        let start = Instant::now();
        while !transfer.is_finished() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(150));
            hosts[1].down("eth0").unwrap();
            std::thread::sleep(Duration::from_millis(30));
            hosts[1].up("eth0").unwrap();
        }
        assert_eq!(transfer.join().unwrap().unwrap().bytes, 200 << 20);
    });
    left.finish();
    right.finish();
}
