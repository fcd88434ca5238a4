//! Ports while tables are changed.

use std::sync::Arc;

use crate::Error;
use crate::counters::PerWorker;
use crate::segment::{Location, PortId, PortOptions, SegmentId, Traits};
use crate::slots::MAX_SLOTS;
use crate::tables::{PortEntry, SegmentEntry, SegmentTable};
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;

use super::{Draft, Effect, fdb, mdb, remove};

impl Draft {
    pub(super) fn add_port(
        &mut self,
        segment: SegmentId,
        name: String,
        offload: bool,
        options: PortOptions,
    ) -> Result<(), Error> {
        check_options(self.entry(segment)?, &options)?;
        let counters = Arc::new(PerWorker::new(self.tables.workers));
        let mac = options.mac;
        let storm = options.storm.buckets()?.map(Arc::new);
        let traits = options.traits();
        let handle = self.tables.ports.insert_with(|handle| {
            Arc::new(PortEntry {
                id: PortId(handle),
                name,
                segment,
                offload,
                traits,
                gateway: options.gateway.as_ref().map(|gateway| Arc::new(gateway.into())),
                options,
                storm,
                place: None,
                counters,
            })
        });
        let id = PortId(handle.ok_or(Error::Limit { what: "ports", limit: MAX_SLOTS })?);
        self.replace_place(segment, id)?;
        self.segment(segment)?.ports.push(id);
        self.count_vlan_ports(segment, Traits::default(), traits)?;
        self.welcome(segment, Location::Port(id));
        self.change_own_mac(segment, None, mac)?;
        self.tables.attachments += 1;
        self.added.push(id);
        Ok(())
    }

    pub(super) fn set_port(&mut self, port: PortId, mut options: PortOptions) -> Result<(), Error> {
        let missing = || Error::not_found(port);
        let &PortEntry { segment, ref gateway, .. } = self.tables.port(port).ok_or_else(missing)?;
        check_options(self.entry(segment)?, &options)?;
        if gateway.is_some() != options.gateway.is_some() {
            return Err(Error::conflict(
                format_args!("gateway of {port}"),
                "the device is a TAP with one, or a TUN without",
            ));
        }
        let entry = Arc::make_mut(self.tables.ports.get_mut(port.0).ok_or_else(missing)?);
        let before = entry.options.mac;
        options.mac = options.mac.or(before);
        let mac = options.mac;
        let (traits_before, traits) = (entry.traits, options.traits());
        entry.traits = traits;
        // Buckets are full when they are new: what stays as it is keeps its own.
        if options.storm != entry.options.storm {
            entry.storm = options.storm.buckets()?.map(Arc::new);
        }
        if options.gateway != entry.options.gateway {
            entry.gateway = options.gateway.as_ref().map(|gateway| Arc::new(gateway.into()));
        }
        entry.options = options;
        self.count_vlan_ports(segment, traits_before, traits)?;
        self.change_own_mac(segment, before, mac)
    }

    pub(super) fn remove_port(&mut self, port: PortId) -> Result<(), Error> {
        let entry = self.tables.ports.remove(port.0).ok_or_else(|| Error::not_found(port))?;
        self.added.retain(|added| *added != port);
        self.tables.attachments += 1;
        self.change_own_mac(entry.segment, entry.options.mac, None)?;
        self.count_vlan_ports(entry.segment, entry.traits, Traits::default())?;
        let gone = Location::Port(port);
        let segment = self.segment(entry.segment)?;
        remove(&mut segment.ports, port);
        match &mut segment.table {
            SegmentTable::Bridge(bridge) => {
                if segment.mentions.remove(&gone).is_some() {
                    bridge.statics.retain(|_, at| *at != gone);
                    fdb::forget_port(bridge, port);
                }
                mdb::forget(bridge, gone);
                self.retire(entry.place.as_ref());
                Ok(())
            }
            SegmentTable::Routed(_) => self.remove_next_hop(entry.segment, port),
        }
    }

    /// A port cares for VLANs from now on, or no more.
    fn count_vlan_ports(
        &mut self,
        segment: SegmentId,
        before: Traits,
        after: Traits,
    ) -> Result<(), Error> {
        let [before, after] = [before, after].map(|traits| u32::from(traits.meets(Traits::VLAN)));
        if before != after {
            let count = &mut self.segment(segment)?.vlan_ports;
            *count = *count + after - before;
        }
        Ok(())
    }

    /// The device of a port has another MAC address than before: nobody else may have spoken for it.
    fn change_own_mac(
        &mut self,
        segment: SegmentId,
        before: Option<MacAddr>,
        after: Option<MacAddr>,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        let bridge = self.bridge(segment)?;
        let own = &mut bridge.own;
        if let Some(at) = before.and_then(|mac| own.binary_search(&mac.into()).ok()) {
            own.remove(at);
        }
        if let Some(mac) = after {
            let number = MacNumber::from(mac);
            own.insert(own.partition_point(|other| *other < number), number);
            let domain = bridge.domain.clone();
            self.effects.push(Effect::Forget(domain, mac));
        }
        Ok(())
    }
}

/// Only a bridge has a use for most options of a port, and only a routed segment for a gateway.
fn check_options(segment: &SegmentEntry, options: &PortOptions) -> Result<(), Error> {
    options.check()?;
    if options.gateway.is_some() && segment.kind.is_ethernet() {
        return Err(Error::conflict(
            format_args!("gateway of a port in segment {}", segment.id),
            "the segment is a bridge, and routes nothing",
        ));
    }
    if !segment.kind.is_ethernet() && !options.is_default() {
        return Err(Error::conflict(
            format_args!("port options in segment {}", segment.id),
            "the segment is routed, and they are for bridges",
        ));
    }
    Ok(())
}
