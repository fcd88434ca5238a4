//! A node as the benchmark sees it: a process, with the CPU time and memory that it uses.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use overplane_lab::Namespace;

use crate::Result;
use crate::system::System;

/// What a node says once it forwards.
pub const READY: &str = "ready";
/// How long a node may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running node. It is killed when this is dropped, and stops by itself when this process is gone, however that
/// ended: its standard input is closed then.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts the node of a system on a host and waits until it forwards.
    pub fn start(system: System, number: usize, host: &Namespace) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--node", &system.key(), &number.to_string(), &host.path()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let name = format!("node {} of {}", number + 1, system.name());
        let mut process = Self { name, child };
        process.wait_ready()?;
        Ok(process)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let stdout = self.child.stdout.take().ok_or("a node has a standard output")?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            // Nobody listens if it took too long.
            let _ = tell.send(read);
        });
        match told.recv_timeout(PATIENCE) {
            Ok(Ok(line)) if line.trim() == READY => Ok(()),
            _ => Err(format!("{} did not start", self.name).into()),
        }
    }

    /// CPU time of all its threads since it started (`/proc/PID/task/TID/schedstat`, in nanoseconds where
    /// `/proc/PID/stat` has hundredths of a second: `Documentation/scheduler/sched-stats.rst`).
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut time = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
            time += Duration::from_nanos(nanoseconds.ok_or("schedstat has no number")?);
        }
        Ok(time)
    }

    /// Its resident memory in MiB (`VmRSS` of `/proc/PID/status`, `Documentation/filesystems/proc.rst`).
    pub fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.ok_or_else(|| format!("{} ended", self.name))? / 1024.0)
    }

    /// Ends it, and says if it did not end well.
    pub fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.child.try_wait()? {
                None => thread::sleep(Duration::from_millis(2)),
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{} failed: {status}", self.name).into()),
            }
        }
        Err(format!("{} did not stop", self.name).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
