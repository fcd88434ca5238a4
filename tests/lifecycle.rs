//! What a dataplane costs when it does nothing, and what it leaves behind: nothing.
//!
//! One test, for it counts threads, descriptors and CPU time of the whole process.
#![cfg(all(feature = "io", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::time::Duration;

use overplane::{Config, Dataplane, Device, DeviceKind, Segment, Vni};
use overplane_lab::{Namespace, privileged};

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Times that the workers have gone to sleep so far.
fn sleeps() -> u64 {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        if name.starts_with("overplane-") {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.unwrap().trim().parse::<u64>().unwrap();
        }
    }
    sum
}

/// Runs a dataplane with two workers, a segment of each kind and a device in each, idle, and stops it.
fn live(host: Option<&Namespace>) {
    let mut config = Config::new("127.90.0.1".parse().unwrap());
    config.workers = 2;
    let start = || Dataplane::start(config).unwrap();
    let dataplane = match host {
        Some(host) => host.run(start),
        None => start(),
    };
    let control = dataplane.control();
    let red = control.add_segment(Segment::bridge(Vni::new(1).unwrap())).unwrap();
    let blue = control.add_segment(Segment::routed(8285)).unwrap();
    let (channel, _port) = Device::channel(DeviceKind::Tun, 16).unwrap();
    control.attach(blue, channel).unwrap();
    if let Some(host) = host {
        control.attach(red, Device::tap_in(host, "ovl0").unwrap()).unwrap();
        host.up("ovl0").unwrap();
        // The kernel's own neighbour discovery on the new link takes a while to fall silent.
        std::thread::sleep(Duration::from_secs(1));
        idle(3);
        host.delete("ovl0").unwrap();
        // What was learned behind it is flushed, and the FDB swept for it, a twelfth of a second at a time.
        std::thread::sleep(Duration::from_millis(2500));
        // A dead device must not be looped over.
        idle(2);
    }
    dataplane.stop().unwrap();
}

/// Checks that for some seconds the workers hardly wake up and hardly use the CPU.
fn idle(seconds: u32) {
    let before = (cpu_time(), sleeps());
    std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    let (cpu, woken) = (cpu_time() - before.0, sleeps() - before.1);
    // Two workers, a tick a second each, and room for a stray multicast frame of the kernel's.
    assert!(woken <= u64::from(seconds + 1) * 2 + 6, "{woken} wake-ups in {seconds} s");
    assert!(cpu < Duration::from_millis(20) * seconds, "{cpu:?} of CPU in {seconds} idle seconds");
}

#[test]
fn idle_dataplanes_sleep_and_stopped_ones_leave_nothing() {
    let host = privileged("idle_dataplanes_sleep_and_stopped_ones_leave_nothing").then(|| {
        let host = Namespace::new().unwrap();
        let _ = host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        host
    });
    live(None);
    let before = (count("/proc/self/fd"), count("/proc/self/task"));
    live(None);
    live(None);
    assert_eq!((count("/proc/self/fd"), count("/proc/self/task")), before);
    if let Some(host) = &host {
        live(Some(host));
        assert_eq!((count("/proc/self/fd"), count("/proc/self/task")), before);
        assert!(!host.exists("ovl0"));
    }
}
