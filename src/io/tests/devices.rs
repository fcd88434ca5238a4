//! Devices that work.

use std::os::fd::AsFd;

use super::*;

#[test]
fn frames_go_both_ways() {
    for kind in [DeviceKind::Tap, DeviceKind::Tun] {
        in_new_netns(move || {
            let device = match kind {
                DeviceKind::Tap => Device::tap("ovl%d"),
                DeviceKind::Tun => Device::tun("ovl%d"),
            };
            let device = device.unwrap();
            assert_eq!((device.name(), device.kind(), device.queues()), ("ovl0", kind, 1));
            assert!(device.offload());
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
        queue.deliver(vnet, [&frame[..]]).unwrap();
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
        assert!(device.offload(), "whoever attaches decides about the vnet header");
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
        let tso_mask = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        let before = raw_open("old0", flags).unwrap();
        testing::set_persist(before.as_fd(), true).unwrap();
        ioctl::set_offload(before.as_fd(), tso_mask).unwrap();
        ioctl::set_vnet_header_len(before.as_fd(), 12).unwrap();
        assert!(testing::tso("old0").unwrap());
        drop(before);
        assert!(testing::tso("old0").unwrap(), "the device keeps it");

        let mut queue = single(Device::tap("old0").unwrap());
        assert!(!testing::tso("old0").unwrap());
        raise("old0");
        send_from_host(b"hello");
        receive_from_host(&mut queue, DeviceKind::Tap, b"hello");
        drop(queue);

        // The same when somebody hands us such a device without vnet header.
        let before = raw_open("old0", flags).unwrap();
        ioctl::set_offload(before.as_fd(), tso_mask).unwrap();
        drop(before);
        let bare = raw_open("old0", kind_flag(DeviceKind::Tap) | NO_PI).unwrap();
        let mut queue = single(Device::adopt(bare.into()).unwrap());
        assert!(!testing::tso("old0").unwrap());
        send_from_host(b"hello");
        let (_, vnet) = receive_from_host(&mut queue, DeviceKind::Tap, b"hello");
        assert_eq!(vnet, VnetHeader::default());
    });
}
