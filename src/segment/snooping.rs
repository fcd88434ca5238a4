//! Whether multicast of a bridge segment goes to those alone who listen to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::Error;
use crate::fdb::{MAX_AGEING, seconds};
use crate::wire::MacAddr;
use crate::wire::multicast::Asker;

/// Largest number of memberships that a segment learns.
pub const MAX_MEMBERSHIPS: usize = 65_536;

/// Number of memberships that a segment learns if nothing else is said.
pub const DEFAULT_MEMBERSHIPS: usize = 8192;

/// IGMP and MLD snooping in a bridge segment: frames for a group go to the ports and VTEPs behind which somebody has joined
/// it, and to multicast routers (RFC 4541; kernel `net/bridge/br_multicast.c`).
///
/// Who has joined is learned from reports of IGMPv1 to v3 and MLDv1 and v2 that come from ports and VTEPs, or given with
/// [`Change::InsertMdb`](crate::Change::InsertMdb). Membership is of groups: with source lists (IGMPv3, MLDv2) a group counts as
/// joined while any of its sources is wanted. A place from which queries, PIM hellos or multicast router advertisements
/// (RFC 4286) come has a *multicast router* and gets all groups.
///
/// Hosts report when they are asked, so memberships are only to be relied on while somebody asks: as long as no query was
/// heard within [`Snooping::querier_interval`], and for the time that answers to the first one take, multicast of that
/// family (IPv4 or IPv6) is flooded, as on Linux. Let [`Snooping::querier`] ask if there is no multicast router. A port or VTEP
/// that is new gets all groups until it has been asked: at once if this node is the querier, else for
/// [`Snooping::querier_interval`].
///
/// Always flooded are 224.0.0.0/24, ff02::1, multicast that is not IP, and frames with VLAN tags. Reports go to all VTEPs of the
/// flood list, whose nodes learn from them, but of the ports only to those with multicast routers, so that hosts of IGMPv1 and v2
/// do not take each other's reports for their own. Snooping only ever narrows the flood list: a VTEP that is not in it gets
/// no group either. An underlay group in the flood list is sent to if any VTEP has joined, or has a router. A group address with
/// destinations of its own ([`Change::AppendFdb`](crate::Change::AppendFdb)) goes to these.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snooping {
    /// Whether the segment snoops. Off by default. As `mcast_snooping` of a Linux bridge.
    pub enabled: bool,
    /// Frames for groups that nobody has joined are flooded, instead of going to multicast routers alone. Off by default, as on
    /// Linux.
    pub flood_unregistered: bool,
    /// Time after which a membership that was not reported again is forgotten, in whole seconds from 1 to
    /// [`limits::MAX_AGEING`](crate::limits::MAX_AGEING); default 260 s (RFC 3376 §8.4). As `mcast_membership_interval`.
    pub membership_interval: Duration,
    /// Time after the last query for which there is a querier, and for which a multicast router that was heard of is one, in
    /// whole seconds as above; default 255 s (RFC 3376 §8.5). As `mcast_querier_interval`.
    pub querier_interval: Duration,
    /// Largest number of memberships (a group at a port or VTEP) that are learned, at most
    /// [`limits::MAX_MEMBERSHIPS`](crate::limits::MAX_MEMBERSHIPS); default 8,192. A group of which somebody was refused is
    /// flooded for a membership interval, counted in `Stats::totals.memberships_refused` and reported once as
    /// [`Event::MdbFull`](crate::Event::MdbFull).
    pub limit: usize,
    /// Asks who listens, unless somebody else does. None by default. As `mcast_querier` of a Linux bridge.
    pub querier: Option<Querier>,
}

