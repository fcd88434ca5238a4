//! Turning a decision into descriptors: whole where the receiver can take it, finished or in chunks where not.

use smallvec::SmallVec;

use crate::batch::{Batch, Span};
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::gso::{self, Chunk};
use crate::output::{Deliver, MAX_OUTPUT, Output, SourcePort, Transmit};
use crate::segment::{PortId, VtepId};
use crate::tables::{PortEntry, Tables};
use crate::wire::l4::{self, L4Checksum};
use crate::wire::{FrameInfo, L3, L4, VnetHeader, Vni, vnet, vxlan};

/// Largest header arena of one output, in bytes: enough for a batch of super-frames in chunks.
const MAX_HEADERS: usize = 1 << 20;

/// What goes between the outer UDP header and the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encapsulation {
    Vxlan(Vni),
    /// Nothing; the datagram leaves from this UDP port.
    Bare(u16),
}

/// Who gets a frame.
pub(crate) struct Targets<'a> {
    pub(crate) ports: SmallVec<[&'a PortEntry; 4]>,
    pub(crate) vteps: &'a [VtepId],
}

impl<'a> Targets<'a> {
    pub(crate) fn port(port: &'a PortEntry) -> Self {
        Self { ports: SmallVec::from_slice(&[port]), vteps: &[] }
    }

    pub(crate) fn vtep(vtep: &'a VtepId) -> Self {
        Self { ports: SmallVec::new(), vteps: std::slice::from_ref(vtep) }
    }

    /// The segment's ports without the one the frame came from, and `vteps`.
    pub(crate) fn flood(
        tables: &'a Tables,
        ports: &[PortId],
        except: Option<PortId>,
        vteps: &'a [VtepId],
    ) -> Self {
        let ports = ports
            .iter()
            .filter(|port| Some(**port) != except)
            .filter_map(|port| tables.port(*port));
        Self { ports: ports.collect(), vteps }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.vteps.is_empty()
    }
}

/// Where descriptors go.
pub(crate) struct Emitter<'a> {
    pub(crate) output: &'a mut Output,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) chunks: &'a mut Vec<Chunk>,
    /// Seed of the hash that chooses source ports.
    pub(crate) seed: u64,
    /// How the segment is carried.
    pub(crate) encapsulation: Encapsulation,
    /// Largest IP packet inside the segment, in bytes.
    pub(crate) mtu: u32,
}

