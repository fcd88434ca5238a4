//! System calls that fail as the kernel would make them fail, for what it does not refuse of its own accord.

use std::io;

use crate::error::Attempt;

/// `offsetof(struct seccomp_data, nr)` and that of the third argument (kernel `include/uapi/linux/seccomp.h`).
const NUMBER: u32 = 0;
const THIRD: u32 = 16 + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };

/// Makes every `writev` of the calling thread with more than `parts` parts fail with `errno`, for as long as the thread
/// lives (seccomp(2)); others are as before. Filters add up, and the smallest error code wins.
///
/// # Errors
///
/// When the kernel has no seccomp filters, or for want of `CAP_SYS_ADMIN`.
pub fn refuse_gathering_writes(parts: u32, errno: i32) -> io::Result<()> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let give = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let program = [
        load(NUMBER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, libc::SYS_writev as u32),
        load(THIRD),
        step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, parts),
        give(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        give(libc::SECCOMP_RET_ALLOW),
    ];
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program has the length given with it and outlives the call, which only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_uint,
            0 as libc::c_uint,
            &raw const program,
        )
    };
    let done = if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    done.attempt(|| "installing a filter of system calls")
}

fn step(code: u32, if_true: u8, if_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice, Write};
    use std::thread;

    use super::refuse_gathering_writes;
    use crate::privileged;

    #[test]
    fn only_writes_of_many_parts_fail_and_only_here() {
        if !privileged("only_writes_of_many_parts_fail_and_only_here") {
            return;
        }
        let write = |parts: usize| -> io::Result<usize> {
            let mut null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            null.write_vectored(&vec![IoSlice::new(b"x"); parts])
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                refuse_gathering_writes(3, libc::EINVAL).expect("a filter");
                for parts in 1..=3 {
                    assert_eq!(write(parts).expect("allowed"), parts);
                }
                for parts in [4, 100] {
                    let error = write(parts).expect_err("refused");
                    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
                }
            });
        });
        assert_eq!(write(100).expect("another thread"), 100);
    }
}
