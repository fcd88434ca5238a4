//! Carrying out what is asked.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use overplane::{
    Change, Control, Destination, DropReason, Error, Flush, Kind, NextHop, PortInfo, PortOptions,
    Segment, SegmentId, SegmentInfo,
};
use serde_json::{Value, json};

use super::entries::{self, Devices};
use super::names::{SegmentName, Text, VtepName};
use super::refusal::Refusal;
use super::verb::{Fdb, Offload, Ports, Routes, Segments, Verb, Vteps};
use crate::overlay::Site;
use crate::plan::{self, PortPlan};
use crate::reload::Loaded;
use crate::report;

/// Takes entries of an answer; it breaks when nobody takes any more.
pub type Take<'a> = &'a mut dyn FnMut(Value) -> ControlFlow<()>;

/// A running forwarder, as those who ask see it.
#[derive(Clone, Debug)]
pub struct Forwarding {
    pub control: Control,
    pub site: Arc<Site>,
    pub started: Instant,
    /// Without a file there is nothing to load again.
    pub loaded: Option<Arc<Loaded>>,
}

/// Where something is to go: to one of both, of which not both are given.
type Place<'a> = (&'a Option<Text<VtepName>>, &'a Option<String>);

impl Forwarding {
    /// Carries a verb out.
    pub fn answer(&self, verb: Verb, take: Take<'_>) -> Result<(), Refusal> {
        match verb {
            Verb::Show {} => self.show(take),
            Verb::Reload { dry_run } => return self.reload(dry_run, take),
            Verb::Fdb(verb) => return self.fdb(verb, take),
            Verb::Route(verb) => return self.routes(verb, take),
            Verb::Segment(verb) => return self.segments(verb, take),
            Verb::Port(verb) => return self.ports(verb, take),
            Verb::Vtep(verb) => return self.vteps(verb, take),
            Verb::Stats { .. } => drop(take(self.stats())),
            Verb::Drops { all } => self.drops(all, take),
            Verb::Offload(verb) => self.offloads(verb, take),
            // Whoever asks for these hears nothing else afterwards: they are the session's.
            Verb::Monitor {} | Verb::Capture { .. } => return Err(Refusal::invalid("no question")),
        }
        Ok(())
    }

