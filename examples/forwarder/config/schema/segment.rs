//! Reading of `[[segment]]`: its options, devices and VTEPs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use overplane::limits::{FLANNEL_UDP_PORT, MAX_FLOOD};
use overplane::wire::vxlan::PORT_LINUX;
use overplane::{MacAddr, Segment, SegmentId, Vni};

use super::entries::{self, Places};
use super::{limits, mtu, neighbours, snooping};
use crate::config::reader::{Item, Once, Problems, Section};
use crate::plan::{self, FLOODED, SegmentPlan, VTEP};
use crate::{outer, values};

const COMMON: &[&str] = &["kind", "udp_port", "open", "ecn", "dscp", "ttl", "peers", "port"];
const BRIDGE: &[&str] = &[
    "vni",
    "learning",
    "ageing",
    "fdb_limit",
    "fdb_port_limit",
    "fdb_evict",
    "gbp",
    "any_vni",
    "remote_vni",
    "flood",
    "fdb",
    "neighbours",
    "snooping",
    "vtep_group",
    "group_fwd_mask",
    "vtep",
    "storm",
    "loops",
    "probe",
    "answer_probes",
];
const ROUTED: &[&str] = &["route"];
const ROUTED_VXLAN: &[&str] = &["vni", "mac", "vtep", "route", "probe", "answer_probes"];
const KINDS: &str = "\"bridge\", \"routed\" or \"routed-vxlan\"";

/// The lines of the segments so far, by name.
#[derive(Default)]
pub struct Names(HashMap<SegmentId, usize>);

/// Reads one segment after the other.
pub struct Reader<'r> {
    pub locals: Vec<IpAddr>,
    pub devices: &'r mut Once<String>,
    pub names: &'r mut Names,
}

impl Reader<'_> {
    /// Reads a segment; `None` when not even its kind is known.
    pub fn read(&mut self, section: &Section<'_>, problems: &mut Problems) -> Option<SegmentPlan> {
        let kind = section.need("kind", KINDS, problems)?;
        let (own, here) = match kind.as_text() {
            Some("bridge") => (BRIDGE, "a bridge segment"),
            Some("routed") => (ROUTED, "a routed segment"),
            Some("routed-vxlan") => (ROUTED_VXLAN, "a routed segment in VXLAN"),
            _ => {
                kind.refuse(KINDS, problems);
                return None;
            }
        };
        let elsewhere = [BRIDGE, ROUTED, ROUTED_VXLAN].concat();
        section.only(&[COMMON, mtu::KEYS, own].concat(), &elsewhere, here, problems);
        let (segment, named) = match kind.as_text() {
            Some("bridge") => bridge(section, problems),
            Some("routed") => (Segment::routed(FLANNEL_UDP_PORT), true),
            _ => routed_vxlan(section, problems),
        };
        let segment = common(section, segment, problems);
        if named {
            self.names.add(segment.id(), section, problems);
        }
        let udp_port = segment.udp_port;
        let mut planned = SegmentPlan::new(segment);
        self.ports(section, &mut planned, problems);
        let mut vteps = Vteps { locals: self.locals.clone(), udp_port, known: HashMap::new() };
        if planned.segment.kind.is_ethernet() {
            let flood = section.get("flood");
            planned.flood = vteps.list(flood.clone(), (FLOODED, plan::flooded), problems);
            if let Some(flood) = flood.filter(|_| planned.flood.len() > MAX_FLOOD) {
                flood.problem(
                    format_args!("too many VTEPs; allowed: {MAX_FLOOD} at most"),
                    problems,
                );
            }
            planned.groups = vteps.groups(section.get("vtep"), problems);
            let mut places = Places { ports: &planned.ports, vteps: &mut vteps };
            planned.fdb = entries::fdb(section, &mut places, problems);
            planned.remote_vnis = entries::remote_vnis(section, &mut places, problems);
            (planned.segment.snooping, planned.mdb) =
                snooping::read(section, &mut places, problems);
            (planned.segment.neighbours, planned.neighbours) = neighbours::read(section, problems);
        } else {
            let mut places = Places { ports: &planned.ports, vteps: &mut vteps };
            planned.routes = entries::routes(section, &mut places, problems);
            planned.vtep_macs = entries::vtep_macs(section, &mut vteps, problems);
        }
        planned.peers = vteps.list(section.get("peers"), (VTEP, plan::vtep), problems);
        Some(planned)
    }
}

