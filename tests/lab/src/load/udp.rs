//! UDP as fast as it goes.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::{Shared, TICK, Threads, again};
use crate::error::{Attempt, invalid};
use crate::receive_batch::ReceiveBatch;
use crate::udp::{lost, receiver, sender};
use crate::{Namespace, sockopt};

/// Most bytes that the kernel joins.
const MAX_JOINED: usize = 65_535;

/// How datagrams are sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSender {
    /// The size of the content of each datagram, in bytes, without any header.
    pub payload: u16,
    /// From how many ports, in turn.
    pub flows: usize,
    /// How many datagrams are handed to the kernel with one call, 1 to 64: one by a plain `send`,
    /// more as a super-frame that it cuts up (`UDP_SEGMENT`).
    pub per_call: u16,
    /// Whether the receiver takes datagrams that arrive together in one piece (`UDP_GRO`).
    pub joined: bool,
}

/// Datagrams that are sent, from one thread without any pause, until that is stopped or dropped.
#[derive(Debug)]
pub struct UdpLoad {
    threads: Threads,
}

impl UdpLoad {
    /// Starts sending to a host that receives at `server_addr`.
    ///
    /// # Errors
    ///
    /// When sockets can not be made, or the kernel does not cut up super-frames.
    pub fn start(
        client: &Namespace,
        server: &Namespace,
        server_addr: SocketAddr,
        how: UdpSender,
    ) -> io::Result<Self> {
        let start = || {
            if how.flows == 0 || how.per_call == 0 || how.payload == 0 {
                return Err(invalid("there is nothing to send"));
            }
            let far = receiver(server, server_addr)?;
            far.set_read_timeout(Some(TICK))?;
            if how.joined {
                sockopt::udp_gro(&far).attempt(|| "having datagrams joined")?;
            }
            let to = far.local_addr()?;
            let sockets = (0..how.flows).map(|_| {
                let near = sender(client, to)?;
                near.set_write_timeout(Some(TICK))?;
                if how.per_call > 1 {
                    sockopt::udp_segment(&near, how.payload)
                        .attempt(|| "having super-frames cut up")?;
                }
                io::Result::Ok(near)
            });
            let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
            let mut threads = Threads::default();
            threads.spawn(move |shared| receive(&far, how, &shared));
            threads.spawn(move |shared| send(&sockets, how, &shared));
            Ok(Self { threads })
        };
        start().attempt(|| format!("starting UDP to {server_addr}"))
    }

    /// Datagrams that have arrived so far, over all flows.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.threads.arrived()
    }

    /// Ends sending and receiving.
    ///
    /// # Errors
    ///
    /// When sending or receiving failed before; a datagram lost is no failure.
    pub fn stop(self) -> io::Result<()> {
        self.threads.stop().attempt(|| "sending over UDP")
    }
}

fn send(sockets: &[UdpSocket], how: UdpSender, shared: &Shared) -> io::Result<()> {
    let content = vec![0; usize::from(how.payload) * usize::from(how.per_call)];
    while !shared.stopped() {
        for socket in sockets {
            match socket.send(&content) {
                Err(e) if !lost(&e) && !again(&e) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, how: UdpSender, shared: &Shared) -> io::Result<()> {
    let payload = usize::from(how.payload);
    let mut batch = ReceiveBatch::new(if how.joined { MAX_JOINED } else { payload });
    // Joined ones are told apart by their length: all are of one.
    let count = |length: usize| match length / payload {
        count if length.is_multiple_of(payload) && (count == 1 || how.joined) => count as u64,
        _ => 0,
    };
    while !shared.stopped() {
        match batch.receive(socket) {
            Ok(lengths) => {
                shared.arrived(lengths.map(count).sum());
            }
            Err(e) if !again(&e) => return Err(e),
            Err(_) => {}
        }
    }
    Ok(())
}
