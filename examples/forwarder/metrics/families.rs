//! The table of all metrics: names, meanings, labels and where the numbers come from.
//!
//! What is scraped, the table in `docs/operating.md` and the tests of dashboard and alerts are all made of it.

use overplane::{DropReason, OffloadState, ProbeState, SegmentId, Stage};

use super::exposition::{Exposition, Kind};
use super::reading::Reading;
use crate::control::SegmentName;

/// Metrics of one name.
pub struct Family {
    /// The name without the suffix of its kind.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// Adds the samples.
    samples: fn(&Reading, &mut Exposition),
}

impl Family {
    /// Adds the family with its samples to a text.
    pub fn write(&self, reading: &Reading, to: &mut Exposition) {
        to.family(self.name, self.kind, self.help, self.labels);
        (self.samples)(reading, to);
    }
}

use Kind::{Counter, Gauge, Info};

/// A count that each worker keeps.
macro_rules! by_worker {
    ($name:literal, $field:ident, $help:literal) => {
        Family {
            name: $name,
            kind: Counter,
            labels: &["worker"],
            help: $help,
            samples: |reading, to| {
                for (worker, totals) in reading.stats.workers.iter().enumerate() {
                    to.sample(&[&worker], totals.$field);
                }
            },
        }
    };
}

/// Something of each segment.
macro_rules! by_segment {
    ($name:literal, $kind:ident, $field:ident, $help:literal) => {
        Family {
            name: $name,
            kind: $kind,
            labels: &["segment"],
            help: $help,
            samples: |reading, to| {
                for segment in &reading.stats.segments {
                    to.sample(&[&label(segment.id)], segment.$field);
                }
            },
        }
    };
}

/// Something of each VTEP that may not be known.
macro_rules! by_vtep {
    ($name:literal, $kind:ident, |$vtep:ident| $value:expr, $help:literal) => {
        Family {
            name: $name,
            kind: $kind,
            labels: &["vtep"],
            help: $help,
            samples: |reading, to| {
                for $vtep in &reading.stats.vteps {
                    if let Some(value) = $value {
                        to.sample(&[&$vtep.address], value);
                    }
                }
            },
        }
    };
}

/// The four families about the traffic of places of a kind.
///
/// Packets to one station are what the first less the second leaves. They have no counter, for the difference of two counters that
/// are read one after the other can go back by a few, which a scraper would take for a new start.
macro_rules! traffic {
    ($list:ident, [$($label:literal),*], |$place:ident| [$($value:expr),*], [$packets:literal, $groups:literal, $bytes:literal, $dropped:literal], $what:literal) => {
        [
            Family {
                name: $packets,
                kind: Counter,
                labels: &[$($label,)* "direction"],
                help: concat!($what, ", received from there or sent there."),
                samples: |reading, to| {
                    for $place in &reading.stats.$list {
                        to.sample(&[$(&$value,)* &RECEIVED], $place.traffic.received_packets);
                        to.sample(&[$(&$value,)* &SENT], $place.traffic.sent_packets);
                    }
                },
            },
            Family {
                name: $groups,
                kind: Counter,
                labels: &[$($label,)* "direction", "cast"],
                help: concat!($what, ", those of them that were for a group (multicast) or for everybody (broadcast)."),
                samples: |reading, to| {
                    for $place in &reading.stats.$list {
                        let traffic = &$place.traffic;
                        to.sample(&[$(&$value,)* &RECEIVED, &"multicast"], traffic.received_multicast);
                        to.sample(&[$(&$value,)* &RECEIVED, &"broadcast"], traffic.received_broadcast);
                        to.sample(&[$(&$value,)* &SENT, &"multicast"], traffic.sent_multicast);
                        to.sample(&[$(&$value,)* &SENT, &"broadcast"], traffic.sent_broadcast);
                    }
                },
            },
            Family {
                name: $bytes,
                kind: Counter,
                labels: &[$($label,)* "direction"],
                help: concat!($what, ", in bytes."),
                samples: |reading, to| {
                    for $place in &reading.stats.$list {
                        to.sample(&[$(&$value,)* &RECEIVED], $place.traffic.received_bytes);
                        to.sample(&[$(&$value,)* &SENT], $place.traffic.sent_bytes);
                    }
                },
            },
            Family {
                name: $dropped,
                kind: Counter,
                labels: &[$($label,)* "direction"],
                help: concat!($what, ", that were dropped: of those received, or instead of being sent."),
                samples: |reading, to| {
                    for $place in &reading.stats.$list {
                        to.sample(&[$(&$value,)* &RECEIVED], $place.traffic.received_dropped);
                        to.sample(&[$(&$value,)* &SENT], $place.traffic.sent_dropped);
                    }
                },
            },
        ]
    };
}

const RECEIVED: &str = "received";
const SENT: &str = "sent";

