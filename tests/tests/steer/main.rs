//! Steering: the parser on the host, and the programs in the kernel on the same packets.
#![cfg(test)]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "whatever is not as it should be fails the test"
)]

mod devices;
mod fixtures;
mod kernel;
mod mutated;
mod parser;
mod test_run;
