//! The names of everything that can stop a frame.

use std::fmt;

/// At which point a frame was dropped; see [`Stats`](crate::Stats) for how the counts add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// While deciding what to do with a received frame: the whole frame is gone.
    Decision,
    /// While carrying the decision out: one copy of the frame is gone.
    Output,
}

/// Declares the reasons once: variant, stage, name, meaning and advice belong together and are all public.
macro_rules! drop_reasons {
    ($($variant:ident, $stage:ident, $name:literal, $meaning:literal, $advice:literal;)*) => {
        /// Why a frame, or one copy of a flooded frame, was dropped.
        ///
        /// Every drop has exactly one reason and every reason is a counter of [`Stats`](crate::Stats).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DropReason {
            $(#[doc = concat!($meaning, "\n\nWhat to do: ", $advice)] $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order in which they are counted and listed.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in outputs and metrics: lower-case words joined by `_`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What the operator can do about it.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }

            /// At which point frames are dropped for it.
            #[must_use]
            pub fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }
        }
    };
}

drop_reasons! {
    Truncated, Decision, "truncated",
        "The frame is shorter than an Ethernet or IP header, or the datagram was cut by the receive buffer.",
        "Find the sender: no working stack produces these.";
    BadOffload, Decision, "bad_offload",
        "The vnet header of a device contradicts its frame.",
        "Report the kernel version: the device's driver is at fault.";
    NoVniFlag, Decision, "no_vni_flag",
        "A VXLAN datagram is cut short or lacks the I flag (RFC 7348 section 5).",
        "Check what sends to this UDP port: it is not VXLAN.";
    ReservedBits, Decision, "reserved_bits",
        "A VXLAN datagram has reserved bits set, and this dataplane is strict about them, as Linux is.",
        "Switch the peer's VXLAN extensions off, or set reserved bits to be ignored.";
    VxlanExtension, Decision, "vxlan_extension",
        "A VXLAN datagram uses GPE or remote checksum offload, and so what follows the header cannot be read.",
        "Switch gpe or remcsum off at the peer.";
    UnknownVni, Decision, "unknown_vni",
        "No segment on this UDP port has the VNI of the datagram.",
        "Add the segment, or remove this node from the peer's flood list.";
    UnknownVtep, Decision, "unknown_vtep",
        "The datagram comes from an address that is not a VTEP of the segment.",
        "Add the peer, or make the segment open if every underlay address is to be trusted.";
    Detached, Decision, "detached",
        "The port or the segment was removed while the frame was on its way.",
        "Nothing: a few are normal when ports or segments are removed.";
    InvalidSource, Decision, "invalid_source",
        "The source MAC address is a group address or zero.",
        "Find the sender: it is broken or probing.";
    OwnSource, Decision, "own_source",
        "A frame from the underlay claims to come from the MAC address of a device of this node.",
        "Look for a loop that brings frames back, or for another node whose device has the same MAC address.";
    PinnedSource, Decision, "pinned_source",
        "The source MAC address is a static FDB entry for another place.",
        "If the host has moved, change the static entry; otherwise somebody forges its address.";
    LinkLocal, Decision, "link_local",
        "The frame is for 01:80:C2:00:00:0X, which bridges do not forward (IEEE 802.1Q section 8.6.3).",
        "Nothing: spanning tree, pause frames and LLDP end at the first bridge.";
    BadProbe, Decision, "bad_probe",
        "A probe of a path, or the answer to one, is malformed or cut, of another version, or answers nothing that this node has asked.",
        "Nothing if rare; otherwise somebody forges answers, or the peer's version does not fit this one's.";
    ProbeLimit, Decision, "probe_limit",
        "More probes of paths arrive than are answered: 1,000 a second and worker.",
        "Have the peers probe less often, or give this node more workers.";
    SamePort, Decision, "same_port",
        "The destination is on the port the frame came from.",
        "Nothing: the sender's own link has delivered it already.";
    Isolated, Decision, "isolated",
        "The frame came from an isolated port and its destination is behind another one.",
        "Nothing, if the two are to be kept apart; otherwise take `isolated` from the options of one of the ports.";
    StormBroadcast, Decision, "storm_broadcast",
        "The port, or the segment, floods more frames for everybody than its rate limit allows.",
        "Look for a loop or for a host that sends too much; the event that began it names the port. Raise the limit if it is too low.";
    StormMulticast, Decision, "storm_multicast",
        "The port, or the segment, floods more frames for groups than its rate limit allows.",
        "Look for a loop or for a host that sends too much; the event that began it names the port. Raise the limit if it is too low.";
    StormUnknownUnicast, Decision, "storm_unknown_unicast",
        "The port, or the segment, floods more frames for unknown addresses than its rate limit allows.",
        "Look for who sends to addresses that nobody has; give silent hosts static FDB entries. Raise the limit if it is too low.";
    Damped, Decision, "damped",
        "The source MAC address moved too fast: it is held where it is, and the frame came from elsewhere or would be flooded.",
        "Look for a loop between the two places that the event names, or for two stations with one address.";
    VlanFiltered, Decision, "vlan_filtered",
        "The port that the frame came from, or goes to, does not take frames with its VLAN tag, or without one.",
        "Nothing, if the VLAN is not for that port; otherwise add it to the port's VLANs.";
    SplitHorizon, Decision, "split_horizon",
        "The frame came from a VTEP, or a port, and its destination is behind another one of the same split horizon group.",
        "Nothing if rare (a host has just moved); otherwise the peer's tables name the wrong VTEP, or this node is to relay.";
    CeOnNotEct, Decision, "ce_on_not_ect",
        "The underlay marked congestion (CE) on the outer header, and the packet inside cannot carry the mark (RFC 6040 section 4.2).",
        "Nothing if rare: it tells a sender without ECN of congestion. If all are, the underlay uses the ECN bits for something else: set ecn to off.";
    OtherMac, Decision, "other_mac",
        "A frame in a routed segment is for another MAC address than that of this node's VTEP, or of the port's gateway.",
        "Give the peer this node's VTEP MAC address, or the host the gateway's: it has an old one, or takes the segment for a bridge.";
    Unresolved, Decision, "unresolved",
        "The MAC address of the host behind a TAP port of a routed segment is not known yet.",
        "Nothing if rare: the host was asked for it; otherwise see why it does not answer, or give its address.";
    NoVtepMac, Decision, "no_vtep_mac",
        "A route leads to a VTEP of which no MAC address is given.",
        "Set the VTEP's MAC address before the routes that lead to it.";
    NoDestination, Decision, "no_destination",
        "There is nobody to flood to, or a routed segment got a packet for a group or a link-local address.",
        "Add VTEPs to the flood list, or static entries; in routed segments nothing: such packets end on their link.";
    NoMember, Decision, "no_member",
        "The frame is for a multicast group that nobody else has joined, as far as snooping knows, or is a report, and there is no multicast router.",
        "Nothing, if nobody listens; otherwise see that reports arrive (the multicast database says who has joined), or flood unregistered groups.";
    NotIp, Decision, "not_ip",
        "A routed segment got something that is neither IPv4 nor IPv6.",
        "Check that the device is a TUN and that the peer's backend is of the segment's kind.";
    BadIpHeader, Decision, "bad_ip_header",
        "The IP header contradicts itself or the packet's length, or its checksum is wrong.",
        "Find the sender: no working stack produces these.";
    TtlExceeded, Decision, "ttl_exceeded",
        "The TTL or hop limit ran out; the sender is told if it may be.",
        "Nothing for traceroute; otherwise look for a routing loop.";
    NoRoute, Decision, "no_route",
        "No route of the segment contains the destination; the sender is told if it may be.",
        "Add the route.";
    Blackhole, Decision, "blackhole",
        "The route for the destination is a blackhole.",
        "Nothing, if that is what the route is for.";
    Unreachable, Decision, "unreachable",
        "The route for the destination is unreachable, or its group has no members; the sender is told if it may be.",
        "Nothing, if that is what the route is for; otherwise give its group members.";
    TooBig, Decision, "too_big",
        "The packet is larger than the segment's MTU or the path to its VTEP allows; the sender is told if it may be.",
        "Set the MTU of the hosts' devices to that of the segment.";
    OutputFull, Output, "output_full",
        "The batch made more copies or chunks than an output may hold.",
        "Shorten the flood list, or look for a broadcast storm.";
    VtepGone, Output, "vtep_gone",
        "The VTEP was removed between the decision and the sending.",
        "Nothing: a few are normal when peers are removed.";
    UnderlayFull, Output, "underlay_full",
        "The underlay socket or interface had no room (EAGAIN, ENOBUFS).",
        "Raise the send buffer and the interface's queue length; the network is slower than the hosts.";
    UnderlayTooBig, Output, "underlay_too_big",
        "The datagram exceeds the underlay's path MTU (EMSGSIZE), or a flooded frame what the segment or the path to the VTEP allows.",
        "Lower the segment's MTU or raise the underlay's.";
    UnderlayUnreachable, Output, "underlay_unreachable",
        "The underlay has no way to the VTEP, or the peer refused (ENETUNREACH, EHOSTUNREACH, ECONNREFUSED, ...).",
        "Check the underlay's routes and that the peer's dataplane runs.";
    UnderlayDenied, Output, "underlay_denied",
        "A local firewall forbids sending (EPERM, EACCES).",
        "Allow UDP to the VTEP's port.";
    UnderlayFailed, Output, "underlay_failed",
        "The underlay socket failed in a way that has no counter of its own, or does not exist.",
        "See the event that names the error.";
    PortFull, Output, "port_full",
        "The device had no room (EAGAIN, ENOBUFS), or the channel's reader is too slow.",
        "The receiver is slower than the network: give it more CPU or a longer queue.";
    PortDown, Output, "port_down",
        "The device is not up (EIO).",
        "Set the link up.";
    PortLost, Output, "port_lost",
        "The device is gone.",
        "Attach a new device; somebody deleted this one.";
    PortFailed, Output, "port_failed",
        "The device refused the frame in a way that has no counter of its own.",
        "See the event that names the error.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn positions_names_and_texts_are_consistent() {
        let mut names = HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "counters are indexed by discriminant");
            assert!(names.insert(reason.name()));
            assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(reason.meaning().ends_with('.') && reason.advice().ends_with('.'));
        }
    }
}
