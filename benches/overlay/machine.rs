//! The machine: what it is, and how busy it was.

use std::fs;

use serde_json::{Value, json};

use crate::Result;

/// Units of time in `/proc/stat`, per second (`USER_HZ`, `include/asm-generic/param.h`).
const USER_HZ: f64 = 100.0;

/// What the figures depend on.
#[derive(Debug)]
pub struct Machine {
    kernel: String,
    /// How many CPUs are online.
    pub cpus: usize,
    model: String,
}

impl Machine {
    pub fn here() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
        let numbered = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            cpus: fs::read_to_string("/proc/stat")?.lines().filter(numbered).count(),
            model: model.unwrap_or_else(|| "unknown CPU".into()),
        })
    }

    pub fn json(&self) -> Value {
        json!({ "kernel": self.kernel, "cpus": self.cpus, "cpu_model": self.model })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} CPUs, {}, Linux {}", self.cpus, self.model, self.kernel)
    }
}

/// For how many seconds the CPUs together have been busy since the start: user, nice, system, irq and softirq time
/// (`Documentation/filesystems/proc.rst` §1.7).
///
/// Not idle and iowait, in which nothing runs, nor steal, in which something else does on the real machine.
pub fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().ok_or("/proc/stat is empty")?;
    let times: Vec<u64> = line.split_whitespace().skip(1).map_while(|it| it.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = times[..] else {
        return Err(format!("/proc/stat has too few times: {line}").into());
    };
    Ok((user + nice + system + irq + softirq) as f64 / USER_HZ)
}
