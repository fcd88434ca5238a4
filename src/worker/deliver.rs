//! Carrying an output out: frames to devices.

use std::io;
use std::time::Duration;

use crate::batch::Span;
use crate::capture::Fate;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::gso;
use crate::io::{PortQueue, port_reason};
use crate::metadata::Metadata;
use crate::offload::Offload;
use crate::output::Deliver;
use crate::segment::PortId;
use crate::tables::Tables;
use crate::trouble::Place;
use crate::wire::{FrameInfo, VnetHeader, eth, l4, vnet};

use super::record::Recorder;
use super::{Kind, Source, Worker};

impl Worker {
    pub(super) fn flush_delivers(&mut self, now: Duration) {
        for index in 0..self.output.delivers.len() {
            let deliver = self.output.delivers[index];
            let tables = self.reader.value();
            let source =
                self.port_source.get(&deliver.port).and_then(|index| self.sources[*index].as_mut());
            let Some(Source { kind: Kind::Port { queue, lost: false, .. }, .. }) = source else {
                self.forwarder.undelivered(tables, &deliver, DropReason::PortLost);
                self.recorder.undelivered(index, DropReason::PortLost);
                continue;
            };
            let delivered =
                if self.offloads.contains(joining(deliver.vnet)) || !deliver.vnet.is_gso() {
                    queue.deliver(
                        deliver.vnet,
                        self.output.metadata(index),
                        self.output.frame(&self.batch, &deliver),
                    )
                } else {
                    Err(io::Error::from(io::ErrorKind::InvalidInput))
                };
            match delivered {
                Ok(bytes) => self.forwarder.delivered(tables, &deliver, bytes),
                Err(error) if deliver.vnet.is_gso() && may_be_refusal(&error) => {
                    self.deliver_apart(index, &error, now);
                }
                Err(error) => {
                    self.forwarder.undelivered(tables, &deliver, port_reason(&error));
                    self.recorder.undelivered(index, port_reason(&error));
                    self.deliver_failed(&deliver, &error, now);
                }
            }
        }
    }

    /// Delivers by themselves the frames that a super-frame is made of, or its chunks if it was received as one, for
    /// the device has not taken it as a whole.
    #[cold]
    fn deliver_apart(&mut self, index: usize, refusal: &io::Error, now: Duration) {
        let whole = self.output.delivers[index];
        let deliver = &whole;
        let tables = self.reader.value();
        let port = tables.port(deliver.port);
        let segment = port.and_then(|port| tables.segment(port.segment));
        let ethernet = segment.is_some_and(|segment| segment.kind.is_ethernet());
        // Frames of a routed segment lie in the batch without it.
        let framed = port.is_some_and(|port| port.gateway.is_some());
        let link = if framed { eth::HEADER_LEN } else { 0 };
        let link = self.output.headers[deliver.head.range()].get(..link).unwrap_or_default();
        let source =
            self.port_source.get(&deliver.port).and_then(|index| self.sources[*index].as_mut());
        let Some(Source { kind: Kind::Port { queue, .. }, .. }) = source else { return };
        let (port, forwarder) = (deliver.port, &self.forwarder);
        let recorder = &mut self.recorder;
        let mut singles = Singles { port, queue, forwarder, recorder, tables, now, failure: None };
        if deliver.frames > 1 {
            for span in self.output.joined(deliver) {
                let frame = self.batch.bytes(span);
                let vnet = as_received(frame, ethernet).behind(link.len() as u16);
                singles.deliver(vnet, [link, frame]);
            }
        } else {
            if port_reason(refusal) == DropReason::PortDown {
                self.forwarder.undelivered(tables, deliver, DropReason::PortDown);
                self.recorder.undelivered(index, DropReason::PortDown);
                return self.deliver_failed(deliver, refusal, now);
            }
            let frame = self.batch.bytes(deliver.body);
            let (mut headers, mut chunks) = (Vec::new(), Vec::new());
            let size = usize::from(deliver.vnet.gso_size);
            let split = parse(frame, ethernet).is_some_and(|info| {
                gso::split(frame, &info, size, link, &mut headers, &mut chunks).is_ok()
            });
            if !split {
                self.forwarder.undelivered(tables, deliver, port_reason(refusal));
                self.recorder.undelivered(index, port_reason(refusal));
                return self.deliver_failed(deliver, refusal, now);
            }
            self.forwarder.split(tables, chunks.len() as u64);
            for chunk in chunks {
                let parts = [&headers[chunk.head.range()], &frame[chunk.body.range()]];
                singles.deliver(VnetHeader::default(), parts);
            }
        }
        let failure = singles.failure;
        self.recorder.in_pieces(index);
        match failure {
            Some(error) => self.deliver_failed(deliver, &error, now),
            // The link has come up meanwhile.
            None if port_reason(refusal) == DropReason::PortDown => {}
            // It was the joining that the device did not like.
            None => {
                let offload = joining(deliver.vnet);
                if self.offloads.contains(offload) {
                    self.shared.offload_failed(offload, refusal);
                }
            }
        }
    }

