//! Carrying an output out: frames to devices.

use std::io;
use std::time::Duration;

use crate::drop_reason::DropReason;
use crate::io::{port_reason, refuses_offload};
use crate::offload::Offload;
use crate::output::Deliver;
use crate::trouble::Place;
use crate::wire::{FrameInfo, VnetHeader, l4, vnet};

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
                continue;
            };
            let frame = self.output.frame(&self.batch, &deliver);
            let delivered = queue.deliver(deliver.vnet, frame);
            match delivered {
                Ok(bytes) => self.forwarder.delivered(tables, &deliver, bytes),
                Err(error) if deliver.frames > 1 && refuses_offload(&error) => {
                    self.deliver_apart(&deliver, &error, now);
                }
                Err(error) => {
                    self.forwarder.undelivered(tables, &deliver, port_reason(&error));
                    self.deliver_failed(&deliver, &error, now);
                }
            }
        }
    }

    /// Delivers the frames that a joined one is made of, for the device has refused it as a whole.
    #[cold]
    fn deliver_apart(&mut self, deliver: &Deliver, refusal: &io::Error, now: Duration) {
        let tables = self.reader.value();
        let ethernet = tables.port(deliver.port).is_some_and(|port| port.segment.vni.is_some());
        let source =
            self.port_source.get(&deliver.port).and_then(|index| self.sources[*index].as_mut());
        let Some(Source { kind: Kind::Port { queue, .. }, .. }) = source else { return };
        let mut failure = None;
        for span in self.output.joined(deliver) {
            let frame = self.batch.bytes(span);
            let single = Deliver::whole(deliver.port, as_received(frame, ethernet), span);
            match queue.deliver(single.vnet, [frame]) {
                Ok(bytes) => self.forwarder.delivered(tables, &single, bytes),
                Err(error) => {
                    self.forwarder.undelivered(tables, &single, port_reason(&error));
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) => self.deliver_failed(deliver, &error, now),
            // It was the joining that the device did not like.
            None => {
                let udp = deliver.vnet.gso_type == vnet::GSO_UDP_L4;
                let offload = if udp { Offload::CoalesceUdp } else { Offload::CoalesceTcp };
                self.shared.offload_failed(offload, refusal);
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

/// What there was to be said of a frame before it was joined with others: at most that its checksum is unfinished.
fn as_received(frame: &[u8], ethernet: bool) -> VnetHeader {
    let info = if ethernet { FrameInfo::parse(frame) } else { FrameInfo::parse_ip(frame).ok() };
    let unfinished = info
        .filter(|info| l4::is_partial(frame, info))
        .and_then(|info| Some(VnetHeader::partial(info.l4_offset, l4::checksum_offset(info.l4)?)));
    unfinished.unwrap_or_default()
}
