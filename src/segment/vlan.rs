//! Which VLAN tags a port takes and gets.

use std::fmt;

use crate::Error;

/// Largest VLAN identifier that a frame can be of; 0 and 4095 mean none (IEEE 802.1Q §9.6).
pub const MAX_VID: u16 = 4094;

/// What a port of a bridge segment does with VLAN tags (IEEE 802.1Q C-tags, EtherType 0x8100).
///
/// A segment is one bridge with one FDB, whatever tags its frames have: a MAC address is behind one place in all VLANs.
/// Service tags (0x88a8) are part of what is inside. A frame of VID 0 has a priority and no VLAN, and is untagged here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VlanMode {
    /// Tags pass as they are, in both directions.
    #[default]
    Transparent,
    /// Only untagged frames pass, in both directions.
    Untagged,
    /// Only frames of some VLANs pass, in both directions.
    Only {
        /// The VLANs whose frames pass as they are.
        vlans: VlanSet,
        /// The VLAN of untagged frames, as `pvid untagged` of a Linux bridge: they are tagged when they come in, and its
        /// frames lose the tag when they go out. Without one, untagged frames do not pass. A tag is not part of the
        /// segment's MTU, so the hosts of such a port need one 4 bytes below it.
        pvid: Option<u16>,
    },
}

impl VlanMode {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Only { pvid: Some(pvid), .. } if !(1..=MAX_VID).contains(pvid) => {
                Err(Error::invalid("PVID of a port", pvid.to_string(), "1 to 4094"))
            }
            _ => Ok(()),
        }
    }

    /// What becomes of a frame of VLAN `vid`, 0 for an untagged one, that comes from the port.
    pub(crate) fn ingress(&self, vid: u16) -> Option<Ingress> {
        match self {
            Self::Transparent => Some(Ingress::AsItIs),
            Self::Untagged => (vid == 0).then_some(Ingress::AsItIs),
            Self::Only { pvid, .. } if vid == 0 => pvid.map(Ingress::Tag),
            Self::Only { vlans, pvid } => {
                (*pvid == Some(vid) || vlans.contains(vid)).then_some(Ingress::AsItIs)
            }
        }
    }

    /// The same for one that is for the port.
    pub(crate) fn egress(&self, vid: u16) -> Option<Egress> {
        match self {
            Self::Transparent => Some(Egress::AsItIs),
            Self::Untagged => (vid == 0).then_some(Egress::AsItIs),
            Self::Only { .. } if vid == 0 => None,
            Self::Only { pvid, .. } if *pvid == Some(vid) => Some(Egress::Untag),
            Self::Only { vlans, .. } => vlans.contains(vid).then_some(Egress::AsItIs),
        }
    }
}

/// What becomes of a frame from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ingress {
    AsItIs,
    /// It gets a tag of this VLAN.
    Tag(u16),
}

/// What becomes of a frame for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    AsItIs,
    /// It loses its tag.
    Untag,
}

/// A set of VLANs: 1 to [`MAX_VID`].
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl Default for VlanSet {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl VlanSet {
    /// Adds a VLAN.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that is not 1 to [`MAX_VID`].
    pub fn insert(&mut self, vid: u16) -> Result<(), Error> {
        if !(1..=MAX_VID).contains(&vid) {
            return Err(Error::invalid("VLAN", vid.to_string(), "1 to 4094"));
        }
        self.0[usize::from(vid / 64)] |= 1 << (vid % 64);
        Ok(())
    }

    /// Whether a VLAN is in the set.
    #[must_use]
    pub fn contains(&self, vid: u16) -> bool {
        self.0.get(usize::from(vid / 64)).is_some_and(|word| word >> (vid % 64) & 1 != 0)
    }

    /// The VLANs in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (1..=MAX_VID).filter(|vid| self.contains(*vid))
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_lets_pass_what_it_should() {
        let mut vlans = VlanSet::default();
        vlans.insert(7).unwrap();
        vlans.insert(MAX_VID).unwrap();
        assert!(vlans.insert(0).is_err() && vlans.insert(4095).is_err());
        assert_eq!(vlans.iter().collect::<Vec<_>>(), [7, MAX_VID]);
        let only = |pvid| VlanMode::Only { vlans: vlans.clone(), pvid };
        let as_it_is = (Some(Ingress::AsItIs), Some(Egress::AsItIs));
        for (mode, vid, expected) in [
            (VlanMode::Transparent, 0, as_it_is),
            (VlanMode::Transparent, 9, as_it_is),
            (VlanMode::Untagged, 0, as_it_is),
            (VlanMode::Untagged, 9, (None, None)),
            (only(None), 0, (None, None)),
            (only(None), 7, as_it_is),
            (only(None), 9, (None, None)),
            (only(Some(5)), 0, (Some(Ingress::Tag(5)), None)),
            (only(Some(5)), 5, (Some(Ingress::AsItIs), Some(Egress::Untag))),
            (only(Some(7)), 7, (Some(Ingress::AsItIs), Some(Egress::Untag))),
        ] {
            assert_eq!((mode.ingress(vid), mode.egress(vid)), expected, "{mode:?}: {vid}");
        }
        assert!(only(Some(0)).check().is_err() && only(Some(4095)).check().is_err());
        assert!(only(Some(MAX_VID)).check().is_ok());
    }
}
