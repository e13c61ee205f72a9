//! How often the ISPs' counters are looked at: quickly while there is traffic that could go unanswered, else seldom, since a
//! machine that has nothing to do should sleep.

use std::collections::BTreeMap;
use std::time::Duration;

use balance_common::IspId;

use crate::core::Traffic;

/// While there is traffic. Detecting silence takes up to twice as much longer.
pub(super) const QUICK: Duration = Duration::from_millis(50);
/// Without traffic. What begins then goes unnoticed for so long at most.
const SLOW: Duration = Duration::from_millis(100);
/// Fewer packets than these between two looks are probes and keepalives.
const LIVELY: u64 = 16;

/// The pace, by what was seen last.
#[derive(Debug)]
pub(super) struct Pace {
    before: BTreeMap<IspId, Traffic>,
    pause: Duration,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { before: BTreeMap::new(), pause: QUICK }
    }

    /// How long to wait between two looks.
    pub(super) const fn pause(&self) -> Duration {
        self.pause
    }

    /// Takes in what a look has seen.
    pub(super) fn see(&mut self, traffic: &BTreeMap<IspId, Traffic>) {
        let is_lively = traffic.iter().any(|(isp, now)| {
            let before = self.before.get(isp).unwrap_or(now);
            let (sent, received) = (now.tx.abs_diff(before.tx), now.rx.abs_diff(before.rx));
            sent.saturating_add(received) >= LIVELY || (sent > 0 && received == 0)
        });
        self.before.clone_from(traffic);
        self.pause = if is_lively { QUICK } else { (self.pause * 2).min(SLOW) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after looks between which these packets were sent and received, by each of two ISPs.
    fn pauses(steps: &[[(u64, u64); 2]]) -> Vec<u64> {
        let mut pace = Pace::new();
        let mut seen: BTreeMap<IspId, Traffic> =
            IspId::all().take(2).map(|isp| (isp, Traffic::default())).collect();
        pace.see(&seen);
        let mut look = |step: &[(u64, u64); 2]| {
            for (traffic, (sent, received)) in seen.values_mut().zip(step) {
                traffic.tx += sent;
                traffic.rx += received;
            }
            pace.see(&seen);
            u64::try_from(pace.pause().as_millis()).unwrap()
        };
        steps.iter().map(&mut look).collect()
    }

    #[test]
    fn looks_get_rare_while_there_are_only_probes_and_quick_with_traffic_or_silence_of_any_isp() {
        const PROBES: (u64, u64) = (4, 4);
        const NOTHING: (u64, u64) = (0, 0);
        assert_eq!(pauses(&[[NOTHING, PROBES]; 4]), [100, 100, 100, 100]);
        assert_eq!(
            pauses(&[[NOTHING, NOTHING], [PROBES, (10, 10)], [PROBES, NOTHING], [NOTHING, NOTHING]]),
            [100, 50, 100, 100]
        );
        assert_eq!(pauses(&[[NOTHING, PROBES], [(1, 0), PROBES], [(1, 0), NOTHING]]), [100, 50, 50]);
        assert_eq!(pauses(&[[(0, 40), NOTHING], [(40, 0), NOTHING]]), [50, 50]);
    }

    #[test]
    fn counters_that_begin_anew_are_looked_at_quickly() {
        let mut pace = Pace::new();
        let seen = |tx| BTreeMap::from([(IspId::all().next().unwrap(), Traffic { tx, rx: tx })]);
        pace.see(&seen(1000));
        assert_eq!(pace.pause(), QUICK * 2);
        pace.see(&seen(0));
        assert_eq!(pace.pause(), QUICK);
    }
}
