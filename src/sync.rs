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
