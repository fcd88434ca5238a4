//! The command line.

mod bridge;
mod capture;
mod node;
mod privileges;
mod read;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use overplane::limits::FLANNEL_UDP_PORT;
use overplane::wire::vxlan;
use overplane::{MacAddr, PortOptions, Prefix, Segment, Vni};
use overplane_lab::Cidr;
use tracing::level_filters::LevelFilter;

use crate::control::Verb;
use crate::failure::Failure;
use crate::plan::{Plan, Target, Via};
use crate::report::Format;
use crate::values;
use bridge::{Bridge, Multicast, Ports, Suppression};
use node::{Node, Probes};
use read::{add, lease, mac, route, vtep, word};

/// Forwards overlay networks in userspace: VXLAN and IP in UDP.
#[derive(Debug, Parser)]
#[command(name = "forwarder", version, max_term_width = 100, after_help = "Try it: forwarder demo")]
pub struct Arguments {
    /// How much to report on the standard error [default: info, and warn for the demo].
    #[arg(long, value_enum, global = true)]
    log: Option<Log>,
    /// How counters are printed on the standard output, at the end and on SIGUSR1 [default: that of the configuration
    /// file, or text].
    #[arg(long, value_enum, global = true)]
    pub stats: Option<Format>,
    /// The control socket: made by those who forward, asked by the other verbs [default of these: the environment's
    /// OVERPLANE_CONTROL, or /run/overplane/forwarder.sock].
    #[arg(long, value_name = "PATH", global = true)]
    pub control: Option<PathBuf>,
    /// Print answers of the control socket, and what the doctor found, as JSON.
    #[arg(short, long, global = true)]
    pub json: bool,
    /// Serve counters at http://ADDRESS:PORT/metrics, and at /healthz whether the workers work [default: the address of the
    /// configuration file, or none].
    #[arg(long, value_name = "ADDRESS:PORT", global = true, value_parser = word(values::listener, values::LISTENER))]
    pub metrics: Option<SocketAddr>,
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    pub fn log(&self) -> LevelFilter {
        let default = if matches!(self.command, Command::Demo) { Log::Warn } else { Log::Info };
        self.log.unwrap_or(default).level()
    }
}

/// How much to report.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Log {
    Error,
    Warn,
    Info,
    Debug,
}

