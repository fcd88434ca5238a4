//! The library at work: a dataplane with its segments, from a plan.

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overplane::{
    Change, Config, Control, Dataplane, Destination, Device, GroupId, Kind, Member, NextHop,
    PortId, Segment, SegmentId, SegmentInfo, Stats, Tables, Worker,
};
use overplane_lab::Namespace;
use tracing::{info, warn};

use crate::failure::Failure;
use crate::links::{self, Underlay};
use crate::plan::{Plan, PortPlan, SegmentPlan, Target, Via};

/// A running dataplane. Its devices go when it is stopped.
#[derive(Debug)]
pub struct Overlay {
    dataplane: Dataplane,
    control: Control,
    site: Arc<Site>,
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
        let site = Arc::new(Site::find(Namespace::current()?, config.clone())?);
        let (dataplane, workers) = Dataplane::build(config)?;
        let control = dataplane.control();
        for planned in segments {
            site.add_planned(&control, planned)?;
        }
        Ok(Self { dataplane, control, site, workers })
    }

    /// Starts forwarding, on threads with the privileges that the calling one has now.
    pub fn start(&mut self) -> Result<(), Failure> {
        Ok(self.dataplane.run(mem::take(&mut self.workers))?)
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.site
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
        self.add_planned(control, SegmentPlan::new(segment))
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
        self.attach(control, (segment.id, segment.kind, segment.mtu), port)?;
        Ok(())
    }

    fn add_planned(&self, control: &Control, mut planned: SegmentPlan) -> Result<(), Failure> {
        let mut mtu = u32::MAX;
        for (local, underlay) in &self.underlays {
            mtu = mtu.min(underlay.segment_mtu(&planned.segment, local.is_ipv6())?);
        }
        // The dataplane finds the MTU itself, unless it is not to look, or there is only the loopback interface to look at.
        if !self.config.follow_host || self.underlays.iter().any(|(_, it)| it.link == "lo") {
            planned.segment.mtu = Some(mtu);
        }
        let id = control.add_segment(planned.segment.clone())?;
        let attach = |port| self.attach(control, (id, planned.segment.kind, mtu), port);
        let ports = planned.ports.iter().map(attach).collect::<Result<Vec<_>, _>>()?;
        warn_of_unreachable(id, &planned);
        // One publication: frames see either none of it or all.
        control.apply(changes(id, &planned, &ports))?;
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
    ) -> Result<PortId, Failure> {
        let ipv6 = self.locals().any(|local| local.is_ipv6());
        let device = match kind.is_ethernet() || port.options.gateway.is_some() {
            true => Device::tap(&port.device)?,
            false => Device::tun(&port.device)?,
        };
        links::configure(&self.host, port, kind, ipv6, mtu)?;
        let attached = control.attach_with(id, device, port.options.clone())?;
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "none".into() } else { addresses.join(", ") };
        info!("{id}: {} attached; addresses: {addresses}", port.device);
        Ok(attached)
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
        tables.apply(Duration::ZERO, changes(segment, planned, &ports))?;
    }
    Ok(())
}

/// The entries of a segment as changes.
fn changes(segment: SegmentId, planned: &SegmentPlan, ports: &[PortId]) -> Vec<Change> {
    let destination = |target| match target {
        Target::Vtep(vtep) => Destination::Vtep(vtep),
        Target::Port(place) => Destination::Port(ports[place]),
    };
    let flood = planned.flood.iter().map(|&vtep: &SocketAddr| Change::AddFlood { segment, vtep });
    let peers = planned.peers.iter().map(|&vtep| Change::AddPeer { segment, vtep });
    let groups = planned.groups.iter().flat_map(|&(vtep, group)| {
        let group = Change::SetVtepGroup { segment, vtep, group: Some(group) };
        [Change::AddPeer { segment, vtep }, group]
    });
    let fdb = planned.fdb.iter().map(|&(mac, target)| {
        let destination = destination(target);
        match mac.is_multicast() {
            true => Change::AppendFdb { segment, mac, destination },
            false => Change::InsertFdb { segment, mac, destination },
        }
    });
    let vnis = planned.remote_vnis.iter();
    let vnis = vnis.map(|&(vtep, vni)| Change::SetVtepVni { segment, vtep, vni: Some(vni) });
    // Each route with several next hops has a group of its own, named by the route's place.
    let routes = planned.routes.iter().enumerate().flat_map(|(place, (prefix, via))| {
        let group = GroupId(place as u32);
        let members = match via {
            Via::Group(members) => Some(Change::SetGroup {
                segment,
                group,
                members: members.iter().map(|(to, n)| Member::new(destination(*to), *n)).collect(),
            }),
            _ => None,
        };
        let next_hop = match via {
            Via::One(target) => destination(*target).into(),
            Via::Group(_) => group.into(),
            Via::Blackhole => NextHop::Blackhole,
            Via::Unreachable => NextHop::Unreachable,
            Via::Local => NextHop::Local,
        };
        members.into_iter().chain([Change::InsertRoute { segment, prefix: *prefix, next_hop }])
    });
    let vtep_macs =
        planned.vtep_macs.iter().map(|&(vtep, mac)| Change::SetVtepMac { segment, vtep, mac });
    let neighbours = planned
        .neighbours
        .iter()
        .map(|&(address, mac, router)| Change::SetNeighbour { segment, address, mac, router });
    let mdb = planned.mdb.iter().map(|&(group, target)| Change::InsertMdb {
        segment,
        group,
        destination: destination(target),
    });
    flood
        .chain(peers)
        .chain(groups)
        .chain(fdb)
        .chain(vnis)
        .chain(neighbours)
        .chain(mdb)
        .chain(vtep_macs)
        .chain(routes)
        .collect()
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

/// Says for which routes the kernel will hand nothing to a device.
fn warn_of_unreachable(id: SegmentId, planned: &SegmentPlan) {
    for (prefix, via) in &planned.routes {
        let inside = |address: &overplane_lab::Cidr| {
            prefix.len() >= address.prefix
                && overplane::Prefix::new(address.ip, address.prefix)
                    .is_some_and(|network| network.contains(prefix.address()))
        };
        let mut addresses = planned.ports.iter().flat_map(|port| &port.addresses);
        if leaves(via) && !addresses.any(inside) {
            warn!(
                "{id}: no device has an address whose prefix includes the route {prefix}: \
                 this host sends nothing there unless its own routes say so"
            );
        }
    }
}
