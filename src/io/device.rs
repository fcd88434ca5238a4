//! Devices that can be attached to a segment.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use super::channel::{Channel, ChannelPort};
use super::queue::PortQueue;
use super::tun::Tun;
use crate::error::Error;
use crate::offload::{Offload, Offloads};
use crate::wire::MacAddr;

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Ethernet frames, for bridge segments, and for hosts to whom a routed segment is the router of their link.
    Tap,
    /// IP packets, for routed segments.
    Tun,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap => "TAP",
            Self::Tun => "TUN",
        })
    }
}

/// A device that is open and not yet attached to a segment.
///
/// Dropping it closes it; a TAP or TUN that is not persistent vanishes then. Neither addresses nor link state nor MTU
/// are configured here: that is left to the embedder.
#[derive(Debug)]
pub struct Device(Backing);

#[derive(Debug)]
enum Backing {
    Tun(Tun),
    Channel { channel: Channel, kind: DeviceKind },
}

impl Device {
    /// Opens the TAP `name`, making it if there is none, in the network namespace of the calling thread.
    ///
    /// An empty name, or a `%d` in it, lets the kernel choose; [`Device::name`] tells what it chose.
    ///
    /// Two small super-frames are written to see whether the kernel takes them. Should the device be up already, whoever
    /// captures there sees them; bridges and hosts drop them without an answer.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that no device can have, such as one above 15 bytes. [`Error::Io`] with
    /// advice when `/dev/net/tun` cannot be opened, when `CAP_NET_ADMIN` is missing, when another process holds the
    /// device, and when the name belongs to a device of another kind. [`Error::Conflict`] when another process holds
    /// queues of a multi-queue device, which the kernel would allow and then give each of both a part of the frames.
    pub fn tap(name: &str) -> Result<Self, Error> {
        Tun::open(DeviceKind::Tap, name, None).map(Self::from)
    }

    /// Opens the TUN `name`, making it if there is none, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As for [`Device::tap`].
    pub fn tun(name: &str) -> Result<Self, Error> {
        Tun::open(DeviceKind::Tun, name, None).map(Self::from)
    }

    /// Opens the TAP `name`, making it if there is none, in another network namespace.
    ///
    /// `netns` is an open file such as `/run/netns/NAME` or `/proc/PID/ns/net`; it is not needed any more afterwards.
    /// The calling thread stays where it is.
    ///
    /// # Errors
    ///
    /// As for [`Device::tap`], and [`Error::Io`] when the namespace cannot be entered, which needs `CAP_SYS_ADMIN`.
    pub fn tap_in(netns: impl AsFd, name: &str) -> Result<Self, Error> {
        Tun::open(DeviceKind::Tap, name, Some(netns.as_fd())).map(Self::from)
    }

    /// Opens the TUN `name`, making it if there is none, in another network namespace.
    ///
    /// # Errors
    ///
    /// As for [`Device::tap_in`].
    pub fn tun_in(netns: impl AsFd, name: &str) -> Result<Self, Error> {
        Tun::open(DeviceKind::Tun, name, Some(netns.as_fd())).map(Self::from)
    }

    /// Takes over a TAP or TUN that somebody else has opened, with or without vnet header and packet information.
    ///
    /// Switches the open file, of which other processes may hold duplicates, to non-blocking, and sets what the
    /// device kept from earlier users: its offloads and the length of its vnet header. Tries super-frames out as
    /// [`Device::tap`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the file is no TAP or TUN; [`Error::Io`] when it is attached to no device.
    pub fn adopt(fd: OwnedFd) -> Result<Self, Error> {
        Self::adopt_queues(vec![fd])
    }

    /// Takes over several queues of one TAP or TUN that somebody else has opened.
    ///
    /// # Errors
    ///
    /// As for [`Device::adopt`]; [`Error::Conflict`] when the files are attached to different devices, and
    /// [`Error::Invalid`] when there are none.
    pub fn adopt_queues(fds: Vec<OwnedFd>) -> Result<Self, Error> {
        Tun::adopt(fds).map(Self::from)
    }