/// All families, in the order in which they are written.
pub fn all() -> impl Iterator<Item = &'static Family> {
    NODE.iter()
        .chain(DROPS)
        .chain(WORKERS)
        .chain(SEGMENT_TRAFFIC)
        .chain(SEGMENTS)
        .chain(PORT_TRAFFIC)
        .chain(VTEP_TRAFFIC)
        .chain(VTEPS)
        .chain(HOST)
}

const NODE: &[Family] = &[
    Family {
        name: "overplane_build",
        kind: Info,
        labels: &["version"],
        help: "The version of the forwarder.",
        samples: |_, to| to.sample(&[&env!("CARGO_PKG_VERSION")], true),
    },
    Family {
        name: "overplane_start_time_seconds",
        kind: Gauge,
        labels: &[],
        help: "When the forwarder was started, since 1970.",
        samples: |reading, to| to.sample(&[], reading.started),
    },
    Family {
        name: "overplane_worker_silence_seconds",
        kind: Gauge,
        labels: &["worker"],
        help: "Time since a worker was heard of, which it is each second, busy or idle.",
        samples: |reading, to| {
            for (worker, silence) in reading.silence.iter().enumerate() {
                to.sample(&[&worker], *silence);
            }
        },
    },
    Family {
        name: "overplane_events_lost",
        kind: Counter,
        labels: &[],
        help: "Events that nobody read in time: they are missing from the log.",
        samples: |reading, to| to.sample(&[], reading.stats.events_lost),
    },
];

const DROPS: &[Family] = &[
    Family {
        name: "overplane_drops",
        kind: Counter,
        labels: &["reason", "stage"],
        help: "Frames (stage decision) or copies of frames (stage output) that were dropped, by reason.",
        samples: |reading, to| {
            for reason in DropReason::ALL {
                let drops = reading.stats.totals.drops(*reason);
                to.sample(&[reason, &stage(reason.stage())], drops);
            }
        },
    },
    Family {
        name: "overplane_drop_reason",
        kind: Info,
        labels: &["reason", "stage", "meaning", "advice"],
        help: "What each drop reason means and what to do about it.",
        samples: |_, to| {
            for reason in DropReason::ALL {
                let stage = stage(reason.stage());
                to.sample(&[reason, &stage, &reason.meaning(), &reason.advice()], true);
            }
        },
    },
    Family {
        name: "overplane_worker_drops",
        kind: Counter,
        labels: &["worker", "stage"],
        help: "Frames or copies of frames that were dropped, by worker.",
        samples: |reading, to| {
            for (worker, totals) in reading.stats.workers.iter().enumerate() {
                for at in [Stage::Decision, Stage::Output] {
                    to.sample(&[&worker, &stage(at)], totals.dropped_at(at));
                }
            }
        },
    },
    Family {
        name: "overplane_segment_drops",
        kind: Counter,
        labels: &["segment", "reason", "stage"],
        help: "Frames or copies of frames that were dropped in a segment, by reasons that have occurred there; not what an underlay \
               socket did not take.",
        samples: |reading, to| {
            for segment in &reading.stats.segments {
                for (reason, drops) in segment.drops.iter() {
                    let stage = stage(reason.stage());
                    to.sample(&[&label(segment.id), &reason, &stage], drops);
                }
            }
        },
    },
];

const WORKERS: &[Family] = &[
    by_worker!(
        "overplane_frames_received",
        received,
        "Frames and datagrams read from ports and underlay sockets."
    ),
    by_worker!("overplane_frames_forwarded", forwarded, "Frames with one destination."),
    by_worker!(
        "overplane_frames_flooded",
        flooded,
        "Frames for everybody, for a group, or for a destination that is not known."
    ),
    by_worker!("overplane_flood_copies", copies, "Copies that were made of flooded frames."),
    by_worker!(
        "overplane_frames_answered",
        answered,
        "Frames that ended here: requests for neighbours that were answered, and probes of paths."
    ),
    by_worker!(
        "overplane_frames_generated",
        generated,
        "Frames made by the forwarder: ICMP errors, answers for neighbours, probes, queries for members."
    ),
    by_worker!(
        "overplane_frame_chunks",
        chunks,
        "Chunks beyond the first of super-frames that had to be split."
    ),
    by_worker!("overplane_datagrams_sent", sent, "Datagrams that the underlay took."),
    by_worker!("overplane_frames_delivered", delivered, "Frames that a device took."),
    by_worker!(
        "overplane_frames_coalesced",
        coalesced,
        "Of the frames delivered, those that a device took together with an earlier one, as one super-frame."
    ),
    by_worker!(
        "overplane_fdb_learning_refused",
        learning_refused,
        "Times that a MAC address was not learned because the FDB was full."
    ),
    by_worker!(
        "overplane_fdb_moves_refused",
        moves_refused,
        "Times that a move of a MAC address was not followed because it had moved in the same second already."
    ),
    by_worker!(
        "overplane_fdb_evicted",
        evicted,
        "Learned MAC addresses that made room for others at a limit."
    ),
    by_worker!(
        "overplane_icmp_errors_withheld",
        answers_withheld,
        "ICMP errors that were not sent because of the rate limit."
    ),
    by_worker!(
        "overplane_neighbour_conflicts",
        neighbour_conflicts,
        "Times that a station claimed the IP address of a static neighbour."
    ),
    by_worker!("overplane_probes_sent", probes, "Probes of paths that were made."),
    by_worker!(
        "overplane_probes_answered",
        probes_answered,
        "Probes of other VTEPs that were answered."
    ),
    by_worker!(
        "overplane_memberships_refused",
        memberships_refused,
        "Times that a membership of a multicast group was not learned, for want of room or because too many came at once."
    ),
];