impl Log {
    fn level(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// What a command line has no place for: what there can be many of, each with options of its own.
const IN_FILES: &str = "Only files (forwarder run) have several segments, and in them static FDB entries (fdb), \
    VNIs and split horizon groups of single nodes (remote_vni, vtep), bindings of neighbours (neighbours.static, and \
    neighbours.snoop = false for these alone), static members and routers of multicast groups (snooping.static, \
    snooping.router), options and MAC addresses (mac) of single devices.";

/// The same for routed segments.
const IN_FILES_ROUTED: &str = "Only files (forwarder run) have several segments, and in them several devices, TAP \
    devices with a gateway (gateway), and routes to devices, groups of nodes or nowhere (route.port, route.via, route.type).";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a VXLAN segment with a TAP device.
    ///
    /// Makes the TAP device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. MAC addresses are learned; frames for everybody go
    /// to all remotes. Interoperates with the kernel's VXLAN device.
    #[command(after_help = IN_FILES)]
    Vxlan(Box<Vxlan>),
    /// Join an IP-in-UDP overlay, as flannel's udp backend makes one, with a TUN device.
    ///
    /// Makes the TUN device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. Packets go by longest matching route.
    #[command(after_help = IN_FILES_ROUTED)]
    Udp(Box<Udp>),
    /// Join an overlay that flannel's vxlan backend or Calico makes, with a TUN device.
    ///
    /// Makes the TUN device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. Packets go by longest matching
    /// route, in Ethernet frames between MAC addresses that are given.
    #[command(after_help = IN_FILES_ROUTED)]
    Flannel(Box<Flannel>),
    /// Run what a configuration file describes, in the foreground until SIGINT or SIGTERM.
    Run {
        /// The configuration file, in TOML.
        file: PathBuf,
    },
    /// Check a configuration file; all errors are reported with their lines, and the exit code is then 2.
    Check {
        /// The configuration file, in TOML.
        file: PathBuf,
    },
    /// Look at what a forwarder needs on this host: what is in the way, and what to do about it.
    ///
    /// Nothing is changed, and no frame is sent. The exit code is 1 if something stands in the way.
    Doctor {
        /// The configuration file that it is to run, in TOML.
        file: Option<PathBuf>,
    },
    /// See it work: two hosts on this machine, pings, TCP, the kernel's VXLAN as the other end, and speed.
    ///
    /// The hosts are network namespaces that go away with this process; the machine's own network is not touched. Needs
    /// /dev/net/tun, but no other program. Without root it runs inside a user namespace.
    Demo,
    #[command(flatten)]
    Ask(Verb),
}

#[derive(Debug, Args)]
pub struct Vxlan {
    /// VXLAN network identifier, 0 to 16777215.
    #[arg(long)]
    vni: Vni,
    /// Underlay address of another node, with a UDP port if it differs; can be repeated. The address of a multicast group
    /// stands for all its members, and then datagrams are accepted from everybody.
    #[arg(long, value_name = "ADDRESS[:PORT]", required = true)]
    remote: Vec<String>,
    /// Address of this node in the overlay, with its prefix length; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    address: Vec<Cidr>,
    /// UDP port of the segment.
    #[arg(long, default_value_t = vxlan::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    bridge: Bridge,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    suppression: Suppression,
    #[command(flatten)]
    multicast: Multicast,
    #[command(flatten)]
    probes: Probes,
}

#[derive(Debug, Args)]
pub struct Udp {
    /// Address of this node in the overlay, with the prefix length of the whole overlay; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH", required = true)]
    address: Vec<Cidr>,
    /// Destinations behind another node, with a UDP port if it differs; can be repeated.
    #[arg(long, value_name = "PREFIX=ADDRESS[:PORT]", required = true, value_parser = route)]
    route: Vec<(Prefix, String)>,
    /// UDP port of the segment.
    #[arg(long, default_value_t = FLANNEL_UDP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
pub struct Flannel {
    /// VXLAN network identifier, 0 to 16777215 (Calico: 4096).
    #[arg(long, default_value = "1")]
    vni: Vni,
    /// MAC address of this node's VTEP, which the others send to.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    mac: MacAddr,
    /// Address of this node in the overlay, with the prefix length of the whole overlay; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH", required = true)]
    address: Vec<Cidr>,
    /// Destinations behind another node, its underlay address, with a UDP port if it differs, and its VTEP's MAC address; can
    /// be repeated.
    #[arg(long, value_name = "PREFIX=ADDRESS[:PORT],MAC", required = true, value_parser = lease)]
    lease: Vec<(Prefix, String, MacAddr)>,
    /// UDP port of the segment (Calico: 4789).
    #[arg(long, default_value_t = vxlan::PORT_LINUX, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    probes: Probes,
}

impl Vxlan {
    pub fn plan(self) -> Result<Plan, Failure> {
        let mut segment = Segment::bridge(self.vni);
        segment.udp_port = self.port;
        self.bridge.apply(&mut segment);
        self.suppression.apply(&mut segment.neighbours);
        self.multicast.apply(&mut segment.snooping)?;
        self.probes.apply(&mut segment.mtu_options);
        let options = self.ports.options()?;
        let mut plan = self.node.plan(segment, self.address, options, |planned, locals| {
            self.ports.add_to(planned)?;
            for remote in &self.remote {
                let vtep = vtep("--remote", remote, remote, self.port, locals)?;
                // The members of a group have no other way to become known.
                planned.segment.open |= vtep.ip().is_multicast();
                add(&mut planned.flood, vtep, "--remote", remote)?;
            }
            Ok(())
        })?;
        self.probes.configure(&mut plan.config);
        Ok(plan)
    }
}

impl Udp {
    pub fn plan(self) -> Result<Plan, Failure> {
        let (segment, options) = (Segment::routed(self.port), PortOptions::default());
        self.node.plan(segment, self.address, options, |planned, locals| {
            for (prefix, next_hop) in &self.route {
                let whole = format!("{prefix}={next_hop}");
                let vtep = vtep("--route", &whole, next_hop, self.port, locals)?;
                if planned.routes.iter().any(|(known, _)| known == prefix) {
                    return Err(Failure::Usage(format!("--route: {prefix} is given twice")));
                }
                planned.routes.push((*prefix, Via::One(Target::Vtep(vtep))));
            }
            Ok(())
        })
    }
}

impl Flannel {
    pub fn plan(self) -> Result<Plan, Failure> {
        let mut segment = Segment::routed_vxlan(self.vni, self.mac);
        segment.udp_port = self.port;
        self.probes.apply(&mut segment.mtu_options);
        let options = PortOptions::default();
        let mut plan = self.node.plan(segment, self.address, options, |planned, locals| {
            for (prefix, next_hop, mac) in &self.lease {
                let whole = format!("{prefix}={next_hop},{mac}");
                let vtep = vtep("--lease", &whole, next_hop, self.port, locals)?;
                if planned.routes.iter().any(|(known, _)| known == prefix) {
                    return Err(Failure::Usage(format!("--lease: {prefix} is given twice")));
                }
                planned.routes.push((*prefix, Via::One(Target::Vtep(vtep))));
                planned.vtep_macs.push((vtep, *mac));
            }
            Ok(())
        })?;
        self.probes.configure(&mut plan.config);
        Ok(plan)
    }
}

#[cfg(test)]
mod files;
#[cfg(test)]
mod tests;
