//! The host's side: the underlay's interface, and addresses, MTU and state of the devices.

use std::fs;
use std::net::IpAddr;

use overplane::{Kind, Segment, mtu};
use overplane_lab::{Cidr, Namespace};
use tracing::warn;

use crate::failure::Failure;
use crate::plan::{Plan, PortPlan};

/// Smallest MTU of a link with IPv4 addresses (RFC 791 §3.1), and of one with IPv6 addresses (RFC 8200 §5).
const MIN_MTU: (u32, u32) = (68, 1280);

/// Frames that may wait in a device until a worker reads them: what Linux gives Ethernet devices (kernel
/// `include/net/pkt_sched.h`, `DEFAULT_TX_QUEUE_LEN`). A TAP's own 500 (`drivers/net/tun.c`, `TUN_READQ_SIZE`) are full after
/// a millisecond of small frames, and the kernel drops what comes then; a worker is away for longer than that when
/// it has to share its core.
const QUEUE_LENGTH: u32 = 1000;

/// The interface that carries the underlay.
#[derive(Debug)]
pub struct Underlay {
    pub link: String,
    pub mtu: u32,
}

impl Underlay {
    /// The interface with the address `local`.
    pub fn find(host: &Namespace, local: IpAddr) -> Result<Self, Failure> {
        let addresses = host.addresses()?;
        let found = addresses.iter().find(|(_, address)| address.ip == local);
        let Some((link, _)) = found else {
            let have: Vec<String> = addresses
                .iter()
                .filter(|(_, address)| address.ip.is_ipv4() == local.is_ipv4())
                .map(|(link, address)| format!("{} ({link})", address.ip))
                .collect();
            let have = if have.is_empty() { "none of this family".into() } else { have.join(", ") };
            return Err(Failure::run(format_args!(
                "the local address {local} is on no interface; the addresses here: {have}"
            )));
        };
        Ok(Self { link: link.clone(), mtu: host.mtu(link)? })
    }

    /// The MTU of a segment over this interface: what it asks for, or else what is left.
    pub fn segment_mtu(&self, segment: &Segment, ipv6: bool) -> Result<u32, Failure> {
        let left = mtu::segment_mtu(segment.kind, ipv6, self.mtu);
        let (id, Self { link, mtu }) = (segment.id(), self);
        match segment.mtu {
            Some(asked) if asked > left => {
                warn!(
                    "{id}: MTU {asked} is above the {left} that the underlay {link} leaves of its {mtu}: \
                     larger packets are fragmented or lost"
                );
                Ok(asked)
            }
            Some(asked) => Ok(asked),
            None if left < MIN_MTU.0 => Err(Failure::run(format_args!(
                "{id}: the underlay {link} has an MTU of {mtu}, and nothing fits behind the encapsulation"
            ))),
            None => Ok(left),
        }
    }
}

/// Configures a device of a segment and brings it up.
pub fn configure(
    host: &Namespace,
    port: &PortPlan,
    kind: Kind,
    ipv6_underlay: bool,
    mtu: u32,
) -> Result<(), Failure> {
    let device = &port.device;
    if mtu < MIN_MTU.1 && port.addresses.iter().any(|address| address.ip.is_ipv6()) {
        return Err(Failure::run(format_args!(
            "{device}: IPv6 needs an MTU of {} or more, and the segment's is {mtu}",
            MIN_MTU.1
        )));
    }
    host.set_mtu(device, mtu)?;
    let mut tuned = vec![host.set_txqueuelen(device, QUEUE_LENGTH)];
    // What comes from elsewhere, as from a container or over a bridge, is of another link's size, and the kernel would cut
    // what is larger into single frames.
    if !port.addresses.is_empty() && !forwards() {
        let gso_max_size = mtu::gso_max_size(kind, ipv6_underlay, mtu);
        tuned.push(host.set_gso_max_size(device, gso_max_size));
    }
    for refused in tuned.into_iter().filter_map(Result::err) {
        warn!("{refused}; it works without, but slower");
    }
    // A device that outlives its opener has them already.
    let present = host.addresses()?;
    let missing =
        |address: &&Cidr| !present.iter().any(|(link, it)| link == device && it == *address);
    for address in port.addresses.iter().filter(missing) {
        host.add_address(device, (address.ip, address.prefix))?;
    }
    host.up(device)?;
    Ok(())
}

/// Whether a segment has a UDP port that is not for everybody here (kernel `Documentation/networking/ip-sysctl.rst`,
/// `ip_unprivileged_port_start`).
pub fn has_low_ports(plan: &Plan) -> bool {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    plan.segments.iter().any(|planned| planned.segment.udp_port < first)
}

/// Whether the host of the calling thread passes on packets that it has not made.
fn forwards() -> bool {
    let is_on = |setting: &str| {
        let path = format!("/proc/sys/net/{setting}");
        fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    };
    is_on("ipv4/ip_forward") || is_on("ipv6/conf/all/forwarding")
}
