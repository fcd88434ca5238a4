//! Opening and adopting TAP and TUN devices.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::DeviceKind;
use super::negotiate::Abilities;
use super::queue::{Prefix, TunQueue};
use super::sys::{self, ioctl};
use super::{netlink, netns};
use crate::error::Error;
use crate::wire::{MacAddr, vnet};

const NODE: &str = "/dev/net/tun";

const NO_PI: u16 = libc::IFF_NO_PI as u16;
const VNET_HDR: u16 = libc::IFF_VNET_HDR as u16;
const MULTI_QUEUE: u16 = libc::IFF_MULTI_QUEUE as u16;

/// The flags that a further queue has to repeat, because the kernel gives the device those of the last one.
const KEPT: u16 = (libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NAPI | libc::IFF_NAPI_FRAGS) as u16
    | NO_PI
    | VNET_HDR
    | MULTI_QUEUE;

impl DeviceKind {
    fn flag(self) -> u16 {
        match self {
            Self::Tap => libc::IFF_TAP as u16,
            Self::Tun => libc::IFF_TUN as u16,
        }
    }
}

/// A TAP or TUN device with at least one open queue.
#[derive(Debug)]
pub(super) struct Tun {
    kind: DeviceKind,
    name: String,
    flags: u16,
    abilities: Abilities,
    queues: Vec<File>,
    /// Where the device was when it was opened, for when the kernel does not say where it is.
    home: Option<OwnedFd>,
}

impl Tun {
    /// Opens the device `name`, or makes it, in `netns` or else in the network namespace of the calling thread.
    pub(super) fn open(
        kind: DeviceKind,
        name: &str,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        check_name(name)?;
        let attempt = || format!("opening {kind} {name:?}");
        let home = match netns {
            Some(netns) => netns
                .try_clone_to_owned()
                .map(Some)
                .map_err(|error| Error::io(attempt(), error, ""))?,
            None => netns::current(),
        };
        let (file, name, flags) = netns::run_in(netns, || {
            let file =
                open_node().map_err(|(error, advice)| Error::io(attempt(), error, advice))?;
            let (name, flags) = attach(file.as_fd(), kind, name)
                .map_err(|(error, advice)| Error::io(attempt(), error, advice))?;
            if flags & MULTI_QUEUE != 0 && netlink::attached_queues(&name).is_some_and(|n| n > 1) {
                // The kernel lets anybody in, and would spread the frames over all of us.
                return Err(Error::conflict(
                    attempt(),
                    "another process holds queues of this device",
                ));
            }
            Ok((file, name, flags))
        })?;
        let (queues, abilities) = (vec![file], Abilities::default());
        let mut device = Self { kind, name, flags, abilities, queues, home };
        device.configure()?;
        Ok(device)
    }

    /// Takes over the queues of one device that somebody else has opened.
    pub(super) fn adopt(files: Vec<OwnedFd>) -> Result<Self, Error> {
        let mut device: Option<Self> = None;
        for file in files {
            let (kind, name, flags) = identify(file.as_fd())?;
            let prepared = ioctl::set_nonblocking(file.as_fd())
                .and_then(|()| ioctl::set_close_on_exec(file.as_fd()));
            prepared.map_err(|error| Error::io(format!("adopting {kind} {name:?}"), error, ""))?;
            match &mut device {
                None => {
                    let (queues, abilities) = (vec![file.into()], Abilities::default());
                    device = Some(Self { kind, name, flags, abilities, queues, home: None });
                }
                Some(first) if (first.kind, &first.name) == (kind, &name) => {
                    first.queues.push(file.into());
                }
                Some(first) => {
                    let what = format!("adopting {kind} {name:?} as a queue of {:?}", first.name);
                    return Err(Error::conflict(what, "it is another device"));
                }
            }
        }
        let mut device =
            device.ok_or_else(|| Error::invalid("number of queues", "0", "1 to 256"))?;
        device.configure()?;
        Ok(device)
    }

    /// Brings what the device kept from earlier users into the state that [`TunQueue`] expects, and finds out what it
    /// can do.
    fn configure(&mut self) -> Result<(), Error> {
        let (file, prefix) = (&self.queues[0], self.prefix());
        let fd = file.as_fd();
        let failed = |error| {
            let attempt = format!("setting up the offloads of {} {:?}", self.kind, self.name);
            Error::io(attempt, error, "the kernel may be too old")
        };
        if !prefix.vnet {
            return ioctl::set_offload(fd, 0).map_err(failed);
        }
        let len = vnet::LEN as i32;
        ioctl::set_vnet_header_len(fd, len).map_err(failed)?;
        if ioctl::vnet_header_len(fd).map_err(failed)? != len {
            return Err(failed(io::ErrorKind::Unsupported.into()));
        }
        self.abilities = Abilities::negotiate(file, fd, prefix).map_err(failed)?;
        Ok(())
    }

