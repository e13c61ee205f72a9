//! Targets that cannot be asked in a family. They are neither answered nor lost, and nobody's fault.

use std::time::Instant;

use super::Health;
use crate::config::Target;

impl Health {
    /// The target of the probe with this sequence cannot be asked in this family: it does not count until it answers or
    /// fails. It is tried in each round.
    pub fn inapplicable(&mut self, sequence: u64, why: String, now: Instant) {
        let Some(target) = self.rounds.target(sequence) else { return };
        self.inapplicable.insert(target.clone(), why);
        if let Some(judged) = self.rounds.void(sequence) {
            self.judge(judged, now);
        }
    }

    /// The targets that do not count, and why.
    pub fn not_counted(&self) -> impl Iterator<Item = (&Target, &str)> {
        self.inapplicable.iter().map(|(target, why)| (target, why.as_str()))
    }

    /// Whether there are targets to judge by.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.targets.iter().any(|target| !self.inapplicable.contains_key(target))
    }
}
