//! Does an ISP work? The judgement on one path: one ISP in one family.
//!
//! [`Health`] does no I/O and has no clock. Whoever owns it tells it what happened and when, sends the probes that
//! [`Health::poll`] hands out, and polls again at [`Health::next_deadline`] at the latest.
//!
//! ```text
//!                    first good round
//!       +---------+ ------------------> +------+    a bad round,      +---------+
//!   --> | Unknown |                     |  Up  | -- or silence ---->  | Suspect |
//!       +---------+                     +------+ <-- a good round --- +---------+
//!         |     ^                          ^                               |
//!         |     | the path is back,        | good rounds for up_after      | down_after bad
//!         |     | if it never was up       | and not a bad one             | rounds more
//!         |     |                          |                               |
//!         |     |       +------+ ----------+                               |
//!         |     +------ | Down | <-----------------------------------------+
//!         +-----------> +------+ <-- the path is lost (from any state)
//!           down_after bad rounds
//! ```
//!
//! Up and Suspect are usable; doubt alone moves no flow.
//!
//! # Rounds
//! A round probes every target. It is good as soon as targets with a weight of `quorum` have answered (or all, where
//! they have less), and bad as soon as that cannot happen any more. A probe is lost after [`Rtt::patience`], the time in
//! which its target usually answers with room for jitter (a target that never answered: the slowest other); but
//! where there is no hurry (Unknown, Down), or nothing was ever measured, only after `timeout`. An answer that comes later is late, not lost: it corrects the loss statistics and the RTT, and when it
//! makes its round good after all, the ISP is not suspect any more. A round that turns bad after a later one was good
//! only counts in the statistics.
//!
//! While Up or Down rounds start every `interval`. While Unknown or Suspect they start every `suspect_interval`
//! without waiting for the one before, so several are under way.
//!
//! # How fast
//! The round or the silence that makes a path suspect does not count against it; `down_after` bad rounds that were
//! sent since do, and one good round among them acquits it. From the death of a path to Down, at worst, with patience
//! p (at least 0.2 s, or the timeout if that is less):
//! * idle: `interval + p + (down_after - 1) * suspect_interval + p`, by default 1.6 s where RTT is below 50 ms or so;
//! * with traffic: `silence + (down_after - 1) * suspect_interval + p`, by default 0.7 s. The exception: when silence
//!   was just refuted by a good round (traffic that nobody answers), silence is no evidence for `interval`; then the
//!   idle figure holds, as that round was one.
//!
//! On lines where answers take long p is longer. A line whose RTT jumps from one round to the next by more than
//! about 0.6 s looks dead; one that fills up more slowly does not, as late answers acquit it and lengthen p.
//!
//! # Random loss
//! Where each probe is lost with probability L, a round of n targets and quorum 1 is bad with L^n, and going
//! down takes `1 + down_after` such rounds in a row: with two targets at 10 % loss and the defaults 10^-8 for each
//! round, less than once in three years; with one target 10^-4, some nine times a day. (Rounds that were sent before
//! the last verdict and are already answered acquit too, so with an RTT below `suspect_interval` it is rarer still:
//! 10^-10 and 10^-5.)
//!
//! # Coming back
//! A path that was down is up again after good rounds for `up_after` without a bad one, or with the first good
//! round if no other ISP is usable. Going down again within `flap_window` of coming back doubles the time, each
//! time, up to `up_after_max`; after staying up for `flap_window` it is `up_after` again.
//!
//! # No targets
//! A target that cannot be asked in a family (a name without an address of it, the gateway of a point-to-point device)
//! does not count there, until it answers or fails. Where none counts the path alone decides: up when it is there (after `up_after` where it had been up before), down when not.

mod inapplicable;
mod reason;
mod rounds;
mod transitions;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

pub use reason::{Missing, Reason};
use rounds::{Aim, Rounds, after};

use super::rtt::Rtt;
use crate::config::{MonitorConfig, Target};

/// However small the configured intervals are, rounds are this far apart.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// What is believed of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing yet: it has just started. Not used.
    Unknown,
    /// It works.
    Up,
    /// There is doubt, but it is used until that is settled.
    Suspect,
    /// It does not work.
    Down,
}

impl State {
    /// New flows may be given to it.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// A probe to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What to ask whom.
    pub target: Target,
    /// By which its answer is known; never used twice by one [`Health`].
    pub sequence: u64,
    /// After so long an answer is of no interest any more. It counts as lost much earlier.
    pub patience: Duration,
}

