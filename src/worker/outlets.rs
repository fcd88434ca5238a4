//! The sockets from whose ports VXLAN datagrams leave.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::Error;
use crate::config::{Config, DontFragment, ZeroChecksums};
use crate::hash::random_seed;
use crate::io::{SocketOptions, UdpSocket};

/// Room for what the kernel and routers say of datagrams that were sent, in bytes.
const ERRORS: usize = 64 << 10;

/// What all sockets at one of this node's addresses have in common.
pub(crate) fn sending_options(config: &Config, local: IpAddr) -> SocketOptions {
    let ZeroChecksums { send_v4, send_v6, accept_v6 } = config.zero_checksums;
    SocketOptions {
        send_buffer: config.send_buffer,
        may_fragment: config.dont_fragment == DontFragment::Unset,
        send_unchecked: if local.is_ipv6() { send_v6 } else { send_v4 },
        accept_unchecked: accept_v6,
        ..SocketOptions::default()
    }
}

/// Opens the sockets from whose ports VXLAN datagrams leave: those at the first address, then those at the second; of each,
/// where DF is inherited, those with DF, then as many without.
///
/// All workers send from the same ones: the source port of a flow must not depend on who sends it. Otherwise it would
/// change as the flow moves from worker to worker, and so would the worker that receives it at the other end, whose
/// device then moves the flow back to another worker here, and so on without an end.
pub(crate) fn open_entropy_sockets(config: &Config) -> Result<Arc<[UdpSocket]>, Error> {
    let mut sockets = Vec::new();
    for local in config.locals() {
        let common = SocketOptions {
            // Nobody is asked to send to these ports; peers answer to the segment's. There is room for errors.
            sends_only: true,
            receive_buffer: ERRORS,
            ..sending_options(config, local)
        };
        let mut free = FreePorts::new(local, config.source_port_range.clone());
        for bank in 0..config.banks() {
            let options = SocketOptions { may_fragment: common.may_fragment || bank > 0, ..common };
            for _ in 0..config.source_ports {
                sockets.push(free.open(&options)?);
            }
        }
    }
    Ok(sockets.into())
}

/// The place among these sockets of the one for a flow, a datagram that may be fragmented or not, and a VTEP's address.
#[inline]
pub(super) fn place(config: &Config, flow: u32, may_fragment: bool, to: IpAddr) -> usize {
    let ports = config.source_ports;
    // The upper bits of the product spread hashes evenly over any number of ports.
    let port = ((u64::from(flow) * ports as u64) >> 32) as usize;
    let bank = if may_fragment { ports } else { 0 };
    let second = to.is_ipv6() != config.local.is_ipv6();
    let family = if second { config.banks() * ports } else { 0 };
    family + bank + port
}

/// Ports to send from.
struct FreePorts {
    local: IpAddr,
    /// Those that were not tried yet; the kernel's choice if `None`.
    ports: Option<Box<dyn Iterator<Item = u16>>>,
}

impl FreePorts {
    fn new(local: IpAddr, range: Option<RangeInclusive<u16>>) -> Self {
        let ports = range.map(|range| {
            // From anywhere, so that several dataplanes of a host mostly do not meet.
            let start = random_seed() as usize % range.len().max(1);
            let later = range.clone().skip(start);
            let ports: Box<dyn Iterator<Item = u16>> = Box::new(later.chain(range.take(start)));
            ports
        });
        Self { local, ports }
    }

    /// A socket on the next port that is free.
    fn open(&mut self, options: &SocketOptions) -> Result<UdpSocket, Error> {
        let mut taken = None;
        loop {
            let port = match &mut self.ports {
                None => 0,
                Some(ports) => match (ports.next(), taken) {
                    (Some(port), _) => port,
                    (None, Some(error)) => return Err(error),
                    (None, None) => {
                        let error = io::Error::from(io::ErrorKind::AddrInUse);
                        return Err(Error::io("choosing source ports", error, "widen their range"));
                    }
                },
            };
            match UdpSocket::open(SocketAddr::new(self.local, port), options) {
                Ok((socket, _)) => return Ok(socket),
                Err(error) if port > 0 && error.is_taken() => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
    }
}
