//! The atomics, locks and counted references that concurrent tables are built of.
//!
//! With `--cfg overplane_loom` they are loom's, which runs a test through every order of events that the memory model
//! allows; see `tests/loom.rs`.

#[cfg(not(overplane_loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

#[cfg(overplane_loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// Atomic words that are zero, of which the system gives each page only when it is written to first.
#[cfg(not(overplane_loom))]
pub(crate) fn zeroed_words(words: usize) -> Box<[AtomicU64]> {
    bytemuck::zeroed_slice_box(words)
}

#[cfg(overplane_loom)]
pub(crate) fn zeroed_words(words: usize) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}
