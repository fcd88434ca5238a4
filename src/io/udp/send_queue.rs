//! What a worker sends datagrams with.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use super::{PathNews, UdpSocket};
use crate::batch::MAX_TRAIN;
use crate::io::sys::send::{Heading, Loaded, SendGroup, Train};

/// Messages of one send call: enough to make the call itself cheap, few enough to stay in the cache.
const SEND_GROUP: usize = 64;

/// What a worker needs to send datagrams; reused for all its sockets.
#[derive(Debug)]
pub(crate) struct SendQueue {
    group: SendGroup,
    max_train: usize,
    news: PathNews,
}

impl SendQueue {
    /// Makes a queue that puts up to `max_train` datagrams into one train (1 to [`MAX_TRAIN`]; other values are brought
    /// into that range).
    pub(crate) fn new(max_train: usize) -> Self {
        let max_train = max_train.clamp(1, MAX_TRAIN);
        Self { group: SendGroup::new(SEND_GROUP), max_train, news: PathNews::default() }
    }

    /// What was found out of paths; whoever hears from sockets elsewhere adds to it.
    pub(crate) fn news(&mut self) -> &mut PathNews {
        &mut self.news
    }

    /// Sends datagrams from one socket in order, each consisting of the bytes of both parts.
    ///
    /// With `gso`, datagrams of one length and one heading that follow each other, and one shorter one after them, go
    /// as a train, which the kernel cuts (`UDP_SEGMENT`). If a train fails, its datagrams go by themselves.
    ///
    /// Calls `outcome` once for each datagram, in order, with its position and its length or why it was not sent. After
    /// an error the next ones are tried, except that all others fail as well once the socket is full (`EAGAIN`). What fails
    /// for an ICMP error about an earlier datagram is tried once more. Makes one system call for 64 datagrams or trains
    /// if none fails, and else a few for each.
    ///
    /// Returns the error of a train whose datagrams were no trouble by themselves: this socket's trains are refused, and
    /// the caller should do without them from now on.
    #[must_use]
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        messages: impl IntoIterator<Item = (impl Into<Heading>, [&'a [u8]; 2])>,
        gso: bool,
        mut outcome: impl FnMut(usize, io::Result<usize>),
    ) -> Option<io::Error> {
        let mut messages = messages.into_iter().map(|(heading, parts)| (heading.into(), parts));
        let mut index = 0;
        let mut report = |result| {
            outcome(index, result);
            index += 1;
        };
        let Self { group, max_train, news } = self;
        let mut refusal: Option<io::Error> = None;
        loop {
            let most = if gso && refusal.is_none() { *max_train } else { 1 };
            let mut loaded = group.load(&mut messages, most);
            // How many were waiting when one was tried for the second time.
            let mut again_at = None;
            if loaded.waiting().is_empty() {
                return refusal;
            }
            while let Some(first) = loaded.waiting().first().copied() {
                let is_train = first.datagrams() > 1;
                let tried = (!is_train || refusal.is_none())
                    .then(|| loaded.send(socket.as_fd(), |len| report(Ok(len))));
                let full = match tried {
                    Some(Ok(())) => false,
                    Some(Err(error)) if error.kind() == ErrorKind::Interrupted => false,
                    Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => true,
                    Some(Err(error))
                        if may_be_pending(&error)
                            && again_at.replace(loaded.waiting().len())
                                != Some(loaded.waiting().len())
                            && news.hear(socket) =>
                    {
                        false
                    }
                    Some(Err(error)) if !is_train || is_shortage(&error) => {
                        loaded.skip();
                        (0..first.datagrams()).for_each(|_| report(Err(again(&error))));
                        false
                    }
                    tried => match send_apart(&mut loaded, socket, news, &mut report) {
                        Ok(of_first) => {
                            let error = tried.and_then(Result::err);
                            refusal = refusal.or(error.filter(|error| refused(error, of_first)));
                            false
                        }
                        Err(Full) => true,
                    },
                };
                if full {
                    let waiting: usize = loaded.waiting().iter().map(Train::datagrams).sum();
                    for _ in 0..waiting + messages.count() {
                        report(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
                    }
                    return refusal;
                }
            }
        }
    }
}

/// The socket takes no more.
struct Full;

/// Sends the datagrams of the first waiting train by themselves; returns the error of the first of them, if any.
///
/// Once the socket is full, what is not sent stays waiting.
#[cold]
fn send_apart(
    loaded: &mut Loaded<'_, '_>,
    socket: &UdpSocket,
    news: &mut PathNews,
    report: &mut impl FnMut(io::Result<usize>),
) -> Result<Option<i32>, Full> {
    let datagrams = loaded.waiting().first().map_or(0, Train::datagrams);
    let mut of_first = None;
    for index in 0..datagrams {
        let mut again = true;
        let result = loop {
            match loaded.send_datagram(socket.as_fd()) {
                Err(error) if again && may_be_pending(&error) && news.hear(socket) => again = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Full),
                result => break result,
            }
        };
        if index == 0 {
            of_first = result.as_ref().err().and_then(io::Error::raw_os_error);
        }
        loaded.skip_datagram();
        report(result);
    }
    Ok(of_first)
}

/// Whether a train failed because it is one, given the error of its first datagram by itself, if any.
///
/// `EIO` says that the route cannot carry trains, `EINVAL` much else; if both meet the same error, the train is not to
/// blame. Before Linux 6.14, `EINVAL` also stood for datagrams above the path MTU, which by themselves fail with
/// `EMSGSIZE` (kernel `net/ipv4/udp.c`, `udp_send_skb`).
fn refused(error: &io::Error, of_first: Option<i32>) -> bool {
    let of_train = error.raw_os_error();
    matches!(of_train, Some(libc::EIO | libc::EINVAL))
        && of_first != of_train
        && of_first != Some(libc::EMSGSIZE)
}

/// Whether an error may be about a datagram that was sent earlier, and found wanting by a router or its receiver
/// (kernel `net/ipv4/icmp.c`, `icmp_err_convert`, and `net/ipv6/icmp.c`, `icmpv6_err_convert`).
fn may_be_pending(error: &io::Error) -> bool {
    use libc::{
        EACCES, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, ENONET, ENOPROTOOPT,
        EOPNOTSUPP, EPROTO,
    };
    matches!(
        error.raw_os_error(),
        Some(
            EACCES
                | ECONNREFUSED
                | EHOSTDOWN
                | EHOSTUNREACH
                | EMSGSIZE
                | ENETUNREACH
                | ENONET
                | ENOPROTOOPT
                | EOPNOTSUPP
                | EPROTO
        )
    )
}

/// Whether the kernel is short of room for a moment, which many small datagrams would not help.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// The same error of the operating system once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
