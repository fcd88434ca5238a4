//! What the control plane says of a port, and how forwarding has it.

use std::ops::BitOr;

use crate::Error;
use crate::wire::MacAddr;

use super::Gateway;
use super::scope::horizon;
use super::storm::StormLimits;
use super::vlan::VlanMode;

/// How a port takes part in its bridge segment.
///
/// Start from the [`Default`], which is a port that is like all others, and change the fields that should differ. Give
/// it to [`Change::AddPort`](crate::Change::AddPort) or, at any time, [`Change::SetPort`](crate::Change::SetPort). The
/// ports of a routed segment have no options but [`PortOptions::gateway`]: the others have to be the default there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortOptions {
    /// No frame goes from this port to another isolated port of the segment, nor back to itself; VTEPs and other ports
    /// are reached. Off by default. As `isolated` of a Linux bridge port (kernel `net/bridge/br_private.h`,
    /// `br_skb_isolated`).
    pub isolated: bool,
    /// Split horizon group: no frame goes from this port to a VTEP or another port of the group, nor back to itself. 0,
    /// the default, is none; see [`Scope`](crate::Scope).
    pub group: u8,
    /// MAC address of the device. Frames from the underlay that claim to come from it are dropped, as Linux's VXLAN
    /// device does (kernel `drivers/net/vxlan/vxlan_core.c`, `vxlan_set_mac`). `None`, the default, leaves what is
    /// known: that of a TAP, as read when it was attached.
    pub mac: Option<MacAddr>,
    /// How many frames of the port a second are flooded; those of the segment's [`storm`](crate::Segment::storm) hold
    /// beside them. No limits by default.
    pub storm: StormLimits,
    /// What the port does with VLAN tags; they pass as they are by default.
    pub vlan: VlanMode,
    /// A frame may leave by the port it came from, if its destination is there or it is for everybody. Off by default. As
    /// `hairpin` of a Linux bridge port (kernel `net/bridge/br_forward.c`, `should_deliver`).
    pub hairpin: bool,
    /// MAC addresses are learned from this port's frames, if they are in the segment at all. On by default.
    pub learning: bool,
    /// The port gets frames for individual addresses that are not known. On by default. As `flood` of a Linux bridge
    /// port (kernel `net/bridge/br_forward.c`, `br_flood`).
    pub flood_unknown_unicast: bool,
    /// The port gets frames for groups, broadcast apart, that are flooded. On by default. As `mcast_flood` of a Linux bridge
    /// port.
    pub flood_multicast: bool,
    /// The port gets frames for everybody. On by default. As `bcast_flood` of a Linux bridge port.
    pub flood_broadcast: bool,
    /// The last membership of a group ends at once when somebody behind the port leaves, instead of after the others there were
    /// asked: for a port with one host behind it. Off by default. As `mcast_fast_leave` of a Linux bridge port.
    pub fast_leave: bool,
    /// Multicast routers and queriers may be behind the port: who sends queries, PIM hellos or router advertisements there gets all
    /// groups. On by default; without it no host of the port can claim that. As `mcast_router 0` of a Linux bridge port, but queries
    /// do not count either.
    pub multicast_routers: bool,
    /// The port of a routed segment is a TAP, and this is the router that its host sees; `None`, the default, for the ports of
    /// bridge segments and for a TUN. A TAP that is attached to a routed segment without it gets the default one. Cannot be
    /// given or taken away later, only changed.
    pub gateway: Option<Gateway>,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            isolated: false,
            group: 0,
            mac: None,
            storm: StormLimits::default(),
            vlan: VlanMode::default(),
            hairpin: false,
            learning: true,
            flood_unknown_unicast: true,
            flood_multicast: true,
            flood_broadcast: true,
            fast_leave: false,
            multicast_routers: true,
            gateway: None,
        }
    }
}

