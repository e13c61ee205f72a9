//! When to send what: events that wait, pauses between messages, and patience with receivers that fail. Without I/O and
//! clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::Event;

/// So many events wait for a receiver. When there are more the oldest are given up; the history has them still.
const ROOM: usize = 256;
/// The longest pause before another try.
const LONGEST: Duration = Duration::from_mins(1);

/// What waits to be sent to one receiver.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Event>,
    /// The most events that go into one message.
    batch: usize,
    /// The least time between two messages.
    pause: Duration,
    /// When the next message may be sent.
    next: Instant,
    failures: u32,
    /// How many events were given up since a message was sent last.
    dropped: u64,
}

impl Outbox {
    /// An empty one.
    pub(super) const fn new(batch: usize, pause: Duration, now: Instant) -> Self {
        Self { waiting: VecDeque::new(), batch, pause, next: now, failures: 0, dropped: 0 }
    }

    /// Takes in an event. If it says that there is a way out again, what has failed is tried again now.
    pub(super) fn push(&mut self, event: Event, now: Instant) {
        if self.failures > 0 && event.change.is_way_back() {
            self.next = self.next.min(now);
        }
        if self.waiting.len() >= ROOM {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(event);
    }

    /// When to send; none while there is nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// What belongs into the next message.
    pub(super) fn batch(&self) -> Vec<Event> {
        self.waiting.iter().take(self.batch).cloned().collect()
    }

    /// How many events were given up since a message was sent last, because there were too many.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A message with so many events has been sent, or refused for good.
    pub(super) fn done(&mut self, count: usize, now: Instant) {
        drop(self.waiting.drain(..count.min(self.waiting.len())));
        self.failures = 0;
        self.dropped = 0;
        self.next = now + self.pause;
    }

    /// A message could not be sent; it will be tried again.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.next = now + backoff(self.failures);
    }
}

/// The pause after so many failures in a row: a second, then twice as long each time, up to a minute.
fn backoff(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(factor).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn isps(outbox: &Outbox) -> Vec<String> {
        outbox.batch().into_iter().map(|event| event.change.isp).collect()
    }

    #[test]
    fn the_first_event_goes_at_once_and_what_follows_goes_together_after_the_pause() {
        let start = Instant::now();
        let mut outbox = Outbox::new(usize::MAX, 60 * SECOND, start);
        assert_eq!(outbox.due(), None);
        outbox.push(event("A", "down"), start);
        assert_eq!(outbox.due(), Some(start));
        outbox.done(1, start);
        assert_eq!(outbox.due(), None);
        outbox.push(event("B", "down"), start + SECOND);
        outbox.push(event("A", "up"), start + 2 * SECOND);
        assert_eq!(outbox.due(), Some(start + 60 * SECOND));
        assert_eq!(isps(&outbox), ["B", "A"]);
        // One that came while the message was on its way stays.
        outbox.push(event("C", "up"), start + 60 * SECOND);
        outbox.done(2, start + 60 * SECOND);
        assert_eq!((isps(&outbox), outbox.due()), (vec!["C".to_owned()], Some(start + 120 * SECOND)));
    }

    #[test]
    fn after_a_quiet_time_an_event_goes_at_once_again() {
        let start = Instant::now();
        let mut outbox = Outbox::new(usize::MAX, 60 * SECOND, start);
        outbox.push(event("A", "down"), start);
        outbox.done(1, start);
        let later = start + 100 * SECOND;
        outbox.push(event("A", "up"), later);
        assert!(outbox.due().unwrap() <= later);
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_at_once_when_an_isp_is_back() {
        let start = Instant::now();
        let mut outbox = Outbox::new(1, Duration::ZERO, start);
        outbox.push(event("A", "down"), start);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            outbox.failed(start);
            assert_eq!(outbox.due(), Some(start + seconds * SECOND));
        }
        outbox.push(event("B", "down"), start + SECOND);
        assert_eq!(outbox.due(), Some(start + 60 * SECOND));
        outbox.push(event("A", "up"), start + 2 * SECOND);
        assert_eq!(outbox.due(), Some(start + 2 * SECOND));
        assert_eq!(isps(&outbox), ["A"], "one at a time");
        outbox.done(1, start);
        outbox.failed(start);
        assert_eq!(outbox.due(), Some(start + SECOND), "patience begins anew");
        assert_eq!(backoff(u32::MAX), LONGEST);
    }

    #[test]
    fn an_event_that_brings_a_way_back_does_not_shorten_the_pause_of_a_receiver_that_works() {
        let start = Instant::now();
        let mut outbox = Outbox::new(usize::MAX, 60 * SECOND, start);
        outbox.push(event("A", "down"), start);
        outbox.done(1, start);
        outbox.push(event("A", "up"), start + SECOND);
        assert_eq!(outbox.due(), Some(start + 60 * SECOND));
    }

    #[test]
    fn when_too_many_wait_the_oldest_are_given_up_and_counted() {
        let start = Instant::now();
        let mut outbox = Outbox::new(usize::MAX, SECOND, start);
        for number in 0..ROOM + 3 {
            outbox.push(event(&format!("I{number}"), "down"), start);
        }
        assert_eq!((outbox.batch().len(), outbox.dropped()), (ROOM, 3));
        assert_eq!(isps(&outbox)[0], "I3");
        outbox.done(ROOM, start);
        assert_eq!((outbox.batch().len(), outbox.dropped()), (0, 0));
    }
}
