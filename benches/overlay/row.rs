//! What is measured of each system.

use std::fmt;

use clap::ValueEnum;
use overplane_lab::UdpSender;

/// Content of the datagrams of all floods, in bytes: frames of 106 bytes.
pub const PAYLOAD: u16 = 64;
/// Datagrams in a super-frame of a sender that uses `UDP_SEGMENT`: the most that every kernel takes
/// (`UDP_MAX_SEGMENTS`, `include/linux/udp.h`).
const PER_CALL: u16 = 64;

/// Something to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Row {
    /// TCP over one connection
    Tcp1,
    /// TCP over four connections
    Tcp4,
    /// TCP over one connection in each direction, the sum of both
    TcpBoth,
    /// 64-byte datagrams of one flow, each by a send() of its own
    Udp1,
    /// 64-byte datagrams of 16 flows in turn, each by a send() of its own
    Udp16,
    /// 64-byte datagrams of one flow, 64 by a send() with UDP_SEGMENT
    Gso1,
    /// 64-byte datagrams of 16 flows in turn, 64 by a send() with UDP_SEGMENT
    Gso16,
    /// 64-byte datagrams of one flow, 64 by a send() with UDP_SEGMENT, to a receiver with UDP_GRO
    GsoGro,
    /// A byte there and back over TCP
    Latency,
    /// Memory of the nodes, and their CPU time while nothing flows
    Nodes,
}

/// A number that comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// What arrives: 10⁹ bits per second of TCP, 10³ datagrams per second of UDP.
    Rate(Row),
    /// CPU time of the whole machine: seconds per 10⁹ bytes of TCP, per 10⁶ datagrams of UDP.
    Cpu(Row),
    /// Half of the round trips are shorter, in microseconds.
    Median,
    /// 99 of 100 round trips are shorter, in microseconds.
    P99,
    /// Resident memory of a node, in MiB.
    Memory,
    /// CPU time of a node while nothing flows, in percent of a CPU.
    Idle,
}

impl Row {
    /// The name on the command line and in JSON.
    pub fn key(self) -> String {
        self.to_possible_value().map(|value| value.get_name().into()).unwrap_or_default()
    }

    /// Number of TCP connections each way; none for a row that is no such transfer.
    pub fn streams(self) -> Option<[usize; 2]> {
        match self {
            Self::Tcp1 => Some([1, 0]),
            Self::Tcp4 => Some([4, 0]),
            Self::TcpBoth => Some([1, 1]),
            _ => None,
        }
    }

    /// How datagrams are sent; none for a row that is no flood.
    pub fn sender(self) -> Option<UdpSender> {
        let how = |flows, per_call| {
            let joined = self == Self::GsoGro;
            Some(UdpSender { payload: PAYLOAD, flows, per_call, joined })
        };
        match self {
            Self::Udp1 => how(1, 1),
            Self::Udp16 => how(16, 1),
            Self::Gso1 => how(1, PER_CALL),
            Self::Gso16 => how(16, PER_CALL),
            Self::GsoGro => how(1, PER_CALL),
            _ => None,
        }
    }

    /// What comes out of it.
    pub fn metrics(self) -> Vec<Metric> {
        match self {
            Self::Latency => vec![Metric::Median, Metric::P99],
            Self::Nodes => vec![Metric::Memory, Metric::Idle],
            _ => vec![Metric::Rate(self), Metric::Cpu(self)],
        }
    }
}

impl Metric {
    /// The name in JSON.
    pub fn key(self) -> String {
        match self {
            Self::Rate(row) => row.key(),
            Self::Cpu(row) => format!("{}-cpu", row.key()),
            Self::Median => "rtt-p50".into(),
            Self::P99 => "rtt-p99".into(),
            Self::Memory => "rss".into(),
            Self::Idle => "idle-cpu".into(),
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate(row) if row.streams().is_some() => "Gb/s",
            Self::Rate(_) => "kpps",
            Self::Cpu(row) if row.streams().is_some() => "s/GB",
            Self::Cpu(_) => "s/Mpkt",
            Self::Median | Self::P99 => "µs",
            Self::Memory => "MiB",
            Self::Idle => "%",
        }
    }

    /// A value as it is shown.
    pub fn show(self, value: f64) -> String {
        let digits = match self {
            Self::Rate(row) if row.streams().is_none() => 0,
            Self::Memory | Self::Median | Self::P99 => 1,
            Self::Idle => 3,
            _ => 2,
        };
        if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(row) => row.fmt(f),
            Self::Cpu(row) => write!(f, "CPU, {row}"),
            Self::Median => f.write_str("round trip, p50"),
            Self::P99 => f.write_str("round trip, p99"),
            Self::Memory => f.write_str("memory of a node"),
            Self::Idle => f.write_str("CPU of a node, idle"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp1 => "TCP, 1 flow",
            Self::Tcp4 => "TCP, 4 flows",
            Self::TcpBoth => "TCP, both ways",
            Self::Udp1 => "UDP, 1 flow",
            Self::Udp16 => "UDP, 16 flows",
            Self::Gso1 => "UDP GSO, 1 flow",
            Self::Gso16 => "UDP GSO, 16 flows",
            Self::GsoGro => "UDP GSO to GRO, 1 flow",
            Self::Latency => "round trip",
            Self::Nodes => "nodes",
        })
    }
}
