//! What the traffic of an ISP's device says, whoever's it is: silence accuses, and what keeps coming in vouches.
//!
//! Only IP for this machine or the hosts behind it is counted, so ARP, neighbour discovery and broadcasts say nothing.
//! Traffic vouches if, in the last 0.4 s,
//! * at least 8 packets came in: more than a trickle, such as keepalives or errors;
//! * at least one for every eight that were sent: they answer, they are not what goes on by itself;
//! * at least a quarter of the most that came in within such a time lately. When the way out dies, those at the far
//!   ends begin to repeat what was not acknowledged, fewer each time; a line that is full goes on as before.
//!
//! Traffic that needs no answer, such as a call in one direction, would pass all that. So this only delays a verdict,
//! by `vouch` at most.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that is looked at. Less than it takes from a failure to a verdict, so that nothing from before the failure
/// vouches for what is after.
const WINDOW: Duration = Duration::from_millis(400);
/// So many packets received in that time are more than a trickle.
const ENOUGH: u64 = 8;
/// Of so many packets sent, one at least is answered: one acknowledgement stands for several segments.
const ANSWERING: u64 = 8;
/// A part of the recent peak at least is still coming in: one in so many.
const STEADY: u64 = 4;

/// How far back the peak is looked for.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// Fewer packets than these going unanswered is nothing.
const SILENT_PACKETS: u64 = 3;

/// Packets on a device, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub tx: u64,
    /// Received.
    pub rx: u64,
}

/// The traffic of a device, as it was observed.
#[derive(Clone, Debug, Default)]
pub struct Passive {
    /// The latest observations, oldest first.
    recent: VecDeque<(Instant, Traffic)>,
    silence: Option<Silence>,
    received: Option<Instant>,
}

/// Packets went out and none came in.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    tx: u64,
}

/// What an observation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing.
    None,
    /// So many packets were sent since so long, and nothing was received.
    Silence {
        /// How many.
        sent: u64,
        /// How long.
        lasts: Duration,
    },
    /// So much comes in that the ISP must be alive.
    Life,
}

impl Passive {
    /// Takes in what was sent and received so far.
    pub fn observe(&mut self, traffic: Traffic, now: Instant) -> Evidence {
        let before = self.recent.back().copied();
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > LOOK_BACK) {
            self.recent.pop_front();
        }
        // Counters that go back are those of another device.
        if before.is_some_and(|(_, before)| traffic.rx < before.rx || traffic.tx < before.tx) {
            self.recent.clear();
            self.silence = None;
            self.recent.push_back((now, traffic));
            return Evidence::None;
        }
        self.recent.push_back((now, traffic));
        let Some((then, before)) = before else { return Evidence::None };
        if traffic.rx != before.rx {
            self.silence = None;
            self.received = Some(now);
            return if self.vouches(traffic, now) { Evidence::Life } else { Evidence::None };
        }
        if traffic.tx == before.tx && self.silence.is_none() {
            return Evidence::None;
        }
        // Nothing has come in since the last look already.
        let silence = *self.silence.get_or_insert(Silence { since: then, tx: before.tx });
        let sent = traffic.tx.saturating_sub(silence.tx);
        if sent < SILENT_PACKETS {
            return Evidence::None;
        }
        Evidence::Silence { sent, lasts: now.saturating_duration_since(silence.since) }
    }

    /// When something was last seen to have come in.
    #[must_use]
    pub fn last_received(&self) -> Option<Instant> {
        self.received
    }

    /// What was observed before says nothing any more.
    pub fn forget(&mut self) {
        *self = Self { received: self.received, ..Self::default() };
    }

    fn vouches(&self, traffic: Traffic, now: Instant) -> bool {
        let Some(from) = self.window_before(now) else { return false };
        let (received, sent) = (traffic.rx.saturating_sub(from.rx), traffic.tx.saturating_sub(from.tx));
        let peak = self.recent.iter().filter_map(|(at, then)| {
            let from = self.window_before(*at)?;
            Some(then.rx.saturating_sub(from.rx))
        });
        received >= ENOUGH
            && received.saturating_mul(ANSWERING) >= sent
            && received.saturating_mul(STEADY) >= peak.max().unwrap_or(0)
    }

    /// The oldest observation within the [`WINDOW`] that ends at that time.
    fn window_before(&self, end: Instant) -> Option<Traffic> {
        self.recent.iter().find(|(at, _)| end.saturating_duration_since(*at) <= WINDOW).map(|(_, then)| *then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is concluded from so many packets sent and received in each 50 ms.
    fn observe(steps: impl IntoIterator<Item = (u64, u64)>) -> Vec<Evidence> {
        let (mut passive, mut now, mut traffic) =
            (Passive::default(), Instant::now(), Traffic { tx: 7, rx: 7 });
        passive.observe(traffic, now);
        let step = |(tx, rx)| {
            now += Duration::from_millis(50);
            traffic = Traffic { tx: traffic.tx + tx, rx: traffic.rx + rx };
            passive.observe(traffic, now)
        };
        steps.into_iter().map(step).collect()
    }

    fn last(steps: impl IntoIterator<Item = (u64, u64)>) -> Evidence {
        observe(steps).pop().unwrap()
    }

    #[test]
    fn a_download_and_an_upload_vouch_and_a_trickle_does_not() {
        assert_eq!(last([(20, 40); 20]), Evidence::Life);
        assert_eq!(last([(8, 1); 20]), Evidence::Life, "an acknowledgement for eight");
        assert_eq!(last([(3, 0), (1, 1), (3, 0)].repeat(9).into_iter().chain([(1, 1)])), Evidence::None);
    }

    #[test]
    fn answers_to_a_part_of_what_is_sent_are_no_life() {
        assert_eq!(last([(50, 2); 20]), Evidence::None, "errors of a gateway, limited in their rate");
    }

    #[test]
    fn repetitions_after_the_way_out_has_died_are_not_taken_for_a_download() {
        let download = [(20, 40); 40];
        let repetitions = [(1, 3); 9];
        assert_eq!(last(download.into_iter().chain(repetitions)), Evidence::None);
        assert_eq!(last(download.into_iter().chain([(9, 20); 9])), Evidence::Life, "half of it is");
    }

    #[test]
    fn what_came_in_before_a_failure_does_not_vouch_after_the_window() {
        let dead = [(20, 0); 8].into_iter().chain([(20, 1)]);
        assert_eq!(last([(20, 40); 40].into_iter().chain(dead)), Evidence::None);
    }

    #[test]
    fn silence_is_told_with_how_long_it_lasts() {
        let evidence = observe([(9, 9), (1, 0), (1, 0), (1, 0), (0, 0)]);
        let lasts = |ms| Evidence::Silence { sent: 3, lasts: Duration::from_millis(ms) };
        assert_eq!(evidence[1..], [Evidence::None, Evidence::None, lasts(150), lasts(200)]);
    }

    #[test]
    fn counters_that_start_anew_say_nothing() {
        let (mut passive, now) = (Passive::default(), Instant::now());
        for (tx, rx) in [(900, 900), (0, 0), (9, 0), (0, 900), (900, 0), (0, 900)] {
            let evidence = passive.observe(Traffic { tx, rx }, now);
            assert!(matches!(evidence, Evidence::None | Evidence::Silence { lasts: Duration::ZERO, .. }));
        }
        let later = now + Duration::from_millis(50);
        let silence = Evidence::Silence { sent: 3, lasts: Duration::from_millis(50) };
        assert_eq!(passive.observe(Traffic { tx: 3, rx: 900 }, later), silence, "only since then");
    }
}
