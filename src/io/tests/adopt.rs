//! Devices that somebody else has opened.

use std::os::fd::AsFd;

use super::*;
use crate::error::Error;
use crate::io::sys::has_packet_information;

const KINDS: [DeviceKind; 2] = [DeviceKind::Tap, DeviceKind::Tun];

#[test]
fn packet_information_is_found_out_without_making_a_frame() {
    in_new_netns(|| {
        for kind in KINDS {
            for (no_pi, vnet, up) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
                let pi = if no_pi { NO_PI } else { 0 };
                let flags = kind_flag(kind) | pi | if vnet { VNET_HDR } else { 0 };
                let file = raw_open("ovl0", flags).unwrap();
                testing::set_up("ovl0", up).unwrap();
                let found = has_packet_information(file.as_fd(), kind == DeviceKind::Tun, vnet);
                assert_eq!(found.unwrap(), !no_pi, "{kind} vnet={vnet} up={up}");
                let (_, seen) = ioctl::attached(file.as_fd()).unwrap();
                assert_ne!(seen & NO_PI, 0, "TUNGETIFF can be believed after all");
                let counters = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
                let line = counters.lines().find(|line| line.contains("ovl0:")).unwrap();
                let packets = line.split_whitespace().nth(2).unwrap();
                assert_eq!(packets, "0", "{line}");
            }
        }
    });
}

#[test]
fn devices_work_whatever_stands_before_their_frames() {
    for kind in KINDS {
        for (no_pi, vnet) in [(NO_PI, 0), (NO_PI, VNET_HDR), (0, 0), (0, VNET_HDR)] {
            in_new_netns(move || {
                let file = raw_open("ovl0", kind_flag(kind) | no_pi | vnet).unwrap();
                if vnet != 0 {
                    ioctl::set_vnet_header_len(file.as_fd(), 24).unwrap();
                }
                let device = Device::adopt(file.into()).unwrap();
                assert_eq!((device.name(), device.kind(), device.queues()), ("ovl0", kind, 1));
                assert_eq!(device.has_vnet_header(), vnet != 0);
                assert_eq!(device.offloads().is_empty(), vnet == 0);
                assert_eq!(device.mtu().unwrap(), 1500);
                let mut queue = single(device);
                raise("ovl0");
                send_from_host(b"hello");
                let (_, header) = receive_from_host(&mut queue, kind, b"hello");
                assert_eq!(header.needs_checksum(), vnet != 0);
                deliver_to_host(&mut queue, kind, vnet != 0);
            });
        }
    }
}

#[test]
fn an_adopted_device_does_not_block() {
    in_new_netns(|| {
        let node = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        ioctl::attach(node.as_fd(), "ovl0", kind_flag(DeviceKind::Tap) | NO_PI).unwrap();
        let mut queue = single(Device::adopt(node.into()).unwrap());
        let received = queue.receive(&mut Batch::new(1));
        assert!(received.drained && received.failure.is_none());
    });
}

#[cfg(feature = "tun-tap")]
#[test]
fn an_iface_of_tun_tap_becomes_a_device() {
    use tun_tap::{Iface, Mode};
    for (kind, mode) in [(DeviceKind::Tap, Mode::Tap), (DeviceKind::Tun, Mode::Tun)] {
        for open in [Iface::new, Iface::without_packet_info] {
            in_new_netns(move || {
                let device = Device::try_from(open("ovl0", mode).unwrap()).unwrap();
                assert_eq!((device.name(), device.kind()), ("ovl0", kind));
                assert!(device.offloads().is_empty());
                let mut queues = device.into_queues(2).unwrap();
                assert!(queues[0].reads() && !queues[1].reads());
                raise("ovl0");
                send_from_host(b"hello");
                receive_from_host(&mut queues[0], kind, b"hello");
                queues.iter_mut().for_each(|queue| deliver_to_host(queue, kind, false));
            });
        }
    }
}

#[test]
fn several_queues_are_taken_over_together() {
    in_new_netns(|| {
        let flags = kind_flag(DeviceKind::Tap) | NO_PI | VNET_HDR | MULTI_QUEUE;
        let open = || OwnedFd::from(raw_open("ovl0", flags).unwrap());
        let files = vec![open(), open(), open()];
        let duplicates: Vec<OwnedFd> = files.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let device = Device::adopt_queues(files).unwrap();
        assert_eq!(device.queues(), 3);
        raise("ovl0");

        // Fewer workers than queues: no frame may go to a queue that nobody reads.
        let mut queues = device.into_queues(2).unwrap();
        assert!(queues.iter().all(PortQueue::reads));
        for n in 0..100 {
            send_from_host(&[n; 33]);
        }
        let mut batch = Batch::new(300);
        for queue in &mut queues {
            assert!(queue.receive(&mut batch).drained);
        }
        let ours = (0..batch.len()).filter(|index| batch.frame(*index).len() == 14 + 28 + 33);
        assert_eq!(ours.count(), 100);
        drop(duplicates);
    });
}

#[test]
fn an_adopted_device_gets_further_queues_if_it_may_have_them() {
    in_new_netns(|| {
        let flags = kind_flag(DeviceKind::Tun) | MULTI_QUEUE;
        let device = Device::adopt(raw_open("ovl0", flags).unwrap().into()).unwrap();
        raise("ovl0");
        let mut queues = device.into_queues(3).unwrap();
        assert!(queues.iter().all(PortQueue::reads));
        queues.iter_mut().for_each(|queue| deliver_to_host(queue, DeviceKind::Tun, false));

        let device = Device::adopt(raw_open("ovl1", flags).unwrap().into()).unwrap();
        testing::drop_net_admin().unwrap();
        let queues = device.into_queues(2).unwrap();
        assert_eq!(queues.iter().map(PortQueue::reads).collect::<Vec<_>>(), [true, false]);
    });
}

#[test]
fn other_files_are_refused() {
    let file = File::open("/dev/null").unwrap();
    let error = Device::adopt(file.into()).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "file descriptor", .. }), "{error}");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = Device::adopt(socket.into()).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "file descriptor", .. }), "{error}");
    let error = Device::adopt_queues(Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "number of queues", .. }), "{error}");

    in_new_netns(|| {
        let node = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        let error = Device::adopt(node.into()).unwrap_err().to_string();
        assert!(error.contains("not attached to a device"), "{error}");
        let flags = kind_flag(DeviceKind::Tap) | NO_PI | MULTI_QUEUE;
        let files = ["ovl0", "ovl1"].map(|name| raw_open(name, flags).unwrap().into());
        let error = Device::adopt_queues(files.into()).unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
    });
}
