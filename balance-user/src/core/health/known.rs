//! What is known of a path, and why it is in its state.

use std::time::{Duration, Instant};

use super::state::Belief;
use super::{Cause, Health, Measured, Reason, State, Unanswered};

impl Health {
    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        match self.belief {
            Belief::Unknown => State::Unknown,
            Belief::Up if self.is_degraded() => State::Degraded,
            Belief::Up => State::Up,
            Belief::Suspect => State::Suspect,
            Belief::Down if self.held => State::Held,
            Belief::Down if self.is_long => State::LongDown,
            Belief::Down => State::Down,
        }
    }

    /// It works badly, in doubt or not.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.belief.is_usable() && self.standing.is_degraded()
    }

    /// Since when it has been usable, down, or unknown: moments of doubt do not count.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why it is in its state.
    #[must_use]
    pub fn reason(&self, now: Instant) -> Reason {
        if let Some(why) = &self.no_path {
            return Reason::NoPath(why.clone());
        }
        if let (true, Some(until)) = (self.held, self.damping.until(now)) {
            return Reason::Held(until - now);
        }
        match (self.belief, &self.cause) {
            (Belief::Up, _) if self.is_degraded() => Reason::Degraded(self.standing.symptoms().to_vec()),
            (Belief::Up, _) => Reason::Fine,
            (Belief::Unknown, Cause::None) => Reason::Starting(self.targets.clone()),
            (_, cause) => match (self.returning, cause) {
                (Some((start, _)), _) => {
                    let left = self.hold_end(start, now).saturating_duration_since(now);
                    if self.counts() { Reason::Returning(left) } else { Reason::PathBack(left) }
                }
                (None, Cause::None) => Reason::Starting(self.targets.clone()),
                (None, Cause::Silence { sent, within }) => Reason::Silence { sent: *sent, within: *within },
                (None, Cause::Unanswered(Unanswered { syns, lasts })) => {
                    Reason::Unanswered { syns: *syns, lasts: *lasts }
                }
                (None, Cause::Adopted(state)) => Reason::Adopted(*state),
                (None, Cause::NoAnswer(missing)) => {
                    let answers = missing.iter().filter_map(|missing| self.answers.get(&missing.target));
                    let since = answers.max().map(|last| now.saturating_duration_since(*last));
                    Reason::NoAnswer { missing: missing.clone(), since }
                }
            },
        }
    }

    /// The smoothed round-trip time of the quickest answer to each round; none before the first.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// How much [`Self::rtt`] varies.
    #[must_use]
    pub fn jitter(&self) -> Option<Duration> {
        self.rtt.variation()
    }

    /// How many of the last 100 probes were lost, in percent.
    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        self.rounds.loss_percent()
    }

    /// What was measured of it.
    #[must_use]
    pub fn measured(&self) -> Measured {
        Measured {
            loss: self.rounds.loss(self.need()),
            latency: self.rtt(),
            jitter: self.jitter(),
            unanswered: self.unanswered.is_some(),
        }
    }

    /// How long nothing must come back before that is worth a call of [`Self::silent`]: what the config says, but
    /// no less than an answer may take on this line.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.rtt.usual().map_or(self.monitor.silence, |usual| self.monitor.silence.max(usual))
    }
}
