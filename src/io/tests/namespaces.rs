//! Devices in other network namespaces.

use socket2::{Domain, Socket, Type};

use super::*;
use crate::io::netns::run_in;

const IFLA_NET_NS_FD: u16 = 28;

fn is_here(name: &str) -> bool {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    ioctl::device_exists(socket.as_fd(), name)
}

fn is_in(netns: &OwnedFd, name: &str) -> bool {
    run_in(Some(netns.as_fd()), || Ok(is_here(name))).unwrap()
}

fn works_in(netns: &OwnedFd, queues: &mut [PortQueue], kind: DeviceKind) {
    run_in(Some(netns.as_fd()), || {
        raise("ovl0");
        for queue in queues {
            assert!(queue.reads());
            deliver_to_host(queue, kind, true);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_device_is_opened_elsewhere_with_all_its_queues() {
    in_new_netns(|| {
        for kind in [DeviceKind::Tap, DeviceKind::Tun] {
            let there = other_netns();
            let device = match kind {
                DeviceKind::Tap => Device::tap_in(&there, "ovl0"),
                DeviceKind::Tun => Device::tun_in(&there, "ovl0"),
            };
            let device = device.unwrap();
            assert!(is_in(&there, "ovl0") && !is_here("ovl0"));
            assert_eq!(device.mtu().unwrap(), 1500);
            // From a thread that is in yet another namespace.
            let mut queues = thread::spawn(|| {
                testing::new_netns().unwrap();
                device.into_queues(3).unwrap()
            })
            .join()
            .unwrap();
            works_in(&there, &mut queues, kind);
        }
    });
}

#[test]
fn a_device_that_was_moved_is_found() {
    in_new_netns(|| {
        let there = other_netns();
        let device = Device::tap("ovl0").unwrap();
        let there_fd = std::os::fd::AsRawFd::as_raw_fd(&there) as u32;
        netlink::change("ovl0", libc::RTM_NEWLINK, Some((IFLA_NET_NS_FD, there_fd))).unwrap();
        assert!(is_in(&there, "ovl0") && !is_here("ovl0"));
        // Another one takes its name here.
        let other = Device::tap("ovl0").unwrap();
        testing::set_mtu("ovl0", 9000).unwrap();
        assert_eq!((device.mtu().unwrap(), other.mtu().unwrap()), (1500, 9000));
        works_in(&there, &mut device.into_queues(2).unwrap(), DeviceKind::Tap);
    });
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    in_new_netns(|| {
        let file = File::open("/dev/null").unwrap();
        let error = Device::tap_in(&file, "ovl0").unwrap_err().to_string();
        assert!(error.contains("entering the network namespace"), "{error}");
        assert!(error.contains("/run/netns/NAME"), "{error}");
    });
}

#[test]
fn the_calling_thread_stays_where_it_is() {
    in_new_netns(|| {
        let there = other_netns();
        drop(Device::tap_in(&there, "ovl0").unwrap());
        drop(Device::tap("here0").unwrap());
        let kept = Device::tap("here0").unwrap();
        assert!(is_here("here0") && !is_in(&there, "here0"));
        drop(kept);
    });
}
