//! The end of a device that one worker holds.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use smallvec::SmallVec;

use super::channel::ChannelQueue;
use super::negotiate::Abilities;
use super::sys::ioctl;
use super::{DeviceKind, Received};
use crate::batch::Batch;
use crate::coalesce::MAX_JOINED;
use crate::metadata::Metadata;
use crate::offload::Offloads;
use crate::wire::{VnetHeader, vnet};

/// One queue of a device; owned by one worker.
#[derive(Debug)]
pub(crate) enum PortQueue {
    /// Of a TAP or TUN.
    Tun(TunQueue),
    /// Of a channel.
    Channel(ChannelQueue),
}

impl PortQueue {
    /// Reads frames until the batch is full or the device has no more.
    pub(crate) fn receive(&mut self, batch: &mut Batch) -> Received {
        match self {
            Self::Tun(queue) => queue.receive(batch),
            Self::Channel(queue) => queue.receive(batch),
        }
    }

    /// Writes one frame, the bytes of all parts, and returns their number.
    ///
    /// `vnet` is for devices with [`offload`](super::Device::offload), `metadata` for channels; the others do not get
    /// it.
    pub(crate) fn deliver<'a>(
        &mut self,
        vnet: VnetHeader,
        metadata: Metadata,
        parts: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> io::Result<usize> {
        match self {
            Self::Tun(queue) => queue.deliver(vnet, parts.into_iter()),
            Self::Channel(queue) => queue.deliver(parts.into_iter(), metadata),
        }
    }

    /// Makes the whole device give what is wanted, as far as it can; of the queues of one device always by the same.
    /// Super-frames that wait to be read still come.
    pub(crate) fn set_offloads(&mut self, wanted: Offloads) {
        match self {
            Self::Tun(queue) => queue.set_offloads(wanted),
            Self::Channel(_) => {}
        }
    }

    /// Whether frames come out of this queue; otherwise it only takes them.
    pub(crate) fn reads(&self) -> bool {
        match self {
            Self::Tun(queue) => queue.reads,
            Self::Channel(queue) => queue.reads(),
        }
    }

    /// The network namespace of the device and its name there; none for a channel, and where the kernel does not say.
    pub(crate) fn link(&self) -> Option<(OwnedFd, String)> {
        let Self::Tun(queue) = self else { return None };
        let file = queue.file.as_fd();
        Some((ioctl::device_netns(file).ok()?, ioctl::attached(file).ok()?.0))
    }

    /// What becomes readable when there are frames, for edge-triggered polling; only if [`PortQueue::reads`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(queue) => queue.file.as_fd(),
            Self::Channel(queue) => queue.fd(),
        }
    }
}

/// The most parts of one write: prefix, header, and the payloads that a joined super-frame is made of.
const MAX_PARTS: usize = 2 + MAX_JOINED;

/// Bytes that one call reads, about: what stays in the cache until it is sent.
const READ_BUDGET: usize = 256 << 10;

/// Bytes of `struct tun_pi` (kernel `include/uapi/linux/if_tun.h`): flags and EtherType.
const PACKET_INFO: usize = 4;

/// In the flags of `struct tun_pi`: the frame was longer than the buffer.
const STRIPPED: u16 = 1;

/// What stands before each frame in a TUN/TAP file: packet information, then the vnet header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) packet_info: bool,
    pub(super) vnet: bool,
    pub(super) kind: DeviceKind,
}

impl Prefix {
    pub(super) const MAX: usize = PACKET_INFO + vnet::LEN;

    fn packet_info_len(self) -> usize {
        if self.packet_info { PACKET_INFO } else { 0 }
    }

    fn len(self) -> usize {
        self.packet_info_len() + if self.vnet { vnet::LEN } else { 0 }
    }

    /// The vnet header of a frame that was read behind its prefix; `None` if either was cut short.
    fn parse(self, bytes: &[u8]) -> Option<VnetHeader> {
        if self.packet_info {
            let &[a, b, ..] = bytes.first_chunk::<PACKET_INFO>()?;
            if u16::from_ne_bytes([a, b]) & STRIPPED != 0 {
                return None;
            }
        }
        if self.vnet {
            VnetHeader::parse(&bytes[self.packet_info_len()..])
        } else {
            Some(VnetHeader::default())
        }
    }

    /// Writes the prefix of a frame and returns its length.
    pub(super) fn write<'a>(
        self,
        to: &mut [u8; Self::MAX],
        vnet: VnetHeader,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> usize {
        let start = self.packet_info_len();
        if self.packet_info {
            to[..2].fill(0);
            to[2..4].copy_from_slice(&ethertype(self.kind, parts).to_be_bytes());
        }
        if self.vnet {
            to[start..start + vnet::LEN].copy_from_slice(&vnet.to_bytes());
        }
        self.len()
    }
}

/// The EtherType of a frame; 0 if it has none.
fn ethertype<'a>(kind: DeviceKind, parts: impl Iterator<Item = &'a [u8]>) -> u16 {
    let mut bytes = parts.flatten().copied();
    match kind {
        DeviceKind::Tap => {
            let mut bytes = bytes.skip(12);
            u16::from_be_bytes([bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)])
        }
        DeviceKind::Tun => match bytes.next().unwrap_or(0) >> 4 {
            4 => 0x0800,
            6 => 0x86dd,
            _ => 0,
        },
    }
}

