//! Links: making, changing and reading them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::Namespace;
use crate::error::{Attempt, corrupt, invalid};

/// What has gone through a link since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped instead of sent.
    pub tx_dropped: u64,
}

impl Namespace {
    /// Makes a pair of connected Ethernet links, one end in `a` and one in `b`, both down.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, for a name that is taken for one.
    pub fn veth(a: &Self, name_a: &str, b: &Self, name_b: &str) -> io::Result<()> {
        let what = || format!("making the veth pair {name_a} and {name_b}");
        check_name(name_b).attempt(what)?;
        let mut peer = LinkMessage::default();
        peer.header.index = next_index();
        peer.attributes = vec![
            LinkAttribute::IfName(name_b.into()),
            LinkAttribute::NetNsFd(b.as_fd().as_raw_fd()),
        ];
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        let add = || {
            let mut message = link_message(name_a, InfoKind::Veth, Some(data))?;
            message.header.index = next_index();
            a.new_link(message)
        };
        add().attempt(what)
    }

    /// Brings a link up.
    ///
    /// It may take a moment until it carries anything: see [`wait_up`](Self::wait_up).
    ///
    /// # Errors
    ///
    /// When there is no such link or the kernel refuses.
    pub fn up(&self, name: &str) -> io::Result<()> {
        self.set_flag(name, LinkFlags::Up).attempt(|| format!("bringing {name} up"))
    }

    /// Takes a link down.
    ///
    /// # Errors
    ///
    /// When there is no such link or the kernel refuses.
    pub fn down(&self, name: &str) -> io::Result<()> {
        self.set_flag(name, LinkFlags::empty()).attempt(|| format!("taking {name} down"))
    }

    /// Waits until a link is up and connected, with all that hangs on that: its IPv6 addresses work
    /// and, where it is a bridge's port, it forwards.
    ///
    /// Without this the first packets may be lost, and with them a second until they are repeated.
    ///
    /// # Errors
    ///
    /// When there is no such link, or it is not up within `timeout`.
    pub fn wait_up(&self, name: &str, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let wait = || {
            while !self.works(name)? {
                if Instant::now() >= deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it is not in time"));
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        wait().attempt(|| format!("waiting for {name} to be up and connected"))
    }

    /// Deletes a link, and its peer where it is one of a pair.
    ///
    /// # Errors
    ///
    /// When there is no such link or the kernel refuses.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        let delete = || {
            let mut message = LinkMessage::default();
            message.header.index = self.find(name)?;
            self.request(RouteNetlinkMessage::DelLink(message), 0).map(drop)
        };
        delete().attempt(|| format!("deleting {name}"))
    }

