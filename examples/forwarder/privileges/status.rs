//! What the kernel says of the privileges of threads (kernel `Documentation/filesystems/proc.rst`, table 1-2).

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;

/// The lines that have to be the same in all threads.
const KEYS: [&str; 10] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
];

/// How often, and how long apart, threads are looked at before one that differs is a failure: what ended during set-up may
/// not be gone yet.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The privileges of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status(Vec<(&'static str, String)>);

impl Status {
    pub(super) fn of_this_thread() -> io::Result<Self> {
        Ok(Self::read(&fs::read_to_string("/proc/thread-self/status")?))
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.filter_map(|(key, value)| {
            let key = KEYS.into_iter().find(|known| *known == key)?;
            Some((key, value.trim().to_owned()))
        });
        Self(lines.collect())
    }

    /// Checks that all threads of the process have these privileges; says how many there are.
    pub(super) fn check_all_threads(&self) -> Result<usize, Failure> {
        let mut left = LOOKS;
        loop {
            match self.look() {
                Ok(threads) => return Ok(threads),
                Err(_) if left > 0 => left -= 1,
                Err(why) => return Err(Failure::run(why)),
            }
            thread::sleep(PAUSE);
        }
    }

    fn look(&self) -> Result<usize, String> {
        let failed = |e: io::Error| format!("looking at the privileges of all threads: {e}");
        let mut threads = 0;
        for task in fs::read_dir("/proc/self/task").map_err(failed)? {
            let task = task.map_err(failed)?.path();
            // One that cannot be read has ended since.
            let Ok(text) = fs::read_to_string(task.join("status")) else { continue };
            let other = Self::read(&text);
            threads += 1;
            if let Some(((key, mine), (_, its))) =
                self.0.iter().zip(&other.0).find(|(mine, its)| mine != its)
            {
                let name = text.lines().next().unwrap_or_default();
                return Err(format!(
                    "a thread ({name}) has kept privileges: its {key} is {its} instead of {mine}"
                ));
            }
        }
        Ok(threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_differs_is_named() {
        let own = Status::of_this_thread().unwrap();
        assert_eq!(own.0.len(), KEYS.len());
        assert!(own.look().is_ok_and(|threads| threads > 0));
        let mut other = own.clone();
        other.0.iter_mut().find(|(key, _)| *key == "CapEff").unwrap().1 = "1".into();
        let why = other.look().unwrap_err();
        assert!(why.contains("CapEff") && why.ends_with("instead of 1"), "{why}");
    }
}
