//! The main job on this machine, with nothing prepared: two hosts, a dataplane in each, traffic through both.
//!
//! The hosts are network namespaces without names that only this process holds, so that nothing of them is left
//! however it ends.

mod hosts;
mod speed;
mod steps;
mod traffic;

use std::fs;
use std::process;
use std::thread;

use overplane_lab::{enter_user_namespace, why_not};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;
use crate::foreground;
use hosts::{End, Hosts};
use steps::Steps;

/// Runs it all; a failure if any step failed.
pub fn run() -> Result<(), Failure> {
    // A user namespace can be entered by a process of one thread only, so this comes first.
    if !is_privileged() {
        println!("not root: running inside a user namespace");
        enter_user_namespace()?;
    }
    if let Some(reason) = why_not() {
        return Err(Failure::Run(reason));
    }
    exit_on_signal()?;
    let mut steps = Steps::default();
    println!("two hosts, left (10.9.0.1) and right (10.9.0.2), joined by a veth pair of MTU 1500");
    let vxlan = [End::Forwarder(hosts::VXLAN), End::Forwarder(hosts::VXLAN)];
    stage(&mut steps, "VXLAN, a forwarder on both hosts", vxlan);
    let udp = [End::Forwarder(hosts::UDP), End::Forwarder(hosts::UDP)];
    stage(&mut steps, "IP in UDP, a forwarder on both hosts", udp);
    let interop = [End::Forwarder(hosts::VXLAN), End::Kernel];
    stage(&mut steps, "VXLAN, the kernel's own device on the right host", interop);
    println!("\nspeed, the median of {} rounds", speed::ROUNDS);
    if let Some(table) = steps.step("measuring ", speed::measure) {
        println!("\n{table}");
    }
    if cfg!(debug_assertions) {
        println!("this is a debug build; cargo run --release shows the speed");
    }
    match steps.failed() {
        0 => {
            println!("all {} steps passed", steps.passed());
            Ok(())
        }
        failed => {
            Err(Failure::run(format_args!("{failed} of {} steps failed", steps.passed() + failed)))
        }
    }
}

/// Fresh hosts with these ends of an overlay, and traffic between them; the first failure ends it.
fn stage(steps: &mut Steps, title: &str, ends: [End; 2]) {
    println!("\n{title}");
    for (me, side) in (1..).zip(["left", "right"]) {
        if let End::Forwarder(arguments) = ends[usize::from(me) - 1] {
            println!("  {side}: forwarder {}", hosts::command(arguments, me));
        }
    }
    let hosts = steps.step("setting up ", || {
        let mut hosts = Hosts::new()?;
        hosts.join(ends)?;
        Ok(hosts)
    });
    let Some(hosts) = hosts else { return };
    if traffic::check(steps, &hosts).is_some() {
        steps.step("stopping; every frame is accounted for ", || hosts.stop());
    } else {
        println!("  the rest of it is left out; the counters of each forwarder are");
        for line in hosts.counters().iter().flat_map(|counters| counters.lines()) {
            println!("    {line}");
        }
    }
}

/// Whether the process may make network namespaces and devices (capabilities(7)).
fn is_privileged() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    effective & NET_ADMIN != 0 && effective & SYS_ADMIN != 0
}

/// Ends the process at the first signal: everything made here goes with it.
fn exit_on_signal() -> Result<(), Failure> {
    let signals = foreground::signals(&[SIGINT, SIGTERM])?;
    let wait = move || {
        if let Ok(signal) = signals.recv() {
            println!("\ninterrupted");
            #[expect(clippy::exit, reason = "whatever a step waits for must not delay the end")]
            process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("interrupt".into()).spawn(wait).map(drop).map_err(Failure::from)
}
