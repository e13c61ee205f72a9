//! Flap damping in the style of RFC 2439: failures cost, time forgives.

use std::time::{Duration, Instant};

use super::rounds::after;
use crate::config::MonitorConfig;

/// What failing costs while only a return was tried: as the RFC has it, less than failing when used.
const FAILED_RETURN: f64 = MonitorConfig::FAILURE as f64 / 4.0;

/// What a path's failures have cost it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damping {
    /// The penalty, and of when it is: it halves each half-life.
    penalty: f64,
    at: Option<Instant>,
    /// It was over the upper threshold; until then it is over the lower one.
    until: Option<Instant>,
}

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A path that was in use.
    InUse,
    /// One that answered again, for too short a time.
    Returning,
}

impl Damping {
    /// A path that is held already: the penalty is that of the upper threshold.
    pub(super) fn held(monitor: &MonitorConfig, now: Instant) -> Self {
        let mut damping = Self::default();
        damping.charge(f64::from(monitor.flap_suppress), monitor, now);
        damping
    }

    /// Takes down a failure.
    pub(super) fn fail(&mut self, failure: Failure, monitor: &MonitorConfig, now: Instant) {
        let cost = match failure {
            Failure::InUse => f64::from(MonitorConfig::FAILURE),
            Failure::Returning => FAILED_RETURN,
        };
        self.charge(cost, monitor, now);
    }

    /// Until when the path is not to be used, if so.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    fn charge(&mut self, cost: f64, monitor: &MonitorConfig, now: Instant) {
        let half_life = monitor.flap_half_life.as_secs_f64().max(f64::MIN_POSITIVE);
        let reuse = f64::from(monitor.flap_reuse.max(1));
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        // The ceiling makes the longest hold what it is, however many failures there were.
        let ceiling = reuse * (monitor.up_after_max.as_secs_f64() / half_life).exp2();
        self.penalty = (self.penalty * (-passed / half_life).exp2() + cost).min(ceiling);
        self.at = Some(now);
        if self.penalty >= f64::from(monitor.flap_suppress) || self.until(now).is_some() {
            let left = half_life * (self.penalty / reuse).log2().max(0.0);
            let left = Duration::try_from_secs_f64(left).unwrap_or(monitor.up_after_max);
            self.until = Some(after(now, left.min(monitor.up_after_max)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_failures(at: &[u64]) -> (Damping, Instant) {
        let (mut damping, start) = (Damping::default(), Instant::now());
        for &seconds in at {
            damping.fail(Failure::InUse, &MonitorConfig::default(), start + Duration::from_secs(seconds));
        }
        (damping, start)
    }

    fn held_for(damping: &Damping, now: Instant) -> u64 {
        damping.until(now).map_or(0, |until| (until - now).as_secs())
    }

    #[test]
    fn one_failure_is_forgiven_and_a_second_within_a_half_life_is_not() {
        for (failures, held) in [
            (&[0][..], 0),
            (&[0, 61], 0),
            (&[0, 59], 60),
            (&[0, 10], 80),
            (&[0, 0], 84),
            (&[0, 300, 600], 0),
            (&[0, 0, 0], 120),
        ] {
            let (damping, start) = after_failures(failures);
            let last = start + Duration::from_secs(failures.iter().copied().max().unwrap_or(0));
            assert_eq!(held_for(&damping, last), held, "{failures:?}");
        }
    }

    #[test]
    fn however_often_it_fails_it_is_held_no_longer_than_the_longest_time() {
        let (damping, start) = after_failures(&[7; 1000]);
        assert_eq!(held_for(&damping, start + Duration::from_secs(7)), 300);
    }

    #[test]
    fn failed_returns_cost_a_quarter_and_prolong_a_hold() {
        let (mut damping, start) = after_failures(&[0]);
        let monitor = MonitorConfig::default();
        damping.fail(Failure::Returning, &monitor, start);
        assert_eq!(damping.until(start), None);
        damping.fail(Failure::Returning, &monitor, start);
        assert_eq!(held_for(&damping, start), 60);
        damping.fail(Failure::Returning, &monitor, start);
        assert_eq!(held_for(&damping, start), 73);
    }

    #[test]
    fn a_longest_time_that_is_no_longer_than_any_other_turns_it_off() {
        let monitor = MonitorConfig { up_after_max: Duration::ZERO, ..MonitorConfig::default() };
        let (mut damping, now) = (Damping::default(), Instant::now());
        for _ in 0..9 {
            damping.fail(Failure::InUse, &monitor, now);
            assert_eq!(damping.until(now), None);
        }
    }

    #[test]
    fn absurd_thresholds_do_no_harm() {
        let day = Duration::from_hours(24);
        let tiny = Duration::from_millis(10);
        for (half_life, most) in
            [(tiny, day), (day, tiny), (Duration::ZERO, day), (Duration::MAX, Duration::MAX)]
        {
            let monitor =
                MonitorConfig { flap_half_life: half_life, up_after_max: most, ..MonitorConfig::default() };
            let (mut damping, now) = (Damping::default(), Instant::now());
            for _ in 0..5 {
                damping.fail(Failure::InUse, &monitor, now);
            }
            assert!(damping.until(now).is_none_or(|until| until <= after(now, most)));
        }
    }

    #[test]
    fn a_path_that_was_held_before_stays_so_for_a_while() {
        let now = Instant::now();
        assert_eq!(held_for(&Damping::held(&MonitorConfig::default(), now), now), 60);
    }
}
