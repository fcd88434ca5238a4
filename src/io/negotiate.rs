//! What a TAP or TUN and the kernel behind it can do: asked once, when the device is opened.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use super::DeviceKind;
use super::queue::Prefix;
use super::sys::ioctl;
use crate::offload::{Offload, Offloads};
use crate::wire::{VnetHeader, checksum, eth, vnet};

/// `tso`: the third lets super-frames with CWR come whole.
const TSO: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// `uso`: the kernel takes both or none (kernel `drivers/net/tun.c`, `set_offload`).
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What to ask for, best first. A kernel refuses a mask with a bit that it does not know as a whole: USO came with
/// Linux 6.2, and some that pose as Linux know checksums only.
const MASKS: [u32; 4] = [libc::TUN_F_CSUM | TSO | USO, libc::TUN_F_CSUM | TSO, libc::TUN_F_CSUM, 0];

/// What one device can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// The `TUN_F_*` bits it takes.
    mask: u32,
    /// Which super-frames it takes when they are written: among `coalesce-tcp` and `coalesce-udp`.
    coalesce: Offloads,
}

impl Abilities {
    /// Finds out what a device with a vnet header can do, and leaves it with all of it switched on.
    ///
    /// # Errors
    ///
    /// Those of `TUNSETOFFLOAD` other than that the kernel does not know a bit.
    pub(super) fn negotiate(file: &File, fd: BorrowedFd<'_>, prefix: Prefix) -> io::Result<Self> {
        let mask = step_down(|mask| ioctl::set_offload(fd, mask))?;
        Ok(Self { mask, coalesce: accepted(|protocol| write_probe(file, prefix, protocol)) })
    }

    /// The same on a kernel that refuses super-frames.
    #[cfg(test)]
    pub(super) fn without_coalescing(self) -> Self {
        Self { coalesce: Offloads::NONE, ..self }
    }

    /// The offloads that can be made use of.
    pub(super) fn offloads(self) -> Offloads {
        let bits =
            [(Offload::Checksum, libc::TUN_F_CSUM), (Offload::Tso, TSO), (Offload::Uso, USO)];
        let taken = bits.into_iter().filter(|(_, bits)| self.mask & bits == *bits);
        taken.map(|(offload, _)| offload).chain(self.coalesce.iter()).collect()
    }

    /// The offloads of devices that are missing, each with what the kernel does not do.
    pub(super) fn missing(self) -> impl Iterator<Item = (Offload, &'static str)> {
        let offloads = self.offloads();
        let reasons = [
            (Offload::Checksum, "the kernel refuses TUN_F_CSUM"),
            (Offload::Tso, "the kernel refuses TUN_F_TSO4, TUN_F_TSO6 and TUN_F_TSO_ECN"),
            (Offload::Uso, "the kernel refuses TUN_F_USO4 and TUN_F_USO6: needs Linux 6.2"),
            (
                Offload::CoalesceTcp,
                "the kernel refuses TCP super-frames with a short last chunk, as some releases of Linux 6.6 do",
            ),
            (Offload::CoalesceUdp, "the kernel refuses UDP super-frames: needs Linux 6.2"),
        ];
        reasons.into_iter().filter(move |(offload, _)| !offloads.contains(*offload))
    }

    /// Whether the device takes a super-frame that is written with this vnet header; others need not be tried.
    #[inline]
    pub(super) fn take(self, header: VnetHeader) -> bool {
        let udp = header.gso_type == vnet::GSO_UDP_L4;
        self.coalesce.contains(if udp { Offload::CoalesceUdp } else { Offload::CoalesceTcp })
    }

    /// The `TUN_F_*` bits that stand for those of `wanted` that the device can do.
    pub(super) fn mask(self, wanted: Offloads) -> u32 {
        // Without checksum offload the kernel refuses all others.
        if !wanted.contains(Offload::Checksum) {
            return 0;
        }
        let bits = |offload, bits| if wanted.contains(offload) { bits } else { 0 };
        self.mask & (libc::TUN_F_CSUM | bits(Offload::Tso, TSO) | bits(Offload::Uso, USO))
    }
}

