//! TCP as fast as it goes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Shared, TICK, Threads, again};
use crate::Namespace;
use crate::error::Attempt;
use crate::tcp::{CHUNK, Deadline, connect};

/// How long making the connections may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// TCP streams that run until they are stopped or dropped.
///
/// The content is neither made nor checked, so that as little as possible is measured but the way.
#[derive(Debug)]
pub struct TcpLoad {
    threads: Threads,
}

impl TcpLoad {
    /// Starts sending over so many connections to a host that listens at `server_addr`.
    ///
    /// # Errors
    ///
    /// When a connection can not be made within 10 seconds.
    pub fn start(
        client: &Namespace,
        server: &Namespace,
        server_addr: SocketAddr,
        streams: usize,
    ) -> io::Result<Self> {
        let start = || {
            let deadline = Deadline(Instant::now() + PATIENCE);
            let mut threads = Threads::default();
            for (near, far) in connect(client, server, server_addr, streams, deadline)? {
                for end in [&near, &far] {
                    end.set_read_timeout(Some(TICK))?;
                    end.set_write_timeout(Some(TICK))?;
                    // What is under way when the load is stopped is of no use to anybody, and
                    // would disturb what is measured next.
                    SockRef::from(end).set_linger(Some(Duration::ZERO))?;
                }
                threads.spawn(move |shared| send(near, &shared));
                threads.spawn(move |shared| receive(far, &shared));
            }
            Ok(Self { threads })
        };
        start().attempt(|| format!("starting TCP to {server_addr}"))
    }

    /// Bytes that have arrived so far, over all streams.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.threads.arrived()
    }

    /// Ends the streams, with what is under way.
    ///
    /// # Errors
    ///
    /// When a connection broke before.
    pub fn stop(self) -> io::Result<()> {
        self.threads.stop().attempt(|| "sending over TCP")
    }
}

fn send(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    while !shared.stopped() {
        match stream.write(&chunk) {
            Err(e) if !again(&e) && !shared.stopped() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn receive(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while !shared.stopped() {
        match stream.read(&mut chunk) {
            Ok(0) if !shared.stopped() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => shared.arrived(length as u64),
            Err(e) if !again(&e) && !shared.stopped() => return Err(e),
            Err(_) => {}
        }
    }
    Ok(())
}
