//! Statistics: what became of every frame, by port, VTEP, segment and drop reason.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::drop_reason::{DropReason, Stage};
use crate::offload::{OffloadInfo, OffloadState, Offloads};
use crate::path::{PathMtu, ProbeState};
use crate::segment::{PortId, SegmentId};

/// Packets and bytes in both directions, as seen from the dataplane.
///
/// Multicast and broadcast are told by the destination MAC address; in routed segments, where there is none, all packets
/// are unicast. A super-frame is one packet, and so is each datagram of a VTEP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Packets received from there.
    pub received_packets: u64,
    /// Bytes received from there.
    pub received_bytes: u64,
    /// Of the packets received, those to a group other than everybody.
    pub received_multicast: u64,
    /// Of the packets received, those to everybody.
    pub received_broadcast: u64,
    /// Of the packets received, those that were dropped instead of being sent or delivered to anybody.
    pub received_dropped: u64,
    /// Packets sent there.
    pub sent_packets: u64,
    /// Bytes sent there.
    pub sent_bytes: u64,
    /// Of the packets sent, those to a group other than everybody.
    pub sent_multicast: u64,
    /// Of the packets sent, those to everybody.
    pub sent_broadcast: u64,
    /// Packets for there that were dropped; they are none of those sent.
    pub sent_dropped: u64,
}

impl Traffic {
    /// Of the packets received, those to one station.
    #[must_use]
    pub fn received_unicast(&self) -> u64 {
        self.received_packets.saturating_sub(self.received_multicast + self.received_broadcast)
    }

    /// Of the packets sent, those to one station.
    #[must_use]
    pub fn sent_unicast(&self) -> u64 {
        self.sent_packets.saturating_sub(self.sent_multicast + self.sent_broadcast)
    }
}

/// How often anything was dropped, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// By the number of the reason; those that are missing are zero.
    pub(crate) counts: Vec<u64>,
}

impl Drops {
    /// Frames or copies dropped for `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.counts.get(reason as usize).copied().unwrap_or(0)
    }

    /// Reasons for which anything was dropped, with the number dropped.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(|reason| (*reason, self.of(*reason))).filter(|(_, n)| *n > 0)
    }

    /// Everything dropped at one stage.
    #[must_use]
    pub fn at(&self, stage: Stage) -> u64 {
        self.iter().filter(|(reason, _)| reason.stage() == stage).map(|(_, n)| n).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(drops, n)| *drops += n);
    }
}

/// What became of all frames; every frame is counted exactly once at each of two stages.
///
/// 1. The decision: `received = forwarded + flooded + answered + dropped at the decision`.
/// 2. The output, for each copy:
///    `forwarded + chunks + copies + generated = sent + delivered + dropped at the output`.
///
/// Both hold whenever no batch is under way; [`Totals::is_conserved`] checks them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames and datagrams read from ports and underlay sockets.
    pub received: u64,
    /// Frames with one destination.
    pub forwarded: u64,
    /// Chunks beyond the first of super-frames that had to be split.
    pub chunks: u64,
    /// Frames for everybody, or for a destination that is not known.
    pub flooded: u64,
    /// Copies, whole or in chunks, that were made of the flooded frames.
    pub copies: u64,
    /// Frames that ended here: requests for neighbours that were answered in their place, probes of paths, and answers to
    /// this node's.
    pub answered: u64,
    /// Frames made by the dataplane, copies of them included: ICMP errors, answers in place of neighbours, probes of paths and
    /// answers to them, and queries for members of groups.
    pub generated: u64,
    /// Datagrams that the underlay took.
    pub sent: u64,
    /// Frames that a device took.
    pub delivered: u64,
    /// Of the frames delivered, those that a device took together with an earlier one, as one super-frame.
    pub coalesced: u64,
    /// Times that a MAC address was not learned because the FDB was full, at most 32 a batch and sender; frames are forwarded all the
    /// same.
    pub learning_refused: u64,
    /// Times that a MAC address did not follow a frame to another place because it had moved in the same second already:
    /// two stations use one address, or frames loop.
    pub moves_refused: u64,
    /// Learned entries that made room for others at a limit, each of the port or VTEP that had the most.
    pub evicted: u64,
    /// ICMP errors that were not made because of the rate limit.
    pub answers_withheld: u64,
    /// Times that a station claimed an IP address that a static binding gives to another one.
    pub neighbour_conflicts: u64,
    /// Probes of paths that were made; some of those generated.
    pub probes: u64,
    /// Probes of VTEPs that were answered.
    pub probes_answered: u64,
    /// Times that a membership of a multicast group was not learned, for want of room or because too many came at once; the group
    /// is flooded.
    pub memberships_refused: u64,
    pub(crate) drops: Drops,
}

