//! The control plane's handle: every verb, from any thread, while traffic flows.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

use crate::Error;
use crate::apply::Changed;
use crate::change::{Change, Flush};
use crate::event::Event;
use crate::fdb::seconds;
use crate::fib::Prefix;
use crate::io::{Device, DeviceKind, PortQueue, SocketOptions, UdpSocket, run_in};
use crate::listing::{FdbEntry, GroupInfo, Mdb, NeighbourEntry, PortInfo, Route, SegmentInfo};
use crate::next_hop::{GroupId, Member, NextHop};
use crate::offload::{OffloadInfo, Offloads};
use crate::path::PathSource;
use crate::segment::{Destination, PortId, PortOptions, Segment, SegmentId};
use crate::shared::{Listener, Registry, Shared, lock, try_lock};
use crate::stats::Stats;
use crate::tables::Tables;
use crate::wire::{MacAddr, Vni};
use crate::worker::sending_options;

/// A UDP port that the dataplane receives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayInfo {
    /// The port, in host order.
    pub udp_port: u16,
    /// Receive buffer of each of its sockets, in bytes, as the kernel granted it.
    pub receive_buffer: usize,
    /// Send buffer of each of its sockets, in bytes, as the kernel granted it.
    pub send_buffer: usize,
}

/// Controls a dataplane. Handles can be cloned and used from any thread; calls are carried out one after another.
///
/// A call returns when the tables are changed; each worker follows before its next batch. After the dataplane has
/// stopped calls still succeed and have no effect on traffic.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

/// Longest wait for the workers to close what was removed.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Changes at once after which the tables before are not kept until the next call.
const BULK: usize = 1024;

/// A UDP port that a change begins to use.
struct Opening {
    udp_port: u16,
    /// One for each worker, at each of this node's addresses.
    sockets: Vec<Arc<UdpSocket>>,
    listener: Listener,
}

