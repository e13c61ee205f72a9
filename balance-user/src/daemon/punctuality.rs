//! Being held up: the process was stopped, got no CPU, or the machine was asleep.
//!
//! What was asked before such a gap was not answered in time because nobody listened, or because there was no machine to answer to.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The daemon looks at something twice as often at least. Answers may have come that were not read yet.
const HICCUP: Duration = Duration::from_millis(200);
/// After so long the answers, and what is counted by then, say nothing about lines.
const GAP: Duration = Duration::from_secs(1);

/// How regularly the daemon comes to look at things.
#[derive(Debug)]
pub(super) struct Punctuality {
    last: Duration,
}

/// How late the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// Not to speak of.
    No,
    /// A bit: what has come meanwhile has to be read first.
    Hiccup,
    /// For so long that there is no evidence of that time.
    Gap(Duration),
}

impl Punctuality {
    pub(super) fn start() -> Self {
        Self { last: since_boot() }
    }

    /// To be called whenever something is to be looked at.
    pub(super) fn look(&mut self) -> Late {
        let now = since_boot();
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        late(gap)
    }
}

fn late(gap: Duration) -> Late {
    match gap {
        _ if gap >= GAP => Late::Gap(gap),
        _ if gap >= HICCUP => Late::Hiccup,
        _ => Late::No,
    }
}

/// By the clock that goes on while the machine is asleep, which those of `Instant` and of timers do not. Nobody can set it.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_a_second_is_a_gap() {
        let ms = Duration::from_millis;
        for (gap, expected) in [
            (0, Late::No),
            (199, Late::No),
            (200, Late::Hiccup),
            (999, Late::Hiccup),
            (1000, Late::Gap(ms(1000))),
            (28_800_000, Late::Gap(ms(28_800_000))),
        ] {
            assert_eq!(late(ms(gap)), expected, "{gap}");
        }
    }

    #[test]
    fn looking_all_the_time_is_never_late() {
        let mut punctuality = Punctuality::start();
        let most = (0..1000).map(|_| punctuality.look()).filter(|late| *late != Late::No).count();
        assert!(most <= 5, "{most}");
    }
}