impl Totals {
    /// Frames or copies dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.of(reason)
    }

    /// Reasons for which anything was dropped, with the number dropped.
    pub fn drop_reasons(&self) -> impl Iterator<Item = (DropReason, u64)> {
        self.drops.iter()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.chunks += other.chunks;
        self.flooded += other.flooded;
        self.copies += other.copies;
        self.answered += other.answered;
        self.generated += other.generated;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.coalesced += other.coalesced;
        self.learning_refused += other.learning_refused;
        self.moves_refused += other.moves_refused;
        self.evicted += other.evicted;
        self.answers_withheld += other.answers_withheld;
        self.neighbour_conflicts += other.neighbour_conflicts;
        self.probes += other.probes;
        self.probes_answered += other.probes_answered;
        self.memberships_refused += other.memberships_refused;
        self.drops.add(&other.drops);
    }

    /// Everything dropped at one stage.
    #[must_use]
    pub fn dropped_at(&self, stage: Stage) -> u64 {
        self.drops.at(stage)
    }

    /// Whether every frame and every copy is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let decided =
            self.forwarded + self.flooded + self.answered + self.dropped_at(Stage::Decision);
        let output = self.sent + self.delivered + self.dropped_at(Stage::Output);
        self.received == decided
            && self.forwarded + self.chunks + self.copies + self.generated == output
    }
}

/// Statistics of one port. Bytes are those of the frames on the device, without the vnet header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortStats {
    /// The port.
    pub id: PortId,
    /// Name of the device.
    pub name: String,
    /// Segment it is attached to.
    pub segment: SegmentId,
    /// Frames from and to the device.
    pub traffic: Traffic,
}

/// Statistics of one VTEP. Bytes are UDP payload: what is inside the datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VtepStats {
    /// Underlay address and UDP port.
    pub address: SocketAddr,
    /// Datagrams from and to the VTEP.
    pub traffic: Traffic,
    /// How large packets to the VTEP may be, as far as is known.
    pub path: PathMtu,
    /// What probing its path has shown; `None` when it is not probed, or for tables without a dataplane.
    pub probe: Option<ProbeStats>,
}

/// What probing the path to a VTEP has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeStats {
    /// How far the search is.
    pub state: ProbeState,
    /// Size of the largest packets that are known to get there, in bytes of the outer IP packet; `None` until it is found, and
    /// when the VTEP falls silent. Where it is less than was tried, it is the [`PathMtu::verified`] that limits packets.
    pub verified: Option<u32>,
    /// Time since the VTEP answered last; `None` if it never did.
    pub last_answer: Option<Duration>,
    /// How long it took to answer then, as the worker sees it.
    pub round_trip: Option<Duration>,
    /// Probes that were sent.
    pub sent: u64,
    /// Probes that were answered in time.
    pub answered: u64,
    /// How often it was found that packets of a size vanish without a word.
    pub black_holes: u64,
}

/// As the end of a line.
impl fmt::Display for ProbeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; probes: {}, {} of {} answered", self.state.name(), self.answered, self.sent)?;
        if let Some(size) = self.verified {
            write!(f, ", {size} bytes verified")?;
        }
        if let Some(age) = self.last_answer {
            write!(f, ", the last {} s ago", age.as_secs())?;
        }
        if let Some(time) = self.round_trip {
            write!(f, " in {} µs", time.as_micros())?;
        }
        match self.black_holes {
            0 => Ok(()),
            1 => write!(f, ", 1 black hole"),
            n => write!(f, ", {n} black holes"),
        }
    }
}

/// Statistics of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// The segment.
    pub id: SegmentId,
    /// Inner frames: received from the underlay, and sent or flooded towards it (once per frame). Dropped of those sent are
    /// copies.
    pub traffic: Traffic,
    /// What was dropped in the segment, by reason: frames of its ports and datagrams that name it, and copies. Not what
    /// an underlay socket did not take: that is counted by VTEP and, with its reason, in [`Stats::totals`].
    pub drops: Drops,
    /// Learned FDB entries.
    pub learned: usize,
    /// Largest number of learned FDB entries.
    pub fdb_limit: usize,
    /// Memberships of multicast groups, learned and static ones; those that are past their time are counted until they are cleared away, every ten seconds.
    pub memberships: usize,
}