const SEGMENT_TRAFFIC: &[Family] = &traffic!(
    segments,
    ["segment"],
    |segment| [label(segment.id)],
    [
        "overplane_segment_packets",
        "overplane_segment_group_packets",
        "overplane_segment_bytes",
        "overplane_segment_dropped_packets"
    ],
    "Frames of a segment from and to the underlay"
);

const SEGMENTS: &[Family] = &[
    Family {
        name: "overplane_segment",
        kind: Info,
        labels: &["segment", "kind", "udp_port", "vni"],
        help: "The kind, UDP port and VNI of a segment.",
        samples: |reading, to| {
            for segment in &reading.segments {
                let vni = segment.id.vni.map_or(String::new(), |vni| vni.to_string());
                let kind = kind(&segment.kind);
                to.sample(&[&label(segment.id), &kind, &segment.id.udp_port, &vni], true);
            }
        },
    },
    Family {
        name: "overplane_segment_mtu_bytes",
        kind: Gauge,
        labels: &["segment"],
        help: "Largest IP packet inside a segment.",
        samples: |reading, to| {
            for segment in &reading.segments {
                to.sample(&[&label(segment.id)], segment.mtu);
            }
        },
    },
    by_segment!(
        "overplane_segment_fdb_entries",
        Gauge,
        learned,
        "Learned MAC addresses of a segment."
    ),
    by_segment!(
        "overplane_segment_fdb_limit",
        Gauge,
        fdb_limit,
        "The most MAC addresses that a segment learns; 0 for a routed segment."
    ),
    by_segment!(
        "overplane_segment_multicast_memberships",
        Gauge,
        memberships,
        "Memberships of multicast groups in a segment, learned and static ones."
    ),
    Family {
        name: "overplane_fdb_capacity",
        kind: Gauge,
        labels: &[],
        help: "Learned MAC addresses that there is room for, in all segments together.",
        samples: |reading, to| to.sample(&[], reading.fdb_capacity),
    },
];

const PORT_TRAFFIC: &[Family] = &traffic!(
    ports,
    ["port", "segment"],
    |port| [port.name, label(port.segment)],
    [
        "overplane_port_packets",
        "overplane_port_group_packets",
        "overplane_port_bytes",
        "overplane_port_dropped_packets"
    ],
    "Frames of a device"
);

const VTEP_TRAFFIC: &[Family] = &traffic!(
    vteps,
    ["vtep"],
    |vtep| [vtep.address],
    [
        "overplane_vtep_packets",
        "overplane_vtep_group_packets",
        "overplane_vtep_bytes",
        "overplane_vtep_dropped_packets"
    ],
    "Datagrams of a VTEP"
);

