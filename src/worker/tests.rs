//! Workers on real devices whose kernel is made worse than it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane_lab::{Namespace, Transfer, Vxlan, privileged, tcp_transfer};

use crate::{Config, Dataplane, Device, DropReason, Offload, OffloadState, Segment, Vni};

const UNDERLAY: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
const INNER: [&str; 2] = ["10.8.0.1", "10.8.0.2"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn configure(host: &Namespace, link: &str, address: &str, mtu: u32) {
    host.add_address(link, format!("{address}/24")).unwrap();
    host.set_mtu(link, mtu).unwrap();
    host.up(link).unwrap();
}

/// A kernel peer's super-frames are nobody's to switch off: where the device refuses them, they go in chunks.
#[test]
fn a_received_super_frame_that_the_device_refuses_is_delivered_in_chunks() {
    if !privileged("a_received_super_frame_that_the_device_refuses_is_delivered_in_chunks") {
        return;
    }
    let hosts = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    Namespace::veth(&hosts[0], "eth0", &hosts[1], "eth0").unwrap();
    for (host, address) in hosts.iter().zip(UNDERLAY) {
        configure(host, "eth0", address, 1500);
    }
    let dataplane = hosts[0].run(|| Dataplane::start(Config::new(ip(UNDERLAY[0])))).unwrap();
    let control = dataplane.control();
    let segment = control.add_segment(Segment::bridge(Vni::new(42).unwrap())).unwrap();
    let mut device = Device::tap_in(&hosts[0], "ovl0").unwrap();
    device.refuse_super_frames();
    control.attach(segment, device).unwrap();
    control.add_flood(segment, SocketAddr::new(ip(UNDERLAY[1]), 4789)).unwrap();
    configure(&hosts[0], "ovl0", INNER[0], 1450);
    let remotes = [ip(UNDERLAY[0])];
    let vxlan = Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(UNDERLAY[1])) };
    hosts[1].add_vxlan(&vxlan).unwrap();
    configure(&hosts[1], "vx0", INNER[1], 1450);
    for (host, link) in [(0, "eth0"), (1, "eth0"), (0, "ovl0"), (1, "vx0")] {
        hosts[host].wait_up(link, Duration::from_secs(5)).unwrap();
    }

    let bytes = 16 << 20;
    let server = SocketAddr::new(ip(INNER[0]), 0);
    let report = tcp_transfer(&hosts[1], &hosts[0], server, Transfer::of_bytes(bytes)).unwrap();
    assert_eq!(report.bytes, bytes);
    let stats = control.stats();
    assert!(stats.totals.chunks > 1000, "the kernel sent super-frames: {stats}");
    assert_eq!(stats.totals.drops(DropReason::PortFailed), 0, "{stats}");
    let joining = &stats.offloads[Offload::CoalesceTcp as usize];
    assert!(matches!(joining.state, OffloadState::Unavailable(_)) && joining.failures == 0);
    dataplane.stop().unwrap();
    let totals = control.stats().totals;
    assert!(totals.is_conserved(), "{totals:?}");
}