/// Devices and sockets that become part of the dataplane together with a change.
#[derive(Default)]
struct Arrivals {
    /// One queue for each worker, for the port that the change adds.
    queues: Vec<PortQueue>,
    openings: Vec<Opening>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Adds a segment and starts receiving on its UDP port.
    ///
    /// Sockets are opened in the network namespace in which the dataplane was built, whatever thread calls.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn add_segment(&self, segment: Segment) -> Result<SegmentId, Error> {
        let id = segment.id();
        self.one(Change::AddSegment(segment))?;
        Ok(id)
    }

    /// Removes a segment with its ports, entries and routes. Devices and sockets are closed as with
    /// [`Control::detach`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_segment(&self, segment: SegmentId) -> Result<(), Error> {
        self.one(Change::RemoveSegment(segment))
    }

    /// Attaches a device to a segment, as a port like all others: a TAP to a bridge segment, a TUN to a routed one, or a TAP
    /// with the default [gateway](PortOptions::gateway).
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a segment, [`Error::Conflict`] for the wrong kind of device, [`Error::Io`]
    /// when queues for all workers cannot be opened. The device is closed then.
    pub fn attach(&self, segment: SegmentId, device: Device) -> Result<PortId, Error> {
        self.attach_with(segment, device, PortOptions::default())
    }

    /// Attaches a device to a segment, as a port with options.
    ///
    /// # Errors
    /// Those of [`Control::attach`] and of [`Control::set_port`].
    pub fn attach_with(
        &self,
        segment: SegmentId,
        device: Device,
        mut options: PortOptions,
    ) -> Result<PortId, Error> {
        let kind = self.shared.tables.current().segment(segment).map(|entry| entry.kind);
        let kind = kind.ok_or_else(|| Error::not_found(format_args!("segment {segment}")))?;
        if !kind.is_ethernet() && device.kind() == DeviceKind::Tap {
            options.gateway.get_or_insert_default();
        }
        let ethernet = kind.is_ethernet() || options.gateway.is_some();
        let wanted = if ethernet { DeviceKind::Tap } else { DeviceKind::Tun };
        if device.kind() != wanted {
            return Err(Error::conflict(
                format_args!("device {:?} in segment {segment}", device.name()),
                format_args!("it is a {}, and the segment takes a {wanted}", device.kind()),
            ));
        }
        let missing: Vec<_> = device.missing().collect();
        if kind.is_ethernet() {
            options.mac = options.mac.or(device.mac());
        }
        let (name, offload) = (device.name().to_owned(), device.has_vnet_header());
        let add = Change::AddPort { segment, name, offload, options };
        let queues = device.into_queues(self.shared.config.workers)?;
        let registry = lock(&self.shared.registry);
        let arrivals = Arrivals { queues, ..Arrivals::default() };
        let (ports, _) = self.apply_locked(registry, vec![add], arrivals)?;
        for (offload, why) in missing {
            self.shared.switches.unavailable(offload, why);
        }
        ports.first().copied().ok_or_else(|| Error::not_found("the port just added"))
    }

    /// Gives a port other options, while traffic flows; see [`PortInfo::options`] for those it has.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a port, [`Error::Invalid`] for options that no port can have, and
    /// [`Error::Conflict`] for a port of a routed segment, which has none but its gateway.
    pub fn set_port(&self, port: PortId, options: PortOptions) -> Result<(), Error> {
        self.one(Change::SetPort { port, options })
    }

    /// Detaches a port. Its device is closed when this returns, unless a worker is busy for longer than a second or the
    /// embedder runs the workers: see [`Control::settled`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn detach(&self, port: PortId) -> Result<(), Error> {
        self.one(Change::RemovePort(port))
    }

    /// Accepts datagrams of a segment from a VTEP; see [`Change::AddPeer`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn add_peer(&self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.one(Change::AddPeer { segment, vtep })
    }

    /// Sets how large packets to a VTEP may be, in bytes of the outer IP packet, or takes that back; see
    /// [`Change::SetPathMtu`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing names the VTEP, [`Error::Invalid`] outside of 68 to 65,535.
    pub fn set_path_mtu(&self, vtep: SocketAddr, mtu: Option<u32>) -> Result<(), Error> {
        let (source, until) = (PathSource::Configured, Duration::MAX);
        self.one(Change::SetPathMtu { vtep, source, mtu, until })
    }

    /// Takes [`Control::add_peer`] back.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_peer(&self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.one(Change::RemovePeer { segment, vtep })
    }

    /// Gives a VTEP another split horizon group; see [`Change::SetVtepGroup`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the segment does not name the VTEP, [`Error::Invalid`] for a group that cannot be.
    pub fn set_vtep_group(
        &self,
        segment: SegmentId,
        vtep: SocketAddr,
        group: Option<u8>,
    ) -> Result<(), Error> {
        self.one(Change::SetVtepGroup { segment, vtep, group })
    }

    /// Adds a VTEP to the flood list of a bridge segment.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn add_flood(&self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.one(Change::AddFlood { segment, vtep })
    }

    /// Removes a VTEP from the flood list.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_flood(&self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.one(Change::RemoveFlood { segment, vtep })
    }

    /// Adds or replaces a static FDB entry.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn insert_fdb(
        &self,
        segment: SegmentId,
        mac: MacAddr,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::InsertFdb { segment, mac, destination: destination.into() })
    }

    /// Adds or replaces an FDB entry that a control plane has learned; see [`Change::InsertExternFdb`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn insert_extern_fdb(
        &self,
        segment: SegmentId,
        mac: MacAddr,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::InsertExternFdb { segment, mac, destination: destination.into() })
    }

    /// Adds a destination for a group address; see [`Change::AppendFdb`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn append_fdb(
        &self,
        segment: SegmentId,
        mac: MacAddr,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::AppendFdb { segment, mac, destination: destination.into() })
    }

    /// Removes one destination of a static FDB entry; see [`Change::RemoveFdbDestination`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_fdb_destination(
        &self,
        segment: SegmentId,
        mac: MacAddr,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::RemoveFdbDestination { segment, mac, destination: destination.into() })
    }

    /// Sets the VNI under which datagrams go to a VTEP; see [`Change::SetVtepVni`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn set_vtep_vni(
        &self,
        segment: SegmentId,
        vtep: SocketAddr,
        vni: Option<Vni>,
    ) -> Result<(), Error> {
        self.one(Change::SetVtepVni { segment, vtep, vni })
    }

    /// Removes the FDB entry of a MAC address, static or learned.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_fdb(&self, segment: SegmentId, mac: MacAddr) -> Result<(), Error> {
        self.one(Change::RemoveFdb { segment, mac })
    }

    /// Forgets learned FDB entries.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn flush_fdb(&self, segment: SegmentId, which: Flush) -> Result<(), Error> {
        self.one(Change::FlushFdb { segment, which })
    }

    /// Adds or replaces a route of a routed segment.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn insert_route(
        &self,
        segment: SegmentId,
        prefix: Prefix,
        next_hop: impl Into<NextHop>,
    ) -> Result<(), Error> {
        self.one(Change::InsertRoute { segment, prefix, next_hop: next_hop.into() })
    }

    /// Removes a route.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_route(&self, segment: SegmentId, prefix: Prefix) -> Result<(), Error> {
        self.one(Change::RemoveRoute { segment, prefix })
    }

    /// Adds a group of next hops to a routed segment, or gives it other members; see [`Change::SetGroup`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn set_group(
        &self,
        segment: SegmentId,
        group: GroupId,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<(), Error> {
        self.one(Change::SetGroup { segment, group, members: members.into_iter().collect() })
    }

    /// Removes a group of next hops, to which no route may lead any more.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_group(&self, segment: SegmentId, group: GroupId) -> Result<(), Error> {
        self.one(Change::RemoveGroup { segment, group })
    }

    /// Binds an IP address to a MAC address; see [`Change::SetNeighbour`]. `router` is of IPv6 alone.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn set_neighbour(
        &self,
        segment: SegmentId,
        address: IpAddr,
        mac: MacAddr,
        router: bool,
    ) -> Result<(), Error> {
        self.one(Change::SetNeighbour { segment, address, mac, router })
    }

    /// Forgets the binding of an IP address, static or learned.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_neighbour(&self, segment: SegmentId, address: IpAddr) -> Result<(), Error> {
        self.one(Change::RemoveNeighbour { segment, address })
    }

    /// Adds a destination for a multicast group, or a multicast router; see [`Change::InsertMdb`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn insert_mdb(
        &self,
        segment: SegmentId,
        group: Option<IpAddr>,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::InsertMdb { segment, group, destination: destination.into() })
    }

    /// Removes a destination of a multicast group, or a multicast router, static or learned.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_mdb(
        &self,
        segment: SegmentId,
        group: Option<IpAddr>,
        destination: impl Into<Destination>,
    ) -> Result<(), Error> {
        self.one(Change::RemoveMdb { segment, group, destination: destination.into() })
    }

    /// Gives the MAC address of a VTEP of a routed segment in VXLAN; see [`Change::SetVtepMac`].
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn set_vtep_mac(
        &self,
        segment: SegmentId,
        vtep: SocketAddr,
        mac: MacAddr,
    ) -> Result<(), Error> {
        self.one(Change::SetVtepMac { segment, vtep, mac })
    }

    /// Takes [`Control::set_vtep_mac`] back.
    ///
    /// # Errors
    /// Those of [`Control::apply`].
    pub fn remove_vtep_mac(&self, segment: SegmentId, vtep: SocketAddr) -> Result<(), Error> {
        self.one(Change::RemoveVtepMac { segment, vtep })
    }

    /// Carries out all changes or none, as one step for the workers.
    ///
    /// [`Change::AddPort`] is refused: a port needs a device, see [`Control::attach`].
    ///
    /// What a change replaces is freed when no worker goes by it any more: by the next call of this, of
    /// [`Control::stats`] or of [`Control::settled`], or when the dataplane ends. With 1,024 changes or more this call
    /// waits for the workers (a second at most, and not for an embedder's) and frees it itself, for that may be as much
    /// memory as the tables take.
    ///
    /// # Errors
    /// Those of [`Tables::apply`](crate::Tables::apply), and [`Error::Io`] when a UDP port cannot be received on.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Error> {
        let changes: Vec<Change> = changes.into_iter().collect();
        if let Some(Change::AddPort { name, .. }) =
            changes.iter().find(|c| matches!(c, Change::AddPort { .. }))
        {
            return Err(Error::conflict(
                format_args!("port {name:?}"),
                "a port needs a device: attach one",
            ));
        }
        let registry = lock(&self.shared.registry);
        let arrivals =
            Arrivals { openings: self.open_listeners(&registry, &changes)?, ..Arrivals::default() };
        let closes =
            |change: &Change| matches!(change, Change::RemovePort(_) | Change::RemoveSegment(_));
        let wait = changes.len() >= BULK || changes.iter().any(closes);
        let (_, version) = self.apply_locked(registry, changes, arrivals)?;
        if wait && self.shared.threaded.load(Ordering::Relaxed) {
            self.shared.wait_for(version, CLOSING_TIME);
        }
        self.shared.tables.reclaim();
        Ok(())
    }

    /// Waits until every worker has taken up all changes made so far, at most `timeout`, and says whether they have:
    /// the devices and sockets of what was removed are closed then.
    ///
    /// For dataplanes whose workers the embedder runs; otherwise removing waits by itself. Always `true` once the
    /// dataplane is stopped; devices then close as [`Dataplane::stop`](crate::Dataplane::stop) says.
    #[must_use]
    pub fn settled(&self, timeout: Duration) -> bool {
        let settled = self.shared.wait_for(self.shared.tables.version(), timeout);
        self.shared.tables.reclaim();
        settled
    }

    /// As [`Control::apply`], for a worker, which must not wait: does nothing if another call is under way, and says so.
    pub(crate) fn try_apply(&self, changes: Vec<Change>) -> Result<bool, Error> {
        let Some(registry) = try_lock(&self.shared.registry) else { return Ok(false) };
        self.apply_locked(registry, changes, Arrivals::default())?;
        Ok(true)
    }

    fn one(&self, change: Change) -> Result<(), Error> {
        self.apply([change])
    }

    /// Opens the sockets of UDP ports that the changes begin to use.
    fn open_listeners(
        &self,
        registry: &Registry,
        changes: &[Change],
    ) -> Result<Vec<Opening>, Error> {
        let tables = self.shared.tables.current();
        let mut opened: Vec<Opening> = Vec::new();
        for change in changes {
            let Change::AddSegment(segment) = change else { continue };
            let udp_port = segment.udp_port;
            if udp_port == 0
                || tables.receives_on(udp_port)
                || opened.iter().any(|other| other.udp_port == udp_port)
            {
                continue;
            }
            opened.push(self.open_listener(registry, udp_port)?);
        }
        Ok(opened)
    }

    fn open_listener(&self, registry: &Registry, udp_port: u16) -> Result<Opening, Error> {
        let config = &self.shared.config;
        // Workers may still hold the sockets of a port that was given up a moment ago.
        if let Some(old) = registry.listeners.get(&udp_port) {
            let held: Vec<Arc<UdpSocket>> = old.sockets.iter().filter_map(Weak::upgrade).collect();
            if held.len() == config.workers * config.locals().count() {
                return Ok(Opening { udp_port, sockets: held, listener: old.clone() });
            }
        }
        let namespace = self.shared.namespace.as_ref().map(AsFd::as_fd);
        let opened = run_in(namespace, || {
            let mut opened = Vec::new();
            for local in config.locals() {
                let options = self.receiving(local);
                let local = SocketAddr::new(local, udp_port);
                if options.reuse_port {
                    // Shared among the workers, but with nobody else: another dataplane would get half of the datagrams.
                    UdpSocket::open(local, &SocketOptions { reuse_port: false, ..options })?;
                }
                for _ in 0..config.workers {
                    opened.push(UdpSocket::open(local, &options)?);
                }
            }
            Ok::<_, Error>(opened)
        })?;
        let (mut receive_buffer, mut send_buffer) = (usize::MAX, usize::MAX);
        let mut sockets = Vec::new();
        for (socket, buffers) in opened {
            receive_buffer = receive_buffer.min(buffers.receive);
            send_buffer = send_buffer.min(buffers.send);
            sockets.push(Arc::new(socket));
        }
        let weak = sockets.iter().map(Arc::downgrade).collect();
        let listener = Listener { sockets: weak, receive_buffer, send_buffer };
        Ok(Opening { udp_port, sockets, listener })
    }

    /// What sockets at an address have in common that datagrams are received by.
    fn receiving(&self, local: IpAddr) -> SocketOptions {
        let config = &self.shared.config;
        SocketOptions {
            reuse_port: config.workers > 1,
            receive_buffer: config.receive_buffer,
            receive_tos: true,
            busy_poll: u32::try_from(config.spin.as_micros()).ok().filter(|micros| *micros > 0),
            ..sending_options(config, local)
        }
    }

    /// Becomes a member of the groups of the underlay that are new.
    fn join_groups(&self, tables: &Tables) -> Result<Vec<(u16, Arc<UdpSocket>)>, Error> {
        let before = self.shared.tables.current();
        if Arc::ptr_eq(&before.underlay_groups, &tables.underlay_groups) {
            return Ok(Vec::new());
        }
        let new = tables.underlay_groups.keys();
        let new = new.filter(|group| !before.underlay_groups.contains_key(group));
        let join = |&(udp_port, group): &(u16, IpAddr)| {
            let config = &self.shared.config;
            // There is an address of its family, or it were no VTEP.
            let local = config.local_for(group).unwrap_or(config.local);
            let member = Some(local);
            let options = SocketOptions { reuse_port: false, member, ..self.receiving(local) };
            let (socket, _) = UdpSocket::open(SocketAddr::new(group, udp_port), &options)?;
            Ok((udp_port, Arc::new(socket)))
        };
        run_in(self.shared.namespace.as_ref().map(AsFd::as_fd), || new.map(join).collect())
    }

    fn report_small_buffers(&self, udp_port: u16, listener: &Listener) {
        let config = &self.shared.config;
        let buffers = [
            (config.receive_buffer, listener.receive_buffer),
            (config.send_buffer, listener.send_buffer),
        ];
        for (wanted, granted) in buffers {
            if granted < wanted {
                self.shared.event(Event::SmallBuffer { udp_port, wanted, granted });
            }
        }
    }

    /// Applies changes, hands devices and sockets over, publishes and wakes the workers.
    fn apply_locked(
        &self,
        mut registry: MutexGuard<'_, Registry>,
        changes: Vec<Change>,
        arrivals: Arrivals,
    ) -> Result<(Vec<PortId>, u64), Error> {
        let Changed { tables, ports, effects } = self.shared.tables.current().changed(changes)?;
        let groups = self.join_groups(&tables)?;
        for opening in &arrivals.openings {
            self.report_small_buffers(opening.udp_port, &opening.listener);
            registry.listeners.insert(opening.udp_port, opening.listener.clone());
        }
        // A port that was given up stays listed while workers hold its sockets.
        registry.listeners.retain(|udp_port, listener| {
            tables.receives_on(*udp_port)
                || listener.sockets.iter().any(|socket| socket.strong_count() > 0)
        });
        lock(&self.shared.lost).retain(|port| tables.port(*port).is_some());
        let mut queues = arrivals.queues.into_iter();
        for (index, seat) in self.shared.seats.iter().enumerate() {
            let mut inbox = lock(&seat.inbox);
            // What arrived and went before the worker looked.
            inbox.queues.retain(|(port, _)| tables.port(*port).is_some());
            inbox
                .sockets
                .retain(|(udp_port, socket)| tables.receives_at(*udp_port, socket.group()));
            if index == 0 {
                // Each member would get its own copy of every datagram.
                inbox.sockets.extend(groups.iter().cloned());
            }
            if let (Some(port), Some(queue)) = (ports.first(), queues.next()) {
                inbox.queues.push((*port, queue));
            }
            for Opening { udp_port, sockets, .. } in &arrivals.openings {
                if tables.receives_on(*udp_port) {
                    let own = sockets.iter().skip(index).step_by(self.shared.seats.len());
                    inbox.sockets.extend(own.map(|socket| (*udp_port, socket.clone())));
                }
            }
        }
        let version = self.shared.tables.publish(tables);
        let tables = self.shared.tables.current();
        let second = seconds(self.shared.now());
        effects.iter().for_each(|effect| effect.run(&tables.fdb, second));
        drop(registry);
        self.shared.wake();
        Ok((ports, version))
    }

    /// All segments.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.tables.current().segments()
    }

    /// All ports.
    #[must_use]
    pub fn ports(&self) -> Vec<PortInfo> {
        self.shared.tables.current().ports()
    }

    /// The FDB of a segment, static and learned entries.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn fdb(&self, segment: SegmentId) -> Result<Vec<FdbEntry>, Error> {
        self.shared.tables.current().fdb(segment, self.shared.now())
    }

    /// Calls `each` with the FDB entries of a segment, in no order, until it breaks: in memory that does not grow with their
    /// number, but for the tables of this moment, which are kept meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn visit_fdb(
        &self,
        segment: SegmentId,
        each: impl FnMut(FdbEntry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let tables = self.shared.tables.current();
        let _ = tables.fdb_entries(segment, self.shared.now())?.try_for_each(each);
        Ok(())
    }

    /// The routes of a segment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn routes(&self, segment: SegmentId) -> Result<Vec<Route>, Error> {
        self.shared.tables.current().routes(segment)
    }

    /// Calls `each` with the routes of a segment, sorted by prefix, until it breaks; see [`Control::visit_fdb`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn visit_routes(
        &self,
        segment: SegmentId,
        each: impl FnMut(Route) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let tables = self.shared.tables.current();
        let _ = tables.route_entries(segment)?.try_for_each(each);
        Ok(())
    }

    /// The route that packets to an address take in a segment; see [`Tables::route_to`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn route_to(&self, segment: SegmentId, address: IpAddr) -> Result<Option<Route>, Error> {
        self.shared.tables.current().route_to(segment, address)
    }

    /// The next-hop groups of a segment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn groups(&self, segment: SegmentId) -> Result<Vec<GroupInfo>, Error> {
        self.shared.tables.current().groups(segment)
    }

    /// The neighbours that a segment knows.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn neighbours(&self, segment: SegmentId) -> Result<Vec<NeighbourEntry>, Error> {
        self.shared.tables.current().neighbours(segment, self.shared.now())
    }

    /// The multicast database of a segment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn mdb(&self, segment: SegmentId) -> Result<Mdb, Error> {
        self.shared.tables.current().mdb(segment, self.shared.now())
    }

    /// The MAC addresses given for VTEPs of a segment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn vtep_macs(&self, segment: SegmentId) -> Result<Vec<(SocketAddr, MacAddr)>, Error> {
        self.shared.tables.current().vtep_macs(segment)
    }

    /// The UDP ports that segments receive on, sorted.
    #[must_use]
    pub fn underlay(&self) -> Vec<UnderlayInfo> {
        let in_use: Vec<u16> = self.shared.tables.current().udp_ports().collect();
        let registry = lock(&self.shared.registry);
        let info = |udp_port: u16| {
            registry.listeners.get(&udp_port).map(|listener| UnderlayInfo {
                udp_port,
                receive_buffer: listener.receive_buffer,
                send_buffer: listener.send_buffer,
            })
        };
        in_use.into_iter().filter_map(info).collect()
    }

    /// Statistics of everything that is attached now; totals are those since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        self.shared.tables.reclaim();
        let mut stats = self.shared.tables.current().stats();
        stats.socket_overflows =
            self.shared.seats.iter().map(|seat| seat.overflows.load(Relaxed)).sum();
        stats.events_lost = self.shared.lost_events();
        stats.offloads = self.offloads();
        self.list_probes(&mut stats);
        stats
    }

    /// Time since each worker was heard of, in the order of [`Stats::workers`]; see
    /// [`Dataplane::silence`](crate::Dataplane::silence).
    #[must_use]
    pub fn worker_silence(&self) -> Vec<Duration> {
        self.shared.silence().collect()
    }

    /// Adds what probing has shown.
    fn list_probes(&self, stats: &mut Stats) {
        let (now, tables) = (self.shared.now(), self.shared.tables.current());
        let prober = lock(&self.shared.prober);
        // Mostly none is probed.
        if prober.next().is_some() {
            for vtep in &mut stats.vteps {
                vtep.probe = prober.stats(&tables, vtep.address, now);
            }
        }
    }

    /// Switches offloads on and off while traffic flows; each worker follows at its next turn.
    ///
    /// What is in the set is made use of as far as it works here, also what has failed before: it is tried again. What
    /// needs another offload is off without it, see [`Offloads::usable`]. Frames that are under way arrive in either
    /// case, but for a train that the kernel is putting into a socket in the very moment in which `udp-gro` is switched
    /// off: of that one only the first datagram may arrive.
    pub fn set_offloads(&self, wanted: Offloads) {
        self.shared.switches.want(wanted);
        self.shared.wake();
    }

    /// Every offload with its state, in the order of [`Offload::ALL`](crate::Offload::ALL).
    ///
    /// What a device of the kernel cannot do is known once one is attached; a device without vnet header does none,
    /// which does not show here but in [`PortInfo::offload`].
    #[must_use]
    pub fn offloads(&self) -> Vec<OffloadInfo> {
        self.shared.switches.list()
    }

    /// Takes the oldest waiting event; `None` when there is none. Each event goes to one caller.
    #[must_use]
    pub fn next_event(&self) -> Option<Event> {
        self.shared.next_event()
    }
}