    fn prefix(&self) -> Prefix {
        Prefix {
            packet_info: self.flags & NO_PI == 0,
            vnet: self.has_vnet_header(),
            kind: self.kind,
        }
    }

    pub(super) fn kind(&self) -> DeviceKind {
        self.kind
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_vnet_header(&self) -> bool {
        self.flags & VNET_HDR != 0
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    #[cfg(test)]
    pub(super) fn refuse_super_frames(&mut self) {
        self.abilities = self.abilities.without_coalescing();
    }

    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn mtu(&self) -> Result<u32, Error> {
        let failed = |error| {
            Error::io(format!("reading the MTU of {} {:?}", self.kind, self.name), error, "")
        };
        let (name, _) = ioctl::attached(self.queues[0].as_fd()).map_err(failed)?;
        let netns = self.netns();
        netns::run_in(netns.as_ref().map(AsFd::as_fd), || {
            let socket = any_socket().map_err(failed)?;
            ioctl::device_mtu(socket.as_fd(), &name).map_err(failed)
        })
    }

    /// The MAC address of a TAP, if the device is still there.
    pub(super) fn mac(&self) -> Option<MacAddr> {
        let tap = self.kind == DeviceKind::Tap;
        tap.then(|| ioctl::hardware_address(self.queues[0].as_fd()).ok().map(MacAddr))?
    }

    /// Where the device is: the kernel knows best, for it may have been moved since it was opened.
    fn netns(&self) -> Option<OwnedFd> {
        let asked = ioctl::device_netns(self.queues[0].as_fd());
        asked.ok().or_else(|| self.home.as_ref()?.try_clone().ok())
    }

    /// One queue for each of `workers`, opening further ones if the device has several.
    ///
    /// Where there are fewer, the first workers read and the others share their queues for writing. Where there are
    /// more, those left over are taken out of the device, so that no frames are put into them.
    pub(super) fn into_queues(mut self, workers: usize) -> Result<Vec<TunQueue>, Error> {
        let failed = |error| Error::io(format!("opening queues of {:?}", self.name), error, "");
        let (prefix, abilities) = (self.prefix(), self.abilities);
        if self.flags & MULTI_QUEUE != 0 {
            let missing = workers.saturating_sub(self.queues.len());
            let more = if missing > 0 { self.open_queues(missing) } else { Ok(Vec::new()) };
            match more {
                Ok(more) => self.queues.extend(more),
                Err(_error) => {
                    #[cfg(feature = "log")]
                    log::warn!("{_error}; going on with {} for reading", self.queues.len());
                }
            }
        }
        let own = self.queues.len().min(workers);
        for surplus in self.queues.drain(own..) {
            // Closing it detaches it as well unless somebody holds a duplicate.
            let _ = ioctl::detach_queue(surplus.as_fd());
        }
        let mut queues = Vec::with_capacity(workers);
        for shared in own..workers {
            let file = self.queues[shared % own].try_clone().map_err(failed)?;
            queues.push(TunQueue::new(file, prefix, abilities, false));
        }
        let own = self.queues.into_iter();
        let readers = own.map(|file| TunQueue::new(file, prefix, abilities, true));
        Ok(readers.chain(queues).collect())
    }

    /// Opens further queues where the device is now, under the name that it has now.
    fn open_queues(&self, count: usize) -> Result<Vec<File>, Error> {
        let attempt = || format!("opening queues of {} {:?}", self.kind, self.name);
        let current_name = || {
            let attached = ioctl::attached(self.queues[0].as_fd());
            attached.map(|(name, _)| name).map_err(|error| Error::io(attempt(), error, ""))
        };
        let netns = self.netns();
        if netns.is_none() {
            // Elsewhere the name could be that of another device.
            return Err(Error::conflict(attempt(), "its network namespace is not known"));
        }
        netns::run_in(netns.as_ref().map(AsFd::as_fd), || {
            let mut queues = Vec::with_capacity(count);
            for _ in 0..count {
                let name = current_name()?;
                let file =
                    open_node().map_err(|(error, advice)| Error::io(attempt(), error, advice))?;
                let attached = ioctl::attach(file.as_fd(), &name, self.flags);
                attached.map_err(|error| {
                    let advice = refusal(&error, self.kind, &name);
                    Error::io(attempt(), error, advice)
                })?;
                if current_name()? != name {
                    return Err(Error::conflict(attempt(), "it is being renamed"));
                }
                queues.push(file);
            }
            Ok(queues)
        })
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || is_space(byte);
    let (before, after) = name.split_once("%d").unwrap_or((name, ""));
    if name.len() >= ioctl::NAME_SIZE
        || matches!(name, "." | "..")
        || name.bytes().any(forbidden)
        || before.contains('%')
        || after.contains('%')
    {
        let allowed = "up to 15 bytes without white space, '/' and ':', with at most one %d";
        return Err(Error::invalid("device name", format!("{name:?}"), allowed));
    }
    Ok(())
}

/// White space as the kernel sees it (kernel `lib/ctype.c`): ASCII and the Latin-1 no-break space.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0xa0
}

type Refusal = (io::Error, Cow<'static, str>);

fn open_node() -> Result<File, Refusal> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    options.open(NODE).map_err(|error| {
        let advice = match error.raw_os_error() {
            Some(libc::ENOENT) => {
                "there is no /dev/net/tun: load the tun module, or give the container this device"
            }
            Some(libc::ENODEV | libc::ENXIO) => "nothing is behind /dev/net/tun: load the tun module",
            Some(libc::EPERM) => {
                "/dev/net/tun may not be opened here: allow the device cgroup character device 10:200"
            }
            Some(libc::EACCES) => "the file permissions of /dev/net/tun do not allow it",
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files",
            _ => "this was the answer to opening /dev/net/tun",
        };
        (error, advice.into())
    })
}

/// Attaches to the device with several queues, or with one if it exists so.
fn attach(fd: BorrowedFd<'_>, kind: DeviceKind, name: &str) -> Result<(String, u16), Refusal> {
    let single = kind.flag() | NO_PI | VNET_HDR;
    let multi = single | MULTI_QUEUE;
    let attached = match ioctl::attach(fd, name, multi) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            ioctl::attach(fd, name, single).map(|name| (name, single))
        }
        result => result.map(|name| (name, multi)),
    };
    attached.map_err(|error| {
        let advice = refusal(&error, kind, name);
        (error, advice)
    })
}

