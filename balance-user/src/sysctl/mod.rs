//! Kernel settings: which ones are needed, setting them, and putting them back.
//!
//! What is about to be changed is written to a file first, so that even a daemon that was killed leaves behind
//! everything that is needed to put the machine back as it was.

mod plan;
mod saved;

pub use plan::{FlowTimeouts, SysctlFacts, commands, liberal_conntrack, patient_conntrack, plan};
pub use saved::{Saved, SysctlError};
