//! Sending many datagrams with one call, several of them in one message where they are of one length.
//!
//! The arrays are allocated once. Every pointer in them is written anew before each call that lets the kernel follow
//! it, and nothing follows one after the call.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::RawAddress;
use super::checked;
use super::cmsg::SendControl;
use super::message::{MAX_MESSAGES, MAX_VECTORS, NO_BYTES, no_messages};
use crate::segment::OuterHeader;
use crate::wire::eth::Cast;

/// Most bytes of the datagrams of a train: so many that it stays whole down to a device, where the headers of UDP, IP
/// and Ethernet with a VLAN tag are part of it, and 65,536 bytes are too many (kernel `net/core/dev.c`,
/// `gso_features_check`). A send takes a few more (65,507 and 65,527), but the kernel would cut them before the device.
const MAX_BYTES_V4: usize = 65_535 - 8 - 20 - 18;
const MAX_BYTES_V6: usize = 65_535 - 8 - 40 - 18;

/// Where a datagram goes, and what its IP header is to say: the same for all of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) to: SocketAddr,
    pub(crate) outer: OuterHeader,
}

impl From<SocketAddr> for Heading {
    fn from(to: SocketAddr) -> Self {
        Self { to, outer: OuterHeader::default() }
    }
}

/// A message: one datagram, or several of one heading and one length but for the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Train {
    /// Number of datagrams.
    datagrams: usize,
    /// Length of all but the last.
    stride: usize,
    /// Length of all together.
    len: usize,
    /// Where its bytes are.
    vector: usize,
    vectors: usize,
    address: usize,
    address_len: libc::socklen_t,
    outer: OuterHeader,
}

impl Train {
    const EMPTY: Self = Self {
        datagrams: 0,
        stride: 0,
        len: 0,
        vector: 0,
        vectors: 0,
        address: 0,
        address_len: 0,
        outer: OuterHeader { tos: 0, ttl: 0, may_fragment: false, cast: Cast::Unicast },
    };

    /// Number of datagrams.
    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// The length of each datagram, in order.
    fn lengths(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { datagrams, stride, len, .. } = *self;
        (0..datagrams).map(move |index| stride.min(len - index * stride))
    }

    /// Whether a datagram of `len` bytes with the same heading can be the next.
    ///
    /// One of no bytes never can: nothing would be left of it. Neither can any follow one that is shorter than the rest.
    #[inline]
    fn takes(&self, len: usize, max_bytes: usize) -> bool {
        let all_full = self.len == self.stride * self.datagrams;
        all_full && len > 0 && len <= self.stride && self.len + len <= max_bytes
    }
}

/// The arrays of `sendmmsg(2)`.
pub(crate) struct SendGroup {
    trains: Vec<Train>,
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[RawAddress]>,
    controls: Box<[SendControl]>,
}

// SAFETY: the pointers inside are not followed between calls, so no other thread's memory is reached through them.
unsafe impl Send for SendGroup {}

impl SendGroup {
    /// Makes room for up to `count` messages a call (1 to 1024; other values are brought into that range).
    pub(crate) fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_MESSAGES);
        Self {
            trains: Vec::with_capacity(count),
            messages: no_messages(count),
            // As many as one message may have, so that its limit needs no watching.
            vectors: vec![NO_BYTES; MAX_VECTORS].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; count].into_boxed_slice(),
            controls: vec![SendControl::EMPTY; count].into_boxed_slice(),
        }
    }

    /// Takes as many datagrams from `datagrams` as there is room for, at most `most` in one message.
    ///
    /// Each consists of the bytes of both parts.
    pub(crate) fn load<'q, 'a>(
        &'q mut self,
        datagrams: &mut impl Iterator<Item = (Heading, [&'a [u8]; 2])>,
        most: usize,
    ) -> Loaded<'q, 'a> {
        let Self { trains, messages, vectors, addresses, .. } = self;
        trains.clear();
        let mut train = Train::EMPTY;
        let (mut vector, mut known, mut max_bytes) = (0, 0, 0);
        let mut last = None;
        // There is room for one more, whether it begins a message or not.
        while vector + 2 <= vectors.len()
            && trains.len() + usize::from(train.datagrams > 0) < messages.len()
        {
            let Some((heading, parts)) = datagrams.next() else { break };
            let len = parts[0].len() + parts[1].len();
            let same = last == Some(heading);
            if !(same && train.datagrams < most && train.takes(len, max_bytes)) {
                if train.datagrams > 0 {
                    trains.push(train);
                }
                if !same {
                    let Heading { to, outer } = heading;
                    last = Some(heading);
                    train.outer = outer;
                    max_bytes = if to.is_ipv4() { MAX_BYTES_V4 } else { MAX_BYTES_V6 };
                    train.address = known;
                    train.address_len = addresses[known].set(to);
                    known += 1;
                }
                train = Train { datagrams: 0, stride: len, len: 0, vector, vectors: 0, ..train };
            }
            for part in parts.iter().filter(|part| !part.is_empty()) {
                vectors[vector] =
                    libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
                vector += 1;
            }
            train.datagrams += 1;
            train.len += len;
            train.vectors = vector - train.vector;
        }
        if train.datagrams > 0 {
            trains.push(train);
        }
        self.point();
        Loaded { waiting: 0..self.trains.len(), group: self, parts: PhantomData }
    }

    /// How many of the vectors of `train` belong to its first datagram.
    fn vectors_of_first(&self, train: &Train) -> usize {
        let mut left = train.stride.min(train.len);
        let vectors = &self.vectors[train.vector..train.vector + train.vectors];
        let part = |vector: &&libc::iovec| {
            let more = left > 0;
            left = left.saturating_sub(vector.iov_len);
            more
        };
        vectors.iter().take_while(part).count()
    }

    /// Makes the messages those of the trains.
    fn point(&mut self) {
        let vectors = self.vectors.as_mut_ptr();
        let addresses = self.addresses.as_mut_ptr();
        for ((train, message), control) in
            self.trains.iter().zip(&mut self.messages).zip(&mut self.controls)
        {
            let header = &mut message.msg_hdr;
            header.msg_name = addresses.wrapping_add(train.address).cast();
            header.msg_namelen = train.address_len;
            header.msg_iov = vectors.wrapping_add(train.vector);
            header.msg_iovlen = train.vectors as _;
            control.set_header(train.address_len == RawAddress::LEN, train.outer);
            let len = match train.datagrams {
                1 => control.header_len(),
                // Fits: several datagrams together are shorter than 65,536 bytes.
                _ => control.set_stride(train.stride as u16),
            };
            header.msg_control = std::ptr::from_mut(control).cast();
            header.msg_controllen = len as _;
        }
    }
}

impl fmt::Debug for SendGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendGroup").field("capacity", &self.messages.len()).finish_non_exhaustive()
    }
}