/// What to do about a `TUNSETIFF` that failed in the network namespace of the calling thread.
fn refusal(error: &io::Error, kind: DeviceKind, name: &str) -> Cow<'static, str> {
    match error.raw_os_error() {
        Some(libc::EPERM) => "needs CAP_NET_ADMIN in this network namespace".into(),
        Some(libc::EBUSY) => "another process holds this single-queue device".into(),
        Some(libc::E2BIG) => "all queues of the device are in use".into(),
        Some(libc::EINVAL) => {
            let exists =
                any_socket().is_ok_and(|socket| ioctl::device_exists(socket.as_fd(), name));
            if exists {
                format!("a device of this name exists and is no {kind}").into()
            } else {
                "the kernel does not accept this name".into()
            }
        }
        _ => "".into(),
    }
}

/// Kind, name and flags of the device that a file is attached to.
fn identify(fd: BorrowedFd<'_>) -> Result<(DeviceKind, String, u16), Error> {
    let refused = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP) => {
            Error::invalid("file descriptor", "another kind of file", "an open TAP or TUN device")
        }
        Some(libc::EBADFD) => {
            let advice = "the file is not attached to a device, or the device is gone";
            Error::io("adopting a TAP or TUN device", error, advice)
        }
        _ => Error::io("adopting a TAP or TUN device", error, ""),
    };
    let (name, flags) = ioctl::attached(fd).map_err(refused)?;
    let kind = match i32::from(flags) & (libc::IFF_TAP | libc::IFF_TUN) {
        libc::IFF_TAP => DeviceKind::Tap,
        libc::IFF_TUN => DeviceKind::Tun,
        _ => {
            let allowed = "an open TAP or TUN device";
            return Err(Error::invalid("file descriptor", format!("flags {flags:#x}"), allowed));
        }
    };
    let has_vnet = flags & VNET_HDR != 0;
    let packet_info =
        sys::has_packet_information(fd, kind == DeviceKind::Tun, has_vnet).map_err(refused)?;
    let flags = flags & KEPT & !NO_PI | if packet_info { 0 } else { NO_PI };
    Ok((kind, name, flags))
}

/// A socket for requests about devices, of a family that every kernel has.
fn any_socket() -> io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_cuts_them() {
        for name in ["", "ovl0", "ovl%d", "fifteen-bytes-x", "über"] {
            check_name(name).unwrap();
        }
        for name in
            ["sixteen-bytes-xx", "a/b", "a b", "a:b", ".", "..", "nul\0", "%", "%d%d", "%s", "100%"]
        {
            let error = check_name(name).unwrap_err();
            assert!(matches!(error, Error::Invalid { what: "device name", .. }), "{error}");
        }
    }
}