/// Reads what only a routed segment in VXLAN has; false with it when its VNI is not known.
fn routed_vxlan(section: &Section<'_>, problems: &mut Problems) -> (Segment, bool) {
    let vni = entries::vni(section, problems);
    let mac = section.need("mac", plan::MAC, problems);
    let mac = mac.and_then(|item| item.text(plan::MAC, plan::mac, problems));
    let mut segment = Segment::routed_vxlan(vni.unwrap_or(Vni::MAX), mac.unwrap_or(NO_MAC));
    segment.udp_port = PORT_LINUX;
    (segment, vni.is_some())
}

/// Stands for the address that a broken file does not have.
const NO_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);

/// Reads what only a bridge segment has; false with it when its VNI is not known.
fn bridge(section: &Section<'_>, problems: &mut Problems) -> (Segment, bool) {
    let vni = entries::vni(section, problems);
    let mut segment = Segment::bridge(vni.unwrap_or(Vni::MAX));
    if let Some(learning) = section.get("learning").and_then(|item| item.boolean(problems)) {
        segment.learning = learning;
    }
    if let Some(item) = section.get("ageing")
        && let Some(ageing) = item.word(values::AGEING_OR_NEVER, values::ageing, problems)
    {
        segment.ageing = ageing;
    }
    if let Some(item) = section.get("fdb_limit")
        && let Some(limit) = item.integer(values::FDB_LIMIT, problems)
    {
        segment.fdb_limit = limit as usize;
    }
    if let Some(item) = section.get("fdb_port_limit")
        && let Some(limit) = item.word(values::FDB_PORT_LIMIT, values::fdb_port_limit, problems)
    {
        segment.fdb_port_limit = limit;
    }
    if let Some(evict) = section.get("fdb_evict").and_then(|item| item.boolean(problems)) {
        segment.fdb_evict = evict;
    }
    if let Some(item) = section.get("vtep_group")
        && let Some(group) = item.integer(values::HORIZON_GROUP, problems)
    {
        segment.scope.vtep_group = group as u8;
    }
    segment.storm = limits::storm(section, problems);
    segment.loops = limits::loops(section, problems);
    if let Some(item) = section.get("group_fwd_mask")
        && let Some(mask) = item.word(values::GROUP_FWD_MASK, values::group_fwd_mask, problems)
    {
        segment.scope.group_fwd_mask = mask;
    }
    if let Some(gbp) = section.get("gbp").and_then(|item| item.boolean(problems)) {
        segment.header.gbp = gbp;
    }
    if let Some(any) = section.get("any_vni").and_then(|item| item.boolean(problems)) {
        segment.header.any_vni = any;
    }
    (segment, vni.is_some())
}

/// Reads what every segment has.
fn common(section: &Section<'_>, mut segment: Segment, problems: &mut Problems) -> Segment {
    if let Some(item) = section.get("udp_port")
        && let Some(port) = item.integer(1..=u16::MAX.into(), problems)
    {
        segment.udp_port = port as u16;
    }
    mtu::read(section, &mut segment, problems);
    if let Some(open) = section.get("open").and_then(|item| item.boolean(problems)) {
        segment.open = open;
    }
    if let Some(ecn) = section.get("ecn").and_then(|it| it.text(outer::ECN, outer::ecn, problems)) {
        segment.outer.ecn = ecn;
    }
    if let Some(dscp) =
        section.get("dscp").and_then(|it| it.word(outer::DSCP, outer::dscp, problems))
    {
        segment.outer.dscp = dscp;
    }
    if let Some(ttl) = section.get("ttl").and_then(|it| it.word(outer::TTL, outer::ttl, problems)) {
        segment.outer.ttl = ttl;
    }
    segment
}

