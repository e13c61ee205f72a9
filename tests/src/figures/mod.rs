//! Figures: how long failover takes, and what things cost.

pub mod daemon;
mod failover;
mod flows;
mod services;
mod steering;
mod trials;

pub use failover::{Failure, failover};
pub use flows::{Listing, fill, listing};
pub use steering::{SteeringCost, local_prefixes, median, steering_cost, tcp_packet};
pub use trials::{Fault, Noticed, Traffic, false_alarms, trials};
