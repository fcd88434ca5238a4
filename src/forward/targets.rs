//! Who gets a frame.

use crate::segment::{Egress, PortId, Traits, VtepId};
use crate::tables::{PortEntry, Tables};

use super::vlan;

/// Who gets a frame.
#[derive(Clone, Copy)]
pub(super) enum Targets<'a> {
    Port(&'a PortEntry),
    Vtep(VtepId),
    Many(&'a Audience<'a>),
}

/// Ports of a segment and VTEPs.
#[derive(Clone)]
pub(super) struct Audience<'a> {
    pub(super) tables: &'a Tables,
    pub(super) ports: &'a [PortId],
    /// Among the ports, the one the frame came from.
    pub(super) except: Option<PortId>,
    /// Ports with any of these do not get the frame.
    pub(super) without: Traits,
    /// The VLAN of the frame, which ports may not take; 0: none.
    pub(super) vid: u16,
    pub(super) vteps: &'a [VtepId],
}

impl<'a> Audience<'a> {
    /// One of the ports, if it gets the frame.
    #[inline]
    fn port(&self, id: PortId) -> Option<&'a PortEntry> {
        if self.except.is_some_and(|except| except == id) {
            return None;
        }
        let port = self.tables.port(id)?;
        let gets = !port.traits.meets(self.without) && vlan::flooded(port, self.vid).is_some();
        gets.then_some(port)
    }
}

impl<'a> Targets<'a> {
    pub(super) fn vteps(&self) -> &[VtepId] {
        match self {
            Self::Port(_) => &[],
            Self::Vtep(vtep) => std::slice::from_ref(vtep),
            Self::Many(audience) => audience.vteps,
        }
    }

    #[inline(always)]
    pub(super) fn ports(&self) -> impl Iterator<Item = &'a PortEntry> + use<'a> {
        let (one, many) = match *self {
            Self::Port(port) => (Some(port), None),
            Self::Vtep(_) => (None, None),
            Self::Many(audience) => (None, Some(audience)),
        };
        let ports = many.map_or(&[][..], |audience| audience.ports);
        one.into_iter().chain(ports.iter().filter_map(move |id| many?.port(*id)))
    }

    /// Whether one of the ports gets the frame without its tag. A frame for one port has lost it by now.
    pub(super) fn untags(&self, port: &PortEntry) -> bool {
        match *self {
            Self::Many(audience) => vlan::flooded(port, audience.vid) == Some(Egress::Untag),
            _ => false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vteps().is_empty() && self.ports().next().is_none()
    }
}
