//! The clocks of the core, which are its caller's.

use std::time::{Duration, Instant};

/// Two views of one moment, to turn the one into the other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic one.
    pub instant: Instant,
    /// Milliseconds of the Unix epoch.
    pub epoch_ms: u64,
}

impl Clock {
    pub(super) fn epoch_ms(&self, at: Instant) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if at >= self.instant {
            self.epoch_ms.saturating_add(ms(at - self.instant))
        } else {
            self.epoch_ms.saturating_sub(ms(self.instant - at))
        }
    }

    pub(super) fn instant(&self, epoch_ms: u64) -> Instant {
        let ago = Duration::from_millis(self.epoch_ms.saturating_sub(epoch_ms));
        self.instant.checked_sub(ago).unwrap_or(self.instant)
    }
}