    /// Makes a device inside the process that holds up to `capacity` frames (1 to 1,048,576) in each direction.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a capacity out of range; [`Error::Io`] when the process has too many open files.
    pub fn channel(kind: DeviceKind, capacity: usize) -> Result<(Self, ChannelPort), Error> {
        if !(1..=1 << 20).contains(&capacity) {
            let value = capacity.to_string();
            return Err(Error::invalid("capacity of a channel", value, "1 to 1048576 frames"));
        }
        let (channel, port) = Channel::new(capacity).map_err(|error| {
            Error::io("making a channel device", error, "raise the limit of open files")
        })?;
        Ok((Self(Backing::Channel { channel, kind }), port))
    }

    /// The name of the device when it was opened; `channel` for a channel.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Backing::Tun(tun) => tun.name(),
            Backing::Channel { .. } => "channel",
        }
    }

    /// What the device carries.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        match &self.0 {
            Backing::Tun(tun) => tun.kind(),
            Backing::Channel { kind, .. } => *kind,
        }
    }

    /// The offloads that this device can do, among `checksum`, `tso`, `uso`, `coalesce-tcp` and `coalesce-udp`; which
    /// of them it does is decided by [`Config::offloads`](crate::Config::offloads) and
    /// [`Control::set_offloads`](crate::Control::set_offloads).
    ///
    /// None without a vnet header: for a channel, and for a device that somebody else opened without it.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        match &self.0 {
            Backing::Tun(tun) => tun.abilities().offloads(),
            Backing::Channel { .. } => Offloads::NONE,
        }
    }

    /// The offloads of devices that the kernel does not do here, each with the reason.
    ///
    /// None for a device without vnet header: nothing can be said about the kernel then.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (Offload, &'static str)> {
        let tun = match &self.0 {
            Backing::Tun(tun) if tun.has_vnet_header() => Some(tun),
            _ => None,
        };
        tun.into_iter().flat_map(|tun| tun.abilities().missing())
    }

    /// Makes it one whose kernel refuses super-frames that are written, as some releases of Linux 6.6 do.
    #[cfg(test)]
    pub(crate) fn refuse_super_frames(&mut self) {
        if let Backing::Tun(tun) = &mut self.0 {
            tun.refuse_super_frames();
        }
    }

    /// Whether the device takes and gives frames with a vnet header: unfinished checksums and super-frames.
    pub(crate) fn has_vnet_header(&self) -> bool {
        match &self.0 {
            Backing::Tun(tun) => tun.has_vnet_header(),
            Backing::Channel { .. } => false,
        }
    }

    /// Number of queues open now; a dataplane opens further ones if the device allows it.
    #[must_use]
    pub fn queues(&self) -> usize {
        match &self.0 {
            Backing::Tun(tun) => tun.queues(),
            Backing::Channel { .. } => 1,
        }
    }

    /// The MTU in bytes that is now set on the TAP or TUN, wherever it has been moved.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a channel, which has no MTU; [`Error::Io`] when the device is gone, or in a network
    /// namespace that cannot be entered.
    pub fn mtu(&self) -> Result<u32, Error> {
        match &self.0 {
            Backing::Tun(tun) => tun.mtu(),
            Backing::Channel { .. } => Err(Error::not_found("the MTU of a channel")),
        }
    }

    /// The MAC address of a TAP; other devices have none.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        match &self.0 {
            Backing::Tun(tun) => tun.mac(),
            Backing::Channel { .. } => None,
        }
    }

    /// One queue for each of `workers`, of which at least the first one reads.
    pub(crate) fn into_queues(self, workers: usize) -> Result<Vec<PortQueue>, Error> {
        let workers = workers.max(1);
        Ok(match self.0 {
            Backing::Tun(tun) => {
                tun.into_queues(workers)?.into_iter().map(PortQueue::Tun).collect()
            }
            Backing::Channel { channel, .. } => {
                channel.into_queues(workers).into_iter().map(PortQueue::Channel).collect()
            }
        })
    }
}

impl From<Tun> for Device {
    fn from(tun: Tun) -> Self {
        Self(Backing::Tun(tun))
    }
}

/// Takes over a device that was opened with the `tun-tap` crate, with or without packet information.
///
/// Such a device has one queue and no vnet header, so that all its checksums are computed in software; one that
/// [`Device::tap`] or [`Device::tun`] opens is faster.
#[cfg(feature = "tun-tap")]
impl TryFrom<tun_tap::Iface> for Device {
    type Error = Error;

    fn try_from(iface: tun_tap::Iface) -> Result<Self, Error> {
        Self::adopt(super::sys::owned(iface))
    }
}
