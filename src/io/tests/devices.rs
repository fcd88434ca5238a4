//! Devices that work.

use std::os::fd::AsFd;

use super::*;
use crate::offload::{Offload, Offloads};

#[test]
fn frames_go_both_ways() {
    for kind in [DeviceKind::Tap, DeviceKind::Tun] {
        in_new_netns(move || {
            let device = open(kind, "ovl%d");
            assert_eq!((device.name(), device.kind(), device.queues()), ("ovl0", kind, 1));
            let udp = [Offload::UdpGso, Offload::UdpGro].into_iter().collect();
            assert_eq!(device.offloads(), Offloads::ALL.minus(udp));
            assert_eq!(device.mtu().unwrap(), 1500);
            testing::set_mtu("ovl0", 1450).unwrap();
            assert_eq!(device.mtu().unwrap(), 1450);
            let mut queue = single(device);
            assert!(queue.reads());
            raise("ovl0");
            send_from_host(b"hello");
            let (_, vnet) = receive_from_host(&mut queue, kind, b"hello");
            assert!(vnet.needs_checksum(), "the kernel leaves checksums to us: {vnet:?}");
            assert!(!vnet.is_gso());
            deliver_to_host(&mut queue, kind, true);
            deliver_to_host(&mut queue, kind, false);
        });
    }
}

#[test]
fn a_full_batch_leaves_the_rest_for_the_next_turn() {
    in_new_netns(|| {
        let mut queue = single(Device::tun("ovl0").unwrap());
        raise("ovl0");
        let mut batch = Batch::new(4);
        // Whatever the kernel itself has to say first.
        while !queue.receive(&mut batch).drained {
            batch.clear();
        }
        batch.clear();
        (0..10).for_each(|_| send_from_host(b"x"));
        let mut total = 0;
        loop {
            batch.clear();
            let received = queue.receive(&mut batch);
            total += batch.len();
            if received.drained {
                break;
            }
            assert_eq!(batch.len(), 4);
        }
        assert!(total >= 10);
        let received = queue.receive(&mut Batch::new(1));
        assert!(received.drained && received.failure.is_none());
    });
}

#[test]
fn the_largest_frame_fits() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        testing::set_mtu("ovl0", 65521).unwrap();
        raise("ovl0");
        let payload: Vec<u8> = (0..65521 - 28).map(|n| n as u8).collect();
        send_from_host(&payload);
        receive_from_host(&mut queue, DeviceKind::Tap, &payload);
        let (frame, vnet) = datagram(DeviceKind::Tap, 9, &payload, true);
        queue.deliver(vnet, Metadata::default(), [&frame[..]]).unwrap();
    });
}

#[test]
fn each_worker_reads_a_queue_of_its_own() {
    in_new_netns(|| {
        let device = Device::tap("ovl0").unwrap();
        raise("ovl0");
        let mut queues = device.into_queues(4).unwrap();
        assert!(queues.len() == 4 && queues.iter().all(PortQueue::reads));
        // Different flows, of which each comes out of one queue.
        (0..200).for_each(|_| send_from_host(b"x"));
        let mut batch = Batch::new(300);
        let counts: Vec<usize> = queues
            .iter_mut()
            .map(|queue| {
                batch.clear();
                assert!(queue.receive(&mut batch).drained);
                batch.len()
            })
            .collect();
        assert!(counts.iter().sum::<usize>() >= 200, "{counts:?}");
        assert!(counts.iter().filter(|count| **count > 0).count() >= 2, "{counts:?}");
        queues.iter_mut().for_each(|queue| deliver_to_host(queue, DeviceKind::Tap, true));
    });
}

#[test]
fn a_single_queue_device_is_read_by_the_first_worker() {
    in_new_netns(|| {
        let flags = kind_flag(DeviceKind::Tap) | NO_PI;
        testing::set_persist(raw_open("old0", flags).unwrap().as_fd(), true).unwrap();
        let device = Device::tap("old0").unwrap();
        assert!(device.has_vnet_header(), "whoever attaches decides about the vnet header");
        raise("old0");
        let mut queues = device.into_queues(3).unwrap();
        assert_eq!(queues.iter().map(PortQueue::reads).collect::<Vec<_>>(), [true, false, false]);
        queues.iter_mut().for_each(|queue| deliver_to_host(queue, DeviceKind::Tap, true));
        assert!(queues[1].receive(&mut Batch::new(1)).drained);
        send_from_host(b"hello");
        receive_from_host(&mut queues[0], DeviceKind::Tap, b"hello");
    });
}

