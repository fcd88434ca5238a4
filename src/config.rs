//! How a dataplane runs.

mod underlay;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::Error;
use crate::batch::{DEFAULT_SLOTS, MAX_SLOTS};
use crate::fdb;
use crate::offload::Offloads;
use crate::path::Probing;
use crate::tables::MAX_WORKERS;
use crate::wire::vxlan::ReservedBits;
pub use underlay::{DontFragment, ZeroChecksums};

/// Default size of socket buffers, in bytes of payload: what a 10 Gb/s sender fills in about 6 ms.
pub(crate) const DEFAULT_BUFFER: usize = 7 << 20;

/// Default spin: what waking a thread costs, about.
const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// How long a learned path MTU holds (kernel `net.ipv4.route.mtu_expires`).
const DEFAULT_EXPIRY: Duration = Duration::from_secs(600);

/// Longest expiry of a learned path MTU.
const MAX_EXPIRY: Duration = Duration::from_secs(86_400);

/// Longest spin.
const MAX_SPIN: Duration = Duration::from_millis(10);

/// Largest number of source ports.
pub const MAX_SOURCE_PORTS: usize = 64;

/// Settings of a dataplane that hold for its whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// This node's underlay address, on which it receives and from which it sends.
    pub local: IpAddr,
    /// This node's underlay address of the other family; `None`, the default, if it has one only.
    ///
    /// With both, a segment can have VTEPs of both families. What is for everybody goes to all of them, so a segment's MTU
    /// is by default what fits over IPv6.
    pub second_local: Option<IpAddr>,
    /// Number of workers, 1 to [`limits::MAX_WORKERS`](crate::limits::MAX_WORKERS); default 1.
    ///
    /// A flow stays with one worker, in both directions once it is answered: workers speed many flows up, not one. The
    /// kernel deals them out by hash, of the frame where they come from a device and of the datagram's addresses and
    /// ports where they come from the underlay. [`Stats::workers`](crate::Stats::workers) shows what each gets.
    pub workers: usize,
    /// For how many learned MAC addresses there is room, in all segments together, 1 to
    /// [`limits::MAX_FDB_CAPACITY`](crate::limits::MAX_FDB_CAPACITY); default 65,536.
    ///
    /// Memory is 23 bytes for each, which the system gives when it is used first. When there is no room left the segment
    /// that has the most entries gives one: see [`Segment::fdb_evict`](crate::Segment::fdb_evict).
    pub fdb_capacity: usize,
    /// Slots for frames, super-frames or trains that one read of a source takes, 1 to [`limits::MAX_SLOTS`](crate::limits::MAX_SLOTS);
    /// default 64. Each costs about 64 KiB of address space per worker.
    pub batch: usize,
    /// UDP source ports over which VXLAN flows are spread, 0 to 64; default 4.
    ///
    /// More ports give the underlay's multipath and receive-side scaling more to tell flows apart by; fewer make
    /// longer trains of datagrams. They are also all that a peer with several [workers](Config::workers) has to deal
    /// this node's flows out by: each of `n` workers there gets none of them with a probability of
    /// `(1 - 1/n)^source_ports`, which is 6 % for 2 workers and 4 ports, 32 % for 4 workers. 0 sends from the port the
    /// segment receives on.
    pub source_ports: usize,
    /// Where the source ports come from; `None`, the default, is the host's range of ephemeral ports
    /// (`net.ipv4.ip_local_port_range`, usually 32768 to 60999), as with Linux's VXLAN device.
    ///
    /// RFC 7348 §5 recommends 49152 to 65535. Ports that are taken are passed over. A range of the firewall's should not
    /// contain the ports that segments receive on.
    pub source_port_range: Option<RangeInclusive<u16>>,
    /// Receive buffer of each underlay socket, 1 byte to 1 GiB; default 7 MiB. What the kernel granted is in
    /// [`Control::underlay`](crate::Control::underlay).
    pub receive_buffer: usize,
    /// Send buffer of each underlay socket, 1 byte to 1 GiB; default 7 MiB.
    pub send_buffer: usize,
    /// Which datagrams the underlay may fragment; default none.
    pub dont_fragment: DontFragment,
    /// Which datagrams go without UDP checksum; default none.
    pub zero_checksums: ZeroChecksums,
    /// How long a path MTU holds that the underlay has taught, 1 second to 1 day in whole seconds; default 10 minutes,
    /// as the kernel's own (`net.ipv4.route.mtu_expires`). After that larger datagrams are tried again.
    pub path_mtu_expiry: Duration,
    /// When the paths to VTEPs are probed, in segments that ask for it ([`MtuOptions::probe`](crate::MtuOptions)).
    pub probing: Probing,
    /// Follow the host: give segments without an MTU of their own what the interface with [`Config::local`] leaves, heed
    /// the MTU of the route to each VTEP, and forget what was learned behind a device that goes down; default `true`.
    ///
    /// Links, addresses and routes are watched for changes (rtnetlink) in the network namespace in which the dataplane
    /// is built, and links in those of its devices, 256 at most. The loopback interface's MTU says nothing.
    pub follow_host: bool,
    /// What becomes of VXLAN datagrams with reserved bits set; default: the bits are ignored, as RFC 7348 §5 says.
    ///
    /// Those that change what follows the header, of GPE and remote checksum offload, are refused in any case
    /// ([`DropReason::VxlanExtension`](crate::DropReason::VxlanExtension)).
    pub reserved_bits: ReservedBits,
    /// How long a worker looks again and again for more before it sleeps, while frames keep coming that fast; 0 to 10 ms,
    /// default 50 µs.
    ///
    /// Waking a sleeping thread takes tens of microseconds, which is most of what a frame spends in a dataplane. The
    /// CPU is offered to others meanwhile, and no time is spent when nothing flows. 0 always sleeps. Underlay sockets
    /// are asked for as much busy polling (`SO_BUSY_POLL`), which needs `CAP_NET_ADMIN` and a network device that has it.
    pub spin: Duration,
    /// Offloads to make use of, as far as they work here; default all. See
    /// [`Control::set_offloads`](crate::Control::set_offloads).
    pub offloads: Offloads,
    /// Number of events that wait to be read, 1 to 1,048,576; default 1024.
    pub events: usize,
}

