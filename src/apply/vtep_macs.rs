//! MAC addresses of VTEPs while tables are changed.

use std::net::SocketAddr;

use crate::Error;
use crate::segment::{Location, SegmentId};
use crate::slots;
use crate::tables::Link;
use crate::wire::MacAddr;

use super::{Draft, found, individual};

impl Draft {
    pub(super) fn set_vtep_mac(
        &mut self,
        segment: SegmentId,
        vtep: SocketAddr,
        mac: MacAddr,
    ) -> Result<(), Error> {
        individual("MAC address of a VTEP", mac)?;
        if self.link(segment)?.mac == mac.into() {
            return Err(Error::conflict(
                format_args!("MAC address {mac} of VTEP {vtep} in segment {segment}"),
                "it is that of this node's own VTEP",
            ));
        }
        let id = self.vtep(segment, vtep)?;
        let old = self.link(segment)?.macs.at_mut(slots::index(id.0)).replace((id, mac.into()));
        match old {
            Some((known, _)) if known == id => Ok(()),
            _ => self.name(segment, Location::Vtep(id)),
        }
    }

    pub(super) fn remove_vtep_mac(
        &mut self,
        segment: SegmentId,
        vtep: SocketAddr,
    ) -> Result<(), Error> {
        let id = self.known_vtep(vtep)?;
        let link = self.link(segment)?;
        let known = link.mac_of(id).is_some();
        found(known, || format!("MAC address of VTEP {vtep} in segment {segment}"))?;
        *link.macs.at_mut(slots::index(id.0)) = None;
        self.unname(segment, Location::Vtep(id))
    }

    fn link(&mut self, segment: SegmentId) -> Result<&mut Link, Error> {
        self.routed(segment)?.link.as_mut().ok_or_else(|| {
            Error::conflict(
                format_args!("MAC address of a VTEP in segment {segment}"),
                "the segment is not in VXLAN and has no MAC addresses",
            )
        })
    }
}