/// Messages ready to be sent; borrows their bytes.
#[derive(Debug)]
pub(crate) struct Loaded<'q, 'a> {
    group: &'q mut SendGroup,
    waiting: Range<usize>,
    parts: PhantomData<&'a [u8]>,
}

impl Loaded<'_, '_> {
    /// The messages that are neither sent nor skipped.
    pub(crate) fn waiting(&self) -> &[Train] {
        &self.group.trains[self.waiting.clone()]
    }

    /// Sends waiting messages in order up to the first that fails, without waiting; calls `sent` with the length of each
    /// datagram in those sent, in order.
    ///
    /// # Errors
    ///
    /// That of the first waiting message; it stays waiting.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        sent: impl FnMut(usize),
    ) -> io::Result<()> {
        let Range { start, end } = self.waiting;
        let count = {
            let messages = self.group.messages[start..end].as_mut_ptr();
            let (fd, count) = (socket.as_raw_fd(), (end - start) as libc::c_uint);
            // SAFETY: `load` made these messages point to vectors, addresses and control messages of the group, which
            // this value borrows mutably since then, and the vectors to bytes that it borrows.
            unsafe { libc::sendmmsg(fd, messages, count, libc::MSG_DONTWAIT as _) }
        };
        let count = checked(count)?.unsigned_abs() as usize;
        self.waiting.start = end.min(start + count);
        self.group.trains[start..self.waiting.start].iter().flat_map(Train::lengths).for_each(sent);
        Ok(())
    }

    /// Gives up the first waiting message.
    pub(crate) fn skip(&mut self) {
        self.waiting.next();
    }

    /// Sends the first datagram of the first waiting message by itself, without waiting, and returns its length.
    ///
    /// It stays waiting in any case; [`Loaded::skip_datagram`] goes on to the next.
    ///
    /// # Errors
    ///
    /// That of the datagram, or `InvalidInput` if nothing is waiting.
    #[cold]
    pub(crate) fn send_datagram(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let Some(train) = self.waiting().first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let vectors = self.group.vectors_of_first(train);
        let mut header = self.group.messages[self.waiting.start].msg_hdr;
        header.msg_iovlen = vectors as _;
        header.msg_controllen = self.group.controls[self.waiting.start].header_len() as _;
        // SAFETY: as above; of the vectors of the message, these are the first.
        let sent = unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT as _)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Gives up the first datagram of the first waiting message, and the message if it was the last.
    pub(crate) fn skip_datagram(&mut self) {
        let start = self.waiting.start;
        let Some(train) = self.waiting().first().filter(|train| train.datagrams > 1) else {
            return self.skip();
        };
        let vectors = self.group.vectors_of_first(train);
        let train = &mut self.group.trains[start];
        train.datagrams -= 1;
        train.len -= train.stride;
        train.vector += vectors;
        train.vectors -= vectors;
        let header = &mut self.group.messages[start].msg_hdr;
        header.msg_iov = header.msg_iov.wrapping_add(vectors);
        header.msg_iovlen = train.vectors as _;
    }
}
