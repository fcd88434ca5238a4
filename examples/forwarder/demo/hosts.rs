//! Two hosts on a wire, and the ends of overlays on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clap::Parser;
use overplane::mtu::overhead;
use overplane::{Kind, Vni};
use overplane_lab::{Namespace, Vxlan};

use super::steps::ensure;
use crate::args::{Arguments, Command};
use crate::failure::Failure;
use crate::overlay::Overlay;

/// The two kinds of overlay, as arguments of the forwarder; `{me}` and `{peer}` stand for 1 and 2 or 2 and 1.
pub const VXLAN: &str = "vxlan --vni 42 --local 10.9.0.{me} --remote 10.9.0.{peer} --dev ovl0 \
                         --address 10.8.0.{me}/24 --address fd08::{me}/64";
/// See [`VXLAN`].
pub const UDP: &str = "udp --local 10.9.0.{me} --dev flannel0 --address 10.7.{me}.0/16 \
                       --address fd07:0:0:{me}::1/48 --route 10.7.{peer}.0/24=10.9.0.{peer} \
                       --route fd07:0:0:{peer}::/64=10.9.0.{peer}";

/// How long a link may take to come up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The one end of an overlay that a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This program with these arguments.
    Forwarder(&'static str),
    /// The kernel's VXLAN device, in the same overlay as [`VXLAN`].
    Kernel,
    /// The same in an overlay of its own, on the UDP port that such devices have by default.
    KernelAside,
}

impl End {
    fn device(self) -> &'static str {
        match self {
            Self::Forwarder(VXLAN) | Self::Kernel => "ovl0",
            Self::Forwarder(_) => "flannel0",
            Self::KernelAside => "vxlan0",
        }
    }

    /// The addresses of host `me`, counted from 1, inside the overlay.
    pub fn addresses(self, me: u8) -> [IpAddr; 2] {
        let number = u16::from(me);
        let (v4, v6): (_, Ipv6Addr) = match self {
            Self::Forwarder(VXLAN) | Self::Kernel => {
                (Ipv4Addr::new(10, 8, 0, me), [0xfd08, 0, 0, 0, 0, 0, 0, number].into())
            }
            Self::Forwarder(_) => {
                (Ipv4Addr::new(10, 7, me, 0), [0xfd07, 0, 0, number, 0, 0, 0, 1].into())
            }
            Self::KernelAside => {
                (Ipv4Addr::new(10, 6, 0, me), [0xfd06, 0, 0, 0, 0, 0, 0, number].into())
            }
        };
        [v4.into(), v6.into()]
    }
}

/// Two hosts, the overlays between them, and their underlay.
#[derive(Debug)]
pub struct Hosts {
    /// Left and right.
    pub both: [Namespace; 2],
    overlays: Vec<Overlay>,
    /// MTU of the overlay joined last, and the addresses of both hosts there.
    mtu: u32,
    addresses: [[IpAddr; 2]; 2],
}

impl Hosts {
    pub fn new() -> Result<Self, Failure> {
        let both = [Namespace::new()?, Namespace::new()?];
        Namespace::veth(&both[0], "eth0", &both[1], "eth0")?;
        for (me, host) in (1..).zip(&both) {
            host.add_address("eth0", (underlay(me), 24))?;
            host.up("eth0")?;
        }
        for host in &both {
            host.wait_up("eth0", PATIENCE)?;
        }
        let nowhere = Ipv4Addr::UNSPECIFIED.into();
        Ok(Self { both, overlays: Vec::new(), mtu: 0, addresses: [[nowhere; 2]; 2] })
    }

    /// Joins the hosts by an overlay.
    pub fn join(&mut self, ends: [End; 2]) -> Result<(), Failure> {
        for (me, end) in (1..).zip(ends) {
            let host = self.both[usize::from(me) - 1].clone();
            match end {
                End::Forwarder(arguments) => {
                    let arguments = command(arguments, me);
                    // Sockets and devices are made where the calling thread is.
                    self.overlays.push(host.run(|| start(&arguments))?);
                }
                End::Kernel => kernel(&host, end, me, 42, 4789)?,
                End::KernelAside => kernel(&host, end, me, 43, 8472)?,
            }
        }
        for (end, host) in ends.iter().zip(&self.both) {
            host.wait_up(end.device(), PATIENCE)?;
        }
        self.mtu = self.both[0].mtu(ends[0].device())?;
        self.addresses = [ends[0].addresses(1), ends[1].addresses(2)];
        Ok(())
    }

    /// The addresses of the left host, or of the right one, in the overlay joined last: IPv4 and IPv6.
    pub fn addresses(&self, host: usize) -> [IpAddr; 2] {
        self.addresses[host]
    }

    /// The MTU of the overlay joined last.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// What became of every frame so far, for each forwarder.
    pub fn counters(&self) -> Vec<String> {
        self.overlays.iter().map(|overlay| overlay.control().stats().to_string()).collect()
    }

    /// Stops all overlays; a failure if a frame is unaccounted for.
    pub fn stop(self) -> Result<(), Failure> {
        for overlay in self.overlays {
            let stats = overlay.stop()?;
            ensure(
                stats.totals.is_conserved(),
                format_args!("frames are unaccounted for:\n{stats}"),
            )?;
        }
        Ok(())
    }
}

/// The command of host `me`.
pub fn command(arguments: &str, me: u8) -> String {
    let peer = 3 - me;
    arguments.replace("{me}", &me.to_string()).replace("{peer}", &peer.to_string())
}

fn start(arguments: &str) -> Result<Overlay, Failure> {
    let words = ["forwarder"].into_iter().chain(arguments.split_whitespace());
    let plan = match Arguments::try_parse_from(words).map_err(Failure::run)?.command {
        Command::Vxlan(vxlan) => vxlan.plan()?,
        Command::Udp(udp) => udp.plan()?,
        _ => return Err(Failure::run("no overlay to join")),
    };
    let mut overlay = Overlay::prepare(plan)?;
    overlay.start()?;
    Ok(overlay)
}

fn kernel(host: &Namespace, end: End, me: u8, vni: u32, port: u16) -> Result<(), Failure> {
    let device = end.device();
    let remotes = [underlay(3 - me)];
    let mtu =
        host.mtu("eth0")? - overhead(Kind::Bridge(Vni::new(vni).map_err(Failure::run)?), false);
    host.add_vxlan(&Vxlan { remotes: &remotes, port, ..Vxlan::new(device, vni, underlay(me)) })?;
    // The kernel only does so by itself where the device is bound to an interface.
    host.set_mtu(device, mtu)?;
    for (address, prefix) in end.addresses(me).into_iter().zip([24, 64]) {
        host.add_address(device, (address, prefix))?;
    }
    host.up(device)?;
    Ok(())
}

fn underlay(me: u8) -> IpAddr {
    [10, 9, 0, me].into()
}