impl PortOptions {
    /// Whether the port is like all others, but for its gateway.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self { gateway: self.gateway.clone(), ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        horizon(self.group)?;
        self.storm.check()?;
        self.gateway.as_ref().map_or(Ok(()), Gateway::check)?;
        self.vlan.check()?;
        match self.mac {
            Some(mac) if mac.is_multicast() || mac.is_zero() => {
                let value = mac.to_string();
                Err(Error::invalid("MAC address of a port", value, "an individual address"))
            }
            _ => Ok(()),
        }
    }

    /// What forwarding goes by.
    pub(crate) fn traits(&self) -> Traits {
        let bits = [
            (self.isolated, Traits::ISOLATED),
            (self.hairpin, Traits::HAIRPIN),
            (!self.learning, Traits::NO_LEARNING),
            (self.vlan != VlanMode::Transparent, Traits::VLAN),
            (!self.flood_unknown_unicast, Traits::NO_UNKNOWN_UNICAST),
            (!self.flood_multicast, Traits::NO_MULTICAST),
            (!self.flood_broadcast, Traits::NO_BROADCAST),
        ];
        let set = bits.into_iter().filter(|(set, _)| *set);
        let group = horizon(self.group).unwrap_or_default();
        set.fold(group, |traits, (_, bit)| traits | bit)
    }
}

/// What is special about a port, in one word: none for most, so that looking costs one test.
///
/// Who is kept apart is told by the bits that two places have in common, and so is what a port does not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits(u64);

impl Traits {
    /// No frame goes from a place that has this to another that has it.
    pub(crate) const ISOLATED: Self = Self(1);
    /// The same by number, from 1 on, for the split horizon groups.
    const GROUPS: Self = Self(0xffff_fffe);
    /// What a port does not get.
    pub(crate) const NO_UNKNOWN_UNICAST: Self = Self(1 << 32);
    pub(crate) const NO_MULTICAST: Self = Self(1 << 33);
    pub(crate) const NO_BROADCAST: Self = Self(1 << 34);
    pub(crate) const HAIRPIN: Self = Self(1 << 35);
    pub(crate) const NO_LEARNING: Self = Self(1 << 36);
    /// Cares for VLAN tags.
    pub(crate) const VLAN: Self = Self(1 << 37);

    /// The traits that keep two places apart which share one.
    const APART: Self = Self(Self::ISOLATED.0 | Self::GROUPS.0);

    /// Those of the places in a split horizon group: 1 to 31.
    pub(crate) const fn of_group(group: u8) -> Self {
        Self(1 << group & Self::GROUPS.0)
    }

    /// The split horizon group, 0 for none.
    pub(crate) const fn group(self) -> u8 {
        match self.0 & Self::GROUPS.0 {
            0 => 0,
            group => group.trailing_zeros() as u8,
        }
    }

    /// Whether it is in a split horizon group.
    #[inline]
    pub(crate) const fn in_group(self) -> bool {
        self.meets(Self::GROUPS)
    }

    /// Whether the two have any in common.
    #[inline]
    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Of what this place sends, what others must not have to get it.
    #[inline]
    pub(crate) const fn apart(self) -> Self {
        Self(self.0 & Self::APART.0)
    }
}

impl BitOr for Traits {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_like_all_others_has_no_traits() {
        let none = Traits::default();
        assert_eq!(PortOptions::default().traits(), none);
        let flip: [fn(&mut PortOptions); 9] = [
            |options| options.vlan = VlanMode::Untagged,
            |options| options.group = 1,
            |options| options.group = 31,
            |options| options.isolated = true,
            |options| options.hairpin = true,
            |options| options.learning = false,
            |options| options.flood_unknown_unicast = false,
            |options| options.flood_multicast = false,
            |options| options.flood_broadcast = false,
        ];
        let mut seen = none;
        for flip in flip {
            let mut options = PortOptions::default();
            flip(&mut options);
            let traits = options.traits();
            assert!(traits != none && !traits.meets(seen) && !options.is_default());
            seen = seen | traits;
        }
    }

    #[test]
    fn only_isolated_ports_are_kept_apart() {
        let isolated = PortOptions { isolated: true, ..PortOptions::default() }.traits();
        let hairpin = PortOptions { hairpin: true, ..PortOptions::default() }.traits();
        assert!(isolated.apart().meets(isolated));
        assert!(!isolated.apart().meets(hairpin) && !hairpin.apart().meets(hairpin));
    }
}
