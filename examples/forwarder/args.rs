//! The command line.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use overplane::limits::{FLANNEL_UDP_PORT, MAX_WORKERS};
use overplane::wire::vxlan;
use overplane::{
    Config, DontFragment, Dscp, Ecn, MacAddr, Offloads, PortOptions, Prefix, Segment, Ttl, Vni,
    ZeroChecksums,
};
use overplane_lab::Cidr;
use tracing::level_filters::LevelFilter;

use crate::failure::Failure;
use crate::outer;
use crate::plan::{self, DEVICE, Plan, SegmentPlan, Target, Via};
use crate::report::Format;

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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a VXLAN segment with a TAP device.
    ///
    /// Makes the TAP device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. MAC addresses are learned; frames for everybody go
    /// to all remotes. Interoperates with the kernel's VXLAN device.
    Vxlan(Vxlan),
    /// Join an IP-in-UDP overlay, as flannel's udp backend makes one, with a TUN device.
    ///
    /// Makes the TUN device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. Packets go by longest matching route.
    Udp(Udp),
    /// Join an overlay that flannel's vxlan backend or Calico makes, with a TUN device.
    ///
    /// Makes the TUN device, sets its addresses and MTU, brings it up and forwards in the foreground until SIGINT or
    /// SIGTERM, when the device goes, unless it was there before, and the counters are printed. Packets go by longest matching
    /// route, in Ethernet frames between MAC addresses that are given.
    Flannel(Flannel),
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
    /// See it work: two hosts on this machine, pings, TCP, the kernel's VXLAN as the other end, and speed.
    ///
    /// The hosts are network namespaces that go away with this process; the machine's own network is not touched. Needs
    /// /dev/net/tun, but no other program. Without root it runs inside a user namespace.
    Demo,
}

/// What all overlays are told of this node.
#[derive(Debug, Args)]
struct Node {
    /// Underlay address of this node, on one of its interfaces.
    #[arg(long, value_name = "ADDRESS", value_parser = local)]
    local: IpAddr,
    /// Name of the device: made, or taken as it is if there is a TAP or TUN of that name; one that was there before
    /// stays, with the MTU and addresses it got.
    #[arg(long, value_name = "NAME", value_parser = device)]
    dev: String,
    /// MTU of the overlay, in bytes [default: that of the underlay's interface less the encapsulation].
    #[arg(long, value_parser = clap::value_parser!(u32).range(68..=65_535))]
    mtu: Option<u32>,
    /// Number of worker threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_WORKERS as i64))]
    workers: u16,
    /// Offloads to make use of: auto (all that work here), off, names joined by commas, or auto without some, as in
    /// auto,-uso. The names: checksum, tso, uso, coalesce-tcp, coalesce-udp, udp-gso, udp-gro.
    #[arg(long, value_name = "SET", default_value = "auto")]
    offload: Offloads,
    /// While frames keep coming, look for more for so many microseconds before sleeping: shortens round trips. 0: never.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    spin: u16,
    /// UDP source ports of datagrams [default: the host's range of ephemeral ports].
    #[arg(long, value_name = "FIRST-LAST", value_parser = word(outer::port_range, outer::PORT_RANGE))]
    source_port_range: Option<RangeInclusive<u16>>,
    /// DF of datagrams: set, unset, or inherit for that of the packet inside.
    #[arg(long, value_name = "MODE", default_value = "set", value_parser = word(outer::dont_fragment, outer::DONT_FRAGMENT))]
    dont_fragment: DontFragment,
    /// Datagrams without UDP checksum: none, or of send-v4, send-v6, accept-v6 those wanted, joined by commas.
    #[arg(long, value_name = "SET", default_value = "none", value_parser = word(outer::zero_checksums, outer::ZERO_CHECKSUMS))]
    zero_checksums: ZeroChecksums,
    /// Congestion marks (ECN): normal copies them out and hands them on in, compatibility only hands them on in, off does
    /// neither.
    #[arg(long, value_name = "MODE", default_value = "normal", value_parser = word(outer::ecn, outer::ECN))]
    ecn: Ecn,
    /// Outer DSCP: 0 to 63, or inherit for that of the packet inside.
    #[arg(long, value_name = "DSCP", default_value = "0", value_parser = word(outer::dscp, outer::DSCP))]
    dscp: Dscp,
    /// Outer TTL or hop limit: 1 to 255, system, or inherit for that of the packet inside.
    #[arg(long, value_name = "TTL", default_value = "system", value_parser = word(outer::ttl, outer::TTL))]
    ttl: Ttl,
}

