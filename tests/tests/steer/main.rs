//! Steering: the parser on the host, and the programs in the kernel on the same packets.
#![cfg(test)]

mod agreement;
mod devices;
mod fixtures;
mod forecast;
mod headers;
mod kernel;
mod mutated;
mod parser;
mod rules;
mod test_run;
