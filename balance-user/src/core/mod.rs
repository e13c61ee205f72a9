//! The pure core: no I/O and no clock of its own.

pub mod health;
pub mod network;
pub mod plan;
pub mod rtt;
