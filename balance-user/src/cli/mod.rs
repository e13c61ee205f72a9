//! The command line: what can be asked, and how the answers look.

pub mod args;
pub mod output;
pub mod report;
