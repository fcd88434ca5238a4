//! What the underlay says of datagrams that were sent.

use std::net::IpAddr;
use std::os::fd::AsFd;

use super::UdpSocket;
use crate::io::sys::error_queue;

/// Entries that are taken from a socket's queue at a time, and news that are kept.
const MOST: usize = 64;

/// A path that turned out to be narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathLesson {
    pub(crate) to: IpAddr,
    /// The largest packet, in bytes, that gets there.
    pub(crate) mtu: u32,
    /// Whether this node's kernel said so, rather than a router.
    pub(crate) local: bool,
}

/// Which paths turned out to be narrow, each once.
#[derive(Debug, Default)]
pub(crate) struct PathNews(Vec<PathLesson>);

impl PathNews {
    /// Takes in what a socket has to say, and returns whether it may have failed for something that was sent earlier.
    ///
    /// A router's answer makes the next call fail, whatever that is to send. Of what this node refuses itself, the call
    /// is at fault that meets the error. Without any entry there may have been no room for one.
    pub(crate) fn hear(&mut self, socket: &UdpSocket) -> bool {
        let (entries, routers) = self.take(socket);
        entries == 0 || routers > 0
    }

    /// The same; returns whether a router has said anything.
    pub(crate) fn hear_router(&mut self, socket: &UdpSocket) -> bool {
        self.take(socket).1 > 0
    }

    /// Takes entries from a socket's queue and returns how many, and how many of them are from routers.
    fn take(&mut self, socket: &UdpSocket) -> (usize, usize) {
        let (mut entries, mut routers) = (0, 0);
        while entries < MOST
            && let Some(error) = error_queue::next(socket.as_fd())
        {
            entries += 1;
            routers += usize::from(!error.local);
            // Very old routers do not say how large it may be (RFC 1191 §5): the kernel guesses, and will refuse.
            if error.errno == libc::EMSGSIZE && error.info > 0 {
                self.add(PathLesson { to: error.to, mtu: error.info, local: error.local });
            }
        }
        (entries, routers)
    }

    fn add(&mut self, lesson: PathLesson) {
        if let Some(known) = self.0.iter_mut().find(|known| known.to == lesson.to) {
            if lesson.mtu < known.mtu {
                *known = lesson;
            }
        } else if self.0.len() < MOST {
            self.0.push(lesson);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = PathLesson> + '_ {
        self.0.drain(..)
    }
}
