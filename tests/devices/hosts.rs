//! Hosts with a dataplane each, joined by an underlay.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use overplane::{Config, Control, Dataplane, Device, PortId, Segment, SegmentId, Vni, mtu};
use overplane_lab::{Namespace, Transfer, ping_ok, tcp_transfer};

/// Underlay addresses of the two hosts, by family.
pub(crate) const V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
pub(crate) const V6: [&str; 2] = ["fd09::1", "fd09::2"];

/// Overlay addresses of the two hosts.
pub(crate) const INNER_V4: [&str; 2] = ["10.8.0.1", "10.8.0.2"];
pub(crate) const INNER_V6: [&str; 2] = ["fd08::1", "fd08::2"];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two hosts joined by a veth pair `eth0`, with an underlay address of each family.
pub(crate) fn underlay() -> [Namespace; 2] {
    let hosts = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    Namespace::veth(&hosts[0], "eth0", &hosts[1], "eth0").unwrap();
    for (host, (v4, v6)) in hosts.iter().zip(V4.iter().zip(V6)) {
        host.add_address("eth0", format!("{v4}/24")).unwrap();
        host.add_address("eth0", format!("{v6}/64")).unwrap();
        host.up("eth0").unwrap();
    }
    for host in &hosts {
        host.wait_up("eth0", Duration::from_secs(5)).unwrap();
    }
    hosts
}

/// Sets addresses, MTU and link of a device up.
pub(crate) fn configure(host: &Namespace, device: &str, mtu: u32, addresses: &[String]) {
    for address in addresses {
        host.add_address(device, address).unwrap();
    }
    host.set_mtu(device, mtu).unwrap();
    host.up(device).unwrap();
    host.wait_up(device, Duration::from_secs(5)).unwrap();
}

pub(crate) fn inner_addresses(host: usize) -> Vec<String> {
    vec![format!("{}/24", INNER_V4[host]), format!("{}/64", INNER_V6[host])]
}

/// A host's dataplane with one segment and one device in it.
pub(crate) struct Node {
    pub(crate) host: Namespace,
    pub(crate) dataplane: Dataplane,
    pub(crate) control: Control,
    pub(crate) segment: SegmentId,
    pub(crate) port: PortId,
}

impl Node {
    /// A dataplane in `host` with `segment` and a new device `ovl0` that has `addresses` and the segment's MTU.
    pub(crate) fn new(
        host: &Namespace,
        config: Config,
        segment: Segment,
        addresses: &[String],
    ) -> Self {
        let ipv6_underlay = config.local.is_ipv6();
        let dataplane = host.run(|| Dataplane::start(config)).unwrap();
        Self::with(host, dataplane, ipv6_underlay, segment, addresses)
    }

    /// The same with a dataplane that runs already.
    pub(crate) fn with(
        host: &Namespace,
        dataplane: Dataplane,
        ipv6_underlay: bool,
        segment: Segment,
        addresses: &[String],
    ) -> Self {
        let kind = segment.kind;
        let control = dataplane.control();
        let id = control.add_segment(segment).unwrap();
        let device = if kind.is_ethernet() {
            Device::tap_in(host, "ovl0")
        } else {
            Device::tun_in(host, "ovl0")
        };
        let port = control.attach(id, device.unwrap()).unwrap();
        let mtu = control.segments().iter().find(|info| info.id == id).unwrap().mtu;
        let gso_max_size = mtu::gso_max_size(kind, ipv6_underlay, mtu);
        host.set_gso_max_size("ovl0", gso_max_size).unwrap();
        host.set_txqueuelen("ovl0", 1000).unwrap();
        configure(host, "ovl0", mtu, addresses);
        Self { host: host.clone(), dataplane, control, segment: id, port }
    }

    /// A bridge segment of VNI 42 towards one peer.
    pub(crate) fn vxlan(host: &Namespace, local: &str, peer: &str, addresses: &[String]) -> Self {
        let segment = Segment::bridge(Vni::new(42).unwrap());
        let node = Self::new(host, Config::new(ip(local)), segment, addresses);
        node.control.add_flood(node.segment, SocketAddr::new(ip(peer), 4789)).unwrap();
        node
    }

    pub(crate) fn mtu(&self) -> usize {
        self.host.mtu("ovl0").unwrap() as usize
    }

    /// Checks that every frame is accounted for, and stops the dataplane.
    pub(crate) fn finish(self) {
        settle(&self.control);
        self.dataplane.stop().unwrap();
        let stats = self.control.stats();
        assert!(stats.totals.is_conserved(), "{stats}");
    }
}

/// A host behind a new port of a bridge segment, from which no frames come but those of the test.
pub(crate) fn quiet_host(control: &Control, segment: SegmentId) -> Namespace {
    let host = Namespace::new().unwrap();
    let _ = host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    control.attach(segment, Device::tap_in(&host, "eth0").unwrap()).unwrap();
    configure(&host, "eth0", 1450, &[]);
    host
}

/// Two hosts with a VXLAN dataplane each, towards each other.
pub(crate) fn pair() -> ([Namespace; 2], Node, Node) {
    let hosts = underlay();
    let left = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    let right = Node::vxlan(&hosts[1], V4[1], V4[0], &inner_addresses(1));
    (hosts, left, right)
}

/// Waits until the counters have stood still for a moment, and no worker is in the middle of a batch.
pub(crate) fn settle(control: &Control) {
    let mut last = control.stats().totals;
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(20));
        let now = control.stats().totals;
        if now == last && now.is_conserved() {
            return;
        }
        last = now;
    }
}

/// Waits until `condition` holds, at most `seconds`.
pub(crate) fn eventually(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Pings in both directions with payloads of every size around the MTU and above it, over both families.
pub(crate) fn ping_around_the_mtu(hosts: [&Namespace; 2], mtu: usize) {
    for (from, to) in [(0, 1), (1, 0)] {
        for (inner, headers) in [(INNER_V4, 28), (INNER_V6, 48)] {
            let full = mtu - headers;
            for payload in [0, 1, 56, 1000, full - 1, full, full + 1, 3000, 9000] {
                let ok = ping_ok(hosts[from], ip(inner[to]), payload);
                assert!(ok, "{payload} bytes from {} to {}", inner[from], inner[to]);
            }
        }
    }
}

/// Sends `bytes` bytes of checked TCP in both directions over both families.
pub(crate) fn tcp_both_ways(hosts: [&Namespace; 2], bytes: u64) {
    for (from, to) in [(0, 1), (1, 0)] {
        for inner in [INNER_V4, INNER_V6] {
            let server = SocketAddr::new(ip(inner[to]), 0);
            let report =
                tcp_transfer(hosts[from], hosts[to], server, Transfer::of_bytes(bytes)).unwrap();
            assert_eq!(report.bytes, bytes, "from {} to {}", inner[from], inner[to]);
        }
    }
}
