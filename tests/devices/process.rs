//! What this process holds, by what the kernel says of it (kernel `Documentation/filesystems/proc.rst`).
//!
//! Of the whole process, and so of use only to a test beside which no other one runs.

use std::fs;

/// Resident memory, in KiB.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes of the heap that are in use, in all arenas, and those of large blocks beside it; in KiB.
#[cfg(target_env = "gnu")]
pub(crate) fn heap() -> u64 {
    // SAFETY: the call has no arguments and only reads what the allocator counts, under its own locks.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64 >> 10
}

/// Unknown to allocators other than glibc's.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn heap() -> u64 {
    0
}

/// Open file descriptors.
pub(crate) fn descriptors() -> usize {
    // Listing them opens one.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Threads.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}
