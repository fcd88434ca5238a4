//! What is unfinished about a frame from the underlay.

use crate::wire::l4::{self, L4Checksum};
use crate::wire::{FrameInfo, L3, L4, VnetHeader, vnet};

/// What is unfinished about a frame from the underlay; `None` where nothing is.
///
/// A kernel VXLAN peer whose underlay keeps offloads (a veth pair, most often) leaves inner checksums partial, and
/// sends TCP super-frames as one datagram. A TCP segment above the segment's MTU is such a super-frame: cut to the MTU
/// it is what the peer would have sent on another wire. Whatever else is that large, from a peer with a larger MTU, is
/// left as it is. Of UDP super-frames the kernel tells the `size` of each datagram's payload, otherwise 0.
#[inline(always)]
pub(super) fn recognise(
    frame: &mut [u8],
    info: &FrameInfo,
    mtu: u32,
    size: u16,
) -> Option<VnetHeader> {
    let packet = frame.len() - usize::from(info.l3_offset);
    match l4::is_partial(frame, info) {
        false if packet <= mtu as usize => None,
        true if size > 0 => Some(udp_super_frame(frame, info, size)),
        partial => unfinished(frame, info, mtu, partial),
    }
}

/// What is unfinished about UDP datagrams of `size` bytes of payload in one: checksums, and lengths as well if there are
/// several. The kernel says their size, and so that there is no padding.
#[cold]
fn udp_super_frame(frame: &[u8], info: &FrameInfo, size: u16) -> VnetHeader {
    let partial = l4::checksum_offset(info.l4).unwrap_or(0);
    let whole = VnetHeader::partial(info.l4_offset, partial);
    let payload = frame.len() - usize::from(info.payload_offset);
    if info.l4 != L4::Udp || info.ip_end as usize != frame.len() || payload <= size.into() {
        return whole;
    }
    VnetHeader { gso_type: vnet::GSO_UDP_L4, gso_size: size, hdr_len: info.payload_offset, ..whole }
}

/// The rare side of [`recognise`].
#[inline(never)]
fn unfinished(frame: &mut [u8], info: &FrameInfo, mtu: u32, partial: bool) -> Option<VnetHeader> {
    let field = l4::checksum_offset(info.l4).filter(|_| partial);
    let whole = field.map(|offset| VnetHeader::partial(info.l4_offset, offset));
    let headers = u32::from(info.payload_offset - info.l3_offset);
    let gso_type = match (info.l3, info.l4) {
        // Whoever cuts it takes everything behind the headers for payload: there may be no padding.
        _ if info.ip_end as usize != frame.len() => return whole,
        _ if frame.len() - usize::from(info.l3_offset) <= mtu as usize || mtu <= headers => {
            return whole;
        }
        (L3::Ipv4, L4::Tcp) => vnet::GSO_TCPV4,
        (L3::Ipv6, L4::Tcp) => vnet::GSO_TCPV6,
        _ => return whole,
    };
    // A damaged one must not look right after it was cut.
    if !partial
        && (l4::checksum_state(frame, info) != L4Checksum::Correct || !l4::set_partial(frame, info))
    {
        return whole;
    }
    // A super-frame whose first chunk carries CWR is marked so (kernel `include/linux/virtio_net.h`).
    let cwr = frame.get(usize::from(info.l4_offset) + 13).is_some_and(|flags| flags & 0x80 != 0);
    Some(VnetHeader {
        gso_type: gso_type | if cwr { vnet::GSO_ECN } else { 0 },
        hdr_len: info.payload_offset,
        gso_size: (mtu - headers).min(u32::from(u16::MAX)) as u16,
        ..VnetHeader::partial(info.l4_offset, 16)
    })
}
