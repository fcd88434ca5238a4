//! How large packets may be on the way to a VTEP.

mod probing;
mod search;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use probing::Probing;
pub use search::ProbeState;
pub(crate) use search::Search;

/// Smallest path MTUs that are learned, in bytes over IPv4 (kernel `net.ipv4.route.min_pmtu`, `DEFAULT_MIN_PMTU` in
/// `net/ipv4/route.c`) and IPv6 (RFC 8201 §4): whoever forges an ICMP error cannot make datagrams any smaller.
pub const MIN_LEARNED_MTU: (u32, u32) = (552, 1280);

/// Who says how large packets on a path may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathSource {
    /// The control plane.
    Configured,
    /// This node: the route to the VTEP, or the interface that it leads out of.
    Route,
    /// The underlay refused a datagram: this node's kernel, or a router by ICMP.
    Learned,
    /// The VTEP, which answers probes ([`Prober`](crate::Prober)).
    Verified,
}

/// What is known of the path to a VTEP, in bytes of the outer IP packet; the smallest counts.
///
/// What exceeds it is dropped as [`DropReason::TooBig`](crate::DropReason::TooBig), and its sender is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathMtu {
    /// What the control plane has set.
    pub configured: Option<u32>,
    /// That of the route to the VTEP, where it is less than a segment needs.
    pub route: Option<u32>,
    /// What the underlay has taught; given up after `Config::path_mtu_expiry`, so that a path that became wider is found
    /// to be, and when the host's links or routes have changed and its kernel would send more.
    pub learned: Option<u32>,
    /// What the VTEP has answered probes of, where something larger was lost or refused: a black hole swallows it. `None`
    /// where that is not known, and for a VTEP that does not answer.
    pub verified: Option<u32>,
    /// When what was learned is given up.
    pub(crate) learned_until: Duration,
}

impl PathMtu {
    /// The largest packet that the path takes, as far as is known; `None` when nothing is.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.told().into_iter().chain(self.verified).min()
    }

    /// The same without what probes say: as far as they are to go.
    pub(crate) fn told(&self) -> Option<u32> {
        [self.configured, self.route, self.learned].into_iter().flatten().min()
    }

    /// Takes in what somebody says of a path to `address`; what is learned only lowers what was learned before.
    pub(crate) fn set(
        &mut self,
        address: IpAddr,
        source: PathSource,
        mtu: Option<u32>,
        until: Duration,
    ) {
        match source {
            PathSource::Configured => self.configured = mtu,
            PathSource::Route => self.route = mtu,
            PathSource::Verified => self.verified = mtu,
            PathSource::Learned => {
                let floor = floor(address);
                self.learned_until = until;
                // Errors may come late, or of another way there: a path grows by expiry alone (RFC 8201 §4).
                self.learned =
                    mtu.map(|mtu| self.learned.map_or(mtu, |was| was.min(mtu)).max(floor));
            }
        }
    }

    /// Whether what was learned is to be given up.
    pub(crate) fn is_expired(&self, now: Duration) -> bool {
        self.learned.is_some() && self.learned_until <= now
    }
}

/// The smallest path MTU to an address that anybody but the control plane can bring about.
pub(crate) fn floor(address: IpAddr) -> u32 {
    if address.is_ipv4() { MIN_LEARNED_MTU.0 } else { MIN_LEARNED_MTU.1 }
}

/// As the end of a line: nothing when nothing is known.
impl fmt::Display for PathMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.configured, "configured"),
            (self.route, "of its route"),
            (self.learned, "learned"),
            (self.verified, "verified"),
        ];
        for (mtu, who) in all {
            if let Some(mtu) = mtu {
                write!(f, "; path MTU {mtu} {who}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_learned_lowers_until_it_expires() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let mut path = PathMtu::default();
        assert_eq!(path.limit(), None);
        path.set(v4, PathSource::Learned, Some(1400), SOON);
        path.set(v4, PathSource::Learned, Some(1300), SOON);
        path.set(v4, PathSource::Learned, Some(1450), SOON);
        assert_eq!(path.limit(), Some(1300));
        path.set(v4, PathSource::Configured, Some(1350), Duration::ZERO);
        assert_eq!(path.limit(), Some(1300));
        assert!(path.is_expired(SOON) && !path.is_expired(Duration::from_secs(9)));
        path.set(v4, PathSource::Learned, None, Duration::ZERO);
        assert_eq!(path.limit(), Some(1350));
        assert!(!path.is_expired(Duration::MAX));
    }

    #[test]
    fn forged_errors_do_not_make_datagrams_tiny() {
        for (address, floor) in [("192.0.2.1", 552), ("2001:db8::1", 1280)] {
            let mut path = PathMtu::default();
            for mtu in [0, 1, 68] {
                path.set(address.parse().unwrap(), PathSource::Learned, Some(mtu), SOON);
                assert_eq!(path.limit(), Some(floor));
            }
        }
    }
}
