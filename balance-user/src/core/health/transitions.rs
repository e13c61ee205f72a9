//! How a path goes from one state to another: the arrows of the diagram.

use std::time::Instant;

use super::rounds::{Judged, Verdict, after};
use super::{Cause, Health, Missing, State};

impl Health {
    pub(super) fn judge(&mut self, judged: Judged, now: Instant) {
        match judged.verdict {
            Verdict::Good { late } => self.good(judged.number, late, now),
            Verdict::Bad(missing) => self.bad(judged.number, missing, now),
        }
    }

    fn good(&mut self, number: u64, late: bool, now: Instant) {
        self.newest_good = self.newest_good.max(Some(number));
        match self.state {
            State::Unknown => self.up(now),
            State::Suspect if late || number >= self.first_round => self.up(now),
            State::Up | State::Suspect => {}
            State::Down => {
                let (start, _) = *self.returning.get_or_insert((now, number));
                let end = after(start, self.hold());
                if now >= end || !self.others_usable {
                    self.up(now);
                } else {
                    self.next_round = self.next_round.min(end);
                }
            }
        }
    }

    fn bad(&mut self, number: u64, missing: Vec<Missing>, now: Instant) {
        let outdone = self.newest_good.is_some_and(|good| good > number);
        let counts = number >= self.first_round && !outdone;
        match self.state {
            State::Up if !outdone => self.suspect(Cause::NoAnswer(missing), now),
            State::Unknown | State::Suspect if counts => {
                self.bad_in_row += 1;
                if self.bad_in_row >= self.monitor.down_after {
                    self.down(Cause::NoAnswer(missing), now);
                }
            }
            State::Unknown | State::Up | State::Suspect => {}
            State::Down => {
                if self.returning.is_none_or(|(_, first)| number > first) {
                    self.returning = None;
                    self.cause = Cause::NoAnswer(missing);
                }
            }
        }
    }

    pub(super) fn up(&mut self, now: Instant) {
        if self.state == State::Down {
            self.came_back = Some(now);
        }
        if self.state == State::Suspect && matches!(self.cause, Cause::Silence { .. }) {
            self.silence_refuted = Some(now);
        }
        self.ever_up = true;
        self.returning = None;
        self.settled_from.get_or_insert(self.rounds.next_number());
        self.enter(State::Up, Cause::None, now);
        self.next_round = after(now, self.pace());
    }

    pub(super) fn suspect(&mut self, cause: Cause, now: Instant) {
        self.enter(State::Suspect, cause, now);
        self.next_round = now;
    }

    pub(super) fn down(&mut self, cause: Cause, now: Instant) {
        if self.state == State::Down {
            return;
        }
        if let Some(came_back) = self.came_back.take() {
            let flapped = now < after(came_back, self.monitor.flap_window);
            self.flaps = if flapped { self.flaps.saturating_add(1) } else { 0 };
        }
        self.enter(State::Down, cause, now);
        self.next_round = after(now, self.pace());
    }

    /// Without targets the path is all there is to judge by, and it is there.
    pub(super) fn path_alone(&mut self, now: Instant) {
        match self.state {
            State::Up => {}
            State::Unknown | State::Suspect => self.up(now),
            State::Down => {
                let (start, _) = *self.returning.get_or_insert((now, self.first_round));
                if now >= after(start, self.hold()) || !self.others_usable || !self.ever_up {
                    self.up(now);
                }
            }
        }
    }

    pub(super) fn enter(&mut self, state: State, cause: Cause, now: Instant) {
        if self.state != state && !(self.state.is_usable() && state.is_usable()) {
            self.since = now;
        }
        self.state = state;
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
