//! A conversation with the kernel about links, addresses, routes and neighbours.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{corrupt, timed_out};
use crate::sockopt;

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a listing that changed under way is asked for again.
const LISTINGS: usize = 5;
/// The size of a netlink message's header, which starts the kernel's answer to a refused request.
const HEADER: usize = 16;
/// The attribute of a refusal that holds the kernel's words.
const REFUSAL_TEXT: u16 = 1;

/// A routing netlink socket of one namespace.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace, where it stays.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Both only make refusals easier to read, and are not known to old kernels.
        let _ = sockopt::set(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        let _ = sockopt::set(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        Ok(Self { socket, sequence: 0, buffer: vec![0; 1 << 16] })
    }

    /// Makes one request and returns what was answered before the acknowledgement.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        Ok(self.answers()?.0)
    }

    /// Lists everything that a request matches.
    pub(crate) fn list(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..LISTINGS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let (answers, whole) = self.answers()?;
            if whole {
                return Ok(answers);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the listing changed every time"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes).map(drop)
    }

    /// Reads up to the end of the answer; false with it when the listing was disturbed.
    fn answers(&mut self) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut answers = Vec::new();
        let mut whole = true;
        loop {
            let received = (&self.socket).read(&mut self.buffer).map_err(|e| {
                if timed_out(&e) {
                    io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")
                } else {
                    e
                }
            })?;
            let mut rest = &self.buffer[..received];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| corrupt(format!("an answer of the kernel is unreadable: {e}")))?;
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok((answers, whole)),
                    NetlinkPayload::Error(answer) if answer.code.is_none() => {
                        return Ok((answers, whole));
                    }
                    NetlinkPayload::Error(refusal) => {
                        return Err(refused(refusal.to_io(), &refusal.header));
                    }
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel's answer was lost"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The kernel's error, with its own words where it gave any.
fn refused(error: io::Error, details: &[u8]) -> io::Error {
    let attributes = NlasIterator::new(details.get(HEADER..).unwrap_or_default());
    let text = attributes.flatten().find(|attribute| attribute.kind() == REFUSAL_TEXT);
    match text {
        Some(text) => {
            let text = String::from_utf8_lossy(text.value());
            io::Error::new(error.kind(), format!("{error}: {}", text.trim_end_matches('\0')))
        }
        None => error,
    }
}
