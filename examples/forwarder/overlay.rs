//! The library at work: a dataplane with its segments, from a plan.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overplane::{
    Change, Config, Control, Dataplane, Device, Kind, Prefix, Segment, SegmentId, SegmentInfo,
    Stats, Tables, Worker,
};
use overplane_lab::{Cidr, Namespace};
use tracing::{info, warn};

use crate::entry::{Names, entries};
use crate::failure::Failure;
use crate::links::{self, Underlay};
use crate::plan::{Plan, PortPlan, SegmentPlan, Target, Via};

/// A running dataplane. Its devices go when it is stopped.
#[derive(Debug)]
pub struct Overlay {
    dataplane: Dataplane,
    control: Control,
    site: Arc<Site>,
    names: Names,
    /// Until they are started.
    workers: Vec<Worker>,
}

/// Where a dataplane runs: its host, and the links that carry the underlay.
#[derive(Debug)]
pub struct Site {
    host: Namespace,
    pub config: Config,
    underlays: Vec<(IpAddr, Underlay)>,
}

impl Overlay {
    /// Makes what is planned on the host, the network namespace, in which the calling thread is: its links and devices are
    /// configured for it. Nothing is forwarded before [`Overlay::start`].
    pub fn prepare(plan: Plan) -> Result<Self, Failure> {
        let Plan { config, segments, .. } = plan;
        let mut names = Names::default();
        let site = Arc::new(Site::find(Namespace::current()?, config.clone())?);
        let (dataplane, workers) = Dataplane::build(config)?;
        let control = dataplane.control();
        for planned in segments {
            site.add_planned(&control, planned, &mut names)?;
        }
        Ok(Self { dataplane, control, site, names, workers })
    }

    /// Starts forwarding, on threads with the privileges that the calling one has now.
    pub fn start(&mut self) -> Result<(), Failure> {
        Ok(self.dataplane.run(mem::take(&mut self.workers))?)
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What the dataplane calls what was planned.
    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Whether all workers still run.
    pub fn is_running(&self) -> bool {
        self.dataplane.is_running()
    }

    /// Time since the worker that has been silent for longest was heard of.
    pub fn silence(&self) -> Duration {
        self.dataplane.silence()
    }

    /// Stops forwarding and returns what became of every frame.
    pub fn stop(self) -> Result<Stats, Failure> {
        self.dataplane.stop()?;
        Ok(self.control.stats())
    }
}

impl Site {
    fn find(host: Namespace, config: Config) -> Result<Self, Failure> {
        let locals = [config.local].into_iter().chain(config.second_local);
        let underlays = locals.map(|local| Ok((local, Underlay::find(&host, local)?)));
        let underlays = underlays.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { host, config, underlays })
    }

    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// This node's underlay addresses.
    pub fn locals(&self) -> impl Iterator<Item = IpAddr> {
        self.underlays.iter().map(|(local, _)| *local)
    }

    /// Adds a bridge or routed segment without ports and entries.
    pub fn add_segment(&self, control: &Control, segment: Segment) -> Result<(), Failure> {
        self.add_planned(control, SegmentPlan::new(segment), &mut Names::default())
    }

    /// Makes a device, or takes one that is there, and attaches it to a segment.
    ///
    /// To be called inside the same host as [`Overlay::prepare`].
    pub fn add_port(
        &self,
        control: &Control,
        segment: &SegmentInfo,
        port: &PortPlan,
    ) -> Result<(), Failure> {
        self.attach(control, (segment.id, segment.kind, segment.mtu), port)
    }

    /// Gives a device other addresses: those that it was to have before go, but for those that it is to have now.
    pub fn readdress(&self, before: &PortPlan, after: &PortPlan) -> Result<(), Failure> {
        let missing = |of: &[Cidr], list: &[Cidr]| -> Vec<Cidr> {
            list.iter().filter(|address| !of.contains(address)).copied().collect()
        };
        let present = self.host.addresses()?;
        let is_there = |it: &Cidr| present.contains(&(after.device.clone(), *it));
        let gone = missing(&after.addresses, &before.addresses);
        for address in gone.iter().filter(|address| is_there(address)) {
            self.host.delete_address(&after.device, (address.ip, address.prefix))?;
        }
        let new = missing(&before.addresses, &after.addresses);
        for address in new.iter().filter(|address| !is_there(address)) {
            self.host.add_address(&after.device, (address.ip, address.prefix))?;
        }
        Ok(())
    }

