//! Datagrams of one length, many with one call.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use crate::error::Attempt;
use crate::{Namespace, sockopt};

/// Sends datagrams of one length from one address, which the kernel cuts out of what it is handed (`UDP_SEGMENT`).
#[derive(Debug)]
pub struct TrainSender {
    socket: UdpSocket,
}

impl TrainSender {
    /// Most datagrams in one train, which is also limited to 65,000 bytes (kernel `include/linux/udp.h`,
    /// `UDP_MAX_SEGMENTS` before Linux 6.9).
    pub const MAX: usize = 64;

    /// Makes a sender of datagrams of `stride` bytes from `from`, with a port of its choice, to `to`.
    ///
    /// # Errors
    ///
    /// When the socket can not be made, or the kernel does not cut up trains.
    pub fn open(
        namespace: &Namespace,
        from: SocketAddr,
        to: SocketAddr,
        stride: u16,
    ) -> io::Result<Self> {
        let open = || {
            let socket = namespace.run(|| {
                let socket = UdpSocket::bind(from)?;
                socket.connect(to)?;
                io::Result::Ok(socket)
            })?;
            sockopt::udp_segment(&socket, stride)?;
            Ok(Self { socket })
        };
        open().attempt(|| format!("sending trains of {stride}-byte datagrams from {from} to {to}"))
    }

    /// Sends whole datagrams, one after the other in `train`.
    ///
    /// # Errors
    ///
    /// When the kernel does not take them.
    pub fn send(&self, train: &[u8]) -> io::Result<()> {
        self.socket.send(train).map(drop)
    }
}
