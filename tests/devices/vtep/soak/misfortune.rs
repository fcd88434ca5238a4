//! What happens to the nodes from outside: to their links, their devices and their segments.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Random};

use super::ours::{Ours, Whose};
use super::{KERNEL, kernel_vxlan, link};

pub(super) fn pause(random: &mut Random, longest: u64) {
    thread::sleep(Duration::from_millis(random.of_any_size(1, longest)));
}

/// One misfortune after the other; each is made good again before the next. While a segment is not there, its control
/// plane has to wait.
pub(super) fn misfortune(
    hosts: &[Namespace],
    nodes: &mut [Ours; 2],
    agents: &[Mutex<()>; 2],
    until: Instant,
    mut random: Random,
) {
    while Instant::now() < until {
        let host = random.of(0..=2) as usize;
        match random.of(0..=5) {
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
            2 => {
                let whose = [Whose::Host, Whose::Guest, Whose::Pod][random.of(0..=2) as usize];
                nodes[host].replace_device(whose, &mut random);
            }
            // A host believes that more fits into the overlay than does.
            3 => {
                let overlay = link(host);
                hosts[host].set_mtu(overlay, 1500).unwrap();
                pause(&mut random, 300);
                hosts[host].set_mtu(overlay, 1450).unwrap();
            }
            4 if host != KERNEL => {
                let _quiet = agents[host].lock().unwrap();
                nodes[host].replace_segment(&mut random);
            }
            // Nothing, for once.
            _ => pause(&mut random, 500),
        }
    }
}
