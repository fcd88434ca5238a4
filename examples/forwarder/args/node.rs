//! What all overlays are told of this node.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use overplane::wire::vxlan::ReservedBits;
use overplane::{
    Config, DontFragment, Dscp, Ecn, MssClamp, MtuOptions, Offloads, PortOptions, Segment, Ttl,
    ZeroChecksums,
};
use overplane_lab::Cidr;

use super::capture::Capture;
use super::privileges::Privileges;
use super::read::{add, device, local, number, seconds, vtep, word};
use crate::failure::Failure;
use crate::outer::{self, PortRange};
use crate::plan::{self, Plan, SegmentPlan};
use crate::report::Format;
use crate::values;

/// What all overlays are told of this node.
#[derive(Debug, Args)]
pub struct Node {
    /// Underlay address of this node, on one of its interfaces.
    #[arg(long, value_name = "ADDRESS", value_parser = local)]
    local: IpAddr,
    /// The same of the other family, for nodes of both [default: none].
    #[arg(long, value_name = "ADDRESS", value_parser = word(values::local, plan::SECOND_LOCAL))]
    second_local: Option<IpAddr>,
    /// Name of the device: made, or taken as it is if there is a TAP or TUN of that name; one that was there before
    /// stays, with the MTU and addresses it got.
    #[arg(long, value_name = "NAME", value_parser = device)]
    dev: String,
    /// Underlay address of a further node that datagrams are accepted from, with a UDP port if it differs; can be
    /// repeated.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    peer: Vec<String>,
    /// Accept datagrams of all senders, not only of nodes that are named.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    underlay: Underlay,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    privileges: Privileges,
    #[command(flatten)]
    capture: Capture,
}