    fn show(&self, take: Take<'_>) {
        let (stats, devices) = (self.control.stats(), Devices::of(&self.control));
        let segments = self.control.segments();
        let listed = |info: &SegmentInfo| devices.segment(info, &stats);
        let config = &self.site.config;
        let _ = take(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime": self.started.elapsed().as_secs(),
            "local": self.site.locals().map(|ip| ip.to_string()).collect::<Vec<_>>(),
            "workers": config.workers,
            "segments": segments.iter().map(listed).collect::<Vec<_>>(),
            "ports": self.control.ports().iter().map(|port| devices.port(port, &stats)).collect::<Vec<_>>(),
            "vteps": stats.vteps.iter().map(|vtep| entries::vtep(vtep, &segments)).collect::<Vec<_>>(),
            "totals": self.stats()["totals"],
            "receive_buffer_overflows": stats.socket_overflows,
            "offloads": stats.offloads.iter().map(entries::offload).collect::<Vec<_>>(),
        }));
    }

    fn reload(&self, dry_run: bool, take: Take<'_>) -> Result<(), Refusal> {
        let nothing = || Refusal::invalid("reload: this forwarder was started without a file");
        let steps = self.loaded.as_ref().ok_or_else(nothing)?.reload(dry_run)?;
        let _ = steps.iter().try_for_each(|step| {
            take(json!({
                "change": step.kind.to_string(),
                "segment": step.segment.map(report::name),
                "what": step.what,
            }))
        });
        Ok(())
    }

    fn stats(&self) -> Value {
        let listed = |segment: SegmentInfo| Some((segment.id, self.control.mdb(segment.id).ok()?));
        let groups: Vec<_> = self.control.segments().into_iter().filter_map(listed).collect();
        report::document(&self.control.stats(), &groups)
    }

    fn drops(&self, all: bool, take: Take<'_>) {
        let totals = self.control.stats().totals;
        for reason in DropReason::ALL {
            let count = totals.drops(*reason);
            let entry = json!({
                "reason": reason.name(),
                "count": count,
                "meaning": reason.meaning(),
                "advice": reason.advice(),
            });
            if (all || count > 0) && take(entry).is_break() {
                break;
            }
        }
    }

    fn fdb(&self, verb: Fdb, take: Take<'_>) -> Result<(), Refusal> {
        match verb {
            Fdb::Show { segment, mac } => {
                let devices = Devices::of(&self.control);
                let wanted = mac.map(|Text(mac)| mac);
                for id in self.those(segment)? {
                    let mut flow = ControlFlow::Continue(());
                    self.control.visit_fdb(id, |entry| {
                        if wanted.is_none_or(|mac| mac == entry.mac) {
                            flow = take(devices.fdb(id, &entry));
                        }
                        flow
                    })?;
                    if flow.is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Fdb::Add { mac: Text(mac), vtep, port, external, segment } => {
                let segment = self.bridge(segment)?;
                let destination = self.destination(segment, (&vtep, &port))?;
                let destination = destination
                    .ok_or_else(|| Refusal::invalid("fdb add: a VTEP or a port is to be named"))?;
                Ok(match (mac.is_multicast(), external) {
                    (true, _) => self.control.append_fdb(segment, mac, destination),
                    (false, true) => self.control.insert_extern_fdb(segment, mac, destination),
                    (false, false) => self.control.insert_fdb(segment, mac, destination),
                }?)
            }
            Fdb::Del { mac: Text(mac), vtep, port, segment } => {
                let segment = self.bridge(segment)?;
                Ok(match self.destination(segment, (&vtep, &port))? {
                    Some(one) => self.control.remove_fdb_destination(segment, mac, one),
                    None => self.control.remove_fdb(segment, mac),
                }?)
            }
            Fdb::Flush { vtep, port, segment } => {
                let segments = match (&port, segment) {
                    // Only its own has anything behind it.
                    (Some(device), None) => vec![self.port(device)?.segment],
                    (_, name) => self.those(name)?,
                };
                let (mut known, mut unknown) = (false, None);
                for segment in segments {
                    let which = match self.destination(segment, (&vtep, &port))? {
                        None => Flush::All,
                        Some(Destination::Vtep(vtep)) => Flush::Vtep(vtep),
                        Some(Destination::Port(port)) => Flush::Port(port),
                    };
                    if !self.info(segment).is_some_and(|info| info.kind.is_ethernet()) {
                        continue;
                    }
                    match self.control.flush_fdb(segment, which) {
                        // Not every segment has to have the VTEP.
                        Err(error @ Error::NotFound { .. }) => unknown = Some(error),
                        result => {
                            result?;
                            known = true;
                        }
                    }
                }
                unknown.filter(|_| !known).map_or(Ok(()), |error| Err(error.into()))
            }
        }
    }

    fn routes(&self, verb: Routes, take: Take<'_>) -> Result<(), Refusal> {
        let devices = Devices::of(&self.control);
        let entry = |segment, route: &overplane::Route| {
            let groups = |id| {
                let known = self.control.groups(segment).unwrap_or_default().into_iter();
                let mut members =
                    known.filter(|group| group.id == id).flat_map(|group| group.members);
                members.by_ref().map(|member| (member.destination, member.weight)).collect()
            };
            devices.route(segment, route, &groups)
        };
        match verb {
            Routes::Show { segment } => {
                for id in self.those(segment)? {
                    let mut flow = ControlFlow::Continue(());
                    self.control.visit_routes(id, |route| {
                        flow = take(entry(id, &route));
                        flow
                    })?;
                    if flow.is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Routes::Get { address, segment } => {
                let segment = self.routed(segment)?;
                let route = self.control.route_to(segment, address)?;
                let route = route.ok_or_else(|| {
                    Refusal::not_found(format_args!("{segment}: no route to {address}"))
                })?;
                let _ = take(entry(segment, &route));
                Ok(())
            }
            Routes::Add { prefix: Text(prefix), vtep, port, blackhole, unreachable, segment } => {
                let segment = self.routed(segment)?;
                let next_hop = match (
                    self.destination(segment, (&vtep, &port))?,
                    blackhole,
                    unreachable,
                ) {
                    (Some(to), false, false) => NextHop::To(to),
                    (None, true, false) => NextHop::Blackhole,
                    (None, false, true) => NextHop::Unreachable,
                    _ => {
                        let one = "route add: one of vtep, port, blackhole and unreachable is to be given";
                        return Err(Refusal::invalid(one));
                    }
                };
                Ok(self.control.insert_route(segment, prefix, next_hop)?)
            }
            Routes::Del { prefix: Text(prefix), segment } => {
                Ok(self.control.remove_route(self.routed(segment)?, prefix)?)
            }
        }
    }

    fn segments(&self, verb: Segments, take: Take<'_>) -> Result<(), Refusal> {
        match verb {
            Segments::Show {} => {
                let (stats, devices) = (self.control.stats(), Devices::of(&self.control));
                let _ = self
                    .control
                    .segments()
                    .iter()
                    .try_for_each(|info| take(devices.segment(info, &stats)));
                Ok(())
            }
            Segments::Add { vni: Text(vni), udp_port } => {
                let mut segment = Segment::bridge(vni);
                segment.udp_port = udp_port.unwrap_or(segment.udp_port);
                Ok(self.site.add_segment(&self.control, segment)?)
            }
            Segments::Del { segment } => {
                Ok(self.control.remove_segment(self.any(Some(segment))?)?)
            }
        }
    }

    fn ports(&self, verb: Ports, take: Take<'_>) -> Result<(), Refusal> {
        match verb {
            Ports::Show {} => {
                let (stats, devices) = (self.control.stats(), Devices::of(&self.control));
                let _ = self
                    .control
                    .ports()
                    .iter()
                    .try_for_each(|info| take(devices.port(info, &stats)));
                Ok(())
            }
            Ports::Add { device, address, segment } => {
                if !plan::is_device_name(&device) {
                    let allowed = plan::DEVICE;
                    return Err(Refusal::invalid(format_args!(
                        "device {device:?}: allowed: {allowed}"
                    )));
                }
                let segment = self.any(segment)?;
                let info = self.info(segment);
                let info =
                    info.ok_or_else(|| Refusal::not_found(format_args!("segment {segment}")))?;
                let addresses = address.into_iter().map(|Text(address)| address).collect();
                let port = PortPlan { device, addresses, options: PortOptions::default() };
                Ok(self.site.add_port(&self.control, &info, &port)?)
            }
            Ports::Del { device } => Ok(self.control.detach(self.port(&device)?.id)?),
        }
    }

    fn vteps(&self, verb: Vteps, take: Take<'_>) -> Result<(), Refusal> {
        match verb {
            Vteps::Show {} => {
                let (stats, segments) = (self.control.stats(), self.control.segments());
                let listed = |vtep| take(entries::vtep(vtep, &segments));
                let _ = stats.vteps.iter().try_for_each(listed);
                Ok(())
            }
            Vteps::Add { vtep: Text(vtep), no_flood, segment } => {
                let segment = self.any(segment)?;
                let vtep = vtep.at(segment);
                let floods =
                    self.info(segment).is_some_and(|info| info.kind.is_ethernet()) && !no_flood;
                let change = match floods {
                    true => Change::AddFlood { segment, vtep },
                    false => Change::AddPeer { segment, vtep },
                };
                Ok(self.control.apply([change])?)
            }
            Vteps::Del { vtep: Text(vtep), segment } => {
                let segment = self.any(segment)?;
                let vtep = vtep.at(segment);
                let floods = self.info(segment).is_some_and(|info| info.flood.contains(&vtep));
                let change = match floods {
                    true => Change::RemoveFlood { segment, vtep },
                    false => Change::RemovePeer { segment, vtep },
                };
                Ok(self.control.apply([change])?)
            }
        }
    }

    fn offloads(&self, verb: Offload, take: Take<'_>) {
        if let Offload::Set { offloads: Text(offloads) } = verb {
            self.control.set_offloads(offloads);
        }
        let _ = self.control.offloads().iter().try_for_each(|info| take(entries::offload(info)));
    }

    /// The bridge segment that is meant: the one named, or else the only one.
    fn bridge(&self, name: Option<Text<SegmentName>>) -> Result<SegmentId, Refusal> {
        self.one(name, Kind::is_ethernet, "bridge segment")
    }

    /// The same of routed segments.
    fn routed(&self, name: Option<Text<SegmentName>>) -> Result<SegmentId, Refusal> {
        self.one(name, |kind| !kind.is_ethernet(), "routed segment")
    }

    /// The same of all segments.
    fn any(&self, name: Option<Text<SegmentName>>) -> Result<SegmentId, Refusal> {
        self.one(name, |_| true, "segment")
    }

    fn one(
        &self,
        name: Option<Text<SegmentName>>,
        fits: impl Fn(Kind) -> bool,
        what: &str,
    ) -> Result<SegmentId, Refusal> {
        let mut known = self.those(name)?;
        known.retain(|id| self.info(*id).is_some_and(|info| fits(info.kind)));
        match known.as_slice() {
            [one] => Ok(*one),
            [] => Err(Refusal::not_found(format_args!("there is no {what} of that name"))),
            several => {
                let names: Vec<String> =
                    several.iter().map(|id| SegmentName::from(*id).to_string()).collect();
                Err(Refusal::invalid(format_args!("name a {what}: {}", names.join(", "))))
            }
        }
    }

    /// The segments that are meant: those of the name, or else all.
    fn those(&self, name: Option<Text<SegmentName>>) -> Result<Vec<SegmentId>, Refusal> {
        let all = self.control.segments().into_iter().map(|info| info.id);
        let Some(Text(name)) = name else { return Ok(all.collect()) };
        let named: Vec<SegmentId> = all.filter(|id| name.names(*id)).collect();
        match named.is_empty() {
            true => Err(Refusal::not_found(format_args!("there is no segment {name}"))),
            false => Ok(named),
        }
    }

    fn info(&self, segment: SegmentId) -> Option<SegmentInfo> {
        self.control.segments().into_iter().find(|info| info.id == segment)
    }

    fn port(&self, device: &str) -> Result<PortInfo, Refusal> {
        let known = self.control.ports().into_iter().find(|port| port.name == device);
        known.ok_or_else(|| Refusal::not_found(format_args!("there is no port {device}")))
    }

    /// Where something is to go in a segment, if that is said.
    fn destination(
        &self,
        segment: SegmentId,
        place: Place<'_>,
    ) -> Result<Option<Destination>, Refusal> {
        match place {
            (None, None) => Ok(None),
            (Some(Text(vtep)), None) => Ok(Some(vtep.at(segment).into())),
            (None, Some(device)) => match self.port(device)? {
                port if port.segment == segment => Ok(Some(port.id.into())),
                port => {
                    let other = port.segment;
                    Err(Refusal::invalid(format_args!(
                        "port {device} is in another segment: {other}"
                    )))
                }
            },
            _ => Err(Refusal::invalid("a VTEP and a port at once")),
        }
    }
}
