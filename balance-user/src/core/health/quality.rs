//! How well a path works: its loss, and whether it is degraded.

use std::fmt;
use std::time::{Duration, Instant};

use super::rounds::after;
use crate::config::{Band, Limits};

/// So many intervals back the loss has lost two thirds of its weight.
const MEMORY: u32 = 30;

/// An exponentially weighted moving average of what was lost, by time: rounds that are sent in quick succession because
/// of a doubt count together as much as one that is sent in peace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    average: f64,
}

impl Loss {
    /// Takes in a probe that was sent so long after the one before, and returns with which weight. `interval` is that of
    /// peaceful rounds.
    pub(super) fn note(&mut self, lost: bool, gap: Duration, interval: Duration) -> f64 {
        let interval = interval.max(Duration::from_millis(1));
        let gap = gap.min(interval).as_secs_f64();
        let weight = -(-gap / (interval.as_secs_f64() * f64::from(MEMORY))).exp_m1();
        self.average += weight * (f64::from(u8::from(lost)) - self.average);
        weight
    }

    /// A probe that was taken in with this weight as lost was answered after all.
    pub(super) fn correct(&mut self, weight: f64) {
        self.average = (self.average - weight).max(0.0);
    }

    /// The part that was lost, 0 to 1.
    pub(super) const fn part(self) -> f64 {
        self.average
    }
}

/// What was measured of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// The part of its probes that was lost, 0 to 1: of the best of its targets that make a quorum, as what is wrong with
    /// another one is not the path's fault.
    pub loss: f64,
    /// The smoothed round-trip time; none before the first answer.
    pub latency: Option<Duration>,
    /// How much that varies.
    pub jitter: Option<Duration>,
    /// TCP connections by it are asked for, and none comes about.
    pub unanswered: bool,
}

/// Which limit was exceeded, or what else is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// Of the loss, in thousandths.
    Loss(u16),
    /// Of the latency.
    Latency(Duration),
    /// Of the jitter.
    Jitter(Duration),
    /// No limit, but no TCP connection comes about.
    Unanswered,
}

/// Whether a path is degraded.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// What for; empty while it is not.
    symptoms: Vec<Symptom>,
    /// Since when it is measured to be otherwise.
    turning: Option<Instant>,
}

impl Standing {
    /// One that was degraded before this process started, for it is not known what.
    pub(super) fn adopted(limits: &Limits) -> Self {
        Self { symptoms: Symptom::all(limits), turning: None }
    }

    pub(super) fn is_degraded(&self) -> bool {
        !self.symptoms.is_empty()
    }

    pub(super) fn symptoms(&self) -> &[Symptom] {
        &self.symptoms
    }

    /// Nothing was measured for so long.
    pub(super) fn held_up(&mut self, gap: Duration, now: Instant) {
        self.turning = self.turning.map(|since| after(since, gap).min(now));
    }

    /// Draws the conclusions from what is measured now.
    pub(super) fn judge(&mut self, measured: &Measured, limits: &Limits, now: Instant) {
        let over = Symptom::of(measured, limits, |band| band.enter, |band| band.enter);
        let (turns, time) = if self.is_degraded() {
            let still = Symptom::of(measured, limits, |band| band.leave, |band| band.leave);
            (still.is_empty(), limits.restored_after)
        } else {
            (!over.is_empty(), limits.degraded_after)
        };
        if self.is_degraded() && !over.is_empty() {
            self.symptoms.clone_from(&over);
        }
        if !turns {
            self.turning = None;
            return;
        }
        let since = *self.turning.get_or_insert(now);
        if now >= after(since, time) {
            self.symptoms = over;
            self.turning = None;
        }
    }
}

impl Symptom {
    /// Those limits, upper or lower ones, that are exceeded.
    fn of(
        measured: &Measured,
        limits: &Limits,
        loss: impl Fn(Band<u16>) -> u16,
        time: impl Fn(Band<Duration>) -> Duration,
    ) -> Vec<Self> {
        let over = |band: Option<Band<Duration>>, value: Option<Duration>| {
            band.map(&time).filter(|limit| value.is_some_and(|value| value > *limit))
        };
        let exceeded = limits.loss.map(loss).filter(|limit| measured.loss * 1000.0 > f64::from(*limit));
        let symptoms = [
            exceeded.map(Self::Loss),
            over(limits.latency, measured.latency).map(Self::Latency),
            over(limits.jitter, measured.jitter).map(Self::Jitter),
            measured.unanswered.then_some(Self::Unanswered),
        ];
        symptoms.into_iter().flatten().collect()
    }