impl Config {
    /// The default settings for a node with underlay address `local`.
    #[must_use]
    pub fn new(local: IpAddr) -> Self {
        Self {
            local,
            second_local: None,
            workers: 1,
            fdb_capacity: fdb::DEFAULT_CAPACITY,
            batch: DEFAULT_SLOTS,
            source_ports: 4,
            source_port_range: None,
            receive_buffer: DEFAULT_BUFFER,
            send_buffer: DEFAULT_BUFFER,
            dont_fragment: DontFragment::Set,
            zero_checksums: ZeroChecksums::default(),
            path_mtu_expiry: DEFAULT_EXPIRY,
            probing: Probing::default(),
            follow_host: true,
            reserved_bits: ReservedBits::default(),
            spin: DEFAULT_SPIN,
            offloads: Offloads::ALL,
            events: 1024,
        }
    }

    /// This node's underlay addresses, the first one first.
    pub(crate) fn locals(&self) -> impl Iterator<Item = IpAddr> {
        [self.local].into_iter().chain(self.second_local)
    }

    /// The one of them from which an address is sent to.
    pub(crate) fn local_for(&self, to: IpAddr) -> Option<IpAddr> {
        self.locals().find(|local| local.is_ipv4() == to.is_ipv4())
    }

    /// How often there are as many sockets to send from as source ports: those that may be fragmented are others.
    pub(crate) fn banks(&self) -> usize {
        if self.dont_fragment == DontFragment::Inherit { 2 } else { 1 }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let range = |what, value: usize, low: usize, high: usize, allowed| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(what, value.to_string(), allowed))
            }
        };
        range("number of workers", self.workers, 1, MAX_WORKERS, "1 to 64")?;
        let capacity = "1 to 1048576 entries";
        range("FDB capacity", self.fdb_capacity, 1, fdb::MAX_CAPACITY, capacity)?;
        range("frames per batch", self.batch, 1, MAX_SLOTS, "1 to 1024")?;
        range("number of source ports", self.source_ports, 0, MAX_SOURCE_PORTS, "0 to 64")?;
        if let Some(ports) = &self.source_port_range
            && (*ports.start() == 0 || ports.len() < self.banks() * self.source_ports)
        {
            let value = format!("{} to {}", ports.start(), ports.end());
            let allowed =
                "1 to 65535, and no fewer ports than `source_ports`, twice where DF is inherited";
            return Err(Error::invalid("range of source ports", value, allowed));
        }
        range("number of events", self.events, 1, 1 << 20, "1 to 1048576")?;
        let buffer = "1 byte to 1 GiB";
        range("size of the receive buffer", self.receive_buffer, 1, 1 << 30, buffer)?;
        range("size of the send buffer", self.send_buffer, 1, 1 << 30, buffer)?;
        if !(Duration::from_secs(1)..=MAX_EXPIRY).contains(&self.path_mtu_expiry) {
            let value = format!("{:?}", self.path_mtu_expiry);
            return Err(Error::invalid("expiry of path MTUs", value, "1 to 86400 seconds"));
        }
        self.probing.check()?;
        if self.spin > MAX_SPIN {
            let value = format!("{} µs", self.spin.as_micros());
            return Err(Error::invalid("spin", value, "0 to 10 ms"));
        }
        if let Some(local) = self.locals().find(IpAddr::is_unspecified) {
            let allowed = "an address of this node that its peers send to";
            return Err(Error::invalid("local underlay address", local.to_string(), allowed));
        }
        Ok(())
    }
}
