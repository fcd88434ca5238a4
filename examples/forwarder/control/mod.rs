//! The control socket: a running forwarder is asked and changed over it.
//!
//! A unix socket for streams, and on it lines of JSON, of which `docs/operating.md` says what is in them.

mod answer;
mod entries;
mod events;
mod names;
mod refusal;
mod server;
mod session;
mod verb;

pub use answer::Forwarding;
pub use events::Listeners;
pub use names::SegmentName;
pub use server::Server;
pub use verb::{Fdb, Offload, Ports, Routes, Segments, Verb, Vteps};

/// The number of the layout of requests and answers: it changes when a key goes or gets another meaning, not when one is
/// added.
pub const VERSION: u32 = 1;

/// Where those who ask look for the socket when nobody says.
pub const DEFAULT_SOCKET: &str = "/run/overplane/forwarder.sock";

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 64 << 10;