    /// All limits that there are.
    fn all(limits: &Limits) -> Vec<Self> {
        let symptoms = [
            limits.loss.map(|band| Self::Loss(band.enter)),
            limits.latency.map(|band| Self::Latency(band.enter)),
            limits.jitter.map(|band| Self::Jitter(band.enter)),
        ];
        symptoms.into_iter().flatten().collect()
    }
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss(limit) => write!(f, "loss over {}%", f64::from(*limit) / 10.0),
            Self::Latency(limit) => write!(f, "latency over {}", humantime::format_duration(*limit)),
            Self::Jitter(limit) => write!(f, "jitter over {}", humantime::format_duration(*limit)),
            Self::Unanswered => f.write_str("TCP connections are asked for and none is answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            loss: Some(Band { enter: 200, leave: 100 }),
            latency: Some(Band { enter: 400 * SECOND / 1000, leave: 200 * SECOND / 1000 }),
            jitter: None,
            degraded_after: 10 * SECOND,
            restored_after: 30 * SECOND,
        }
    }

    /// Whether it is degraded after each second of such a loss in percent.
    fn run(standing: &mut Standing, start: Instant, losses: impl IntoIterator<Item = (u64, u32)>) -> bool {
        for (second, percent) in losses {
            let measured = Measured { loss: f64::from(percent) / 100.0, ..Measured::default() };
            standing.judge(&measured, &limits(), start + Duration::from_secs(second));
        }
        standing.is_degraded()
    }

    #[test]
    fn it_is_degraded_after_its_time_over_the_limit_and_not_a_moment_earlier() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        assert!(!run(&mut standing, start, (0..10).map(|second| (second, 25))));
        assert!(run(&mut standing, start, [(10, 25)]));
        assert_eq!(standing.symptoms(), [Symptom::Loss(200)]);
    }

    #[test]
    fn one_good_moment_starts_the_time_anew_either_way() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let interrupted = (0..19).map(|second| (second, if second == 9 { 20 } else { 25 }));
        assert!(!run(&mut standing, start, interrupted));
        assert!(run(&mut standing, start, [(19, 25), (20, 25)]));
        let interrupted = (21..80).map(|second| (second, if second == 50 { 11 } else { 5 }));
        assert!(run(&mut standing, start, interrupted));
        assert!(!run(&mut standing, start, [(80, 5), (81, 5)]));
    }

    #[test]
    fn between_the_limits_nothing_changes() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        assert!(!run(&mut standing, start, (0..500).map(|second| (second, 15))));
        assert!(run(&mut standing, start, (500..520).map(|second| (second, 30))));
        assert!(run(&mut standing, start, (520..1000).map(|second| (second, 15))));
    }

    #[test]
    fn several_symptoms_are_told_together_and_the_last_of_them_keeps_it_degraded() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let mut judge = |second: u64, loss, ms| {
            let measured = Measured {
                loss,
                latency: Some(Duration::from_millis(ms)),
                jitter: Some(9 * SECOND),
                ..Measured::default()
            };
            standing.judge(&measured, &limits(), start + Duration::from_secs(second));
            standing.symptoms().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(judge(0, 0.3, 500), "");
        assert_eq!(judge(10, 0.3, 500), "loss over 20%, latency over 400ms");
        assert_eq!(judge(11, 0.0, 500), "latency over 400ms");
        assert_eq!(judge(60, 0.0, 300), "latency over 400ms");
        assert_eq!(judge(61, 0.0, 100), "latency over 400ms");
        assert_eq!(judge(91, 0.0, 100), "");
    }

    #[test]
    fn without_limits_nothing_degrades() {
        let limits = Limits { loss: None, latency: None, jitter: None, ..limits() };
        let mut standing = Standing::default();
        let worst = Measured {
            loss: 1.0,
            latency: Some(Duration::MAX),
            jitter: Some(Duration::MAX),
            ..Measured::default()
        };
        let start = Instant::now();
        for second in 0..100 {
            standing.judge(&worst, &limits, start + Duration::from_secs(second));
        }
        assert!(!standing.is_degraded());
    }

    #[test]
    fn the_average_forgets_and_weighs_by_time() {
        let (mut even, mut hasty) = (Loss::default(), Loss::default());
        for _ in 0..100 {
            even.note(true, SECOND, SECOND);
        }
        assert!((0.95..1.0).contains(&even.part()), "{even:?}");
        // Ten losses in one second weigh as one does.
        for _ in 0..10 {
            hasty.note(true, SECOND / 10, SECOND);
        }
        assert!((0.032..0.033).contains(&hasty.part()), "{hasty:?}");
    }

    #[test]
    fn what_comes_late_was_not_lost() {
        let mut loss = Loss::default();
        let weight = loss.note(true, 9 * SECOND, SECOND);
        assert!(loss.part() > 0.0);
        loss.correct(weight);
        assert!(loss.part() < f64::EPSILON);
    }
}