    /// Adds a segment with its ports and entries.
    pub fn add_planned(
        &self,
        control: &Control,
        mut planned: SegmentPlan,
        names: &mut Names,
    ) -> Result<(), Failure> {
        let mut mtu = u32::MAX;
        for (local, underlay) in &self.underlays {
            mtu = mtu.min(underlay.segment_mtu(&planned.segment, local.is_ipv6())?);
        }
        // The dataplane finds the MTU itself, unless it is not to look, or there is only the loopback interface to look at.
        if !self.config.follow_host || self.underlays.iter().any(|(_, it)| it.link == "lo") {
            planned.segment.mtu = Some(mtu);
        }
        let id = control.add_segment(planned.segment.clone())?;
        for port in &planned.ports {
            self.attach(control, (id, planned.segment.kind, mtu), port)?;
        }
        names.set_ports(control.ports().into_iter().map(|port| (port.name, port.id)));
        warn_of_unreachable(id, &planned);
        // One publication: frames see either none of it or all.
        control.apply(changes(&planned, names))?;
        for (local, Underlay { link, mtu: underlay_mtu }) in &self.underlays {
            info!("{id}: MTU {mtu} over {link} ({local}, MTU {underlay_mtu})");
        }
        Ok(())
    }

    fn attach(
        &self,
        control: &Control,
        (id, kind, mtu): (SegmentId, Kind, u32),
        port: &PortPlan,
    ) -> Result<(), Failure> {
        let ipv6 = self.locals().any(|local| local.is_ipv6());
        let device = match kind.is_ethernet() || port.options.gateway.is_some() {
            true => Device::tap(&port.device)?,
            false => Device::tun(&port.device)?,
        };
        links::configure(&self.host, port, kind, ipv6, mtu)?;
        control.attach_with(id, device, port.options.clone())?;
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "none".into() } else { addresses.join(", ") };
        info!("{id}: {} attached; addresses: {addresses}", port.device);
        Ok(())
    }
}

/// Applies a plan to tables without devices and sockets: what is refused here would be refused later.
pub fn rehearse(plan: &Plan) -> Result<(), overplane::Error> {
    let mut tables = Tables::new(plan.config.local, plan.config.workers)?;
    if let Some(second) = plan.config.second_local {
        tables.add_local(second)?;
    }
    for planned in &plan.segments {
        let segment = planned.segment.id();
        let ports = planned.ports.iter().map(|port| Change::AddPort {
            segment,
            name: port.device.clone(),
            offload: true,
            options: port.options.clone(),
        });
        let made = [Change::AddSegment(planned.segment.clone())].into_iter().chain(ports);
        let ports = tables.apply(Duration::ZERO, made)?;
        let mut names = Names::default();
        let devices = planned.ports.iter().map(|port| port.device.clone());
        names.set_ports(devices.zip(ports));
        tables.apply(Duration::ZERO, changes(planned, &mut names))?;
    }
    Ok(())
}

/// What adds the entries of a segment.
fn changes(planned: &SegmentPlan, names: &mut Names) -> Vec<Change> {
    let segment = planned.segment.id();
    entries(planned).iter().flat_map(|entry| entry.add(segment, names)).collect()
}

/// Whether packets of the route leave for another node.
fn leaves(via: &Via) -> bool {
    let vtep = |target: &Target| matches!(target, Target::Vtep(_));
    match via {
        Via::One(target) => vtep(target),
        Via::Group(members) => members.iter().any(|(target, _)| vtep(target)),
        Via::Blackhole | Via::Unreachable | Via::Local => false,
    }
}

/// Says for how many routes the kernel will hand nothing to a device, and which is the first.
fn warn_of_unreachable(id: SegmentId, planned: &SegmentPlan) {
    let networks = planned.ports.iter().flat_map(|port| &port.addresses);
    let networks: Vec<Prefix> =
        networks.filter_map(|address| Prefix::new(address.ip, address.prefix)).collect();
    let reachable = |prefix: &Prefix| {
        let includes =
            |network: &Prefix| prefix.len() >= network.len() && network.contains(prefix.address());
        networks.iter().any(includes)
    };
    let leaving = planned.routes.iter().filter(|(_, via)| leaves(via)).map(|(prefix, _)| prefix);
    let mut outside = leaving.filter(|prefix| !reachable(prefix));
    if let Some(first) = outside.next() {
        let others = match outside.count() {
            0 => String::new(),
            n => format!(" (and {n} others)"),
        };
        warn!(
            "{id}: no device has an address whose prefix includes the route {first}{others}: \
             this host sends nothing there unless its own routes say so"
        );
    }
}
