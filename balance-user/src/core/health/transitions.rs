//! How a path goes from one state to another: the arrows of the diagram.

use std::time::{Duration, Instant};

use super::damping::Failure;
use super::quality::Standing;
use super::rounds::{Judged, Verdict, after};
use super::{Belief, Cause, Health, Missing};

/// Traffic is observed more often than this.
const FRESH: Duration = Duration::from_millis(150);

impl Health {
    pub(super) fn judge(&mut self, judged: Judged, now: Instant) {
        match judged.verdict {
            Verdict::Good { late } => self.good(judged.number, late, now),
            Verdict::Bad(missing) => self.bad(judged.number, missing, now),
        }
    }

    fn good(&mut self, number: u64, late: bool, now: Instant) {
        self.newest_good = self.newest_good.max(Some(number));
        match self.belief {
            Belief::Unknown => self.up(now),
            Belief::Suspect if late || number >= self.first_round => self.up(now),
            Belief::Up | Belief::Suspect => {}
            Belief::Down => {
                let (start, _) = *self.returning.get_or_insert((now, number));
                let end = self.hold_end(start, now);
                if now >= end || !self.others_usable {
                    self.up(now);
                } else {
                    self.held |= end > after(start, self.monitor.up_after);
                    self.next_round = self.next_round.min(end);
                }
            }
        }
    }

    fn bad(&mut self, number: u64, missing: Vec<Missing>, now: Instant) {
        let outdone = self.newest_good.is_some_and(|good| good > number);
        let counts = number >= self.first_round && !outdone;
        match self.belief {
            Belief::Up if !outdone => self.suspect(Cause::NoAnswer(missing), now),
            Belief::Unknown | Belief::Suspect if counts => {
                self.bad_in_row = self.bad_in_row.saturating_add(1);
                if self.bad_in_row >= self.monitor.down_after && !self.is_vouched_for(&missing, now) {
                    self.down(Cause::NoAnswer(missing), now);
                }
            }
            Belief::Unknown | Belief::Up | Belief::Suspect => {}
            Belief::Down => {
                if self.returning.is_none_or(|(_, first)| number > first) {
                    self.stop_returning(now);
                    self.cause = Cause::NoAnswer(missing);
                }
            }
        }
    }

    pub(super) fn up(&mut self, now: Instant) {
        if self.belief == Belief::Suspect
            && matches!(self.cause, Cause::Silence { .. } | Cause::Unanswered(_))
        {
            self.silence_refuted = Some(now);
        }
        if !self.belief.is_usable() {
            // What it was like before it failed says nothing about what it is like now.
            self.rounds.forget_losses();
            self.standing = Standing::default();
        }
        self.ever_up = true;
        self.returning = None;
        self.held = false;
        self.settled_from.get_or_insert(self.rounds.next_number());
        self.enter(Belief::Up, Cause::None, now);
        self.next_round = after(now, self.pace());
    }

    pub(super) fn suspect(&mut self, cause: Cause, now: Instant) {
        self.enter(Belief::Suspect, cause, now);
        self.doubt_since = now;
        self.next_round = now;
    }

    pub(super) fn down(&mut self, cause: Cause, now: Instant) {
        if self.belief == Belief::Down {
            return;
        }
        if self.belief.is_usable() {
            self.damping.fail(Failure::InUse, &self.monitor, now);
        }
        self.standing = Standing::default();
        self.is_long = false;
        self.enter(Belief::Down, cause, now);
        self.next_round = after(now, self.pace());
    }

    /// Without targets the path is all there is to judge by, and it is there.
    pub(super) fn path_alone(&mut self, now: Instant) {
        match self.belief {
            Belief::Up => {}
            Belief::Unknown | Belief::Suspect => self.up(now),
            Belief::Down => {
                let (start, _) = *self.returning.get_or_insert((now, self.first_round));
                let end = self.hold_end(start, now);
                if now >= end || !self.others_usable || !self.ever_up {
                    self.up(now);
                } else {
                    self.held |= end > after(start, self.monitor.up_after);
                }
            }
        }
    }

    /// It was coming back, and is not any more.
    pub(super) fn stop_returning(&mut self, now: Instant) {
        if self.returning.take().is_some() {
            self.damping.fail(Failure::Returning, &self.monitor, now);
        }
    }

    /// Whether traffic says that it lives, though no probe was answered. Not for ever: what comes in may be what nobody
    /// needs to answer. But a connection that comes about proves both ways, and begins that time anew. And a router that says that there is no way, it is believed.
    fn is_vouched_for(&self, missing: &[Missing], now: Instant) -> bool {
        self.belief == Belief::Suspect
            && self.heard.is_some_and(|heard| now <= after(heard, FRESH))
            && now
                < after(
                    self.connected.map_or(self.doubt_since, |at| at.max(self.doubt_since)),
                    self.monitor.vouch,
                )
            && missing.iter().all(|missing| missing.why.is_none())
    }

    pub(super) fn enter(&mut self, belief: Belief, cause: Cause, now: Instant) {
        if self.belief != belief && !(self.belief.is_usable() && belief.is_usable()) {
            self.since = now;
        }
        self.belief = belief;
        self.cause = cause;
        self.first_round = self.rounds.next_number();
        self.bad_in_row = 0;
    }

    /// Forgets what is under way, which says nothing about what there is now.
    pub(super) fn forget_rounds(&mut self, now: Instant) {
        self.rounds.clear();
        self.first_round = self.rounds.next_number();
        self.bad_in_row = 0;
        self.next_round = now;
    }
}
