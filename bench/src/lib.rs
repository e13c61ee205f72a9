//! The benchmark: what a forwarded packet costs, with balance and with what else there is.
//!
//! A [`cases::Case`] is a way to set up a router. A [`site::Site`] is a lab with such a router, into which the
//! [`harness`] puts packets and counts what comes out. [`run`] measures cases with each [`traffic::Traffic`] in turn.
//! What is measured and how is in docs/bench.md.

pub mod cases;
pub mod chart;
pub mod compare;
pub mod core;
pub mod environment;
mod frames;
pub mod harness;
pub mod report;
pub mod run;
pub mod site;
pub mod statistics;
pub mod table;
pub mod tcp;
pub mod traffic;
