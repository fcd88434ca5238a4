//! The systems compared.

use std::net::Ipv4Addr;

use clap::ValueEnum;
use overplane::Offloads;

/// A way from one host to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum System {
    /// The wire itself, without an overlay
    Veth,
    /// VXLAN of the kernel on both hosts
    Kernel,
    /// A forwarder as simple as can be: one packet, one read, one write
    Naive,
    /// overplane VXLAN without any offload
    Off,
    /// overplane VXLAN as it is by default
    Auto,
    /// From overplane VXLAN to VXLAN of the kernel
    ToKernel,
    /// From VXLAN of the kernel to overplane VXLAN, the same pair
    FromKernel,
    /// overplane IP in UDP as it is by default
    Routed,
    /// overplane VXLAN with two workers
    Workers2,
}

/// What is at one end of it.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Wire,
    Kernel,
    Naive,
    Vxlan { offloads: Offloads, workers: usize },
    Routed,
}

impl End {
    const AUTO: Self = Self::Vxlan { offloads: Offloads::ALL, workers: 1 };

    /// Whether it is a process.
    pub fn is_node(self) -> bool {
        !matches!(self, Self::Wire | Self::Kernel)
    }

    /// Whether it speaks Ethernet, and so asks for neighbours.
    pub fn is_ethernet(self) -> bool {
        !matches!(self, Self::Naive | Self::Routed)
    }
}

impl System {
    /// The name on the command line and in JSON.
    pub fn key(self) -> String {
        self.to_possible_value().map(|value| value.get_name().into()).unwrap_or_default()
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "plain veth",
            Self::Kernel => "kernel VXLAN",
            Self::Naive => "naive forwarder",
            Self::Off => "overplane, no offloads",
            Self::Auto => "overplane",
            Self::ToKernel => "overplane → kernel",
            Self::FromKernel => "kernel → overplane",
            Self::Routed => "overplane, IP in UDP",
            Self::Workers2 => "overplane, 2 workers",
        }
    }

    /// The system whose devices it uses.
    pub fn pair(self) -> Self {
        if self == Self::FromKernel { Self::ToKernel } else { self }
    }

    /// Which host sends, and which receives, where one of them does.
    pub fn direction(self) -> (usize, usize) {
        if self == Self::FromKernel { (1, 0) } else { (0, 1) }
    }

    /// What is on the two hosts.
    pub fn ends(self) -> [End; 2] {
        match self.pair() {
            Self::Veth => [End::Wire; 2],
            Self::Kernel => [End::Kernel; 2],
            Self::Naive => [End::Naive; 2],
            Self::Off => [End::Vxlan { offloads: Offloads::NONE, workers: 1 }; 2],
            Self::Auto => [End::AUTO; 2],
            Self::ToKernel | Self::FromKernel => [End::AUTO, End::Kernel],
            Self::Routed => [End::Routed; 2],
            Self::Workers2 => [End::Vxlan { offloads: Offloads::ALL, workers: 2 }; 2],
        }
    }

    /// The name of its device, on both hosts.
    pub fn device(self) -> String {
        match self.pair() {
            Self::Veth => "eth0".into(),
            pair => format!("ovl{}", pair as u8),
        }
    }

    /// The address of its device on a host; the prefix is 24 bits.
    pub fn address(self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 8, self.pair() as u8, host as u8 + 1)
    }

    /// The UDP port of its underlay. Each system has its own, so that all can be there at once.
    pub fn udp_port(self) -> u16 {
        4789 + self.pair() as u16
    }

    /// Its VXLAN network identifier.
    pub fn vni(self) -> u32 {
        100 + self.pair() as u32
    }
}

/// The address of a host on the wire.
pub fn underlay(host: usize) -> Ipv4Addr {
    System::Veth.address(host)
}
