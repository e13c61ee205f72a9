//! The lab does what it says. Here the router is set up by hand, as a plain NAT router without the daemon.
#![cfg(test)]

mod daemon;
mod end;
mod faults;
mod machines;
mod support;
mod traffic;
