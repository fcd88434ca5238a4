//! What stands in the way of a forwarder on this host, and what to do about it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use caps::{CapSet, Capability};
use overplane::{Config, Dataplane, OffloadState};
use overplane_lab::Namespace;
use serde_json::{Value, json};

use crate::config;
use crate::failure::Failure;
use crate::links::Underlay;
use crate::plan::{Plan, SegmentPlan, Target, Via};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    /// It works, but not as well as it could.
    Doubtful,
    Broken,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Doubtful => "warning",
            Self::Broken => "error",
        }
    }
}

/// What one check has shown.
#[derive(Debug)]
struct Finding {
    state: State,
    /// What was looked at.
    about: String,
    what: String,
    /// What to do; empty where nothing is to be done.
    advice: String,
}

/// The findings so far.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, state: State, about: impl Into<String>, what: impl ToString, advice: &str) {
        let (about, what, advice) = (about.into(), what.to_string(), advice.to_owned());
        self.0.push(Finding { state, about, what, advice });
    }
}

/// Looks at everything that a forwarder needs here, and at what a file asks for if there is one.
pub fn run(file: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let plan = file.map(config::load).transpose()?;
    let mut report = Report::default();
    let is_admin = capabilities(&mut report);
    device(&mut report);
    let config = plan
        .as_ref()
        .map_or_else(|| Config::new([127, 0, 0, 1].into()), |plan| plan.config.clone());
    buffers(&mut report, &config, is_admin);
    if let Some(plan) = &plan {
        underlay(&mut report, plan)?;
        ports(&mut report, plan);
        vteps(&mut report, plan);
    }
    offloads(&mut report, config);
    print(&report, as_json)?;
    let broken = report.0.iter().filter(|finding| finding.state == State::Broken).count();
    match broken {
        0 => Ok(()),
        1 => Err(Failure::run("one thing stands in the way")),
        n => Err(Failure::run(format_args!("{n} things stand in the way"))),
    }
}

fn print(Report(findings): &Report, as_json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if as_json {
        let entry = |finding: &Finding| {
            json!({
                "state": finding.state.name(),
                "about": finding.about,
                "what": finding.what,
                "advice": finding.advice,
            })
        };
        return Ok(writeln!(out, "{}", findings.iter().map(entry).collect::<Value>())?);
    }
    for Finding { state, about, what, advice } in findings {
        writeln!(out, "{:<8} {about}: {what}", state.name())?;
        if !advice.is_empty() {
            writeln!(out, "{:<8}   {advice}", "")?;
        }
    }
    Ok(())
}

fn capabilities(report: &mut Report) -> bool {
    let about = "capabilities";
    let has = caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false);
    match has {
        true => report.add(State::Fine, about, "CAP_NET_ADMIN", ""),
        false => report.add(
            State::Broken,
            about,
            "CAP_NET_ADMIN is missing: no device can be made and no link be set up",
            "start it as root, or with AmbientCapabilities=CAP_NET_ADMIN (systemd), or capabilities.add: [NET_ADMIN] (Kubernetes)",
        ),
    }
    has
}

fn device(report: &mut Report) {
    let about = "/dev/net/tun";
    let opened = OpenOptions::new().read(true).write(true).open(about);
    match opened.as_ref().map_err(io::Error::kind) {
        Ok(_) => report.add(State::Fine, about, "can be opened", ""),
        Err(kind) => {
            let advice = match kind {
                ErrorKind::NotFound => "modprobe tun; a container has to be given the device",
                ErrorKind::PermissionDenied => {
                    "chmod 0666 /dev/net/tun, as udev does, or start it as root"
                }
                _ => "modprobe tun",
            };
            let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
            report.add(State::Broken, about, error, advice);
        }
    }
}

