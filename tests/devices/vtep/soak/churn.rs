//! A control plane that never rests.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use overplane::rate::RateLimit;
use overplane::{
    Change, Control, Device, DeviceKind, Flush, Gateway, MacAddr, NextHop, Offload, Offloads,
    PortOptions, Prefix, Segment, SegmentId, VlanMode, VlanSet, Vni,
};
use overplane_lab::Random;

use super::misfortune::pause;
use super::vtep;
use crate::hosts::ip;

/// What it is in charge of.
pub(super) struct Charge<'a> {
    pub(super) control: Control,
    pub(super) segment: SegmentId,
    pub(super) pods: SegmentId,
    /// Held while a change is on its way.
    pub(super) agent: &'a Mutex<()>,
}

/// A restless control plane, which leaves things as they were.
pub(super) fn churn(
    Charge { control, segment, pods, agent }: &Charge<'_>,
    host: usize,
    until: Instant,
    mut random: Random,
) {
    let segment = *segment;
    let mut turn = 0;
    while Instant::now() < until {
        pause(&mut random, 20);
        let _busy = agent.lock().unwrap();
        turn += 1;
        let other = (host + random.of(1..=2) as usize) % 3;
        match random.of(0..=12) {
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
            7 => set_a_port(control, segment, &mut random),
            // The others' datagrams go nowhere else meanwhile: all of them are in the other group at once.
            8 => {
                let others: Vec<_> = (0..3).filter(|n| *n != host).map(vtep).collect();
                let all_in = |group| {
                    others.iter().map(move |vtep| Change::SetVtepGroup {
                        segment,
                        vtep: *vtep,
                        group,
                    })
                };
                control.apply(all_in(Some(7))).unwrap();
                pause(&mut random, 100);
                control.apply(all_in(None)).unwrap();
            }
            // Somebody knows that less fits into a path, or more.
            9 => {
                let mtu = random.of(1280..=2000) as u32;
                control.set_path_mtu(vtep(other), Some(mtu)).unwrap();
                pause(&mut random, 100);
                control.set_path_mtu(vtep(other), None).unwrap();
            }
            // What is known of neighbours and groups, where it matters.
            10 => {
                let (address, mac) = (ip("10.8.0.99"), MacAddr([2, 0, 0, 0, 0x40, 99]));
                let set = control.set_neighbour(segment, address, mac, false);
                let group = Some(ip("239.1.2.3"));
                let insert = control.insert_mdb(segment, group, vtep(other));
                pause(&mut random, 100);
                set.and_then(|()| control.remove_neighbour(segment, address)).ok();
                insert.and_then(|()| control.remove_mdb(segment, group, vtep(other))).ok();
            }
            // The gateway of the pods answers for others, or knows another host. Its own address stays: hosts remember it.
            11 => {
                let Some(port) = control.ports().into_iter().find(|port| port.segment == *pods)
                else {
                    continue;
                };
                let mut options = PortOptions::default();
                let mut gateway = Gateway::default();
                gateway.answer_all = random.of(0..=1) == 1;
                gateway.host = (random.of(0..=1) == 1).then_some(MacAddr([2, 0, 0, 0, 0x40, 98]));
                options.gateway = Some(gateway);
                // It may be replaced at any moment.
                let _ = control.set_port(port.id, options.clone());
                pause(&mut random, 50);
                options.gateway = Some(Gateway::default());
                let _ = control.set_port(port.id, options);
            }
            _ => pause(&mut random, 100),
        }
        while control.next_event().is_some() {}
    }
}

/// A port of the segment is another one for a moment, with one option or many.
fn set_a_port(control: &Control, segment: SegmentId, random: &mut Random) {
    let ports: Vec<_> =
        control.ports().into_iter().filter(|port| port.segment == segment).collect();
    let mut options = PortOptions::default();
    let likely = random.of(1..=6);
    let mut any = || random.of(0..=6) < likely;
    (options.isolated, options.hairpin, options.learning) = (any(), any(), !any());
    options.flood_unknown_unicast = !any();
    options.flood_multicast = !any();
    options.flood_broadcast = !any();
    (options.fast_leave, options.multicast_routers) = (any(), !any());
    // That of the VTEPs, or one of its own.
    options.group = if any() { 1 + u8::from(any()) } else { 0 };
    if any() {
        let limit = |limited| if limited { Some(RateLimit::new(1)) } else { None };
        let storm = &mut options.storm;
        (storm.broadcast, storm.multicast) = (limit(any()), limit(any()));
        storm.unknown_unicast = limit(any());
    }
    if any() {
        let mut vlans = VlanSet::default();
        vlans.insert(9).unwrap();
        let pvid = any().then_some(7);
        options.vlan = if any() { VlanMode::Untagged } else { VlanMode::Only { vlans, pvid } };
    }
    let Some(port) = ports.get(random.of(0..=1) as usize) else { return };
    // It may be replaced at any moment.
    let _ = control.set_port(port.id, options);
    pause(random, 100);
    let _ = control.set_port(port.id, PortOptions::default());
}
