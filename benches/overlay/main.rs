//! Overlays between the same two hosts, measured beside each other: the kernel's VXLAN, a naive forwarder, and
//! overplane in its variants.
//!
//! ```text
//! cargo bench --bench overlay                       # everything, some five minutes
//! cargo bench --bench overlay -- --quick            # once through, to see that it works
//! cargo bench --bench overlay -- --only kernel,auto --rows tcp1,latency --json -
//! ```
//!
//! It needs root and `/dev/net/tun`, makes its hosts itself and leaves nothing behind. `docs/performance.md` says how
//! to read what it prints.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "these rules are the library's; a benchmark prints, waits, reads the clock, and exports nothing"
)]

mod args;
mod bars;
mod hosts;
mod json;
mod machine;
mod measure;
mod naive;
mod node;
mod process;
mod report;
mod results;
mod row;
mod system;
mod table;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser;
use overplane_lab::why_not;

use args::{Arguments, Plan};

/// What can fail, and why.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.node {
        Some(node) => node::run(node),
        None => run(&arguments.plan(), arguments.json.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan, json: Option<&str>) -> Result<()> {
    if plan.systems.is_empty() || plan.rows.is_empty() {
        return Ok(());
    }
    if let Some(reason) = why_not() {
        eprintln!("SKIPPED the overlay benchmark: {reason}");
        return Ok(());
    }
    let results = measure::run(plan)?;
    if plan.try_only {
        return report::tried(plan, &results);
    }
    // What a program is to read goes alone to the standard output.
    if json != Some("-") {
        println!("{}", report::text(plan, &results));
    }
    match json {
        None => {}
        Some("-") => println!("{:#}", json::document(plan, &results)),
        Some(file) => fs::write(file, format!("{:#}\n", json::document(plan, &results)))
            .map_err(|e| format!("writing the samples to {file}: {e}"))?,
    }
    Ok(())
}
