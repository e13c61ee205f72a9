//! What leaves the router is the same to the byte, whichever way it was forwarded.
//!
//! The same packets are sent through the router once for each of the [`mode::MODES`], and once through the kernel
//! alone, which says how it has to be.
#![cfg(test)]

mod bulk;
mod case;
mod conversation;
mod lines;
mod mode;
mod scene;
mod shot;
mod slow;
mod super_packets;
mod ways;
