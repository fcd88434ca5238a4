//! Joining frames to super-frames: what comes out, taken apart again, is what went in, whatever it was.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod compared;
mod flows;
#[path = "../common/packets.rs"]
mod packets;
#[path = "../common/twins.rs"]
mod twins;
