//! What the fuzz targets do with their input; each target calls `run` of the module of its name.

pub mod changes;
mod cursor;
pub mod forward;
pub mod frame;
pub mod gso;
mod world;
