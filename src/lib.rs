//! overplane

pub mod wire;