    #[cold]
    fn deliver_failed(&mut self, deliver: &Deliver, error: &io::Error, now: Duration) {
        let source =
            self.port_source.get(&deliver.port).and_then(|index| self.sources[*index].as_mut());
        let Some(Source { kind: Kind::Port { id, name, lost, .. }, .. }) = source else { return };
        let reason = port_reason(error);
        if reason == DropReason::PortLost {
            *lost = true;
            self.shared.device_lost(*id, name);
        } else {
            let place = Place::Port(*id);
            let news = self.troubles.report(place, reason, error, now, || name.clone());
            self.shared.report(news);
        }
    }
}

/// What delivering frames one by one needs.
struct Singles<'a> {
    port: PortId,
    queue: &'a mut PortQueue,
    forwarder: &'a Forwarder,
    recorder: &'a mut Recorder,
    tables: &'a Tables,
    now: Duration,
    /// The last error.
    failure: Option<io::Error>,
}

impl Singles<'_> {
    fn deliver(&mut self, vnet: VnetHeader, parts: [&[u8]; 2]) {
        let len = parts.iter().map(|part| part.len() as u32).sum();
        let single = Deliver::whole(self.port, vnet, Span { start: 0, len });
        let gone = self.failure.as_ref().map(port_reason);
        let gone = gone.filter(|why| matches!(why, DropReason::PortDown | DropReason::PortLost));
        if let Some(reason) = gone {
            // The others would fare the same.
            self.forwarder.undelivered(self.tables, &single, reason);
            self.record(parts, Fate::Dropped(reason));
            return;
        }
        match self.queue.deliver(vnet, Metadata::default(), parts) {
            Ok(bytes) => {
                self.forwarder.delivered(self.tables, &single, bytes);
                self.record(parts, Fate::Delivered);
            }
            Err(error) => {
                self.forwarder.undelivered(self.tables, &single, port_reason(&error));
                self.record(parts, Fate::Dropped(port_reason(&error)));
                self.failure = Some(error);
            }
        }
    }

    fn record(&mut self, parts: [&[u8]; 2], fate: Fate) {
        if self.recorder.is_open() {
            self.recorder.piece((self.tables, self.now), self.port, parts, fate);
        }
    }
}

/// The offload whose switch says whether devices are given super-frames of this kind.
fn joining(header: VnetHeader) -> Offload {
    if header.gso_type == vnet::GSO_UDP_L4 { Offload::CoalesceUdp } else { Offload::CoalesceTcp }
}

/// Whether a device may have refused a super-frame because it is one: for every reason but that it has no room for a
/// moment or is gone for good.
///
/// A link that is down looks alike at first (`EIO`: kernel `drivers/net/tun.c`, `tun_get_user`), which the first frame
/// by itself shows.
fn may_be_refusal(error: &io::Error) -> bool {
    matches!(port_reason(error), DropReason::PortFailed | DropReason::PortDown)
}

fn parse(frame: &[u8], ethernet: bool) -> Option<FrameInfo> {
    if ethernet { FrameInfo::parse(frame) } else { FrameInfo::parse_ip(frame).ok() }
}

/// What there was to be said of a frame before it was joined with others: at most that its checksum is unfinished.
fn as_received(frame: &[u8], ethernet: bool) -> VnetHeader {
    let unfinished = parse(frame, ethernet)
        .filter(|info| l4::is_partial(frame, info))
        .and_then(|info| Some(VnetHeader::partial(info.l4_offset, l4::checksum_offset(info.l4)?)));
    unfinished.unwrap_or_default()
}
