//! Weights that follow what is measured.

use std::time::{Duration, Instant};

use super::health::Measured;

/// What a path is worth that could not be better. A weight is multiplied by what its path is worth.
pub(super) const BEST: u8 = 64;

/// A path of which nothing was measured counts as an ordinary one.
pub(super) const UNMEASURED: u8 = 43;

/// The least time between two changes.
const STEP: Duration = Duration::from_secs(30);

/// What a path is worth, damped: every change moves flows' buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Worth {
    now: Option<u8>,
    changed: Option<Instant>,
}

impl Worth {
    /// As an earlier daemon has left it; 0 is not measured.
    pub(super) fn adopt(stored: u8, now: Instant) -> Self {
        let stored = (stored != 0).then_some(stored.min(BEST));
        Self { now: stored, changed: stored.map(|_| now) }
    }

    /// As it is stored.
    pub(super) fn stored(self) -> u8 {
        self.now.unwrap_or(0)
    }

    /// What it is worth.
    pub(super) fn get(self) -> u8 {
        self.now.unwrap_or(UNMEASURED)
    }

    /// Follows what is measured now: at most every 30 s, and only by more than a fifth.
    pub(super) fn follow(&mut self, measured: &Measured, now: Instant) {
        let Some(wanted) = worth(measured) else { return };
        let is_time = self.changed.is_none_or(|changed| now.saturating_duration_since(changed) >= STEP);
        let is_much =
            self.now.is_none_or(|present| u16::from(wanted.abs_diff(present)) * 5 > u16::from(present));
        if is_time && is_much {
            *self = Self { now: Some(wanted), changed: Some(now) };
        }
    }
}

/// What a path is worth: 64 without latency and loss, half at 100 ms, a third at 200 ms; half at 16 % loss, which slows
/// TCP down much more than it takes away. Never 0; none before the first answer.
fn worth(measured: &Measured) -> Option<u8> {
    let latency = measured.latency?.as_secs_f64();
    let left = 1.0 - measured.loss.clamp(0.0, 1.0);
    let worth = f64::from(BEST) * 0.1 / (0.1 + latency) * left.powi(4);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    Some(worth.round().clamp(1.0, f64::from(BEST)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ms: u64, loss: f64) -> Measured {
        Measured { loss, latency: Some(Duration::from_millis(ms)), ..Measured::default() }
    }

    #[test]
    fn latency_and_loss_lower_the_worth() {
        for (ms, loss, expected) in [
            (0, 0.0, BEST),
            (20, 0.0, 53),
            (50, 0.0, UNMEASURED),
            (100, 0.0, 32),
            (100, 0.16, 16),
            (200, 0.0, 21),
            (600, 0.0, 9),
            (20, 0.3, 13),
            (20, 1.0, 1),
            (9_000_000, 0.0, 1),
        ] {
            assert_eq!(worth(&measured(ms, loss)), Some(expected), "{ms} ms, {loss}");
        }
        assert_eq!(worth(&Measured::default()), None);
    }

    #[test]
    fn it_steps_once_in_half_a_minute_and_only_by_more_than_a_fifth() {
        let (mut path, start) = (Worth::default(), Instant::now());
        assert_eq!(path.get(), UNMEASURED);
        let mut at = |seconds, ms| {
            path.follow(&measured(ms, 0.0), start + Duration::from_secs(seconds));
            path.get()
        };
        assert_eq!(at(0, 20), 53);
        assert_eq!(at(10, 300), 53, "not yet");
        assert_eq!(at(30, 40), 53, "not by so little");
        assert_eq!(at(31, 300), 16);
        assert_eq!(at(60, 20), 16);
        assert_eq!(at(61, 20), 53);
    }

    #[test]
    fn an_earlier_daemons_word_holds_for_a_step() {
        let now = Instant::now();
        assert_eq!(Worth::adopt(0, now), Worth::default());
        let mut path = Worth::adopt(16, now);
        path.follow(&measured(20, 0.0), now);
        assert_eq!((path.get(), path.stored()), (16, 16));
    }
}