impl Names {
    /// Only segments of different VNI share a UDP port.
    fn add(&mut self, id: SegmentId, section: &Section<'_>, problems: &mut Problems) {
        let other = self.0.iter().find(|(other, _)| {
            let shares_port = other.udp_port == id.udp_port;
            shares_port && (other.vni == id.vni || other.vni.is_none() || id.vni.is_none())
        });
        if let Some((other, line)) = other {
            let rule = "only segments of different VNI share a UDP port";
            section.problem(format_args!("{id}: {other} is on line {line}; {rule}"), problems);
        } else {
            self.0.insert(id, section.line);
        }
    }
}

/// What an address may be, for people, and how it is read.
type Kind = (&'static str, fn(&str, u16) -> Option<SocketAddr>);

/// Reads VTEPs of one segment, in which each address has one UDP port.
pub struct Vteps {
    locals: Vec<IpAddr>,
    udp_port: u16,
    known: HashMap<IpAddr, (u16, usize)>,
}

impl Vteps {
    pub fn read(&mut self, item: &Item<'_>, problems: &mut Problems) -> Option<SocketAddr> {
        self.read_as(item, (VTEP, plan::vtep), problems)
    }

    fn read_as(
        &mut self,
        item: &Item<'_>,
        (allowed, read): Kind,
        problems: &mut Problems,
    ) -> Option<SocketAddr> {
        let vtep = item.text(allowed, |text| read(text, self.udp_port), problems)?;
        let conflict = plan::vtep_conflict(&self.locals, self.udp_port, vtep);
        if let Some(conflict) = conflict {
            item.problem(conflict, problems);
            return None;
        }
        let (port, line) = *self.known.entry(vtep.ip()).or_insert((vtep.port(), item.line));
        if port != vtep.port() {
            let ip = vtep.ip();
            item.problem(
                format_args!("{vtep}: {ip} has UDP port {port} on line {line}, and one VTEP has one port in a segment"),
                problems,
            );
            return None;
        }
        Some(vtep)
    }

    /// Reads `[[segment.vtep]]`: peers that differ from others.
    fn groups(&mut self, list: Option<Item<'_>>, problems: &mut Problems) -> Vec<(SocketAddr, u8)> {
        let allowed = "a list of tables, each under [[segment.vtep]]";
        let items = list.map_or(Vec::new(), |list| list.list(allowed, problems));
        let mut seen = Once::new();
        let mut groups = Vec::new();
        for item in items {
            let Some(section) = item.section(problems) else { continue };
            section.only(&["address", "group"], &[], "", problems);
            let group = section
                .need("group", "0 (none) to 31", problems)
                .and_then(|item| item.integer(values::HORIZON_GROUP, problems));
            let Some(item) = section.need("address", VTEP, problems) else { continue };
            if let Some(vtep) = self.read(&item, problems)
                && seen.is_first(vtep, &item, problems)
                && let Some(group) = group
            {
                groups.push((vtep, group as u8));
            }
        }
        groups
    }

    fn list(
        &mut self,
        list: Option<Item<'_>>,
        kind: Kind,
        problems: &mut Problems,
    ) -> Vec<SocketAddr> {
        let allowed = format!("a list of VTEPs, each {}", kind.0);
        let items = list.map_or(Vec::new(), |list| list.list(&allowed, problems));
        let mut seen = Once::new();
        let mut vteps = Vec::new();
        for item in items {
            if let Some(vtep) = self.read_as(&item, kind, problems)
                && seen.is_first(vtep, &item, problems)
            {
                vteps.push(vtep);
            }
        }
        vteps
    }
}
