//! The underlay's links and routes, asked for and followed (rtnetlink).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use socket2::{Domain, Socket, Type};

use super::netlink::{self, IFINFO, NLM_F_REQUEST, NLMSG, attribute};
use super::netns;
use super::sys::{ioctl, options};
use crate::error::Error;

// Message headers: `struct ifaddrmsg` and `struct rtmsg` (kernel `include/uapi/linux/if_addr.h` and `rtnetlink.h`).
const IFADDR: usize = 8;
const RTMSG: usize = 12;

/// A message that nobody acts upon (kernel `include/uapi/linux/netlink.h`).
const NLMSG_NOOP: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

// Attributes (kernel `include/uapi/linux/if_link.h`, `if_addr.h` and `rtnetlink.h`).
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_METRICS: u16 = 8;
const RTA_CACHEINFO: u16 = 12;
const RTAX_MTU: u16 = 2;

/// Groups of news (kernel `include/uapi/linux/rtnetlink.h`, `enum rtnetlink_groups`): of links alone, and of everything
/// that decides about routes.
const LINKS: &[i32] = &[1];
const LINKS_AND_ROUTES: &[i32] = &[1, 5, 7, 9, 11];

/// Messages that one look at the news takes at most.
const MOST: usize = 256;

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Calls `each` with kind and body of each message of a datagram.
fn messages(mut datagram: &[u8], mut each: impl FnMut(u16, &[u8])) {
    while let Some(len) = number(datagram, 0).map(|len| len as usize)
        && let Some(message) = datagram.get(..len).filter(|message| message.len() >= NLMSG)
    {
        each(u16::from_ne_bytes([message[4], message[5]]), &message[NLMSG..]);
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Largest packet, in bytes, that the kernel would send to `to` from an address of this node: the MTU of the route, or
/// less if it has learned that of the path. In the network namespace of the calling thread.
pub(crate) fn path_mtu(local: IpAddr, to: IpAddr) -> io::Result<u32> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(to, 0)), Type::DGRAM, None)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    // Discard (RFC 863), but nothing is ever sent.
    socket.connect(&SocketAddr::new(to, 9).into())?;
    options::path_mtu(socket.as_fd(), to.is_ipv6())
}

/// Asks about links and routes of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Routes {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: netlink::open_to_ask()?, buffer: vec![0; 1 << 15] })
    }

    /// The MTU of the interface with an address; `None` if there is none, or it is the loopback interface, whose MTU
    /// says nothing.
    pub(crate) fn interface_mtu(&mut self, local: IpAddr) -> io::Result<Option<u32>> {
        let octets = octets(local);
        let mut index = None;
        let family = [family(local), 0, 0, 0, 0, 0, 0, 0];
        self.ask(libc::RTM_GETADDR, NLM_F_DUMP, &family, &[], |kind, body| {
            let Some(list) = body.get(IFADDR..).filter(|_| kind == libc::RTM_NEWADDR) else {
                return;
            };
            // The address of a point-to-point link is the other end's.
            let address = attribute(list, IFA_LOCAL).or_else(|| attribute(list, IFA_ADDRESS));
            if address == Some(&octets[..]) {
                index = number(body, 4);
            }
        })?;
        let Some(index) = index else { return Ok(None) };
        let link = self.link(index)?;
        Ok(link.filter(|link| link.flags & libc::IFF_LOOPBACK as u32 == 0).map(|link| link.mtu))
    }

    /// The MTU of the route from an address of this node to `to`: its own, or that of its interface. `None` if there is
    /// no such route.
    ///
    /// What the kernel has learned of the path is left out, for it expires.
    pub(crate) fn route_mtu(&mut self, local: IpAddr, to: IpAddr) -> io::Result<Option<u32>> {
        let (destination, source) = (octets(to), octets(local));
        let bits = (destination.len() * 8) as u8;
        let header = [family(to), bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let attributes = [(RTA_DST, &destination[..]), (RTA_SRC, &source[..])];
        let mut found = None;
        self.ask(libc::RTM_GETROUTE, 0, &header, &attributes, |kind, body| {
            let Some(list) = body.get(RTMSG..).filter(|_| kind == libc::RTM_NEWROUTE) else {
                return;
            };
            let metrics = attribute(list, RTA_METRICS);
            let mtu = metrics.and_then(|metrics| number(attribute(metrics, RTAX_MTU)?, 0));
            let expires = attribute(list, RTA_CACHEINFO).and_then(|info| number(info, 8));
            let own = mtu.filter(|_| expires.unwrap_or(0) == 0);
            let interface = attribute(list, RTA_OIF).and_then(|index| number(index, 0));
            found = interface.map(|index| (own, index));
        })?;
        let Some((own, index)) = found else { return Ok(None) };
        match own {
            Some(mtu) => Ok(Some(mtu)),
            None => Ok(self.link(index)?.map(|link| link.mtu)),
        }
    }

    fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut header = [0; IFINFO];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut found = None;
        self.ask(libc::RTM_GETLINK, 0, &header, &[], |kind, body| {
            let Some(list) = body.get(IFINFO..).filter(|_| kind == libc::RTM_NEWLINK) else {
                return;
            };
            let mtu = attribute(list, IFLA_MTU).and_then(|mtu| number(mtu, 0));
            found = mtu.zip(number(body, 8)).map(|(mtu, flags)| Link { mtu, flags });
        })?;
        Ok(found)
    }

    /// Makes a request and calls `each` with kind and body of each message of the answer; none for what is not there.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        attributes: &[(u16, &[u8])],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let request = netlink::message(kind, NLM_F_REQUEST | flags, header, attributes);
        self.socket.write_all(&request)?;
        let mut more = true;
        while more {
            let len = self.socket.read(&mut self.buffer)?;
            more = flags == NLM_F_DUMP;
            messages(self.buffer.get(..len).unwrap_or_default(), |kind, body| {
                // A refusal is the whole answer: the kernel has no such thing.
                if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(kind)) {
                    more = false;
                }
                each(kind, body);
            });
        }
        Ok(())
    }
}