/// A set of statistics, read while traffic flows: each number is exact, but they are not of one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// All frames: the sum of [`Stats::workers`].
    pub totals: Totals,
    /// Frames by worker, in the order of `Dataplane::build`.
    ///
    /// Each worker's are [conserved](Totals::is_conserved), for no frame changes hands between workers. When one
    /// worker gets most of them there are too few flows, or too few source ports (`Config::source_ports`) at
    /// the peers, to spread over the workers.
    pub workers: Vec<Totals>,
    /// By port.
    pub ports: Vec<PortStats>,
    /// By VTEP.
    pub vteps: Vec<VtepStats>,
    /// By segment.
    pub segments: Vec<SegmentStats>,
    /// Datagrams the kernel dropped before they could be read, because a receive buffer was full.
    pub socket_overflows: u64,
    /// Events that were lost because nobody read them.
    pub events_lost: u64,
    /// Every offload with its state; empty for tables without a dataplane.
    pub offloads: Vec<OffloadInfo>,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {} packets {} bytes, sent {} packets {} bytes",
            self.received_packets, self.received_bytes, self.sent_packets, self.sent_bytes
        )?;
        let groups = [
            (self.received_broadcast + self.received_multicast, "received"),
            (self.sent_broadcast + self.sent_multicast, "sent"),
        ];
        for (n, what) in groups.iter().filter(|(n, _)| *n > 0) {
            write!(f, ", {n} {what} for groups")?;
        }
        for (n, what) in [(self.received_dropped, "received"), (self.sent_dropped, "to be sent")] {
            if n > 0 {
                write!(f, ", {n} {what} dropped")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.totals;
        writeln!(
            f,
            "frames: {} received, {} forwarded, {} further chunks, {} flooded as {} copies; {} sent, {} delivered, {} generated",
            t.received,
            t.forwarded,
            t.chunks,
            t.flooded,
            t.copies,
            t.sent,
            t.delivered,
            t.generated
        )?;
        if self.workers.len() > 1 {
            for (index, t) in self.workers.iter().enumerate() {
                writeln!(
                    f,
                    "worker {index}: {} frames received, {} sent, {} delivered",
                    t.received, t.sent, t.delivered
                )?;
            }
        }
        for segment in &self.segments {
            write!(f, "segment {}: {}", segment.id, segment.traffic)?;
            match segment.fdb_limit {
                0 => writeln!(f)?,
                limit => writeln!(f, "; {} of {limit} MACs learned", segment.learned)?,
            }
            // With one segment the sum below says the same.
            let drops = segment.drops.iter().filter(|_| self.segments.len() > 1);
            for (reason, n) in drops {
                writeln!(f, "segment {}: dropped {n}: {reason}", segment.id)?;
            }
        }
        for port in &self.ports {
            writeln!(f, "port {}: {}", port.name, port.traffic)?;
        }
        for vtep in &self.vteps {
            write!(f, "VTEP {}: {}{}", vtep.address, vtep.traffic, vtep.path)?;
            vtep.probe.map_or(Ok(()), |probe| probe.fmt(f))?;
            writeln!(f)?;
        }
        for (reason, n) in t.drop_reasons() {
            writeln!(f, "dropped {n}: {reason}: {} {}", reason.meaning(), reason.advice())?;
        }
        for (n, text) in [
            (t.coalesced, "frames delivered as part of super-frames"),
            (t.learning_refused, "MAC addresses not learned: FDB full"),
            (
                t.moves_refused,
                "moves of MAC addresses not followed: moved in the same second already",
            ),
            (t.evicted, "MAC addresses forgotten to make room"),
            (t.answers_withheld, "ICMP errors withheld"),
            (t.answered, "requests for neighbours, and probes of paths, that ended here"),
            (t.neighbour_conflicts, "claims to the IP address of a static neighbour"),
            (
                t.memberships_refused,
                "memberships of multicast groups not learned: their groups are flooded",
            ),
            (self.socket_overflows, "datagrams lost in full receive buffers"),
            (self.events_lost, "events lost"),
        ] {
            if n > 0 {
                writeln!(f, "{n} {text}")?;
            }
        }
        let is_on = |info: &&OffloadInfo| info.state == OffloadState::On;
        let on: Offloads = self.offloads.iter().filter(is_on).map(|info| info.offload).collect();
        if !on.is_empty() {
            writeln!(f, "offloads on: {on}")?;
        }
        for OffloadInfo { offload, state, failures } in &self.offloads {
            match (state, failures) {
                (OffloadState::On, 0) => {}
                (OffloadState::On, failures) => {
                    writeln!(f, "offload {offload} failed {failures} times before")?
                }
                (state, _) => writeln!(f, "offload {offload} {state}")?,
            }
        }
        Ok(())
    }
}
