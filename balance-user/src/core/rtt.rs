//! Round-trip times, smoothed as RFC 6298 smooths them for TCP.

use std::time::Duration;

/// The least time a probe is given, however quick its target usually is: scheduling, Wi-Fi and a short queue cost
/// a good line this much now and then.
pub const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// A smoothed round-trip time and how much it varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    smoothed: Option<Smoothed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Smoothed {
    rtt: Duration,
    variation: Duration,
}

impl Rtt {
    /// Takes in one measurement.
    pub fn sample(&mut self, rtt: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => Smoothed { rtt, variation: rtt / 2 },
            Some(old) => Smoothed {
                rtt: old.rtt / 8 * 7 + rtt / 8,
                variation: old.variation / 4 * 3 + old.rtt.abs_diff(rtt) / 4,
            },
        });
    }

    /// Takes in a measurement from a path that is new: it may contain the wait for the neighbour's address, which is
    /// no property of the line. The least of them counts.
    pub fn first_sample(&mut self, rtt: Duration) {
        if self.smoothed.is_none_or(|smallest| rtt < smallest.rtt) {
            self.smoothed = Some(Smoothed { rtt, variation: rtt / 2 });
        }
    }

    /// The smoothed round-trip time; none before the first measurement.
    #[must_use]
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed.rtt)
    }

    /// The smoothed distance of single measurements from the smoothed time: the jitter.
    #[must_use]
    pub fn variation(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed.variation)
    }

    /// The time within which answers usually come: the smoothed time and four times its variation.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed.rtt.saturating_add(smoothed.variation.saturating_mul(4)))
    }

    /// How long to wait for an answer before the probe counts as lost: [`Self::usual`], at least
    /// [`LEAST_PATIENCE`], at most `timeout`; `timeout` while nothing was measured.
    #[must_use]
    pub fn patience(&self, timeout: Duration) -> Duration {
        self.usual().map_or(timeout, |usual| usual.max(LEAST_PATIENCE).min(timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn of(samples: &[u64]) -> Rtt {
        let mut rtt = Rtt::default();
        for &ms in samples {
            rtt.sample(Duration::from_millis(ms));
        }
        rtt
    }

    #[test]
    fn waiting_for_the_neighbour_does_not_count() {
        let mut rtt = Rtt::default();
        for ms in [1020, 920, 20, 120] {
            rtt.first_sample(Duration::from_millis(ms));
        }
        assert_eq!(rtt, of(&[20]));
    }

    #[test]
    fn nothing_measured_means_the_full_timeout() {
        assert_eq!(of(&[]).patience(TIMEOUT), TIMEOUT);
        assert_eq!(of(&[]).smoothed(), None);
    }

    #[test]
    fn the_first_measurement_counts_whole_and_the_next_by_an_eighth() {
        assert_eq!(of(&[80]).smoothed(), Some(Duration::from_millis(80)));
        assert_eq!(of(&[80]).variation(), Some(Duration::from_millis(40)));
        assert_eq!(of(&[80, 160]).smoothed(), Some(Duration::from_millis(90)));
        assert_eq!(of(&[80, 160]).variation(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn patience_follows_the_line_between_its_bounds() {
        assert_eq!(of(&[5; 50]).patience(TIMEOUT), LEAST_PATIENCE);
        let satellite = of(&[600; 50]).patience(TIMEOUT);
        assert!((600..700).contains(&satellite.as_millis()), "{satellite:?}");
        assert_eq!(of(&[900, 300, 900]).patience(TIMEOUT), TIMEOUT);
        assert_eq!(of(&[5]).patience(Duration::from_millis(50)), Duration::from_millis(50));
    }

    #[test]
    fn absurd_measurements_do_not_overflow() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::MAX);
        rtt.sample(Duration::ZERO);
        rtt.sample(Duration::MAX);
        assert_eq!(rtt.patience(TIMEOUT), TIMEOUT);
    }
}