/// What datagrams look like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Underlay")]
struct Underlay {
    /// UDP source ports of datagrams, or host for the host's range of ephemeral ports.
    #[arg(long, value_name = "FIRST-LAST", default_value = "host", value_parser = word(outer::port_range, outer::PORT_RANGE))]
    source_port_range: PortRange,
    /// Over how many of these flows are spread, 1 to 64; 0: none, the source port is that of the segment [default: 4].
    #[arg(long, value_name = "N", value_parser = number::<u8>(values::SOURCE_PORTS))]
    source_ports: Option<u8>,
    /// DF of datagrams: set, unset, or inherit for that of the packet inside.
    #[arg(long, value_name = "MODE", default_value = "set", value_parser = word(outer::dont_fragment, outer::DONT_FRAGMENT))]
    dont_fragment: DontFragment,
    /// Datagrams without UDP checksum: none, or of send-v4, send-v6, accept-v6 those wanted, joined by commas.
    #[arg(long, value_name = "SET", default_value = "none", value_parser = word(outer::zero_checksums, outer::ZERO_CHECKSUMS))]
    zero_checksums: ZeroChecksums,
    /// VXLAN datagrams with reserved bits set: ignore the bits, or strict to drop them as Linux does [default: ignore].
    #[arg(long, value_name = "MODE", value_parser = word(values::reserved_bits, values::RESERVED_BITS))]
    reserved_bits: Option<ReservedBits>,
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

/// How large packets may be.
#[derive(Debug, Args)]
#[command(next_help_heading = "MTU")]
struct Sizes {
    /// MTU of the overlay, in bytes [default: that of the underlay's interface less the encapsulation].
    #[arg(long, value_parser = number::<u32>(values::MTU))]
    mtu: Option<u32>,
    /// Do not tell senders of packets that are too large with ICMP.
    #[arg(long)]
    no_too_big_errors: bool,
    /// Lower the segment size that TCP hosts tell each other: off, mtu for what fits, or bytes [default: off].
    #[arg(long, value_name = "SIZE", value_parser = word(values::clamp_mss, values::CLAMP_MSS))]
    clamp_mss: Option<MssClamp>,
    /// Try a path that proved narrow with larger datagrams again after so many seconds, 1 to 86400 [default: 600].
    #[arg(long, value_name = "SECONDS", value_parser = seconds(values::PATH_MTU_EXPIRY))]
    path_mtu_expiry: Option<Duration>,
    /// Do not follow the MTU of the underlay's interface and routes, nor devices that go down.
    #[arg(long)]
    no_follow_host: bool,
}

/// What forwarding may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Resources")]
struct Threads {
    /// Number of worker threads.
    #[arg(long, default_value_t = 1, value_parser = number::<u16>(values::WORKERS))]
    workers: u16,
    /// Offloads to make use of: auto (all that work here), off, names joined by commas, or auto without some, as in
    /// auto,-uso. The names: checksum, tso, uso, coalesce-tcp, coalesce-udp, udp-gso, udp-gro.
    #[arg(long, value_name = "SET", default_value = "auto")]
    offload: Offloads,
    /// While frames keep coming, look for more for so many microseconds before sleeping: shortens round trips. 0: never.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = number::<u16>(values::SPIN))]
    spin: u16,
    /// Slots for frames, super-frames or trains that one read takes, 1 to 1024 [default: 64].
    #[arg(long, value_name = "N", value_parser = number::<u16>(values::BATCH))]
    batch: Option<u16>,
    /// Room for learned MAC addresses, 1 to 1048576 [default: 65536].
    #[arg(long, value_name = "N", value_parser = number::<u32>(values::FDB_CAPACITY))]
    fdb_capacity: Option<u32>,
    /// Receive buffer of each underlay socket, 4096 to 1073741824; the kernel may grant less [default: 7340032].
    #[arg(long, value_name = "BYTES", value_parser = number::<u32>(values::BUFFER))]
    receive_buffer: Option<u32>,
    /// Send buffer of each, as above [default: 7340032].
    #[arg(long, value_name = "BYTES", value_parser = number::<u32>(values::BUFFER))]
    send_buffer: Option<u32>,
}

/// Whether paths are probed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Probes")]
pub struct Probes {
    /// Probe the paths to the other nodes, so that one is found on which large packets vanish; needs overplane there, too.
    #[arg(long)]
    probe: bool,
    /// Do not answer the probes of others.
    #[arg(long)]
    no_answer_probes: bool,
    /// A probe is lost after so many seconds, 1 to 60 [default: 1].
    #[arg(long, value_name = "SECONDS", requires = "probe", value_parser = seconds(values::PROBE_TIMEOUT))]
    probing_timeout: Option<Duration>,
    /// How many have to be lost, 1 to 10 [default: 3].
    #[arg(long, value_name = "N", requires = "probe", value_parser = number::<u8>(values::MAX_PROBES))]
    probing_max_probes: Option<u8>,
    /// Time between two looks whether what got there still does, 1 to 3600 [default: 10].
    #[arg(long, value_name = "SECONDS", requires = "probe", value_parser = seconds(values::PROBE_INTERVAL))]
    probing_interval: Option<Duration>,
    /// Time between two looks whether more does, 1 to 86400 [default: 600].
    #[arg(long, value_name = "SECONDS", requires = "probe", value_parser = seconds(values::PROBE_RAISE))]
    probing_raise: Option<Duration>,
    /// Size of packets that every path takes, 552 to 9000 [default: 1200].
    #[arg(long, value_name = "BYTES", requires = "probe", value_parser = number::<u32>(values::PROBE_BASE))]
    probing_base: Option<u32>,
}

impl Node {
    /// What all overlays have in common. The device has the options `port`; `fill` is told the addresses of this node.
    pub fn plan(
        self,
        mut segment: Segment,
        addresses: Vec<Cidr>,
        port: PortOptions,
        fill: impl FnOnce(&mut SegmentPlan, &[IpAddr]) -> Result<(), Failure>,
    ) -> Result<Plan, Failure> {
        let mut config = Config::new(self.local);
        if let Some(second) = self.second_local {
            config.second_local = plan::second_local(self.local, second);
            if config.second_local.is_none() {
                let allowed = plan::SECOND_LOCAL;
                let why = format!("--second-local: {second} is not allowed; allowed: {allowed}");
                return Err(Failure::Usage(why));
            }
        }
        let locals: Vec<IpAddr> = [self.local].into_iter().chain(config.second_local).collect();
        if segment.mtu_options.probe && self.underlay.dont_fragment == DontFragment::Unset {
            let why = "--probe: of no use with --dont-fragment unset; allowed: set or inherit";
            return Err(Failure::Usage(why.into()));
        }
        self.underlay.apply(&mut config, &mut segment);
        self.sizes.apply(&mut config, &mut segment);
        self.threads.apply(&mut config);
        segment.open = self.open;
        let mut planned = SegmentPlan::new(segment);
        for (place, address) in addresses.iter().enumerate() {
            let ip = address.ip;
            if addresses[..place].iter().any(|other| other.ip == ip) {
                return Err(Failure::Usage(format!("--address: {ip} is given twice")));
            }
            let conflict = plan::address_conflict(&locals, ip)
                .or_else(|| plan::mtu_conflict("--mtu", planned.segment.mtu, ip));
            if let Some(why) = conflict {
                return Err(Failure::Usage(format!("--address {address}: {why}")));
            }
        }
        planned.add_port(self.dev, addresses, port);
        for peer in &self.peer {
            let vtep = vtep("--peer", peer, peer, planned.segment.udp_port, &locals)?;
            add(&mut planned.peers, vtep, "--peer", peer)?;
        }
        fill(&mut planned, &locals)?;
        let (privileges, capture) = (self.privileges.settings(), self.capture.plan());
        Ok(Plan {
            config,
            stats: Format::default(),
            control: None,
            metrics: None,
            privileges,
            capture,
            segments: vec![planned],
        })
    }
}

impl Underlay {
    fn apply(self, config: &mut Config, segment: &mut Segment) {
        config.source_port_range = self.source_port_range;
        config.source_ports = self.source_ports.map_or(config.source_ports, usize::from);
        config.dont_fragment = self.dont_fragment;
        config.zero_checksums = self.zero_checksums;
        config.reserved_bits = self.reserved_bits.unwrap_or(config.reserved_bits);
        segment.outer.ecn = self.ecn;
        segment.outer.dscp = self.dscp;
        segment.outer.ttl = self.ttl;
    }
}

impl Sizes {
    fn apply(self, config: &mut Config, segment: &mut Segment) {
        segment.mtu = self.mtu;
        segment.mtu_options.too_big_errors = !self.no_too_big_errors;
        segment.mtu_options.clamp_mss = self.clamp_mss.unwrap_or_default();
        config.path_mtu_expiry = self.path_mtu_expiry.unwrap_or(config.path_mtu_expiry);
        config.follow_host = !self.no_follow_host;
    }
}

impl Threads {
    fn apply(self, config: &mut Config) {
        config.workers = usize::from(self.workers);
        config.offloads = self.offload;
        config.spin = Duration::from_micros(self.spin.into());
        config.batch = self.batch.map_or(config.batch, usize::from);
        config.fdb_capacity = self.fdb_capacity.map_or(config.fdb_capacity, |n| n as usize);
        config.receive_buffer = self.receive_buffer.map_or(config.receive_buffer, |n| n as usize);
        config.send_buffer = self.send_buffer.map_or(config.send_buffer, |n| n as usize);
    }
}

impl Probes {
    /// What concerns the segment.
    pub fn apply(&self, options: &mut MtuOptions) {
        options.probe = self.probe;
        options.answer_probes = !self.no_answer_probes;
    }

    /// What concerns all segments.
    pub fn configure(self, config: &mut Config) {
        let probing = &mut config.probing;
        probing.timeout = self.probing_timeout.unwrap_or(probing.timeout);
        probing.max_probes = self.probing_max_probes.unwrap_or(probing.max_probes);
        probing.interval = self.probing_interval.unwrap_or(probing.interval);
        probing.raise = self.probing_raise.unwrap_or(probing.raise);
        probing.base = self.probing_base.unwrap_or(probing.base);
    }
}
