//! What happens to the nodes: to their links and devices from outside, and to their tables from the control plane.

use std::thread;
use std::time::{Duration, Instant};

use overplane::{
    Control, Device, DeviceKind, Flush, MacAddr, NextHop, Offload, Offloads, PortOptions, Prefix,
    Segment, SegmentId, Vni, mtu,
};
use overplane_lab::{Namespace, Random};

use super::{KERNEL, addresses, kernel_vxlan, link, vtep};
use crate::hosts::{Node, configure, ip};

fn pause(random: &mut Random, longest: u64) {
    thread::sleep(Duration::from_millis(random.of_any_size(1, longest)));
}

/// One misfortune after the other; each is made good again before the next.
pub(super) fn misfortune(
    hosts: &[Namespace; 3],
    nodes: &mut [Node; 2],
    until: Instant,
    mut random: Random,
) {
    while Instant::now() < until {
        let host = random.of(0..=2) as usize;
        match random.of(0..=4) {
            // The link is cut.
            0 => {
                hosts[host].down("eth0").unwrap();
                pause(&mut random, 300);
                hosts[host].up("eth0").unwrap();
            }
            // Less fits through it.
            1 => {
                hosts[host].set_mtu("eth0", random.of(1300..=1499) as u32).unwrap();
                pause(&mut random, 300);
                hosts[host].set_mtu("eth0", 1500).unwrap();
            }
            // The device of the overlay is deleted, and made again.
            2 if host == KERNEL => {
                hosts[host].delete("vx0").unwrap();
                pause(&mut random, 100);
                kernel_vxlan(&hosts[host]);
            }
            2 => replace_device(&hosts[host], &mut nodes[host], host, &mut random),
            // A host believes that more fits into the overlay than does.
            3 => {
                let overlay = link(host);
                hosts[host].set_mtu(overlay, 1500).unwrap();
                pause(&mut random, 300);
                hosts[host].set_mtu(overlay, 1450).unwrap();
            }
            // Nothing, for once.
            _ => pause(&mut random, 500),
        }
    }
}

/// Somebody deletes a device, and the agent makes and attaches another one with the same address.
fn replace_device(host: &Namespace, node: &mut Node, number: usize, random: &mut Random) {
    let mac = host.mac("ovl0").unwrap();
    let mtu = host.mtu("ovl0").unwrap();
    host.delete("ovl0").unwrap();
    pause(random, 100);
    node.control.detach(node.port).unwrap();
    node.port = node.control.attach(node.segment, Device::tap_in(host, "ovl0").unwrap()).unwrap();
    host.set_mac("ovl0", mac).unwrap();
    let kind = Segment::bridge(Vni::new(42).unwrap()).kind;
    host.set_gso_max_size("ovl0", mtu::gso_max_size(kind, false, mtu)).unwrap();
    host.set_txqueuelen("ovl0", 1000).unwrap();
    configure(host, "ovl0", mtu, &addresses(number));
}

/// A restless control plane, which leaves things as they were.
pub(super) fn churn(
    (control, segment): &(Control, SegmentId),
    host: usize,
    until: Instant,
    mut random: Random,
) {
    let segment = *segment;
    let mut turn = 0;
    while Instant::now() < until {
        turn += 1;
        let other = (host + random.of(1..=2) as usize) % 3;
        match random.of(0..=9) {
            // A peer goes and comes back.
            0 => {
                control.remove_flood(segment, vtep(other)).unwrap();
                pause(&mut random, 50);
                control.add_flood(segment, vtep(other)).unwrap();
            }
            // Peers that are not there.
            1 => {
                let nobody = |n| (ip(&format!("10.9.0.{n}")), 4789).into();
                let numbers = 100..100 + random.of(1..=20);
                numbers.clone().for_each(|n| control.add_peer(segment, nobody(n)).unwrap());
                control.add_flood(segment, nobody(200)).unwrap();
                pause(&mut random, 50);
                control.remove_flood(segment, nobody(200)).unwrap();
                numbers.for_each(|n| control.remove_peer(segment, nobody(n)).unwrap());
            }
            2 => {
                let mac = |n| MacAddr::from_u64(0x0200_0000_4000 | n);
                let macs = 0..random.of(1..=200);
                macs.clone()
                    .for_each(|n| control.insert_fdb(segment, mac(n), vtep(other)).unwrap());
                pause(&mut random, 20);
                macs.for_each(|n| control.remove_fdb(segment, mac(n)).unwrap());
            }
            3 => {
                let which = match random.of(0..=2) {
                    0 => Flush::All,
                    1 => Flush::Vtep(vtep(other)),
                    _ => Flush::OlderThan(Duration::ZERO),
                };
                control.flush_fdb(segment, which).unwrap();
            }
            4 => {
                let id = Segment::bridge(Vni::new(1000 + turn).unwrap());
                let id = control.add_segment(id).unwrap();
                let (device, _end) = Device::channel(DeviceKind::Tap, 16).unwrap();
                control.attach(id, device).unwrap();
                control.add_flood(id, vtep(other)).unwrap();
                pause(&mut random, 50);
                control.remove_segment(id).unwrap();
            }
            5 => {
                let id = Segment::routed(9000 + turn as u16);
                let id = control.add_segment(id).unwrap();
                let prefix = |n: u64| -> Prefix { format!("10.6.{n}.0/24").parse().unwrap() };
                for n in 0..random.of(1..=255) {
                    let next_hop = match n % 3 {
                        0 => vtep(other).into(),
                        1 => NextHop::Blackhole,
                        _ => NextHop::Local,
                    };
                    control.insert_route(id, prefix(n), next_hop).unwrap();
                }
                control.remove_route(id, prefix(0)).unwrap();
                control.remove_segment(id).unwrap();
            }
            6 => {
                let off = Offload::ALL.iter().filter(|_| random.of(0..=3) == 0);
                let set = off.fold(Offloads::ALL, |set, offload| set.without(*offload));
                control.set_offloads(set);
                pause(&mut random, 200);
                control.set_offloads(Offloads::ALL);
            }
            7 => {
                // It may be replaced at any moment.
                let ports = control.ports();
                let Some(port) = ports.iter().find(|port| port.segment == segment) else {
                    continue;
                };
                let mut options = PortOptions::default();
                (options.isolated, options.hairpin, options.learning) = (true, true, false);
                let _ = control.set_port(port.id, options);
                pause(&mut random, 50);
                let _ = control.set_port(port.id, PortOptions::default());
            }
            _ => pause(&mut random, 100),
        }
        while control.next_event().is_some() {}
    }
}
