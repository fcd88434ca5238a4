//! One host's end of a system, in a process of its own, so that its CPU time and memory are its own.

use std::io::{self, Read, stdin};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use clap::ValueEnum;
use overplane::{Config, Control, Dataplane, Device, Kind, Prefix, Segment, Vni, mtu};
use overplane_lab::Namespace;
use tun_tap::{Iface, Mode};

use crate::Result;
use crate::naive;
use crate::process::READY;
use crate::system::{End, System, underlay};

/// MTU of the wire, in bytes.
const UNDERLAY_MTU: u32 = 1500;

/// Frames that wait in a device until they are read: those that arrive while a worker is kept from its CPU.
const QUEUE_LENGTH: u32 = 1000;

/// Is the node that the arguments name, a system, a host's number and the path of its namespace, until the standard
/// input is closed.
pub fn run(arguments: &[String]) -> Result<()> {
    let [system, number, path] = arguments else {
        return Err("a node is a system, a host and a namespace".into());
    };
    let place = Place {
        system: System::from_str(system, false)?,
        number: number.parse().ok().filter(|number| *number < 2).ok_or("a host is 0 or 1")?,
        host: Namespace::open(path)?,
    };
    match place.system.ends()[place.number] {
        End::Naive => run_naive(&place),
        End::Vxlan { offloads, workers } => {
            let mut config = Config::new(place.local());
            config.offloads = offloads;
            config.workers = workers;
            let mut segment = Segment::bridge(Vni::new(place.system.vni())?);
            segment.udp_port = place.system.udp_port();
            run_overplane(&place, config, segment)
        }
        End::Routed => {
            let segment = Segment::routed(place.system.udp_port());
            run_overplane(&place, Config::new(place.local()), segment)
        }
        End::Wire | End::Kernel => Err("the kernel's ends are no processes".into()),
    }
}

/// Where a node is.
struct Place {
    system: System,
    number: usize,
    host: Namespace,
}

impl Place {
    fn local(&self) -> IpAddr {
        underlay(self.number).into()
    }

    fn vtep(&self) -> SocketAddr {
        (underlay(1 - self.number), self.system.udp_port()).into()
    }

    /// Sets the device of the node up: all that an agent would set of a link is set here.
    fn configure(&self, mtu: u32) -> Result<()> {
        let (host, device) = (&self.host, &self.system.device());
        host.add_address(device, (self.system.address(self.number).into(), 24))?;
        host.set_mtu(device, mtu)?;
        host.up(device)?;
        host.wait_up(device, Duration::from_secs(5))?;
        Ok(())
    }
}

fn run_overplane(place: &Place, config: Config, segment: Segment) -> Result<()> {
    let (host, name) = (&place.host, place.system.device());
    let dataplane = host.run(|| Dataplane::start(config))?;
    let control = dataplane.control();
    let mtu = mtu::segment_mtu(segment.kind, false, UNDERLAY_MTU);
    let kind = segment.kind;
    let id = control.add_segment(segment)?;
    match kind {
        Kind::Bridge(_) => {
            control.attach(id, Device::tap_in(host, &name)?)?;
            control.add_flood(id, place.vtep())?;
        }
        Kind::Routed | Kind::RoutedVxlan { .. } => {
            control.attach(id, Device::tun_in(host, &name)?)?;
            let peer = Prefix::new(place.system.address(1 - place.number).into(), 32);
            control.insert_route(id, peer.ok_or("a prefix of 32 bits")?, place.vtep())?;
        }
    }
    host.set_gso_max_size(&name, mtu::gso_max_size(kind, false, mtu))?;
    host.set_txqueuelen(&name, QUEUE_LENGTH)?;
    place.configure(mtu)?;
    println!("{READY}");
    // Nothing is ever written there: this ends when the benchmark closes it, or ends itself.
    stdin().read_to_end(&mut Vec::new())?;
    stop(dataplane, &control)
}

/// Stops a dataplane and checks that it lost sight of no frame.
fn stop(dataplane: Dataplane, control: &Control) -> Result<()> {
    let ran = dataplane.is_running();
    dataplane.stop()?;
    let stats = control.stats();
    if !ran || !stats.totals.is_conserved() {
        return Err(format!("the dataplane ended early or miscounted:\n{stats}").into());
    }
    Ok(())
}

fn run_naive(place: &Place) -> Result<()> {
    let local = SocketAddr::new(place.local(), place.system.udp_port());
    let (device, socket) = place.host.run(|| {
        let device = Iface::without_packet_info(&place.system.device(), Mode::Tun)?;
        device.set_non_blocking()?;
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok((device, socket))
    })?;
    place.configure(mtu::segment_mtu(Kind::Routed, false, UNDERLAY_MTU))?;
    println!("{READY}");
    Ok(naive::forward(&device, &socket, place.vtep(), &stdin())?)
}
