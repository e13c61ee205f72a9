//! The traffic of the router itself, and of a host that is no router: shared like that of a LAN, socket by socket.
#![cfg(test)]

mod choice;
mod daemon;
mod failover;
mod shares;
mod support;
