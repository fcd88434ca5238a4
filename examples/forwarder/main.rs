//! A standalone forwarder: overlay networks in userspace from a command line or a configuration file.
//!
//! ```text
//! forwarder vxlan --vni 42 --local 10.9.0.1 --remote 10.9.0.2 --dev ovl0 --address 10.8.0.1/24
//! forwarder udp --local 10.9.0.1 --dev flannel0 --address 10.7.1.0/16 --route 10.7.2.0/24=10.9.0.2
//! forwarder flannel --local 10.9.0.1 --dev flannel.1 --mac 0e:2a:00:00:00:01 --address 10.244.0.0/16 \
//!     --lease 10.244.1.0/24=10.9.0.2,0e:2a:00:00:00:02
//! forwarder run forwarder.toml --control /run/overplane/forwarder.sock
//! forwarder show
//! forwarder demo
//! ```
//!
//! It shows all that an agent does around the library: devices, links and addresses, segments, events, counters.
//! `overlay.rs` is the part to read first.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "these rules are the library's; a program prints, waits, reads the clock, and exports nothing"
)]

mod args;
mod capture;
mod client;
mod config;
mod control;
mod demo;
mod doctor;
mod entry;
mod events;
mod failure;
mod foreground;
mod links;
mod metrics;
mod outer;
mod overlay;
mod plan;
mod privileges;
mod reload;
mod report;
mod service;
mod table;
mod values;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use failure::Failure;
use plan::Plan;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(arguments.log())
        .with_target(false)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let (stats, control, metrics) = (arguments.stats, arguments.control, arguments.metrics);
    let forward = |plan: Plan, file: Option<&Path>| {
        let origin = file.map(|file| (file, plan.clone()));
        let control = control.clone().or(plan.control);
        let metrics = metrics.or(plan.metrics);
        foreground::run(Plan { control, metrics, ..plan }, origin, stats)
    };
    match arguments.command {
        Command::Vxlan(vxlan) => forward(rehearsed(vxlan.plan()?)?, None),
        Command::Udp(udp) => forward(rehearsed(udp.plan()?)?, None),
        Command::Flannel(flannel) => forward(rehearsed(flannel.plan()?)?, None),
        Command::Run { file } => forward(config::load(&file)?, Some(&file)),
        Command::Check { file } => {
            println!("{}: {}", file.display(), config::load(&file)?.summary());
            Ok(())
        }
        Command::Doctor { file } => doctor::run(file.as_deref(), arguments.json),
        Command::Demo => demo::run(),
        Command::Ask(verb) => client::run(verb, control.as_deref(), arguments.json),
    }
}

/// A plan that the tables accept: what they refuse is found before anything is made.
fn rehearsed(plan: Plan) -> Result<Plan, Failure> {
    overlay::rehearse(&plan).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(plan)
}
