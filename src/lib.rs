//! overplane
