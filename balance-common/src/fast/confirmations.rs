//! How many entries of the flow cache are sent to the kernel to be confirmed.

/// More than so many in a window of 2^22 ns (about 4 ms) are too many. That makes 15,000 a second: a tenth of what a CPU can do, as
/// of so many flows hardly anything is in its caches.
const LIMIT: u64 = 64;
const WINDOW_SHIFT: u32 = 22;
const WINDOW: u64 = 1 << WINDOW_SHIFT;

/// Leases get no longer than by so many nanoseconds.
const MOST: u64 = 120_000_000_000;

/// The value of `CONFIRMATIONS`: what a CPU has sent to the kernel to be confirmed, and how far it stretches leases so that
/// this does not become too much. Zeros to begin with.
///
/// The flows whose leases ended first are confirmed first, so with more flows than can be confirmed in the time of a lease all get the
/// same, longer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Confirmations {
    /// The window of time, numbered.
    window: u64,
    /// How many in that.
    count: u64,
    /// How much longer leases are, in nanoseconds.
    stretch: u64,
}

impl Confirmations {
    /// Must an entry whose lease ended at `expired` be confirmed `now` (both in nanoseconds)? If not it may be used, but for no longer
    /// than `longest` nanoseconds after that, in which its protocol's flows are remembered by conntrack.
    #[inline(always)]
    pub const fn is_due(&mut self, now: u64, expired: u64, longest: u64) -> bool {
        self.enter(now >> WINDOW_SHIFT);
        let overdue = now - expired;
        let must = overdue >= longest || overdue >= MOST;
        if !must && overdue < self.stretch {
            return false;
        }
        self.count += 1;
        must || self.count <= LIMIT
    }

    /// May packets still go by an entry whose lease ends at `expires`?
    #[must_use]
    #[inline(always)]
    pub const fn is_in_use(&self, now: u64, expires: u64) -> bool {
        now < expires.saturating_add(self.stretch)
    }

    /// How much longer than said leases are now, in nanoseconds, but for a few windows.
    #[must_use]
    pub const fn stretch(&self) -> u64 {
        self.stretch
    }

    #[inline(always)]
    const fn enter(&mut self, window: u64) {
        let passed = window.wrapping_sub(self.window);
        if passed == 0 {
            return;
        }
        // One window longer with each that is full: nothing else becomes due then, as flows do not age faster. One shorter with
        // each that is not; when there is little to confirm, sooner.
        self.stretch = if passed == 1 && self.count > LIMIT {
            let longer = self.stretch + WINDOW;
            if longer < MOST { longer } else { MOST }
        } else if passed == 1 && self.count >= LIMIT / 2 {
            self.stretch.saturating_sub(WINDOW)
        } else if passed < 64 {
            self.stretch.saturating_sub(passed * (WINDOW + (self.stretch >> 6)))
        } else {
            0
        };
        self.window = window;
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LEASE: u64 = SECOND;
    const LONGEST: u64 = 19 * SECOND;

    /// How often flows were confirmed, and the longest time between, in nanoseconds.
    #[derive(Debug, Default)]
    struct Outcome {
        confirmed: u64,
        longest: u64,
    }

    /// So many flows send in turn for `seconds`, each a packet in every `gap` nanoseconds; what happens in the last third.
    fn run(confirmations: &mut Confirmations, begin: u64, flows: u64, gap: u64, seconds: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut leases: VecDeque<u64> = (0..flows).map(|flow| begin + LEASE + gap * flow / flows).collect();
        let end = begin + seconds * SECOND;
        let packets = (0..).map(|packet| begin + packet * gap / flows).take_while(|now| *now < end);
        for now in packets {
            let expires = leases.pop_front().expect("there are flows");
            let is_confirmed = now >= expires && confirmations.is_due(now, expires, LONGEST);
            leases.push_back(if is_confirmed { now + LEASE } else { expires });
            if is_confirmed && now >= end - seconds * SECOND / 3 {
                outcome.confirmed += 1;
                outcome.longest = outcome.longest.max(now - (expires - LEASE));
            }
        }
        outcome
    }

    #[test]
    fn few_flows_are_confirmed_with_their_first_packet_after_the_lease() {
        let outcome = run(&mut Confirmations::default(), 7 * SECOND, 2_000, SECOND / 10, 9);
        assert!(outcome.longest <= LEASE + SECOND / 10 && outcome.confirmed > 5_000, "{outcome:?}");
    }

    #[test]
    fn however_long_conntrack_remembers_no_lease_is_longer_than_the_most() {
        let (now, mut confirmations) = (500 * SECOND, Confirmations::default());
        let mut is_due = |overdue| confirmations.is_due(now, now - overdue, 400 * SECOND);
        assert!((0..LIMIT).all(|_| is_due(MOST - 1)) && !is_due(MOST - 1), "of this window no more");
        assert!(is_due(MOST));
    }

    #[test]
    fn with_more_flows_than_can_be_confirmed_in_a_lease_each_gets_its_turn() {
        // At 15,000 a second it is the turn of each of 100,000 every 6.6 s.
        let outcome = run(&mut Confirmations::default(), 7 * SECOND, 100_000, SECOND / 2, 60);
        assert!((270_000..310_000).contains(&outcome.confirmed), "{outcome:?}");
        assert!(outcome.longest < 12 * SECOND, "{outcome:?}");
    }

    #[test]
    fn with_very_many_flows_all_are_confirmed_before_conntrack_forgets_them_and_none_much_before() {
        let mut confirmations = Confirmations::default();
        let (flows, gap, seconds) = (1_000_000, 2 * SECOND, 90);
        let outcome = run(&mut confirmations, 7 * SECOND, flows, gap, seconds);
        assert!(outcome.longest <= LEASE + LONGEST + gap, "{outcome:?}");
        let least = flows * seconds / 3 * SECOND / (LEASE + LONGEST);
        assert!(outcome.confirmed < least * 5 / 4, "{outcome:?}");

        let quiet_again = run(&mut confirmations, 100 * SECOND, 2_000, SECOND / 10, 9);
        assert!(quiet_again.longest <= LEASE + SECOND / 10, "{quiet_again:?}");
    }
}