/// The judgement on one path. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Health {
    monitor: MonitorConfig,
    targets: Vec<Target>,
    state: State,
    since: Instant,
    /// Why it is suspect or down, apart from what the other fields say.
    cause: Cause,
    no_path: Option<String>,
    ever_up: bool,
    others_usable: bool,

    rounds: Rounds,
    next_round: Instant,
    /// Rounds before this one were sent in an earlier state.
    first_round: u64,
    newest_good: Option<u64>,
    /// The first round since the path first worked, or worked again after being away: those before may have waited
    /// for the neighbour's address.
    settled_from: Option<u64>,
    bad_in_row: u32,
    /// Down, but with good rounds only, since then and since that round.
    returning: Option<(Instant, u64)>,
    /// When it last went from Down to Up.
    came_back: Option<Instant>,
    /// How many times in a row it has gone down soon after coming back.
    flaps: u32,
    /// When a silence last turned out to mean nothing.
    silence_refuted: Option<Instant>,

    rtt: Rtt,
    rtts: BTreeMap<Target, Rtt>,
    answers: BTreeMap<Target, Instant>,
    /// Targets that cannot be asked in this family, and why.
    inapplicable: BTreeMap<Target, String>,
}

#[derive(Clone, Debug)]
enum Cause {
    None,
    Silence { sent: u64, within: Duration },
    NoAnswer(Vec<Missing>),
    Adopted(State),
}

impl Health {
    /// A path of which nothing is known yet; it is there until [`Self::set_path`] says otherwise. The first round is
    /// due at once. `targets` are those of the path's family.
    #[must_use]
    pub fn new(monitor: MonitorConfig, targets: Vec<Target>, now: Instant) -> Self {
        Self {
            monitor,
            targets,
            state: State::Unknown,
            since: now,
            cause: Cause::None,
            no_path: None,
            ever_up: false,
            others_usable: true,
            rounds: Rounds::default(),
            next_round: now,
            first_round: 0,
            newest_good: None,
            settled_from: None,
            bad_in_row: 0,
            returning: None,
            came_back: None,
            flaps: 0,
            silence_refuted: None,
            rtt: Rtt::default(),
            rtts: BTreeMap::new(),
            answers: BTreeMap::new(),
            inapplicable: BTreeMap::new(),
        }
    }

    /// A path that a daemon before this one has judged: it stays in `state`, in which it has been since `since`,
    /// until something speaks against it.
    #[must_use]
    pub fn adopt(
        state: State,
        since: Instant,
        monitor: MonitorConfig,
        targets: Vec<Target>,
        now: Instant,
    ) -> Self {
        let cause =
            if matches!(state, State::Suspect | State::Down) { Cause::Adopted(state) } else { Cause::None };
        let ever_up = state != State::Unknown;
        Self { state, since, cause, ever_up, ..Self::new(monitor, targets, now) }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
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
        match (self.state, &self.cause) {
            (State::Up, _) => Reason::Fine,
            (State::Unknown, Cause::None) => Reason::Starting(self.targets.clone()),
            (_, cause) => match (self.returning, cause) {
                (Some((start, _)), _) => {
                    let left = after(start, self.hold()).saturating_duration_since(now);
                    if self.counts() { Reason::Returning(left) } else { Reason::PathBack(left) }
                }
                (None, Cause::None) => Reason::Starting(self.targets.clone()),
                (None, Cause::Silence { sent, within }) => Reason::Silence { sent: *sent, within: *within },
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

    /// How long nothing must come back before that is worth a call of [`Self::silent`]: what the config says, but
    /// no less than an answer may take on this line.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.rtt.usual().map_or(self.monitor.silence, |usual| self.monitor.silence.max(usual))
    }

    /// Judges the deadlines that have passed and returns the probes to send now. Tell it the answers that have
    /// already arrived first, or it takes them for late after the process was held up.
    #[must_use = "these probes count as sent"]
    pub fn poll(&mut self, now: Instant) -> Vec<Probe> {
        if self.no_path.is_some() {
            return Vec::new();
        }
        for judged in self.rounds.expire(now) {
            self.judge(judged, now);
        }
        if !self.counts() {
            self.path_alone(now);
        }
        if self.targets.is_empty() || now < self.next_round { Vec::new() } else { self.start_round(now) }
    }

    /// When to call [`Self::poll`] at the latest; none while there is nothing to wait for but other events.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.no_path.is_some() {
            return None;
        }
        if self.targets.is_empty() {
            return match (self.state, self.returning) {
                (State::Up, _) => None,
                (State::Down, Some((start, _))) => Some(after(start, self.hold())),
                _ => Some(self.next_round),
            };
        }
        Some(self.rounds.next_deadline().map_or(self.next_round, |deadline| deadline.min(self.next_round)))
    }