impl Emitter<'_> {
    /// Emits frame `index` of the batch to all targets and returns the number of copies made.
    ///
    /// `vnet` says what is unfinished about the frame. `info` is the parsed frame if the caller has it.
    pub(crate) fn emit(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        targets: &Targets<'_>,
    ) -> Result<u64, DropReason> {
        let plain = !targets.vteps.is_empty() || targets.ports.iter().any(|port| !port.offload);
        if !plain {
            self.deliver_whole(batch.span(index), vnet, &targets.ports);
            return Ok(targets.ports.len() as u64);
        }
        let info = match info.or_else(|| FrameInfo::parse(batch.frame(index))) {
            Some(info) => info,
            None => return Err(DropReason::Truncated),
        };
        if vnet.is_gso() {
            return self.emit_split(batch, index, vnet, &info, targets);
        }
        if !targets.vteps.is_empty() && batch.span(index).len - u32::from(info.l3_offset) > self.mtu
        {
            return Err(DropReason::TooBig);
        }
        if vnet.needs_checksum() {
            let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
            // Up to the end of the packet only: padding behind it is not part of the sum.
            let end = if info.l3 == L3::Other { usize::MAX } else { info.ip_end as usize };
            let frame = batch.frame_mut(index);
            let end = end.min(frame.len());
            if !l4::complete(&mut frame[..end], start, offset) {
                return Err(DropReason::BadOffload);
            }
        }
        self.deliver_whole(batch.span(index), VnetHeader::default(), &targets.ports);
        if !targets.vteps.is_empty() {
            let flow = info.flow_hash(batch.frame(index), self.seed);
            let (source, body) = match self.encapsulation {
                Encapsulation::Vxlan(vni) => (
                    SourcePort::Entropy(flow),
                    batch.prepend(index, &vxlan::encode(vni), usize::MAX),
                ),
                Encapsulation::Bare(port) => (SourcePort::Listener(port), batch.span(index)),
            };
            for vtep in targets.vteps {
                self.transmit(Transmit { vtep: *vtep, source, head: Span::default(), body });
            }
        }
        Ok((targets.ports.len() + targets.vteps.len()) as u64)
    }

    fn deliver_whole(&mut self, body: Span, vnet: VnetHeader, ports: &[&PortEntry]) {
        for port in ports {
            self.deliver(Deliver { port: port.id, vnet, head: Span::default(), body });
        }
    }

    /// Emits a super-frame: whole to ports that take it, in chunks to everybody else.
    fn emit_split(
        &mut self,
        batch: &Batch,
        index: usize,
        vnet: VnetHeader,
        info: &FrameInfo,
        targets: &Targets<'_>,
    ) -> Result<u64, DropReason> {
        let frame = batch.frame(index);
        let expected = match vnet.gso_type & !vnet::GSO_ECN {
            vnet::GSO_TCPV4 | vnet::GSO_TCPV6 => L4::Tcp,
            vnet::GSO_UDP_L4 => L4::Udp,
            _ => return Err(DropReason::BadOffload),
        };
        if info.l4 != expected {
            return Err(DropReason::BadOffload);
        }
        let mut size = usize::from(vnet.gso_size);
        if !targets.vteps.is_empty() {
            let room = (self.mtu as usize)
                .saturating_sub(usize::from(info.payload_offset - info.l3_offset));
            // A TCP stream can be cut anywhere; the bounds of UDP datagrams are the sender's.
            match info.l4 {
                L4::Tcp if room > 0 => size = size.min(room),
                _ if size > room => return Err(DropReason::TooBig),
                _ => {}
            }
        }
        let header;
        let (prefix, source): (&[u8], _) = match self.encapsulation {
            Encapsulation::Vxlan(vni) => {
                header = vxlan::encode(vni);
                (&header, SourcePort::Entropy(info.flow_hash(frame, self.seed)))
            }
            Encapsulation::Bare(port) => (&[], SourcePort::Listener(port)),
        };
        if self.output.headers.len() > MAX_HEADERS {
            return Err(DropReason::BadOffload);
        }
        self.chunks.clear();
        gso::split(frame, info, size, prefix, &mut self.output.headers, self.chunks)
            .map_err(|_| DropReason::BadOffload)?;
        let base = batch.span(index).start;
        let mut copies = 0;
        let chunks = std::mem::take(self.chunks);
        for port in &targets.ports {
            if port.offload {
                self.deliver_whole(batch.span(index), vnet, &[port]);
                copies += 1;
                continue;
            }
            for chunk in &chunks {
                let head = skip(chunk.head, prefix.len() as u32);
                let body = Span { start: chunk.body.start + base, ..chunk.body };
                self.deliver(Deliver { port: port.id, vnet: VnetHeader::default(), head, body });
            }
            copies += chunks.len() as u64;
        }
        for vtep in targets.vteps {
            for chunk in &chunks {
                let body = Span { start: chunk.body.start + base, ..chunk.body };
                self.transmit(Transmit { vtep: *vtep, source, head: chunk.head, body });
            }
            copies += chunks.len() as u64;
        }
        *self.chunks = chunks;
        Ok(copies)
    }

    pub(crate) fn deliver(&mut self, deliver: Deliver) {
        if self.output.delivers.len() < MAX_OUTPUT {
            self.output.delivers.push(deliver);
        } else {
            self.counters.dropped(DropReason::OutputFull);
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        if self.output.transmits.len() < MAX_OUTPUT {
            self.output.transmits.push(transmit);
        } else {
            self.counters.dropped(DropReason::OutputFull);
        }
    }
}

fn skip(span: Span, bytes: u32) -> Span {
    Span { start: span.start + bytes, len: span.len - bytes }
}

/// What is unfinished about a frame from the underlay.
///
/// A kernel VXLAN peer whose underlay keeps offloads (a veth pair, most often) leaves inner checksums partial, and
/// sends TCP super-frames as one datagram. A frame above the segment's MTU is such a super-frame: cut to the MTU it
/// is what the peer would have sent on another wire.
pub(crate) fn recognise(
    frame: &mut [u8],
    info: &FrameInfo,
    mtu: u32,
) -> Result<VnetHeader, DropReason> {
    let partial = l4::is_partial(frame, info);
    let l3_len = frame.len() - usize::from(info.l3_offset);
    if l3_len <= mtu as usize {
        return Ok(match l4::checksum_offset(info.l4) {
            Some(offset) if partial => VnetHeader::partial(info.l4_offset, offset),
            _ => VnetHeader::default(),
        });
    }
    let headers = u32::from(info.payload_offset - info.l3_offset);
    let gso_type = match (info.l3, info.l4) {
        (L3::Ipv4, L4::Tcp) => vnet::GSO_TCPV4,
        (L3::Ipv6, L4::Tcp) => vnet::GSO_TCPV6,
        _ => return Err(DropReason::TooBig),
    };
    if mtu <= headers {
        return Err(DropReason::TooBig);
    }
    if !partial {
        match l4::checksum_state(frame, info) {
            L4Checksum::Correct => {}
            L4Checksum::Wrong => return Err(DropReason::BadChecksum),
            _ => return Err(DropReason::TooBig),
        }
        if !l4::set_partial(frame, info) {
            return Err(DropReason::TooBig);
        }
    }
    // A super-frame whose first chunk carries CWR is marked so (kernel `include/linux/virtio_net.h`).
    let cwr = frame.get(usize::from(info.l4_offset) + 13).is_some_and(|flags| flags & 0x80 != 0);
    Ok(VnetHeader {
        gso_type: gso_type | if cwr { vnet::GSO_ECN } else { 0 },
        hdr_len: info.payload_offset,
        gso_size: (mtu - headers).min(u32::from(u16::MAX)) as u16,
        ..VnetHeader::partial(info.l4_offset, 16)
    })
}
