//! Looks after the ISPs: carries out what [`crate::core::health`] wants to know.
//!
//! A [`Prober`] asks the targets of one path. All that it sends has the ISP's mark and leaves by the ISP's device, and only
//! what comes in on that device is heard.

mod failure;
mod names;
mod neighbour;
mod page;
mod ping;
mod prober;
mod query;
mod tls;
mod way;

pub use failure::Failure;
pub use prober::{Outcome, Prober};
pub(crate) use way::PROBE_PRIORITY;
