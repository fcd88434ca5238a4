//! Progress: one line a step.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use crate::failure::Failure;

/// Column at which results stand.
const WIDTH: usize = 62;

/// Counts steps while they are shown.
#[derive(Debug, Default)]
pub struct Steps {
    passed: usize,
    failed: usize,
}

impl Steps {
    /// Runs a step and shows what came of it.
    pub fn step<T>(&mut self, label: &str, run: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
        print!("  {label:.<WIDTH$} ");
        // Only a terminal that is gone can not show it.
        let _ = io::stdout().flush();
        let start = Instant::now();
        match run() {
            Ok(value) => {
                println!("ok ({} ms)", start.elapsed().as_millis());
                self.passed += 1;
                Some(value)
            }
            Err(failure) => {
                println!("FAILED {failure}");
                self.failed += 1;
                None
            }
        }
    }

    pub fn passed(&self) -> usize {
        self.passed
    }

    pub fn failed(&self) -> usize {
        self.failed
    }
}

/// What a step failed for, if a condition does not hold.
pub fn ensure(holds: bool, otherwise: impl fmt::Display) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::run(otherwise)) }
}