#[derive(Debug, Args)]
pub struct Vxlan {
    /// VXLAN network identifier, 0 to 16777215.
    #[arg(long)]
    vni: Vni,
    #[command(flatten)]
    node: Node,
    /// Underlay address of another node, with a UDP port if it differs; can be repeated. The address of a multicast group
    /// stands for all its members, and then datagrams are accepted from everybody.
    #[arg(long, value_name = "ADDRESS[:PORT]", required = true)]
    remote: Vec<String>,
    /// Address of this node in the overlay, with its prefix length; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    address: Vec<Cidr>,
    /// Answer ARP and neighbour discovery for the hosts of other nodes, as far as they were heard of, instead of flooding.
    #[arg(long)]
    suppress: bool,
    /// Probe the paths to the remotes, so that one is found on which large packets vanish; needs overplane there, too.
    #[arg(long)]
    probe: bool,
    /// Send multicast to the nodes and devices alone whose hosts have joined the group (IGMP, MLD).
    #[arg(long)]
    snoop: bool,
    /// UDP port of the segment.
    #[arg(long, default_value_t = vxlan::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

#[derive(Debug, Args)]
pub struct Udp {
    #[command(flatten)]
    node: Node,
    /// Address of this node in the overlay, with the prefix length of the whole overlay; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH", required = true)]
    address: Vec<Cidr>,
    /// Destinations behind another node, with a UDP port if it differs; can be repeated.
    #[arg(long, value_name = "PREFIX=ADDRESS[:PORT]", required = true, value_parser = route)]
    route: Vec<(Prefix, String)>,
    /// UDP port of the segment.
    #[arg(long, default_value_t = FLANNEL_UDP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

#[derive(Debug, Args)]
pub struct Flannel {
    /// VXLAN network identifier, 0 to 16777215 (Calico: 4096).
    #[arg(long, default_value = "1")]
    vni: Vni,
    /// MAC address of this node's VTEP, which the others send to.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    mac: MacAddr,
    #[command(flatten)]
    node: Node,
    /// Address of this node in the overlay, with the prefix length of the whole overlay; can be repeated.
    #[arg(long, value_name = "ADDRESS/LENGTH", required = true)]
    address: Vec<Cidr>,
    /// Destinations behind another node, its underlay address, with a UDP port if it differs, and its VTEP's MAC address; can
    /// be repeated.
    #[arg(long, value_name = "PREFIX=ADDRESS[:PORT],MAC", required = true, value_parser = lease)]
    lease: Vec<(Prefix, String, MacAddr)>,
    /// Probe the paths to the other nodes, so that one is found on which large packets vanish; needs overplane there, too.
    #[arg(long)]
    probe: bool,
    /// UDP port of the segment (Calico: 4789).
    #[arg(long, default_value_t = vxlan::PORT_LINUX, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

impl Node {
    /// What all overlays have in common.
    fn plan(
        self,
        mut segment: Segment,
        addresses: Vec<Cidr>,
        fill: impl FnOnce(&mut SegmentPlan, IpAddr) -> Result<(), Failure>,
    ) -> Result<Plan, Failure> {
        let mut config = Config::new(self.local);
        config.workers = usize::from(self.workers);
        config.offloads = self.offload;
        config.spin = Duration::from_micros(self.spin.into());
        config.source_port_range = self.source_port_range;
        config.dont_fragment = self.dont_fragment;
        config.zero_checksums = self.zero_checksums;
        if segment.mtu_options.probe && self.dont_fragment == DontFragment::Unset {
            let why = "--probe: of no use with --dont-fragment unset; allowed: set or inherit";
            return Err(Failure::Usage(why.into()));
        }
        segment.mtu = self.mtu;
        segment.outer.ecn = self.ecn;
        segment.outer.dscp = self.dscp;
        segment.outer.ttl = self.ttl;
        let mut planned = SegmentPlan::new(segment);
        fill(&mut planned, self.local)?;
        for (place, address) in addresses.iter().enumerate() {
            if addresses[..place].contains(address) {
                return Err(Failure::Usage(format!("--address: {address} is given twice")));
            }
            if let Some(why) = plan::address_conflict(&[self.local], address.ip) {
                return Err(Failure::Usage(format!("--address: {why}")));
            }
        }
        planned.add_port(self.dev, addresses, PortOptions::default());
        Ok(Plan { config, stats: Format::default(), segments: vec![planned] })
    }
}

impl Vxlan {
    pub fn plan(self) -> Result<Plan, Failure> {
        let mut segment = Segment::bridge(self.vni);
        segment.udp_port = self.port;
        segment.neighbours.suppress = self.suppress;
        segment.mtu_options.probe = self.probe;
        segment.snooping.enabled = self.snoop;
        self.node.plan(segment, self.address, |planned, local| {
            for remote in &self.remote {
                let vtep = vtep("--remote", remote, remote, self.port, local)?;
                if planned.flood.contains(&vtep) {
                    return Err(Failure::Usage(format!("--remote: {remote} is given twice")));
                }
                // The members of a group have no other way to become known.
                planned.segment.open |= vtep.ip().is_multicast();
                planned.flood.push(vtep);
            }
            Ok(())
        })
    }
}

impl Udp {
    pub fn plan(self) -> Result<Plan, Failure> {
        self.node.plan(Segment::routed(self.port), self.address, |planned, local| {
            for (prefix, next_hop) in &self.route {
                let whole = format!("{prefix}={next_hop}");
                let vtep = vtep("--route", &whole, next_hop, self.port, local)?;
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
        segment.mtu_options.probe = self.probe;
        self.node.plan(segment, self.address, |planned, local| {
            for (prefix, next_hop, mac) in &self.lease {
                let whole = format!("{prefix}={next_hop},{mac}");
                let vtep = vtep("--lease", &whole, next_hop, self.port, local)?;
                if planned.routes.iter().any(|(known, _)| known == prefix) {
                    return Err(Failure::Usage(format!("--lease: {prefix} is given twice")));
                }
                planned.routes.push((*prefix, Via::One(Target::Vtep(vtep))));
                planned.vtep_macs.push((vtep, *mac));
            }
            Ok(())
        })
    }
}

/// Reads the VTEP in an argument, whose default port is another argument.
fn vtep(
    argument: &str,
    whole: &str,
    text: &str,
    udp_port: u16,
    local: IpAddr,
) -> Result<std::net::SocketAddr, Failure> {
    let (allowed, read) = match argument {
        "--remote" => (plan::FLOODED, plan::flooded as fn(&str, u16) -> _),
        _ => (plan::VTEP, plan::vtep as _),
    };
    let Some(vtep) = read(text, udp_port) else {
        return Err(Failure::Usage(format!(
            "{argument} {whole}: {text:?} is not allowed; allowed: {allowed}"
        )));
    };
    match plan::vtep_conflict(&[local], udp_port, vtep) {
        Some(conflict) => Err(Failure::Usage(format!("{argument} {whole}: {conflict}"))),
        None => Ok(vtep),
    }
}

fn local(text: &str) -> Result<IpAddr, String> {
    let local = text.parse().ok().filter(|ip| plan::is_unicast(*ip));
    local.ok_or_else(|| "allowed: a unicast address of this node".into())
}

/// Reads a value, or says what is allowed.
fn word<T>(
    read: fn(&str) -> Option<T>,
    allowed: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| read(text).ok_or_else(|| format!("allowed: {allowed}"))
}

fn device(text: &str) -> Result<String, String> {
    let allowed = plan::is_device_name(text);
    allowed.then(|| text.to_owned()).ok_or_else(|| format!("allowed: {DEVICE}"))
}

fn route(text: &str) -> Result<(Prefix, String), String> {
    let (prefix, next_hop) =
        text.split_once('=').ok_or("allowed: PREFIX=ADDRESS or PREFIX=ADDRESS:PORT")?;
    Ok((prefix.parse().map_err(|e: overplane::ParsePrefixError| e.to_string())?, next_hop.into()))
}

fn mac(text: &str) -> Result<MacAddr, String> {
    plan::mac(text).ok_or_else(|| format!("allowed: {}", plan::MAC))
}

fn lease(text: &str) -> Result<(Prefix, String, MacAddr), String> {
    let (prefix, (next_hop, address)) = text
        .split_once('=')
        .and_then(|(prefix, rest)| Some((prefix, rest.split_once(',')?)))
        .ok_or("allowed: PREFIX=ADDRESS,MAC or PREFIX=ADDRESS:PORT,MAC")?;
    let prefix = prefix.parse().map_err(|e: overplane::ParsePrefixError| e.to_string())?;
    Ok((prefix, next_hop.into(), mac(address)?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use overplane::Offload;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        match Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command) {
            Ok(Command::Vxlan(vxlan)) => vxlan.plan(),
            Ok(Command::Udp(udp)) => udp.plan(),
            Ok(Command::Flannel(flannel)) => flannel.plan(),
            Ok(_) => Err(Failure::run("no plan")),
            Err(e) => Err(Failure::Usage(e.to_string())),
        }
    }

    #[test]
    fn vxlan_arguments_make_a_bridge_segment() {
        let line = "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --remote 10.9.0.3:8472 \
                    --dev ovl0 --address 10.8.0.1/24 --mtu 1400 --suppress --snoop --workers 2 --offload auto,-uso --spin 0 \
                    --ecn compatibility --dscp inherit --ttl 9 --source-port-range 50000-50009 \
                    --dont-fragment inherit --zero-checksums send-v4 --probe";
        let plan = plan(line).unwrap();
        let segment = &plan.segments[0];
        assert_eq!(plan.config.workers, 2);
        assert!(plan.config.spin.is_zero());
        assert_eq!(plan.config.offloads, Offloads::ALL.without(Offload::Uso));
        assert_eq!(segment.segment.id().to_string(), "VXLAN 42 on UDP port 4789");
        assert_eq!(segment.segment.mtu, Some(1400));
        assert!(segment.segment.neighbours.suppress && segment.segment.neighbours.snoop);
        assert!(segment.segment.mtu_options.probe);
        assert!(segment.segment.snooping.enabled);
        let flood = ["10.9.0.2:4789", "10.9.0.3:8472"].map(|vtep| vtep.parse().unwrap());
        assert_eq!(segment.flood, flood);
        assert_eq!(plan.config.source_port_range, Some(50_000..=50_009));
        assert_eq!(plan.config.dont_fragment, DontFragment::Inherit);
        assert!(plan.config.zero_checksums.send_v4 && !plan.config.zero_checksums.accept_v6);
        let outer = segment.segment.outer;
        assert_eq!(outer.ecn, Ecn::Compatibility);
        assert_eq!((outer.dscp, outer.ttl), (Dscp::Inherit, Ttl::Fixed(9)));
        assert_eq!(segment.ports[0].device, "ovl0");
        assert_eq!(segment.ports[0].addresses[0].to_string(), "10.8.0.1/24");
        assert!(segment.segment.addresses.is_empty());
    }

    #[test]
    fn a_group_as_a_remote_makes_the_segment_open() {
        let line = "forwarder vxlan --vni 42 --local 10.9.0.1 --remote 239.1.1.1 --dev ovl0";
        let plan = plan(line).unwrap();
        assert!(plan.segments[0].segment.open);
        assert_eq!(plan.segments[0].flood, ["239.1.1.1:4789".parse().unwrap()]);
    }

    #[test]
    fn udp_arguments_make_a_routed_segment() {
        let line = "forwarder udp --local 10.9.0.1 --dev flannel0 --address 10.7.1.0/16 --route 10.7.2.0/24=10.9.0.2";
        let plan = plan(line).unwrap();
        let segment = &plan.segments[0];
        assert_eq!(segment.segment.id().to_string(), "IP in UDP on port 8285");
        let next_hop = Via::One(Target::Vtep("10.9.0.2:8285".parse().unwrap()));
        assert_eq!(segment.routes, [("10.7.2.0/24".parse().unwrap(), next_hop)]);
    }

    #[test]
    fn flannel_arguments_make_a_routed_segment_in_vxlan() {
        let line = "forwarder flannel --local 10.9.0.1 --dev flannel0 --mac 0e:2a:00:00:00:01 \
                    --address 10.244.0.0/16 --lease 10.244.1.0/24=10.9.0.2,0e:2a:00:00:00:02";
        let plan = plan(line).unwrap();
        let segment = &plan.segments[0];
        assert_eq!(segment.segment.id().to_string(), "VXLAN 1 on UDP port 8472");
        let vtep = "10.9.0.2:8472".parse().unwrap();
        let route = ("10.244.1.0/24".parse().unwrap(), Via::One(Target::Vtep(vtep)));
        assert_eq!(segment.routes, [route]);
        assert_eq!(segment.vtep_macs, [(vtep, MacAddr([0x0e, 0x2a, 0, 0, 0, 2]))]);
    }

    #[test]
    fn the_help_names_every_offload() {
        let mut command = Arguments::command();
        let vxlan = command.find_subcommand_mut("vxlan").unwrap();
        let help = vxlan.render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let names: Vec<&str> = Offload::ALL.iter().map(|offload| offload.name()).collect();
        assert!(help.contains(&format!("The names: {}", names.join(", "))), "{help}");
    }

    #[test]
    fn the_page_for_those_who_come_from_elsewhere_names_flags_that_exist() {
        let command = Arguments::command();
        let all = command.get_subcommands().flat_map(|sub| sub.get_arguments());
        let known: Vec<&str> =
            all.chain(command.get_arguments()).filter_map(|arg| arg.get_long()).collect();
        // Of the third column on: what is in the first is the flag of another program.
        let page = include_str!("../../docs/coming-from.md");
        let cells = page.lines().filter_map(|line| line.split('|').nth(2));
        let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let flags: Vec<&str> = spans.filter_map(|span| span.strip_prefix("--")).collect();
        assert!(flags.len() > 5);
        for flag in flags {
            assert!(known.contains(&flag), "--{flag}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_is_allowed() {
        let vxlan = "forwarder vxlan --local 10.9.0.1 --dev ovl0";
        let udp = "forwarder udp --local 10.9.0.1 --dev ovl0 --address 10.7.1.0/16";
        for (line, message) in [
            (format!("{vxlan} --vni 16777216 --remote 10.9.0.2"), "from 0 to 16777215"),
            (format!("{vxlan} --vni 1 --remote fd00::2"), "differ in family"),
            (
                format!("{vxlan} --vni 1 --remote 10.9.0.1"),
                "--remote 10.9.0.1: 10.9.0.1:4789 is this node itself",
            ),
            (
                format!("{vxlan} --vni 1 --remote host"),
                "\"host\" is not allowed; allowed: an ADDRESS of a node or of a group of nodes, or ADDRESS:PORT",
            ),
            (format!("{vxlan} --vni 1 --remote 10.9.0.2 --mtu 67"), "67 is not in 68..=65535"),
            (format!("{vxlan} --vni 1 --remote 10.9.0.2 --workers 0"), "0 is not in 1..=64"),
            (
                format!("{vxlan} --vni 1 --remote 10.9.0.2 --offload tos"),
                "\"tos\" is no offload; allowed: auto, off, checksum, tso",
            ),
            (
                format!("{vxlan} --vni 1 --remote 10.9.0.2 --dscp 64"),
                "allowed: 0 to 63, or \"inherit\"",
            ),
            (
                format!("{vxlan} --vni 1 --remote 10.9.0.2 --ttl 0"),
                "allowed: 1 to 255, \"system\" or \"inherit\"",
            ),
            (
                format!("{vxlan} --vni 1 --remote 10.9.0.2 --probe --dont-fragment unset"),
                "--probe: of no use with --dont-fragment unset; allowed: set or inherit",
            ),
            (format!("{udp} --route 10.7.2.0/24"), "allowed: PREFIX=ADDRESS"),
            (format!("{udp} --route 10.7.2.0/33=10.9.0.2"), "is not an IP prefix"),
            (
                format!("{udp} --route 10.7.2.0/24=10.9.0.2 --route 10.7.2.0/24=10.9.0.3"),
                "given twice",
            ),
            (
                "forwarder flannel --local 10.9.0.1 --dev a --mac 01:00:00:00:00:01".into(),
                "allowed: an individual MAC address",
            ),
            (
                "forwarder flannel --lease 10.7.2.0/24=10.9.0.2".into(),
                "allowed: PREFIX=ADDRESS,MAC",
            ),
            (
                "forwarder udp --local 0.0.0.0 --dev a".into(),
                "allowed: a unicast address of this node",
            ),
            ("forwarder udp --local 10.9.0.1 --dev a/b".into(), "1 to 15 bytes"),
        ] {
            let failure = plan(&line).unwrap_err();
            assert!(matches!(failure, Failure::Usage(_)), "{line}");
            assert!(failure.to_string().contains(message), "{line}: {failure}");
        }
    }
}
