//! The daemon and the CLI of balance.
//!
//! Events (netlink, probes, the control socket, signals, timers) go into a pure [`core`]; out come a
//! [`core::plan::Plan`] of what the kernel should look like, and effects. Everything else here is the thin shell
//! that feeds the one and carries out the other.

pub mod amount;
pub mod announce;
pub mod cli;
pub mod config;
pub mod conntrack;
pub mod control;
pub mod core;
pub mod daemon;
pub mod datapath;
pub mod devices;
pub mod doctor;
pub mod explain;
pub mod flows;
pub mod import;
pub mod metrics;
pub mod monitor;
pub mod nat;
pub mod netlink;
pub mod rules;
pub mod scripts;
pub mod sysctl;
pub mod top;
pub mod web;
