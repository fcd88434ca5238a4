//! Devices that somebody else opened.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use overplane::{Config, Dataplane, Device, Segment, Vni};
use overplane_lab::{Namespace, Vxlan, privileged};

use crate::hosts::{
    V4, configure, inner_addresses, ip, ping_around_the_mtu, settle, tcp_both_ways, underlay,
};

fn iface(host: &Namespace, packet_info: bool) -> tun_tap::Iface {
    let open = if packet_info { tun_tap::Iface::new } else { tun_tap::Iface::without_packet_info };
    host.run(|| open("ovl0", tun_tap::Mode::Tap)).unwrap()
}

/// Such a device takes no vnet header: checksums must be finished and super-frames split for it, here from a kernel
/// peer that leaves both to the receiver.
fn check(device: impl FnOnce(&Namespace) -> Device) {
    let hosts = underlay();
    let dataplane = hosts[0].run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let segment = control.add_segment(Segment::bridge(Vni::new(42).unwrap())).unwrap();
    control.add_flood(segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let device = device(&hosts[0]);
    assert!(device.offloads().is_empty());
    control.attach(segment, device).unwrap();
    configure(&hosts[0], "ovl0", 1450, &inner_addresses(0));
    hosts[1]
        .add_vxlan(&Vxlan { remotes: &[ip(V4[0])], ..Vxlan::new("vx0", 42, ip(V4[1])) })
        .unwrap();
    configure(&hosts[1], "vx0", 1450, &inner_addresses(1));
    ping_around_the_mtu([&hosts[0], &hosts[1]], 1450);
    tcp_both_ways([&hosts[0], &hosts[1]], 16 << 20);
    settle(&control);
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved(), "{}", control.stats());
    assert!(control.stats().totals.chunks > 0, "super-frames came and were split");
}

#[test]
#[cfg(feature = "tun-tap")]
fn an_iface_of_tun_tap_without_packet_information() {
    if privileged("an_iface_of_tun_tap_without_packet_information") {
        check(|host| Device::try_from(iface(host, false)).unwrap());
    }
}

#[test]
#[cfg(feature = "tun-tap")]
fn an_iface_of_tun_tap_with_packet_information() {
    if privileged("an_iface_of_tun_tap_with_packet_information") {
        check(|host| Device::try_from(iface(host, true)).unwrap());
    }
}

#[test]
#[cfg(feature = "tun-tap")]
fn a_bare_file_descriptor() {
    if privileged("a_bare_file_descriptor") {
        check(|host| {
            let fd = iface(host, false).into_raw_fd();
            // SAFETY: the descriptor was just given up by its owner.
            Device::adopt(unsafe { OwnedFd::from_raw_fd(fd) }).unwrap()
        });
    }
}

#[test]
fn something_that_is_no_tap_is_refused() {
    let null = std::fs::File::open("/dev/null").unwrap();
    let error = Device::adopt(null.into()).unwrap_err();
    assert!(error.to_string().contains("TUN"), "{error}");
}