const VTEPS: &[Family] = &[
    Family {
        name: "overplane_vteps_left_out",
        kind: Gauge,
        labels: &[],
        help: "VTEPs without metrics of their own, because there are too many.",
        samples: |reading, to| to.sample(&[], reading.vteps_left_out),
    },
    by_vtep!(
        "overplane_vtep_path_mtu_bytes",
        Gauge,
        |vtep| vtep.path.limit(),
        "Largest outer IP packet that the path to a VTEP takes, as far as anything is known of it."
    ),
    Family {
        name: "overplane_vtep_path_mtu_source_bytes",
        kind: Gauge,
        labels: &["vtep", "source"],
        help: "The same by who says so: configured, route, learned from refusals, or verified by probes; the smallest counts.",
        samples: |reading, to| {
            for vtep in &reading.stats.vteps {
                for (source, mtu) in [
                    ("configured", vtep.path.configured),
                    ("route", vtep.path.route),
                    ("learned", vtep.path.learned),
                    ("verified", vtep.path.verified),
                ] {
                    if let Some(mtu) = mtu {
                        to.sample(&[&vtep.address, &source], mtu);
                    }
                }
            }
        },
    },
    Family {
        name: "overplane_vtep_probe_state",
        kind: Gauge,
        labels: &["vtep", "state"],
        help: "1 for how far probing the path to a VTEP is: base, searching, complete or no_answer; 0 for the others.",
        samples: |reading, to| {
            for (vtep, probe) in
                reading.stats.vteps.iter().filter_map(|vtep| vtep.probe.map(|probe| (vtep, probe)))
            {
                for state in PROBE_STATES {
                    to.sample(&[&vtep.address, &state.name()], probe.state == state);
                }
            }
        },
    },
    by_vtep!(
        "overplane_vtep_probes_sent",
        Counter,
        |vtep| vtep.probe.map(|probe| probe.sent),
        "Probes that were sent to a VTEP."
    ),
    by_vtep!(
        "overplane_vtep_probes_answered",
        Counter,
        |vtep| vtep.probe.map(|probe| probe.answered),
        "Probes that a VTEP answered in time."
    ),
    by_vtep!(
        "overplane_vtep_black_holes",
        Counter,
        |vtep| vtep.probe.map(|probe| probe.black_holes),
        "Times that packets of a size were found to vanish without a word on the way to a VTEP."
    ),
    by_vtep!(
        "overplane_vtep_probe_verified_bytes",
        Gauge,
        |vtep| vtep.probe.and_then(|probe| probe.verified),
        "Largest outer IP packets that are known to get to a VTEP."
    ),
    by_vtep!(
        "overplane_vtep_probe_answer_age_seconds",
        Gauge,
        |vtep| vtep.probe.and_then(|probe| probe.last_answer),
        "Time since a VTEP last answered a probe."
    ),
    by_vtep!(
        "overplane_vtep_probe_round_trip_seconds",
        Gauge,
        |vtep| vtep.probe.and_then(|probe| probe.round_trip),
        "Time that a VTEP took for its last answer to a probe."
    ),
];

/// What the host's kernel does, or does not.
const HOST: &[Family] = &[
    Family {
        name: "overplane_socket_overflows",
        kind: Counter,
        labels: &[],
        help: "Datagrams that the kernel dropped because a receive buffer was full.",
        samples: |reading, to| to.sample(&[], reading.stats.socket_overflows),
    },
    Family {
        name: "overplane_socket_receive_buffer_bytes",
        kind: Gauge,
        labels: &["udp_port"],
        help: "Receive buffer of each socket of a UDP port, as the kernel granted it.",
        samples: |reading, to| {
            for port in &reading.underlay {
                to.sample(&[&port.udp_port], port.receive_buffer);
            }
        },
    },
    Family {
        name: "overplane_socket_send_buffer_bytes",
        kind: Gauge,
        labels: &["udp_port"],
        help: "Send buffer of each socket of a UDP port, as the kernel granted it.",
        samples: |reading, to| {
            for port in &reading.underlay {
                to.sample(&[&port.udp_port], port.send_buffer);
            }
        },
    },
    Family {
        name: "overplane_offload_state",
        kind: Gauge,
        labels: &["offload", "state"],
        help: "1 for what an offload is: on, off (as was asked for), unavailable here, or failed; 0 for the others.",
        samples: |reading, to| {
            for info in &reading.stats.offloads {
                let is = offload_state(&info.state);
                for state in OFFLOAD_STATES {
                    to.sample(&[&info.offload, &state], state == is);
                }
            }
        },
    },
    Family {
        name: "overplane_offload_failures",
        kind: Counter,
        labels: &["offload"],
        help: "Times that an offload failed while frames were forwarded.",
        samples: |reading, to| {
            for info in &reading.stats.offloads {
                to.sample(&[&info.offload], info.failures);
            }
        },
    },
];

const PROBE_STATES: [ProbeState; 4] =
    [ProbeState::Base, ProbeState::Searching, ProbeState::Complete, ProbeState::Error];

const OFFLOAD_STATES: [&str; 4] = ["on", "off", "unavailable", "failed"];

fn offload_state(state: &OffloadState) -> &'static str {
    match state {
        OffloadState::On => OFFLOAD_STATES[0],
        OffloadState::Off => OFFLOAD_STATES[1],
        OffloadState::Unavailable(_) => OFFLOAD_STATES[2],
        _ => OFFLOAD_STATES[3],
    }
}

/// A segment as a label: as requests name it, always with its UDP port, so that the name stays when another segment comes.
fn label(segment: SegmentId) -> SegmentName {
    segment.into()
}

fn kind(kind: &overplane::Kind) -> &'static str {
    match kind {
        overplane::Kind::Bridge(_) => "bridge",
        overplane::Kind::RoutedVxlan { .. } => "routed-vxlan",
        overplane::Kind::Routed => "routed",
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Decision => "decision",
        Stage::Output => "output",
    }
}