/// Tries masks until one is not refused for a bit that is not known.
fn step_down(mut set: impl FnMut(u32) -> io::Result<()>) -> io::Result<u32> {
    let mut refused = io::ErrorKind::InvalidInput.into();
    for mask in MASKS {
        match set(mask) {
            Ok(()) => return Ok(mask),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// The coalescings whose super-frames the device takes.
///
/// Only `EINVAL` says no, which is how the kernel refuses a vnet header (kernel `include/linux/virtio_net.h`,
/// `virtio_net_hdr_to_skb`). It looks at that before it looks at the link: `EIO`, for a link that is down, is as good
/// as success.
fn accepted(mut write: impl FnMut(u8) -> io::Result<()>) -> Offloads {
    let protocols = [(Offload::CoalesceTcp, TCP), (Offload::CoalesceUdp, UDP)];
    let refused = |error: io::Error| error.raw_os_error() == Some(libc::EINVAL);
    protocols
        .into_iter()
        .filter(|(_, protocol)| !write(*protocol).is_err_and(refused))
        .map(|(offload, _)| offload)
        .collect()
}

fn write_probe(mut file: &File, prefix: Prefix, protocol: u8) -> io::Result<()> {
    let (frame, header) = probe(prefix.kind, protocol);
    let mut memory = [0; Prefix::MAX];
    let len = prefix.write(&mut memory, header, [&frame[..]].into_iter());
    file.write(&[&memory[..len], &frame].concat()).map(drop)
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Payload bytes of each chunk of a probe, and of the whole: one byte in the last chunk.
///
/// The releases with torvalds/linux@e269d79c7d35 and without 89add40066f9 refuse chunks that are not larger than all
/// headers, and many a frame with a short last chunk.
const CHUNK: usize = 16;
const PAYLOAD: usize = CHUNK + 1;

/// A super-frame that comes to nothing wherever it gets, should the link of the device be up.
///
/// It is addressed to 01:80:C2:00:00:01, which bridges forward to no port (IEEE 802.1Q-2022 table 8-1). Its IPv4 header
/// has a wrong checksum, for which every host and router drops it without an answer (RFC 1812 §5.2.2), a TTL of
/// zero and addresses for documentation (RFC 5737). IPv6 has no such checksum, and does not need a probe of its own:
/// the check is the same code for both.
fn probe(kind: DeviceKind, protocol: u8) -> (Vec<u8>, VnetHeader) {
    const SOURCE: [u8; 4] = [192, 0, 2, 1];
    const DESTINATION: [u8; 4] = [192, 0, 2, 2];
    let mut frame = Vec::new();
    if kind == DeviceKind::Tap {
        frame.extend_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0x01]);
        frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 0x01]);
        frame.extend_from_slice(&eth::TYPE_IPV4.to_be_bytes());
    }
    let ip = frame.len();
    let (l4_header, checksum_field, gso_type) = match protocol {
        TCP => (20, 16, vnet::GSO_TCPV4),
        _ => (8, 6, vnet::GSO_UDP_L4),
    };
    let l4_len = (l4_header + PAYLOAD) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&(20 + l4_len).to_be_bytes());
    // No identification, DF, TTL zero; the checksum stays zero.
    frame.extend_from_slice(&[0, 0, 0x40, 0, 0, protocol, 0, 0]);
    frame.extend_from_slice(&SOURCE);
    frame.extend_from_slice(&DESTINATION);
    let l4 = frame.len();
    frame.resize(l4 + l4_header + PAYLOAD, 0);
    if protocol == TCP {
        // Five words of header, ACK.
        frame[l4 + 12..l4 + 14].copy_from_slice(&[5 << 4, 0x10]);
    } else {
        frame[l4 + 4..l4 + 6].copy_from_slice(&l4_len.to_be_bytes());
    }
    let pseudo = checksum::pseudo_v4(SOURCE, DESTINATION, protocol, l4_len);
    frame[l4 + checksum_field..][..2].copy_from_slice(&pseudo.to_be_bytes());
    let header = VnetHeader {
        gso_type,
        hdr_len: (ip + 20 + l4_header) as u16,
        gso_size: CHUNK as u16,
        ..VnetHeader::partial(l4 as u16, checksum_field as u16)
    };
    (frame, header)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn error(code: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_kernel_that_does_not_know_a_bit_is_asked_for_less() {
        for known in MASKS {
            let mut asked = Vec::new();
            let got = step_down(|mask| {
                asked.push(mask);
                if mask & !known == 0 { Ok(()) } else { error(libc::EINVAL) }
            });
            assert_eq!(got.unwrap(), known);
            assert_eq!(asked, MASKS[..asked.len()], "best first");
        }
        let gone = step_down(|_| error(libc::EBADFD)).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::EBADFD), "that is no answer about bits");
        assert!(step_down(|_| error(libc::EINVAL)).is_err());
    }

    #[test]
    fn a_kernel_that_refuses_super_frames_does_not_get_them() {
        let all = Offloads::NONE.with(Offload::CoalesceTcp).with(Offload::CoalesceUdp);
        assert_eq!(accepted(|_| Ok(())), all);
        assert_eq!(accepted(|_| error(libc::EIO)), all, "the link is down");
        let only_tcp = accepted(|protocol| if protocol == TCP { Ok(()) } else { error(22) });
        assert_eq!(only_tcp, all.without(Offload::CoalesceUdp));
        assert_eq!(accepted(|_| error(libc::EINVAL)), Offloads::NONE);
    }

    #[test]
    fn what_is_wanted_is_cut_to_what_can_be_had() {
        let full = Abilities { mask: MASKS[0], coalesce: Offloads::NONE };
        assert_eq!(full.mask(Offloads::ALL), MASKS[0]);
        assert_eq!(full.mask(Offloads::NONE), 0);
        assert_eq!(full.mask(Offloads::ALL.without(Offload::Checksum)), 0);
        assert_eq!(full.mask(Offloads::ALL.without(Offload::Tso)), libc::TUN_F_CSUM | USO);
        let old = Abilities { mask: MASKS[1], coalesce: Offloads::NONE };
        assert_eq!(old.mask(Offloads::ALL), MASKS[1]);
        assert!(!old.take(probe(DeviceKind::Tap, TCP).1));
        let tcp = Abilities { coalesce: Offloads::NONE.with(Offload::CoalesceTcp), ..full };
        assert!(
            tcp.take(probe(DeviceKind::Tap, TCP).1) && !tcp.take(probe(DeviceKind::Tap, UDP).1)
        );
        let missing: Vec<Offload> = old.missing().map(|(offload, _)| offload).collect();
        assert_eq!(missing, [Offload::Uso, Offload::CoalesceTcp, Offload::CoalesceUdp]);
        assert!(!old.offloads().contains(Offload::Uso) && old.offloads().contains(Offload::Tso));
    }

    #[test]
    fn a_probe_is_a_super_frame_that_no_host_takes() {
        for (kind, ip) in [(DeviceKind::Tap, 14), (DeviceKind::Tun, 0)] {
            for protocol in [TCP, UDP] {
                let (frame, header) = probe(kind, protocol);
                header.validate(frame.len()).unwrap();
                assert!(header.is_gso());
                assert_ne!(checksum::finish(checksum::sum(&frame[ip..ip + 20])), 0);
                assert!(CHUNK <= usize::from(header.hdr_len) && !PAYLOAD.is_multiple_of(CHUNK));
            }
        }
    }
}