/// One queue of a TAP or TUN.
///
/// The kernel answers `EAGAIN` to reading while the link is down and `EIO` to writing; both answer `EBADFD` once
/// the device is deleted.
#[derive(Debug)]
pub(crate) struct TunQueue {
    file: File,
    prefix: Prefix,
    abilities: Abilities,
    /// What the device gives (`TUN_F_*`), as far as this queue decides it.
    mask: u32,
    reads: bool,
}

impl TunQueue {
    pub(super) fn new(file: File, prefix: Prefix, abilities: Abilities, reads: bool) -> Self {
        Self { file, prefix, abilities, mask: abilities.mask(Offloads::ALL), reads }
    }

    fn set_offloads(&mut self, wanted: Offloads) {
        let mask = self.abilities.mask(wanted);
        // Asking waits for whoever else configures links (the kernel's `rtnl_lock`).
        if mask != self.mask {
            self.mask = mask;
            // Only a device that is gone refuses part of what it took before, and it says so when it is read.
            let _ = ioctl::set_offload(self.file.as_fd(), mask);
        }
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        if !self.reads {
            received.drained = true;
            return received;
        }
        let mut bytes = 0;
        // One turn a frame, also for those that are no good, so that the work is bounded.
        for _ in 0..batch.free() {
            let Some(slot) = batch.next_slot(self.prefix.len()) else { break };
            match read(&self.file, slot) {
                // The file has ended, which those of devices never do.
                Ok(0) => {
                    received.drained = true;
                    received.failure = Some(io::Error::from_raw_os_error(libc::ENODEV));
                    break;
                }
                Ok(len) => match self.prefix.parse(&slot[..len]) {
                    Some(vnet) if batch.commit(len - self.prefix.len(), vnet) => {
                        bytes += len;
                        if bytes >= READ_BUDGET {
                            break;
                        }
                    }
                    _ => received.truncated += 1,
                },
                Err(error) => {
                    received.drained = true;
                    received.failure = Some(error).filter(|e| e.kind() != ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        received
    }

    fn deliver<'a>(
        &mut self,
        vnet: VnetHeader,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<usize> {
        if vnet.is_gso() && !self.abilities.take(vnet) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut memory = [0; Prefix::MAX];
        let prefix = self.prefix.write(&mut memory, vnet, parts.clone());
        let mut vectors: SmallVec<[IoSlice<'_>; MAX_PARTS]> = SmallVec::new();
        vectors.push(IoSlice::new(&memory[..prefix]));
        for part in parts {
            vectors.push(IoSlice::new(part));
        }
        // A device takes a frame whole or not at all.
        loop {
            match (&self.file).write_vectored(&vectors) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|bytes| bytes.saturating_sub(prefix)),
            }
        }
    }
}

fn read(mut file: &File, memory: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(memory) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const VNET: VnetHeader = VnetHeader::partial(34, 6);

    fn prefix(packet_info: bool, vnet: bool, kind: DeviceKind) -> Prefix {
        Prefix { packet_info, vnet, kind }
    }

    #[test]
    fn a_prefix_survives_the_trip_through_bytes() {
        for (packet_info, vnet, len) in
            [(false, false, 0), (false, true, 10), (true, false, 4), (true, true, 14)]
        {
            let prefix = prefix(packet_info, vnet, DeviceKind::Tun);
            let mut memory = [0xff; Prefix::MAX];
            assert_eq!(prefix.write(&mut memory, VNET, [&[0x45_u8][..]].into_iter()), len);
            let expected = if vnet { VNET } else { VnetHeader::default() };
            assert_eq!(prefix.parse(&memory[..len]), Some(expected));
            assert!(len == 0 || prefix.parse(&memory[..len - 1]).is_none());
        }
    }

    #[test]
    fn packet_information_names_the_protocol() {
        let mut frame = [0; 14];
        frame[12..].copy_from_slice(&[0x08, 0x06]);
        for cut in 0..14 {
            let parts = [&frame[..cut], &frame[cut..]];
            assert_eq!(ethertype(DeviceKind::Tap, parts.into_iter()), 0x0806);
        }
        assert_eq!(ethertype(DeviceKind::Tap, [&[][..], &[1]].into_iter()), 0);
        assert_eq!(ethertype(DeviceKind::Tun, [&[][..], &[0x45]].into_iter()), 0x0800);
        assert_eq!(ethertype(DeviceKind::Tun, [&[0x60][..], &[0x45]].into_iter()), 0x86dd);
        assert_eq!(ethertype(DeviceKind::Tun, [&[][..], &[]].into_iter()), 0);
    }

    #[test]
    fn a_frame_that_the_kernel_cut_is_no_frame() {
        let prefix = prefix(true, false, DeviceKind::Tun);
        assert!(prefix.parse(&[0, 0, 8, 0, 0x45]).is_some());
        let [a, b] = STRIPPED.to_ne_bytes();
        assert!(prefix.parse(&[a, b, 8, 0, 0x45]).is_none());
    }
}