#[test]
fn offloads_of_an_earlier_user_do_not_stay() {
    in_new_netns(|| {
        let flags = kind_flag(DeviceKind::Tap) | NO_PI | VNET_HDR;
        let before = raw_open("old0", flags).unwrap();
        testing::set_persist(before.as_fd(), true).unwrap();
        // UFO, which nobody has asked for since: the vnet header would come with a type that we do not take.
        ioctl::set_offload(before.as_fd(), libc::TUN_F_CSUM | libc::TUN_F_UFO).unwrap();
        ioctl::set_vnet_header_len(before.as_fd(), 12).unwrap();
        drop(before);
        assert!(!testing::tso("old0").unwrap(), "the device keeps what it was told");

        let mut queue = single(Device::tap("old0").unwrap());
        assert!(testing::tso("old0").unwrap(), "and has what we negotiated");
        queue.set_offloads(Offloads::ALL.without(Offload::Tso));
        assert!(!testing::tso("old0").unwrap());
        queue.set_offloads(Offloads::ALL);
        queue.set_offloads(Offloads::ALL);
        assert!(testing::tso("old0").unwrap());
        queue.set_offloads(Offloads::NONE.with(Offload::Tso));
        assert!(!testing::tso("old0").unwrap(), "there is none without checksums");
        drop(queue);

        let before = raw_open("old0", flags).unwrap();
        ioctl::set_vnet_header_len(before.as_fd(), 12).unwrap();
        let mut queue = single(Device::adopt(before.into()).unwrap());
        assert!(testing::tso("old0").unwrap(), "the same when somebody hands it to us");
        raise("old0");
        send_from_host(b"hello");
        receive_from_host(&mut queue, DeviceKind::Tap, b"hello");
        drop(queue);

        assert!(testing::tso("old0").unwrap());
        let bare = raw_open("old0", kind_flag(DeviceKind::Tap) | NO_PI).unwrap();
        let mut queue = single(Device::adopt(bare.into()).unwrap());
        assert!(!testing::tso("old0").unwrap(), "nothing without a vnet header");
        queue.set_offloads(Offloads::ALL);
        assert!(!testing::tso("old0").unwrap());
        send_from_host(b"hello");
        let (_, vnet) = receive_from_host(&mut queue, DeviceKind::Tap, b"hello");
        assert_eq!(vnet, VnetHeader::default());
    });
}

/// A counter of IPv4 in the network namespace of the calling thread.
fn ip_counter(name: &str) -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split_whitespace().position(|word| word == name).unwrap();
    values.split_whitespace().nth(place).unwrap().parse().unwrap()
}

#[test]
fn what_a_device_takes_is_found_out_without_anybody_noticing() {
    for kind in [DeviceKind::Tap, DeviceKind::Tun] {
        in_new_netns(move || {
            let flags = kind_flag(kind) | VNET_HDR;
            let before = raw_open("old0", flags).unwrap();
            raise("old0");
            let mut queue = single(Device::adopt(before.into()).unwrap());
            // The host has seen both probes and dropped them for their header.
            assert_eq!((ip_counter("InReceives"), ip_counter("InHdrErrors")), (2, 2));
            assert_eq!(ip_counter("InDelivers"), 0);
            let mut batch = Batch::new(64);
            while !queue.receive(&mut batch).drained {}
            let l3 = if kind == DeviceKind::Tap { 14 } else { 0 };
            let answers = (0..batch.len())
                .filter(|index| batch.frame(*index).get(l3).is_some_and(|byte| byte >> 4 == 4));
            assert_eq!(answers.filter(|index| batch.frame(*index)[l3 + 9] == 1).count(), 0);
        });
    }
}
