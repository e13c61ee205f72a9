//! What the daemon counts of its own doings, since it started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::announce::event::Event;

/// What the daemon has counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallies {
    /// How often everything was compared with the plan.
    pub reconciliations: u64,
    /// How many steps of carrying out a plan have failed; they are tried again.
    pub failures: u64,
    /// Of each ISP that has changed its state.
    pub isps: BTreeMap<String, IspTallies>,
}

/// What has been counted of an ISP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IspTallies {
    /// How often it has lost buckets because it stopped working.
    pub failovers: u64,
    /// How often it got into each state.
    pub changes: BTreeMap<String, u64>,
}

impl Tallies {
    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        let isp = self.isps.entry(event.change.isp.clone()).or_default();
        *isp.changes.entry(event.change.state.clone()).or_default() += 1;
        let works = |state: &str| matches!(state, "up" | "suspect" | "degraded");
        let has_failed = works(&event.change.previous) && !works(&event.change.state);
        isp.failovers += u64::from(has_failed && event.consequence.buckets_lost > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::event::tests::event;

    #[test]
    fn a_failover_is_a_failure_that_has_moved_buckets() {
        let mut tallies = Tallies::default();
        let (down, up) = (event("A", "down"), event("A", "up"));
        let mut idle = down.clone();
        idle.consequence.buckets_lost = 0;
        let mut longer = event("A", "long_down");
        longer.change.previous = "down".to_owned();
        let mut degraded = event("A", "degraded");
        degraded.change.previous = "up".to_owned();
        for event in [&down, &up, &idle, &longer, &degraded] {
            tallies.note(event);
        }
        let isp = &tallies.isps["A"];
        assert_eq!(isp.failovers, 1);
        let changes = [("degraded", 1), ("down", 2), ("long_down", 1), ("up", 1)];
        assert_eq!(isp.changes, changes.map(|(state, count)| (state.to_owned(), count)).into());
    }
}