    /// The probe with this sequence was answered after `rtt`.
    pub fn answered(&mut self, sequence: u64, rtt: Duration, now: Instant) {
        let Some(answered) = self.rounds.answer(sequence) else { return };
        self.answers.insert(answered.target.clone(), now);
        self.inapplicable.remove(&answered.target);
        let settled = self.settled_from.is_some_and(|from| answered.number >= from);
        let sample = if settled { Rtt::sample } else { Rtt::first_sample };
        sample(self.rtts.entry(answered.target).or_default(), rtt);
        if answered.first {
            sample(&mut self.rtt, rtt);
        }
        if let Some(judged) = answered.judged {
            self.judge(judged, now);
        }
    }

    /// The probe with this sequence could not be sent, or an ICMP error came back: lost, known at once. `why` is
    /// for the operator.
    pub fn failed(&mut self, sequence: u64, why: String, now: Instant) {
        if let Some(target) = self.rounds.target(sequence) {
            self.inapplicable.remove(target);
        }
        if let Some(judged) = self.rounds.fail(sequence, why) {
            self.judge(judged, now);
        }
    }

    /// Other evidence than probes: so many packets were sent within [`Self::silence`] and nothing was received.
    pub fn silent(&mut self, sent: u64, now: Instant) {
        let refuted = self.silence_refuted.is_some_and(|refuted| now < after(refuted, self.monitor.interval));
        if self.state == State::Up && self.counts() && !refuted {
            self.suspect(Cause::Silence { sent, within: self.silence() }, now);
        }
    }

    /// Says why there is no way to send anything (no device, no carrier, no gateway), or that there is one.
    pub fn set_path(&mut self, why_not: Option<String>, now: Instant) {
        let was_there = self.no_path.is_none();
        self.no_path = why_not;
        if self.no_path.is_some() {
            self.settled_from = None;
            self.forget_rounds(now);
            self.returning = None;
            self.down(Cause::None, now);
            self.cause = Cause::None;
        } else if !was_there {
            self.next_round = now;
            if !self.ever_up {
                self.enter(State::Unknown, Cause::None, now);
            }
            if !self.counts() {
                self.path_alone(now);
            }
        }
    }

    /// Says whether another ISP is usable in this family. If none is, there is nothing to lose by taking this one
    /// back at the first good round.
    pub fn set_others_usable(&mut self, usable: bool, now: Instant) {
        self.others_usable = usable;
        if !usable && self.state == State::Down && self.returning.is_some() {
            self.up(now);
        }
    }

    /// Goes on by another config, in the same state.
    pub fn reconfigure(&mut self, monitor: MonitorConfig, targets: Vec<Target>, now: Instant) {
        self.monitor = monitor;
        self.next_round = self.next_round.min(after(now, self.pace()));
        if self.targets == targets {
            return;
        }
        self.rtts.retain(|target, _| targets.contains(target));
        self.answers.retain(|target, _| targets.contains(target));
        self.inapplicable.retain(|target, _| targets.contains(target));
        self.targets = targets;
        self.forget_rounds(now);
        self.returning = None;
        if self.targets.is_empty() && self.no_path.is_none() {
            self.path_alone(now);
        }
    }

    fn start_round(&mut self, now: Instant) -> Vec<Probe> {
        self.next_round = after(now, self.pace());
        if let Some((start, _)) = self.returning {
            // A round right at the end of the hold time, so that it is not rounded up to the interval.
            let end = after(start, self.hold());
            if end > now {
                self.next_round = self.next_round.min(end);
            }
        }
        let timeout = self.monitor.timeout;
        let aims = self.targets.iter().map(|target| Aim {
            target: target.clone(),
            deadline: after(now, self.patience(target)),
            counts: !self.inapplicable.contains_key(target),
        });
        let aims = aims.collect();
        self.rounds.start(self.monitor.quorum, now, timeout.saturating_mul(2), aims)
    }

    /// How long the next probe of a target may take.
    fn patience(&self, target: &Target) -> Duration {
        let timeout = self.monitor.timeout;
        if !self.state.is_usable() {
            return timeout;
        }
        // A target that never answers must not hold up the verdict: it gets no more than the slowest other.
        let others = || self.rtts.values().map(|rtt| rtt.patience(timeout)).max();
        self.rtts.get(target).map(|rtt| rtt.patience(timeout)).or_else(others).unwrap_or(timeout)
    }

    /// The time between rounds.
    fn pace(&self) -> Duration {
        let interval = match self.state {
            State::Up | State::Down => self.monitor.interval,
            State::Unknown | State::Suspect => self.monitor.suspect_interval,
        };
        interval.max(LEAST_INTERVAL)
    }

    /// How long it must answer before it comes back.
    fn hold(&self) -> Duration {
        let most = self.monitor.up_after_max.max(self.monitor.up_after);
        self.monitor.up_after.saturating_mul(1_u32.checked_shl(self.flaps).unwrap_or(u32::MAX)).min(most)
    }
}