    /// Whether there is a link of that name.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The number that the namespace knows a link by.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        self.find(name).attempt(|| format!("looking for {name}"))
    }

    /// Sets a link's MTU, in bytes of what its frames carry.
    ///
    /// # Errors
    ///
    /// When there is no such link or it does not take that MTU.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> io::Result<()> {
        self.change(name, vec![LinkAttribute::Mtu(mtu)])
            .attempt(|| format!("setting the MTU of {name} to {mtu}"))
    }

    /// A link's MTU, in bytes of what its frames carry.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn mtu(&self, name: &str) -> io::Result<u32> {
        self.read(name, |attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
        .attempt(|| format!("reading the MTU of {name}"))
    }

    /// A link's Ethernet address.
    ///
    /// # Errors
    ///
    /// When there is no such link or it has no such address.
    pub fn mac(&self, name: &str) -> io::Result<[u8; 6]> {
        self.read(name, |attribute| match attribute {
            LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })
        .attempt(|| format!("reading the MAC address of {name}"))
    }

    /// Sets a link's Ethernet address.
    ///
    /// # Errors
    ///
    /// When there is no such link or it does not take that address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        self.change(name, vec![LinkAttribute::Address(mac.to_vec())])
            .attempt(|| format!("setting the MAC address of {name} to {mac:02x?}"))
    }

    /// Sets how many packets may wait to be sent by a link.
    ///
    /// # Errors
    ///
    /// When there is no such link or the kernel refuses.
    pub fn set_txqueuelen(&self, name: &str, packets: u32) -> io::Result<()> {
        self.change(name, vec![LinkAttribute::TxQueueLen(packets)])
            .attempt(|| format!("setting the transmit queue length of {name} to {packets}"))
    }

    /// Sets the largest packet that a link is handed to cut up itself, in bytes, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// When there is no such link or it does not take that size.
    pub fn set_gso_max_size(&self, name: &str, bytes: u32) -> io::Result<()> {
        self.change(
            name,
            vec![LinkAttribute::GsoMaxSize(bytes), LinkAttribute::GsoIpv4MaxSize(bytes)],
        )
        .attempt(|| format!("setting the largest segmented packet of {name} to {bytes} bytes"))
    }

    /// How many packets may wait to be sent by a link.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn txqueuelen(&self, name: &str) -> io::Result<u32> {
        self.read(name, |attribute| match attribute {
            LinkAttribute::TxQueueLen(packets) => Some(*packets),
            _ => None,
        })
        .attempt(|| format!("reading the transmit queue length of {name}"))
    }

    /// The largest packet that a link is handed to cut up itself, in bytes.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn gso_max_size(&self, name: &str) -> io::Result<u32> {
        self.read(name, |attribute| match attribute {
            LinkAttribute::GsoMaxSize(bytes) => Some(*bytes),
            _ => None,
        })
        .attempt(|| format!("reading the largest segmented packet of {name}"))
    }

    /// What has gone through a link since it was made.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub fn link_stats(&self, name: &str) -> io::Result<LinkStats> {
        self.read(name, |attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(LinkStats {
                rx_packets: stats.rx_packets,
                tx_packets: stats.tx_packets,
                rx_bytes: stats.rx_bytes,
                tx_bytes: stats.tx_bytes,
                rx_dropped: stats.rx_dropped,
                tx_dropped: stats.tx_dropped,
            }),
            _ => None,
        })
        .attempt(|| format!("reading the counters of {name}"))
    }

    /// The number of a link, with an error that does not name it.
    pub(crate) fn find(&self, name: &str) -> io::Result<u32> {
        self.get(name).map(|link| link.header.index)
    }

    /// Changes attributes of a link.
    pub(crate) fn change(&self, name: &str, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.find(name)?;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    /// Makes a link of a kind.
    pub(crate) fn add_link(
        &self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
    ) -> io::Result<()> {
        self.new_link(link_message(name, kind, data)?)
    }

    fn new_link(&self, message: LinkMessage) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn works(&self, name: &str) -> io::Result<bool> {
        let header = self.get(name)?.header;
        let connected = header.flags.contains(LinkFlags::Running | LinkFlags::LowerUp);
        // Without IPv6 there is nothing to list.
        Ok(connected && self.ipv6_works(header.index).unwrap_or(true))
    }

    fn get(&self, name: &str) -> io::Result<LinkMessage> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        let answers = self.request(RouteNetlinkMessage::GetLink(message), 0)?;
        answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .ok_or_else(|| corrupt("the kernel's answer has no link"))
    }

    fn read<T>(&self, name: &str, pick: impl Fn(&LinkAttribute) -> Option<T>) -> io::Result<T> {
        let link = self.get(name)?;
        link.attributes.iter().find_map(pick).ok_or_else(|| corrupt("the link has none"))
    }

    fn set_flag(&self, name: &str, flags: LinkFlags) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.find(name)?;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }
}

/// What is asked of the kernel for a new link.
fn link_message(name: &str, kind: InfoKind, data: Option<InfoData>) -> io::Result<LinkMessage> {
    check_name(name)?;
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)];
    Ok(message)
}

/// A number for one end of a pair of links.
///
/// Were it the same on both ends, as it is in two fresh namespaces, then the kernel would take the
/// ends for ordinary links and put off the news that they are up for as much as a second.
fn next_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Refuses what the kernel would cut off or misread.
fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0', ' ']) {
        return Err(invalid(format!("{name:?} is no name for a link: 1 to 15 plain bytes are")));
    }
    Ok(())
}
