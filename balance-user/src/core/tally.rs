//! What became of the latest probes of an ISP, as Net::ISP::Balance's scripts are told it. Only for telling: the verdict is
//! [`super::health`]'s.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use balance_common::Family;

use super::rtt::Rtt;
use crate::announce::event::Probes;

/// So many probes are looked back on, as foolsm does.
const WINDOW: usize = 100;

/// The latest probes of one ISP.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Oldest first.
    probes: VecDeque<Sent>,
    rtt: Rtt,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    family: Family,
    sequence: u64,
    at: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Replied(Duration),
    Failed,
}

/// What a probe counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Waiting,
    Replied,
    Lost,
}

impl Tally {
    /// A probe was sent.
    pub(super) fn sent(&mut self, family: Family, sequence: u64, at: Instant) {
        if self.probes.len() == WINDOW {
            self.probes.pop_front();
        }
        self.probes.push_back(Sent { family, sequence, at, fate: Fate::Waiting });
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self, family: Family, sequence: u64, rtt: Duration) {
        self.rtt.sample(rtt);
        self.decide(family, sequence, Fate::Replied(rtt));
    }

    /// A probe came to nothing.
    pub(super) fn failed(&mut self, family: Family, sequence: u64) {
        self.decide(family, sequence, Fate::Failed);
    }

    /// How many are what, where an answer may take `timeout` at the longest.
    pub(super) fn count(&self, timeout: Duration, now: Instant) -> Probes {
        let patience = self.rtt.patience(timeout);
        let verdict = |probe: &Sent| match probe.fate {
            Fate::Replied(rtt) if rtt <= patience => Verdict::Replied,
            Fate::Waiting if now.saturating_duration_since(probe.at) < patience => Verdict::Waiting,
            _ => Verdict::Lost,
        };
        let verdicts: Vec<Verdict> = self.probes.iter().rev().map(verdict).collect();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let all = |wanted| number(verdicts.iter().filter(|&&verdict| verdict == wanted).count());
        let in_row = |wanted| {
            let decided = verdicts.iter().filter(|&&verdict| verdict != Verdict::Waiting);
            number(decided.take_while(|&&verdict| verdict == wanted).count())
        };
        let rtts: Vec<Duration> = self.probes.iter().filter_map(|probe| probe.fate.rtt()).collect();
        let late = rtts.iter().filter(|&&rtt| rtt > patience).count();
        let average = rtts.iter().sum::<Duration>().checked_div(number(rtts.len()));
        Probes {
            target: None,
            source: None,
            replied: all(Verdict::Replied),
            waiting: all(Verdict::Waiting),
            lost: all(Verdict::Lost),
            late: number(late),
            replied_in_row: in_row(Verdict::Replied),
            waiting_in_row: number(
                verdicts.iter().take_while(|&&verdict| verdict == Verdict::Waiting).count(),
            ),
            lost_in_row: in_row(Verdict::Lost),
            rtt_us: average.map(|average| u64::try_from(average.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    fn decide(&mut self, family: Family, sequence: u64, fate: Fate) {
        let known = |probe: &&mut Sent| probe.family == family && probe.sequence == sequence;
        if let Some(probe) = self.probes.iter_mut().rev().find(known)
            && probe.fate.rtt().is_none()
        {
            probe.fate = fate;
        }
    }
}

impl Fate {
    const fn rtt(self) -> Option<Duration> {
        match self {
            Self::Replied(rtt) => Some(rtt),
            Self::Waiting | Self::Failed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One probe every 100 ms: answered after so many milliseconds, or failed, or nothing.
    fn tally(start: Instant, fates: &[Option<Result<u64, ()>>]) -> Tally {
        let mut tally = Tally::default();
        for (sequence, fate) in (0..).zip(fates) {
            tally.sent(Family::V4, sequence, start + ms(100) * u32::try_from(sequence).unwrap());
            match fate {
                Some(Ok(rtt)) => tally.answered(Family::V4, sequence, ms(*rtt)),
                Some(Err(())) => tally.failed(Family::V4, sequence),
                None => {}
            }
        }
        tally
    }

    #[test]
    fn answers_losses_and_what_is_under_way_are_counted() {
        let start = Instant::now();
        let good = Some(Ok(20));
        let tally = tally(start, &[good, Some(Err(())), good, good, None, None, None]);
        // The probes at 400, 500 and 600 ms; patience is 200 ms.
        let probes = tally.count(TIMEOUT, start + ms(650));
        assert_eq!((probes.replied, probes.waiting, probes.lost, probes.late), (3, 2, 2, 0));
        assert_eq!((probes.replied_in_row, probes.waiting_in_row, probes.lost_in_row), (0, 2, 1));
        assert_eq!(probes.rtt_us, Some(20_000));
        let probes = tally.count(TIMEOUT, start + ms(900));
        assert_eq!((probes.waiting, probes.waiting_in_row, probes.lost_in_row), (0, 0, 3));
        assert_eq!(
            tally.count(TIMEOUT, start + ms(450)).replied_in_row,
            2,
            "what is under way does not count"
        );
    }

    #[test]
    fn a_late_answer_is_late_and_lost() {
        let start = Instant::now();
        let mut fates = vec![Some(Ok(10)); 50];
        fates.push(Some(Ok(600)));
        fates.extend([Some(Ok(10)); 20]);
        let probes = tally(start, &fates).count(TIMEOUT, start + ms(9000));
        assert_eq!((probes.replied, probes.lost, probes.late, probes.replied_in_row), (70, 1, 1, 20));
    }

    #[test]
    fn only_the_latest_are_looked_at_and_families_are_kept_apart() {
        let start = Instant::now();
        let mut tally = tally(start, &[Some(Err(())); 30]);
        for sequence in 0..WINDOW as u64 {
            tally.sent(Family::V6, sequence, start);
            tally.answered(Family::V4, sequence, ms(1));
            tally.answered(Family::V6, sequence, ms(1));
        }
        let probes = tally.count(TIMEOUT, start);
        assert_eq!((probes.replied, probes.lost), (100, 0));
    }

    #[test]
    fn nothing_sent_is_nothing() {
        assert_eq!(Tally::default().count(TIMEOUT, Instant::now()), Probes::default());
    }
}
