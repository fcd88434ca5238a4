//! Hosts, links and traffic for overplane's own tests, benches and demo.
//!
//! A [`Namespace`] is a host: a network namespace that nothing but this process holds, so that it
//! is gone, with all its links, as soon as the process is, however that ends. Links between hosts,
//! addresses, routes and kernel overlays are made with methods on it, traffic with [`ping()`],
//! [`tcp_transfer`], [`udp_flood`] and their like, or as a [`TcpLoad`] or [`UdpLoad`] that runs until
//! it is stopped, and a [`Sniffer`] shows what is on a link. All of it speaks to the kernel directly:
//! no external program is needed.
//!
//! A test asks [`privileged`] first:
//!
//! ```no_run
//! use overplane_lab::{Namespace, ping_ok, privileged};
//!
//! # fn main() -> std::io::Result<()> {
//! if !privileged("two hosts reach each other") {
//!     return Ok(());
//! }
//! let (left, right) = (Namespace::new()?, Namespace::new()?);
//! Namespace::veth(&left, "eth0", &right, "eth0")?;
//! left.add_address("eth0", "10.0.0.1/24")?;
//! right.add_address("eth0", "10.0.0.2/24")?;
//! left.up("eth0")?;
//! right.up("eth0")?;
//! assert!(ping_ok(&left, [10, 0, 0, 2].into(), 1000));
//! # Ok(())
//! # }
//! ```

#![cfg(target_os = "linux")]

mod address;
mod bridge;
mod cidr;
mod clock;
mod counters;
mod error;
mod flow;
mod link;
mod load;
mod mark;
mod namespace;
mod netlink;
mod pattern;
mod ping;
mod random;
mod receive_batch;
mod refuse;
mod root;
mod sniff;
mod sockets;
mod sockopt;
mod tcp;
mod train;
mod udp;
mod vxlan;

pub use cidr::Cidr;
pub use clock::thread_time;
pub use flow::{FlowReport, UdpFlow, udp_flow};
pub use link::LinkStats;
pub use load::{TcpLoad, UdpLoad, UdpSender};
pub use mark::MarkedSocket;
pub use namespace::Namespace;
pub use pattern::Pattern;
pub use ping::{Ping, PingReport, ping, ping_ok};
pub use random::Random;
pub use refuse::refuse_gathering_writes;
pub use root::{enter_user_namespace, privileged, why_not};
pub use sniff::Sniffer;
pub use tcp::{Transfer, TransferReport, tcp_echo_latency, tcp_transfer};
pub use train::TrainSender;
pub use udp::{UdpReport, udp_flood, udp_send_recv};
pub use vxlan::Vxlan;