/// What the kernel grants without CAP_NET_ADMIN (kernel `Documentation/admin-guide/sysctl/net.rst`, `rmem_max`).
fn buffers(report: &mut Report, config: &Config, is_admin: bool) {
    for (name, wanted) in [("rmem_max", config.receive_buffer), ("wmem_max", config.send_buffer)] {
        let about = format!("net.core.{name}");
        match number(&format!("/proc/sys/net/core/{name}")) {
            Some(most) if most < wanted as u64 && !is_admin => report.add(
                State::Doubtful,
                about,
                format_args!("{most} bytes, and {wanted} are wanted: bursts may be lost"),
                &format!("sysctl -w net.core.{name}={wanted}"),
            ),
            Some(most) => report.add(State::Fine, about, format_args!("{most} bytes"), ""),
            None => {}
        }
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn locals(plan: &Plan) -> impl Iterator<Item = IpAddr> {
    [plan.config.local].into_iter().chain(plan.config.second_local)
}

/// The interfaces that carry the underlay: their MTU, and what the kernel lets in.
fn underlay(report: &mut Report, plan: &Plan) -> Result<(), Failure> {
    let host = Namespace::current()?;
    for local in locals(plan) {
        let about = format!("address {local}");
        let (link, mtu) = match Underlay::find(&host, local) {
            Ok(Underlay { link, mtu }) => (link, mtu),
            Err(error) => {
                report.add(
                    State::Broken,
                    about,
                    error,
                    "give an interface the address, or the file another one",
                );
                continue;
            }
        };
        report.add(State::Fine, about, format_args!("on {link}, MTU {mtu}"), "");
        for planned in &plan.segments {
            let id = planned.segment.id();
            let left = overplane::mtu::segment_mtu(planned.segment.kind, local.is_ipv6(), mtu);
            match planned.segment.mtu {
                Some(asked) if asked > left => report.add(
                    State::Doubtful,
                    id.to_string(),
                    format_args!(
                        "MTU {asked}, and {link} leaves {left}: larger packets are refused or lost"
                    ),
                    "leave the MTU out of the file, or raise that of the underlay",
                ),
                _ if left < 1280 => report.add(
                    State::Doubtful,
                    id.to_string(),
                    format_args!("{link} leaves {left} bytes, and IPv6 needs 1280 (RFC 8200 §5)"),
                    "raise the MTU of the underlay",
                ),
                _ => report.add(
                    State::Fine,
                    id.to_string(),
                    format_args!("{link} leaves {left} bytes"),
                    "",
                ),
            }
        }
        // The stricter of both holds (kernel `Documentation/networking/ip-sysctl.rst`, `rp_filter`).
        let filter =
            |of: &str| number(&format!("/proc/sys/net/ipv4/conf/{of}/rp_filter")).unwrap_or(0);
        if local.is_ipv4() && filter("all").max(filter(&link)) == 1 {
            report.add(
                State::Doubtful,
                format!("rp_filter of {link}"),
                "strict: datagrams are dropped that come in by another interface than answers would leave by",
                &format!("with several ways to a VTEP: sysctl -w net.ipv4.conf.{link}.rp_filter=2"),
            );
        }
    }
    Ok(())
}

/// The UDP ports, which nobody else may have.
fn ports(report: &mut Report, plan: &Plan) {
    let mut udp_ports: Vec<u16> =
        plan.segments.iter().map(|planned| planned.segment.udp_port).collect();
    udp_ports.sort_unstable();
    udp_ports.dedup();
    for udp_port in udp_ports {
        for local in locals(plan) {
            let about = format!("UDP port {udp_port} of {local}");
            match UdpSocket::bind((local, udp_port)) {
                Ok(_) => report.add(State::Fine, about, "is free", ""),
                Err(error) if error.kind() == ErrorKind::AddrInUse => report.add(
                    State::Broken,
                    about,
                    "somebody has it: another process, which may be a forwarder that runs, or a VXLAN device of the kernel",
                    "ss -ulnp and ip -d link show type vxlan tell who; stop that, or give the segment another udp_port",
                ),
                // That there is no such address was said.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                Err(error) => report.add(State::Broken, about, error, ""),
            }
        }
    }
}

/// The VTEPs that a segment names.
fn named(planned: &SegmentPlan) -> impl Iterator<Item = SocketAddr> {
    let vtep = |target: &Target| match target {
        Target::Vtep(vtep) => Some(*vtep),
        Target::Port(_) => None,
    };
    let routes = planned.routes.iter().flat_map(move |(_, via)| match via {
        Via::One(target) => vtep(target).into_iter().collect::<Vec<_>>(),
        Via::Group(members) => members.iter().filter_map(|(target, _)| vtep(target)).collect(),
        Via::Blackhole | Via::Unreachable | Via::Local => Vec::new(),
    });
    let fdb = planned.fdb.iter().filter_map(move |(_, target)| vtep(target));
    planned.flood.iter().chain(&planned.peers).copied().chain(fdb).chain(routes)
}

/// Whether there is a way to each VTEP. What is behind it, only traffic tells.
fn vteps(report: &mut Report, plan: &Plan) {
    let mut vteps: Vec<SocketAddr> = plan.segments.iter().flat_map(named).collect();
    vteps.sort_unstable();
    vteps.dedup();
    let (mut reached, of) = (0, vteps.len());
    for vtep in vteps {
        let Some(local) = locals(plan).find(|local| local.is_ipv4() == vtep.is_ipv4()) else {
            continue;
        };
        let way = UdpSocket::bind((local, 0)).and_then(|socket| socket.connect(vtep));
        match way {
            Ok(()) => reached += 1,
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            Err(error) => report.add(
                State::Broken,
                format!("VTEP {vtep}"),
                error,
                &format!(
                    "add a route from {local} to it (ip route get {} from {local})",
                    vtep.ip()
                ),
            ),
        }
    }
    if reached > 0 {
        report.add(State::Fine, "VTEPs", format_args!("there is a route to {reached} of {of}"), "");
    }
}

/// What of the offloads of sockets works here; those of devices are tried when a device is attached.
fn offloads(report: &mut Report, config: Config) {
    let about = "offloads";
    match Dataplane::build(config) {
        Ok((dataplane, _workers)) => {
            for info in dataplane.control().offloads() {
                let about = format!("offload {}", info.offload);
                match info.state {
                    OffloadState::On => report.add(
                        State::Fine,
                        about,
                        "works, as far as this shows before a device is attached",
                        "",
                    ),
                    OffloadState::Off => {
                        report.add(State::Doubtful, about, "is switched off", "offload = \"auto\"")
                    }
                    OffloadState::Unavailable(why) | OffloadState::Failed(why) => {
                        report.add(
                            State::Doubtful,
                            about,
                            why,
                            "slower; a newer kernel may have it",
                        );
                    }
                    _ => {}
                }
            }
        }
        Err(overplane::Error::Io { attempt, source, .. })
            if source.kind() == ErrorKind::AddrNotAvailable =>
        {
            report.add(
                State::Doubtful,
                about,
                format_args!("not tried, for want of the address ({attempt})"),
                "",
            );
        }
        Err(error) => report.add(State::Broken, about, error, ""),
    }
}
