//! A worker without devices: packets to random destinations, a batch at a time.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use overplane::wire::{VnetHeader, ip};
use overplane::{Batch, Forwarder, Output, PortId, Reader, Tables};
use overplane_lab::{Random, thread_time};

use crate::{NOW, destination};

const BATCH: usize = 64;
/// Different packets, more than a branch predictor can learn.
const PACKETS: usize = 1 << 16;
const HEADER: usize = 20;

/// What forwarding for a while came to.
#[derive(Debug)]
pub struct Sample {
    frames: u64,
    time: Duration,
    /// Processor time of every batch that took up new tables.
    pub pauses: Vec<Duration>,
}

impl Sample {
    /// Frames per second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.time.as_secs_f64()
    }
}

fn packet(to: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], to.octets(), 64).udp(40_000, 53);
    builder.write(&mut packet, &[0x5a; 32]).unwrap();
    packet
}

/// Forwards until it is `over`.
pub fn forward(mut reader: Reader<Tables>, port: PortId, routes: u32, over: &AtomicBool) -> Sample {
    let mut random = Random::new(2);
    let template = packet(Ipv4Addr::UNSPECIFIED);
    let headers: Vec<[u8; HEADER]> = (0..PACKETS)
        .map(|_| {
            let to = destination(random.of(0..=u64::from(routes - 1)) as u32);
            let mut header: [u8; HEADER] = template[..HEADER].try_into().unwrap();
            header[16..].copy_from_slice(&to.octets());
            let check = ip::v4_header_checksum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            header
        })
        .collect();
    let mut batch = Batch::new(BATCH);
    while batch.push(&template, VnetHeader::default()) {}
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    let (mut frames, mut pauses, mut turn) = (0, Vec::with_capacity(1 << 20), 0);
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        batch.clear();
        while let Some(slot) = batch.next_slot(0) {
            slot[..HEADER].copy_from_slice(&headers[turn % PACKETS]);
            turn += 1;
            batch.commit(template.len(), VnetHeader::default());
        }
        output.clear();
        let begin = thread_time();
        let changed = reader.refresh();
        forwarder.from_port(reader.value(), NOW, port, &mut batch, &mut output);
        if changed && pauses.len() < pauses.capacity() {
            pauses.push(thread_time().saturating_sub(begin));
        }
        frames += BATCH as u64;
    }
    Sample { frames, time: start.elapsed(), pauses }
}
