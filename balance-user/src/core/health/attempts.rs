//! What becomes of the TCP connections that are asked for by an ISP: none of them coming about, though several hosts are asked,
//! is evidence that pings do not have.
//!
//! A host that does not answer is nothing: it may be down. So at least [`HOSTS`] classes of hosts must have been asked, and not one
//! answer to any must have come, be it a refusal. What is answered is never only half believed: one answer ends it.

use std::time::{Duration, Instant};

use balance_common::fast::SYN_CLASSES;

/// So many hosts at least must have been asked, as far as their classes tell.
const HOSTS: usize = 4;
/// A first SYN is repeated after a second (RFC 6298): by then an answer to it is late, on any line.
const PATIENCE: Duration = Duration::from_secs(1);
/// If nobody was asked for so long, nothing is known any more.
const MEMORY: Duration = Duration::from_secs(20);

/// What was asked for and answered by an ISP's device, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// SYN, by the class of whom they are for.
    pub syns: [u32; SYN_CLASSES],
    /// Answers to such.
    pub answers: u64,
}

/// SYN that were all not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// So many.
    pub syns: u64,
    /// Since the first of them.
    pub lasts: Duration,
}

/// The attempts by an ISP, as they were observed.
#[derive(Clone, Debug, Default)]
pub struct Connecting {
    last: Option<Attempts>,
    run: Option<Run>,
    answered: Option<Instant>,
}

/// SYN since the last answer.
#[derive(Clone, Copy, Debug)]
struct Run {
    latest: Instant,
    syns: u64,
    /// When each class was asked first.
    first: [Option<Instant>; SYN_CLASSES],
}

impl Attempts {
    /// All SYN.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.syns.iter().copied().map(u64::from).sum()
    }

    /// SYN by class since then; none if the counters have gone back.
    fn since(&self, before: &Self) -> Option<[u32; SYN_CLASSES]> {
        let mut new = self.syns;
        for (new, before) in new.iter_mut().zip(before.syns) {
            *new = new.checked_sub(before)?;
        }
        Some(new)
    }
}

impl Connecting {
    /// Takes in what was asked for and answered so far; some if several hosts were asked for long enough, and none answered.
    pub fn observe(&mut self, attempts: Attempts, now: Instant) -> Option<Unanswered> {
        let before = self.last.replace(attempts)?;
        if attempts.answers > before.answers {
            self.answered = Some(now);
        }
        match attempts.since(&before) {
            Some(syns) if attempts.answers == before.answers => self.take(syns, now),
            // An answer, or counters that start anew.
            _ => self.run = None,
        }
        self.run = self.run.filter(|run| now.saturating_duration_since(run.latest) < MEMORY);
        let Run { syns, first, .. } = self.run?;
        // What was asked only now may still be answered.
        let waiting = first.iter().flatten().map(|&first| now.saturating_duration_since(first));
        let overdue = waiting.filter(|&waiting| waiting >= PATIENCE);
        let enough = overdue.clone().count() >= HOSTS;
        overdue.max().filter(|_| enough).map(|lasts| Unanswered { syns, lasts })
    }

    /// When somebody was last seen to answer: by then both ways worked.
    #[must_use]
    pub const fn last_answer(&self) -> Option<Instant> {
        self.answered
    }

    fn take(&mut self, new: [u32; SYN_CLASSES], now: Instant) {
        let syns = new.iter().copied().map(u64::from).sum::<u64>();
        if syns == 0 {
            return;
        }
        let run = self.run.get_or_insert(Run { latest: now, syns: 0, first: [None; SYN_CLASSES] });
        run.latest = now;
        run.syns += syns;
        for (first, _) in run.first.iter_mut().zip(new).filter(|(_, new)| *new > 0) {
            first.get_or_insert(now);
        }
    }

    /// What was observed before says nothing any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ISP that is observed every 50 ms.
    struct Line {
        connecting: Connecting,
        attempts: Attempts,
        now: Instant,
    }

    impl Line {
        fn new() -> Self {
            let attempts = Attempts { syns: [7; SYN_CLASSES], answers: 9 };
            let mut line = Self { connecting: Connecting::default(), attempts, now: Instant::now() };
            line.look();
            line
        }

        fn look(&mut self) -> Option<Unanswered> {
            self.now += Duration::from_millis(50);
            self.connecting.observe(self.attempts, self.now)
        }

        fn wait(&mut self, ms: u64) -> Option<Unanswered> {
            (0..ms / 50).map(|_| self.look()).last().flatten()
        }

        fn ask(&mut self, classes: std::ops::Range<usize>) {
            for syns in &mut self.attempts.syns[classes] {
                *syns += 1;
            }
        }
    }

    #[test]
    fn several_hosts_that_do_not_answer_within_a_second_are_evidence() {
        let mut line = Line::new();
        line.ask(0..4);
        assert_eq!(line.wait(1000), None);
        assert_eq!(line.look(), Some(Unanswered { syns: 4, lasts: Duration::from_secs(1) }));
        line.ask(2..5);
        assert_eq!(line.wait(500).map(|unanswered| unanswered.syns), Some(7), "also when more are asked");
    }

    #[test]
    fn few_hosts_that_do_not_answer_are_just_down_however_often_they_are_asked() {
        let mut line = Line::new();
        for _ in 0..60 {
            line.ask(7..10);
            assert_eq!(line.wait(1000), None);
        }
    }

    #[test]
    fn hosts_that_are_asked_only_now_have_their_time_whoever_else_is_silent() {
        let mut line = Line::new();
        line.ask(0..3);
        assert_eq!(line.wait(5000), None);
        line.ask(3..16);
        assert_eq!(line.wait(1000), None);
        assert_eq!(line.look(), Some(Unanswered { syns: 16, lasts: Duration::from_secs(6) }));
    }

    #[test]
    fn one_answer_to_anybody_ends_it() {
        let mut line = Line::new();
        line.ask(0..16);
        assert!(line.wait(2000).is_some());
        assert_eq!(line.connecting.last_answer(), None);
        line.attempts.answers += 1;
        assert_eq!(line.look(), None);
        assert_eq!(line.connecting.last_answer(), Some(line.now));
        assert_eq!(line.wait(5000), None, "and what was asked before it does not count again");
        line.ask(0..4);
        assert!(line.wait(1050).is_some());
    }

    #[test]
    fn where_one_of_many_answers_now_and_then_there_is_no_evidence() {
        let mut line = Line::new();
        for _ in 0..60 {
            line.ask(0..16);
            assert_eq!(line.wait(950), None);
            line.attempts.answers += 1;
        }
    }

    #[test]
    fn what_was_asked_long_ago_is_forgotten() {
        let mut line = Line::new();
        line.ask(0..16);
        assert!(line.wait(19_000).is_some());
        assert_eq!(line.wait(2_000), None);
        line.ask(0..3);
        assert_eq!(line.wait(2_000), None, "these are too few by themselves");
    }

    #[test]
    fn counters_that_start_anew_are_no_evidence() {
        for answers in [0, 9] {
            let mut line = Line::new();
            line.ask(0..16);
            line.look();
            line.attempts = Attempts { syns: [0; SYN_CLASSES], answers };
            assert_eq!(line.wait(5_000), None);
        }
    }
}
