//! What the fuzz targets do with their input; each target calls `run` of the module of its name.

pub mod changes;
pub mod coalesce;
mod cursor;
pub mod fib;
pub mod forward;
pub mod frame;
pub mod gso;
#[path = "../../tests/common/packets.rs"]
mod packets;
#[path = "../../tests/common/twins.rs"]
mod twins;
mod world;
