//! Figures: how long failover takes, and what things cost.

pub mod daemon;
mod failover;
mod steering;
mod trials;

pub use failover::{Failure, failover};
pub use steering::{SteeringCost, steering_cost};
pub use trials::{Fault, Noticed, Traffic, false_alarms, trials};
