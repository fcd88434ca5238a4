//! What the kernel says of the threads of a running forwarder.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::program::{PATIENCE, Running};

/// CAP_NET_BIND_SERVICE and CAP_NET_ADMIN (kernel `include/uapi/linux/capability.h`).
pub(crate) const BIND_SERVICE: u64 = 1 << 10;
pub(crate) const NET_ADMIN: u64 = 1 << 12;

pub(crate) const VXLAN: &str =
    "vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24";

/// What the kernel says of each thread of a process, by name of the thread.
pub(crate) fn threads(forwarder: &Running) -> BTreeMap<String, BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", forwarder.0.id())).unwrap();
    let status = |task: fs::DirEntry| -> BTreeMap<String, String> {
        let text = fs::read_to_string(task.path().join("status")).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key.into(), value.trim().replace('\t', " "))).collect()
    };
    tasks.map(|task| status(task.unwrap())).map(|status| (status["Name"].clone(), status)).collect()
}

pub(crate) fn capabilities(status: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).unwrap()
}

/// Waits until the forwarder forwards, with all its threads.
pub(crate) fn wait_for_threads(forwarder: &Running, names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while !names.iter().all(|name| threads(forwarder).contains_key(*name)) {
        assert!(Instant::now() < deadline, "{:?} instead of {names:?}", threads(forwarder).keys());
        thread::sleep(Duration::from_millis(10));
    }
}
