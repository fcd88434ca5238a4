//! Four nodes, several tenants, a bad underlay and a restless control plane, for thousands of random steps.

use std::collections::HashMap;
use std::net::SocketAddr;

use overplane::wire::VnetHeader;
use overplane::{Change, Flush, MacAddr, PortId, Segment, SegmentId};

use crate::network::{Faults, Network, Rng};
use crate::packets::*;

const NODES: u8 = 4;
const TENANTS: u32 = 3;
const HOSTS_PER_TENANT: u64 = 12;

/// What a frame carries: the tenant that sent it and a serial number, so that everything delivered can be traced.
fn payload(tenant: u32, serial: u32) -> [u8; 8] {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&tenant.to_be_bytes());
    payload[4..].copy_from_slice(&serial.to_be_bytes());
    payload
}

struct Soak {
    network: Network,
    rng: Rng,
    /// Ports with their tenants, by node.
    ports: Vec<(u8, u32, PortId)>,
    serial: u32,
    /// How often each frame was delivered at each port.
    delivered: HashMap<(u32, u8, PortId), u64>,
}

fn small(tenant: u32) -> Segment {
    bridge_with(tenant, |segment| segment.fdb_limit = 64)
}

impl Soak {
    fn new(seed: u64) -> Self {
        let mut network = Network::new(NODES);
        let mut ports = Vec::new();
        for n in 1..=NODES {
            for tenant in 1..=TENANTS {
                ports.push((n, tenant, network.add_segment(n, small(tenant), false)));
                for other in (1..=NODES).filter(|other| *other != n) {
                    let segment = bridge_id(tenant);
                    network.change(n, Change::AddFlood { segment, vtep: vtep(other) });
                }
            }
        }
        network.rng = Rng::new(seed ^ 0xdead);
        Self { network, rng: Rng::new(seed), ports, serial: 0, delivered: HashMap::new() }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.below(from.len() as u64) as usize]
    }

    fn some_segment(&mut self) -> SegmentId {
        bridge_id(1 + self.rng.below(u64::from(TENANTS)) as u32)
    }

    fn some_vtep(&mut self) -> SocketAddr {
        vtep(1 + self.rng.below(u64::from(NODES)) as u8)
    }

    fn some_mac(&mut self) -> MacAddr {
        host(1 + self.rng.below(HOSTS_PER_TENANT) as u8).mac
    }

    /// A batch of frames between hosts of one tenant, at a node where the senders happen to be at the moment.
    fn traffic(&mut self) {
        let ports = self.ports.clone();
        let (node, tenant, port) = self.pick(&ports);
        let mut frames = Vec::new();
        for _ in 0..=self.rng.below(8) {
            self.serial += 1;
            // Hosts mostly stay at a node, and sometimes move.
            let home = if self.rng.below(20) == 0 { self.rng.below(4) } else { u64::from(node) };
            let from = host(1 + ((home + 4 * self.rng.below(3)) % HOSTS_PER_TENANT) as u8);
            let to = match self.rng.below(10) {
                0 => EVERYBODY,
                _ => host(1 + self.rng.below(HOSTS_PER_TENANT) as u8),
            };
            frames.push(udp(from, to, &payload(tenant, self.serial)));
        }
        let batch: Vec<_> =
            frames.iter().map(|frame| (&frame[..], VnetHeader::default())).collect();
        self.network.give(node, port, &batch);
    }

    /// Something that a control plane might do, sensible or not.
    fn control(&mut self) {
        let node = 1 + self.rng.below(u64::from(NODES)) as u8;
        let (segment, vtep, mac) = (self.some_segment(), self.some_vtep(), self.some_mac());
        let change = match self.rng.below(9) {
            0 => Change::AddFlood { segment, vtep },
            1 => Change::RemoveFlood { segment, vtep },
            2 => Change::AddPeer { segment, vtep },
            3 => Change::RemovePeer { segment, vtep },
            4 => Change::InsertFdb { segment, mac, destination: vtep.into() },
            5 => Change::RemoveFdb { segment, mac },
            6 => Change::FlushFdb { segment, which: Flush::Vtep(vtep) },
            7 => Change::FlushFdb { segment, which: Flush::All },
            _ => return self.replace_a_port(),
        };
        // A node that floods to itself hears itself: that is the operator's loop, not ours.
        if vtep.ip() != underlay(node) {
            // Removing what is not there is an error, and no harm.
            let _ = self.network.try_change(node, [change]);
        }
    }

    fn replace_a_port(&mut self) {
        let at = self.rng.below(self.ports.len() as u64) as usize;
        let (node, tenant, port) = self.ports[at];
        self.look_into_inboxes();
        self.network.change(node, Change::RemovePort(port));
        self.ports[at].2 = self.network.add_port(node, bridge_id(tenant), false);
    }

    /// Every frame delivered belongs to the tenant of the port, and came as often as the underlay explains.
    fn look_into_inboxes(&mut self) {
        for (node, tenant, port) in self.ports.clone() {
            for frame in self.network.frames(node, port) {
                let payload = &frame[42..50];
                let of = u32::from_be_bytes(payload[..4].try_into().unwrap());
                assert_eq!(of, tenant, "a frame crossed from one tenant to another");
                let serial = u32::from_be_bytes(payload[4..].try_into().unwrap());
                *self.delivered.entry((serial, node, port)).or_default() += 1;
            }
        }
    }

    fn run(mut self, steps: u32, faults: Faults) -> Self {
        self.network.faults = faults;
        for _ in 0..steps {
            match self.rng.below(20) {
                0 => self.control(),
                1 => {
                    let seconds = self.rng.below(60);
                    self.network.wait(seconds);
                }
                2..10 => self.network.run(),
                _ => self.traffic(),
            }
            self.look_into_inboxes();
        }
        self.network.run();
        self.look_into_inboxes();
        self
    }
}

#[test]
fn on_a_good_underlay_nobody_gets_a_frame_twice() {
    for seed in 1..=8 {
        let soak = Soak::new(seed).run(2000, Faults::default());
        assert!(soak.delivered.len() > 1000, "the soak does something");
        for (key, copies) in &soak.delivered {
            assert_eq!(*copies, 1, "seed {seed}: {key:?}");
        }
    }
}

#[test]
fn on_a_bad_underlay_every_frame_is_accounted_for_and_stays_with_its_tenant() {
    let faults = Faults { lost: 40, repeated: 20, overtaken: 60, refused: 15, ..Faults::default() };
    for seed in 100..=108 {
        let soak = Soak::new(seed).run(2000, faults);
        assert!(soak.delivered.len() > 1000);
        // A datagram arrives at most twice, and a node delivers what arrives once to each port.
        assert!(soak.delivered.values().all(|copies| *copies <= 2), "seed {seed}");
    }
}
