//! Is an ISP full? Its rate against a limit, smoothed, with a dead band.

use std::time::{Duration, Instant};

use super::Reading;
use crate::config::Band;

/// How fast old traffic is forgotten: after so long two thirds of it are.
const MEMORY: Duration = Duration::from_secs(2);

/// The rate of an ISP, and whether it is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spill {
    last: Option<(Instant, Reading)>,
    /// Bits a second received and sent, smoothed; none before the second look.
    rates: Option<[f64; 2]>,
    full: bool,
}

impl Spill {
    /// New flows go elsewhere.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// The rate in the busier direction, in bits a second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rates.map(|[download, upload]| download.max(upload))
    }

    /// What a daemon before has known, as long as this one does not know better.
    pub(super) fn adopt(&mut self, full: bool) {
        if self.rates.is_none() {
            self.full = full;
        }
    }

    /// Takes in how far the counters have come.
    pub(super) fn observe(&mut self, reading: Reading, limits: Option<Band<u64>>, now: Instant) {
        let Some(limits) = limits else {
            *self = Self::default();
            return;
        };
        let before = self.last.replace((now, reading));
        let Some((then, before)) = before else { return };
        let passed = now.saturating_duration_since(then).as_secs_f64();
        let grown = |now: u64, before: u64| now.checked_sub(before).map(|bytes| bytes as f64 * 8.0);
        // Counters that go back are others.
        let (Some(download), Some(upload)) =
            (grown(reading.download, before.download), grown(reading.upload, before.upload))
        else {
            return;
        };
        if passed <= 0.0 {
            self.last = Some((then, before));
            return;
        }
        let latest = [download, upload].map(|bits| bits / passed);
        let fresh = 1.0 - (-passed / MEMORY.as_secs_f64()).exp();
        let smooth = |old: f64, new: f64| old + (new - old) * fresh;
        let ([old_down, old_up], [down, up]) = (self.rates.unwrap_or(latest), latest);
        let rates = [smooth(old_down, down), smooth(old_up, up)];
        self.rates = Some(rates);
        let rate = rates.into_iter().fold(0.0, f64::max);
        self.full = rate > if self.full { limits.leave as f64 } else { limits.enter as f64 };
    }
}
