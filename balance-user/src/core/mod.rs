//! The pure core: no I/O and no clock of its own.

pub mod network;
pub mod plan;