/// This node as the querier of a segment: it asks who listens, to all ports and VTEPs of the flood list, with IGMPv3 and
/// MLDv2.
///
/// Of several queriers the one with the lowest address goes on (RFC 3376 §6.6.2), over IPv4 and IPv6 each. One that
/// asks from `0.0.0.0`, as a Linux bridge without an address does, silences nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Querier {
    /// Source of IGMP queries; `None` for none of them.
    pub v4: Option<Ipv4Addr>,
    /// Source of MLD queries, a link-local address (RFC 3810 §5.1.14); `None` for none of them.
    pub v6: Option<Ipv6Addr>,
    /// MAC address of the queries, unlike that of any other node; by default a locally administered one that follows from
    /// the IP address: `06:51:` and its last four bytes.
    pub mac: Option<MacAddr>,
    /// Time between queries, in whole seconds from 2 to 31,744; default 125 s (RFC 3376 §8.2). As `mcast_query_interval`. The membership
    /// interval of all nodes should be twice that and [`Querier::response_interval`].
    pub interval: Duration,
    /// Time within which hosts answer, in whole seconds from 1 to 12 and less than [`Querier::interval`]; default 10 s (RFC 3376
    /// §8.3). As `mcast_query_response_interval`.
    pub response_interval: Duration,
}

impl Default for Snooping {
    fn default() -> Self {
        Self {
            enabled: false,
            flood_unregistered: false,
            membership_interval: Duration::from_secs(260),
            querier_interval: Duration::from_secs(255),
            limit: DEFAULT_MEMBERSHIPS,
            querier: None,
        }
    }
}

impl Querier {
    /// One that asks from these addresses, `None` for what it does not ask.
    #[must_use]
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Self {
        let [interval, response_interval] = [125, 10].map(Duration::from_secs);
        Self { v4, v6, mac: None, interval, response_interval }
    }

    /// Who asks over IPv4 and over IPv6.
    pub(crate) fn askers(&self) -> impl Iterator<Item = Asker> {
        let addresses = [self.v4.map(IpAddr::from), self.v6.map(IpAddr::from)];
        let (interval, response) = (seconds(self.interval), seconds(self.response_interval) as u8);
        addresses.into_iter().flatten().map(move |address| {
            let mac = self.mac.unwrap_or_else(|| derived(address));
            Asker { address, mac, interval, response }
        })
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |what, value: String, allowed| Err(Error::invalid(what, value, allowed));
        let host_v4 =
            |ip: Ipv4Addr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
        match (self.v4, self.v6) {
            (None, None) => {
                return wrong(
                    "querier",
                    "without address".into(),
                    "an IPv4 address, an IPv6 one or both",
                );
            }
            (Some(v4), _) if !host_v4(v4) => {
                return wrong(
                    "IPv4 address of a querier",
                    v4.to_string(),
                    "an address of one host",
                );
            }
            (_, Some(v6)) if !v6.is_unicast_link_local() => {
                let allowed = "a link-local address, as fe80::1";
                return wrong("IPv6 address of a querier", v6.to_string(), allowed);
            }
            _ => {}
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_individual()) {
            return wrong("MAC address of a querier", mac.to_string(), "an individual address");
        }
        let Self { interval, response_interval: response, .. } = *self;
        if !(Duration::from_secs(2)..=Duration::from_secs(31_744)).contains(&interval) {
            return wrong("query interval", format!("{interval:?}"), "2 to 31744 seconds");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(12)).contains(&response)
            || response >= interval
        {
            let allowed = "1 to 12 seconds, less than the query interval";
            return wrong("query response interval", format!("{response:?}"), allowed);
        }
        Ok(())
    }
}

/// A MAC address that no other querier has: locally administered, and of the last four bytes of an IP address.
fn derived(address: IpAddr) -> MacAddr {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (v6.to_bits() as u32).to_be_bytes(),
    };
    MacAddr([0x06, b'Q', a, b, c, d])
}

impl Snooping {
    pub(super) fn check(&self) -> Result<(), Error> {
        for (what, interval) in [
            ("membership interval", self.membership_interval),
            ("querier interval", self.querier_interval),
        ] {
            if !(Duration::from_secs(1)..=MAX_AGEING).contains(&interval) {
                return Err(Error::invalid(what, format!("{interval:?}"), "1 to 262144 seconds"));
            }
        }
        if self.limit > MAX_MEMBERSHIPS {
            let (what, value) = ("limit of learned memberships", self.limit.to_string());
            return Err(Error::invalid(what, value, "0 to 65536 memberships"));
        }
        let Some(querier) = &self.querier else { return Ok(()) };
        querier.check()?;
        if querier.interval >= self.querier_interval {
            let value = format!("{:?}", querier.interval);
            return Err(Error::invalid("query interval", value, "less than the querier interval"));
        }
        Ok(())
    }
}