struct Link {
    mtu: u32,
    flags: u32,
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

/// Hears of changes in one network namespace.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What has changed since the last look.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Whether anything has.
    pub(crate) any: bool,
    /// Whether some of it was lost, because it was too much.
    pub(crate) lost: bool,
    /// Links that are up, or not, by index, in order.
    pub(crate) links: Vec<(u32, bool)>,
}

impl Watch {
    /// Watches links, addresses and routes of the network namespace of the calling thread.
    pub(crate) fn of_routes() -> io::Result<Self> {
        Self::open(LINKS_AND_ROUTES)
    }

    /// Watches the links of a network namespace.
    pub(crate) fn of_links(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let opened = netns::run_in(Some(namespace), || {
            Self::open(LINKS).map_err(|error| Error::io("watching links", error, ""))
        });
        opened.map_err(io::Error::other)
    }

    fn open(groups: &[i32]) -> io::Result<Self> {
        let mut socket = netlink::open()?;
        socket.set_nonblocking(true)?;
        for group in groups {
            options::join_netlink_group(socket.as_fd(), *group)?;
        }
        // The socket gets its address with the first message, and hears nothing without (kernel
        // `net/netlink/af_netlink.c`, `do_one_broadcast`).
        socket.write_all(&netlink::message(NLMSG_NOOP, 0, &[], &[]))?;
        Ok(Self { socket, buffer: vec![0; 1 << 15] })
    }

    /// The number of the link `name` of the namespace that is watched, and whether it is up.
    pub(crate) fn link(&self, name: &str) -> Option<(u32, bool)> {
        ioctl::device_link(self.socket.as_fd(), name).ok()
    }

    /// Takes what there is to hear, without waiting.
    pub(crate) fn drain(&mut self) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..MOST {
            let len = match self.socket.read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return changes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // There was no room for some (`ENOBUFS`).
                Err(_) => {
                    (changes.any, changes.lost) = (true, true);
                    continue;
                }
            };
            changes.any = true;
            messages(self.buffer.get(..len).unwrap_or_default(), |kind, body| {
                if kind == libc::RTM_NEWLINK
                    && let (Some(index), Some(flags)) = (number(body, 4), number(body, 8))
                {
                    changes.links.push((index, flags & libc::IFF_UP as u32 != 0));
                }
            });
        }
        // Whoever has more to say than this is asked again, as if some was lost: there is no other edge.
        changes.lost = true;
        changes
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What tells a network namespace apart from others.
pub(crate) fn identity(namespace: &OwnedFd) -> Option<(u64, u64)> {
    let metadata = File::from(namespace.try_clone().ok()?).metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_says_nothing_and_has_a_route() {
        let mut routes = Routes::open().unwrap();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(routes.interface_mtu(loopback).unwrap(), None);
        assert_eq!(routes.interface_mtu([192, 0, 2, 77].into()).unwrap(), None, "no such address");
        let mtu = routes.route_mtu(loopback, loopback).unwrap();
        assert!(mtu.is_some_and(|mtu| mtu > 1500), "{mtu:?}");
        assert_eq!(routes.route_mtu([192, 0, 2, 77].into(), loopback).unwrap(), None);
    }

    #[test]
    fn broken_messages_end_the_list() {
        let mut datagram = vec![0; 40];
        datagram[0] = 20;
        datagram[4] = 9;
        datagram[20] = 20;
        datagram[24] = 8;
        let kinds = |datagram: &[u8]| {
            let mut kinds = Vec::new();
            messages(datagram, |kind, _| kinds.push(kind));
            kinds
        };
        assert_eq!(kinds(&datagram), [9, 8]);
        assert_eq!(kinds(&datagram[..39]), [9]);
        for len in [0, 1, 15, 255] {
            datagram[20] = len;
            assert_eq!(kinds(&datagram), [9], "a length of {len}");
        }
    }

    #[test]
    fn nothing_is_heard_while_nothing_happens() {
        let mut watch = Watch::of_routes().unwrap();
        assert!(!watch.drain().lost);
    }
}
