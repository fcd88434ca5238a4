//! Devices that cannot be opened, and devices that fail.

use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::*;
use crate::drop_reason::DropReason;
use crate::io::port_reason;

#[track_caller]
fn refused(result: Result<Device, crate::Error>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn errors_say_what_is_in_the_way() {
    in_new_netns(|| {
        refused(Device::tap("a-name-much-too-long"), &["device name", "15 bytes"]);
        refused(Device::tap("lo"), &["opening TAP \"lo\"", "exists and is no TAP"]);

        let held = raw_open("old0", kind_flag(DeviceKind::Tap) | NO_PI).unwrap();
        testing::set_persist(held.as_fd(), true).unwrap();
        refused(Device::tap("old0"), &["opening TAP \"old0\"", "another process holds"]);
        refused(Device::tun("old0"), &["opening TUN \"old0\"", "exists and is no TUN"]);
        drop(held);
        refused(Device::tun("old0"), &["exists and is no TUN"]);
        drop(Device::tap("old0").unwrap());

        let held = Device::tap("ovl0").unwrap();
        refused(Device::tap("ovl0"), &["opening TAP \"ovl0\"", "another process holds queues"]);
        assert_eq!(netlink::attached_queues("ovl0"), Some(1));
        drop(held);
        drop(Device::tap("ovl0").unwrap());

        testing::drop_net_admin().unwrap();
        refused(Device::tap("ovl0"), &["opening TAP \"ovl0\"", "needs CAP_NET_ADMIN"]);
    });
}

#[test]
fn a_device_that_is_down_takes_no_frames_and_comes_back() {
    in_new_netns(|| {
        for kind in [DeviceKind::Tap, DeviceKind::Tun] {
            let mut queue = single(open(kind, "ovl0"));
            raise("ovl0");
            for _ in 0..2 {
                testing::set_up("ovl0", false).unwrap();
                let mut batch = Batch::new(16);
                while !queue.receive(&mut batch).drained {
                    batch.clear();
                }
                let received = queue.receive(&mut batch);
                assert!(received.drained && received.failure.is_none(), "{received:?}");
                let (frame, vnet) = datagram(kind, 9, b"x", true);
                let error = queue.deliver(vnet, Metadata::default(), [&frame[..]]).unwrap_err();
                assert_eq!(port_reason(&error), DropReason::PortDown, "{error}");
                raise("ovl0");
                deliver_to_host(&mut queue, kind, true);
                send_from_host(b"hello");
                receive_from_host(&mut queue, kind, b"hello");
            }
        }
    });
}

#[test]
fn a_deleted_device_is_noticed_and_never_comes_back() {
    in_new_netns(|| {
        for kind in [DeviceKind::Tap, DeviceKind::Tun] {
            let mut queue = single(open(kind, "ovl0"));
            raise("ovl0");
            let mut batch = Batch::new(16);
            let mut poll = Poll::new().unwrap();
            let fd = queue.fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
            while !queue.receive(&mut batch).drained {
                batch.clear();
            }
            let mut events = Events::with_capacity(4);
            while poll.poll(&mut events, Some(Duration::ZERO)).is_ok() && !events.is_empty() {}

            delete_link("ovl0");
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            let event = events.iter().next().expect("an event for the deletion");
            assert!(event.is_error(), "{event:?}");
            batch.clear();
            for _ in 0..2 {
                let received = queue.receive(&mut batch);
                assert!(received.drained && batch.is_empty());
                let error = received.failure.unwrap();
                assert_eq!(port_reason(&error), DropReason::PortLost, "{error}");
            }
            let (frame, vnet) = datagram(kind, 9, b"x", true);
            let error = queue.deliver(vnet, Metadata::default(), [&frame[..]]).unwrap_err();
            assert_eq!(port_reason(&error), DropReason::PortLost, "{error}");

            // One of the same name is another device.
            let again = Device::tap("ovl0").unwrap();
            assert!(queue.receive(&mut batch).failure.is_some());
            drop(again);
        }
    });
}

#[test]
fn a_device_deleted_before_it_is_used_is_an_error() {
    in_new_netns(|| {
        let device = Device::tap("ovl0").unwrap();
        delete_link("ovl0");
        assert!(device.mtu().is_err());
        // The queue is there, and reports the loss.
        let mut queues = device.into_queues(2).unwrap();
        assert_eq!(queues.len(), 2);
        assert!(queues[0].receive(&mut Batch::new(1)).failure.is_some());
    });
}

#[test]
fn frames_that_the_kernel_refuses_are_reported() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        raise("ovl0");
        let error =
            queue.deliver(VnetHeader::default(), Metadata::default(), [&[0; 5][..]]).unwrap_err();
        assert_eq!(port_reason(&error), DropReason::PortFailed, "{error}");
        let error = queue
            .deliver(VnetHeader::partial(60, 6), Metadata::default(), [&[0; 40][..]])
            .unwrap_err();
        assert_eq!(port_reason(&error), DropReason::PortFailed, "{error}");
        deliver_to_host(&mut queue, DeviceKind::Tap, true);
    });
}
