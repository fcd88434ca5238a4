//! Channel devices.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::*;
use crate::batch::MAX_FRAME;
use crate::drop_reason::DropReason;
use crate::io::{ChannelError, port_reason};

fn watch(queue: &PortQueue) -> Poll {
    let poll = Poll::new().unwrap();
    let fd = queue.fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    poll
}

#[test]
fn frames_go_both_ways() {
    let (device, port) = Device::channel(DeviceKind::Tun, 2).unwrap();
    assert_eq!((device.kind(), device.queues()), (DeviceKind::Tun, 1));
    assert!(device.offloads().is_empty() && device.missing().next().is_none());
    assert!(device.mtu().is_err());
    let mut queues = device.into_queues(2).unwrap();
    assert!(queues[0].reads() && !queues[1].reads());

    port.send(Bytes::from_static(b"one")).unwrap();
    port.send(Bytes::new()).unwrap();
    let three = Bytes::from_static(b"three");
    assert_eq!(port.send(three.clone()), Err(ChannelError::Full(three)));
    let large = Bytes::from(vec![0; MAX_FRAME + 1]);
    assert!(matches!(port.send(large), Err(ChannelError::TooLarge(_))));
    let mut batch = Batch::new(4);
    assert!(queues[1].receive(&mut batch).drained && batch.is_empty());
    assert!(queues[0].receive(&mut batch).drained);
    assert_eq!((batch.len(), batch.frame(0), batch.frame(1)), (2, &b"one"[..], &b""[..]));

    assert_eq!(port.try_receive(), None);
    for queue in &mut queues {
        queue.deliver(VnetHeader::default(), Metadata::default(), [&b"he"[..], b"ad"]).unwrap();
    }
    let error =
        queues[1].deliver(VnetHeader::default(), Metadata::default(), [&b""[..]]).unwrap_err();
    assert_eq!(port_reason(&error), DropReason::PortFull);
    assert_eq!(port.try_receive().unwrap(), "head");
    assert_eq!(port.receive_timeout(Duration::from_secs(5)).unwrap(), "head");
    assert_eq!(port.receive_timeout(Duration::from_millis(1)), None);
}

#[test]
fn either_side_notices_that_the_other_is_gone() {
    let (device, port) = Device::channel(DeviceKind::Tap, 8).unwrap();
    let mut queue = single(device);
    let mut batch = Batch::new(8);
    assert!(queue.receive(&mut batch).drained);
    let mut poll = watch(&queue);
    let clone = port.clone();
    drop(port);
    clone.send(Bytes::from_static(b"last")).unwrap();
    drop(clone);
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
    assert!(!events.is_empty());
    let received = queue.receive(&mut batch);
    assert_eq!(batch.len(), 1, "what was sent still arrives");
    let error = received.failure.unwrap();
    assert!(received.drained);
    assert_eq!(port_reason(&error), DropReason::PortLost);
    let error = queue.deliver(VnetHeader::default(), Metadata::default(), [&b"x"[..]]).unwrap_err();
    assert_eq!(port_reason(&error), DropReason::PortLost);

    let (device, port) = Device::channel(DeviceKind::Tap, 8).unwrap();
    drop(device);
    let frame = Bytes::from_static(b"x");
    assert_eq!(port.send(frame.clone()), Err(ChannelError::Closed(frame)));
    assert_eq!(port.receive_timeout(Duration::from_secs(60)), None);
}

#[test]
fn the_worker_is_woken_once_for_many_frames() {
    let (device, port) = Device::channel(DeviceKind::Tap, 100).unwrap();
    let mut queue = single(device);
    let mut batch = Batch::new(100);
    let mut poll = watch(&queue);
    let mut events = Events::with_capacity(4);
    (0..50).for_each(|_| port.send(Bytes::from_static(b"x")).unwrap());
    poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
    assert_eq!(events.iter().count(), 1);
    port.send(Bytes::from_static(b"x")).unwrap();
    poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "not drained yet, so the worker comes back by itself");
    assert!(queue.receive(&mut batch).drained);
    assert_eq!(batch.len(), 51);
    port.send(Bytes::from_static(b"x")).unwrap();
    poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
    assert_eq!(events.iter().count(), 1, "drained, so that the next frame wakes again");
}

#[test]
fn no_wake_up_is_lost() {
    const SENDERS: usize = 3;
    const EACH: usize = 30_000;
    for (capacity, slots) in [(1, 4), (16, 3), (256, 64)] {
        let (device, port) = Device::channel(DeviceKind::Tap, capacity).unwrap();
        let mut queue = single(device);
        let mut poll = watch(&queue);
        let refused = AtomicUsize::new(0);
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (port, refused) = (port.clone(), &refused);
                scope.spawn(move || {
                    for n in 0..EACH / capacity.clamp(1, 10) {
                        let mut frame = Bytes::from(vec![sender as u8; 1 + n % 60]);
                        while let Err(ChannelError::Full(back)) = port.send(frame) {
                            refused.fetch_add(1, Ordering::Relaxed);
                            frame = back;
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut missing = SENDERS * (EACH / capacity.clamp(1, 10));
            let mut batch = Batch::new(slots);
            let mut events = Events::with_capacity(4);
            while missing > 0 {
                poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                assert!(!events.is_empty(), "asleep with {missing} frames to come");
                loop {
                    batch.clear();
                    let drained = queue.receive(&mut batch).drained;
                    missing -= batch.len();
                    if drained {
                        break;
                    }
                }
            }
        });
    }
}

#[test]
fn capacities_out_of_range_are_refused() {
    for capacity in [0, (1 << 20) + 1, usize::MAX] {
        assert!(Device::channel(DeviceKind::Tap, capacity).is_err());
    }
}
