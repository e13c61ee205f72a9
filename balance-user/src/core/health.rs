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
//!         |     ^                        |  ^ ^                        ^  |   |
//!         |     |        over a limit    |  | |      +----------+      |  |   |
//!         |     |        for long enough +--|-|----> | Degraded | <----+--+   |
//!         |     |                           | +----- +----------+ the same    |
//!         |     |           under all again |           when it is degraded   |
//!         |     |                           |                                 |
//!         |     | the path is back,         | good rounds for up_after        | down_after bad
//!         |     | if it never was up        | and not a bad one               | rounds more
//!         |     |                           |                                 |
//!         |     |       +------+ -----------+                                 |
//!         |     +------ | Down | <--------------------------------------------+
//!         +-----------> +------+ <-- the path is lost (from any state)
//!           down_after   |  | a good round, though it has failed too often  +------+
//!           bad rounds   |  +---------------------------------------------> | Held | --> up, when that
//!                        | long_down_after  +----------+                    +------+     is forgotten
//!                        +----------------> | LongDown |   as Down
//!                                           +----------+
//! ```
//!
//! Up, Degraded and Suspect are usable; doubt alone moves no flow. LongDown and Held are kinds of Down. All of it, with the
//! times of each profile, is told in docs/health.md for whoever runs it.
//!
//! # Rounds
//! A round probes every target. It is good as soon as targets with a weight of `quorum` have answered (or all, where
//! they have less), and bad as soon as that cannot happen any more. A probe is lost after [`Rtt::patience`], the time in
//! which its target usually answers with room for jitter (a target that never answered: the slowest other); but
//! where there is no hurry (Unknown, Down), or nothing was ever measured, only after `timeout`. An answer that comes later is late, not lost: it corrects the loss statistics and the RTT, and when it
//! makes its round good after all, the ISP is not suspect any more. A round that turns bad after a later one was good
//! only counts in the statistics.
//!
//! While Up or Down (of any kind) rounds start every `interval`. While Unknown or Suspect they start every `suspect_interval`
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
//! # Quality
//! Loss is averaged over some 30 intervals for each target, latency and jitter as TCP does. What counts is the best target
//! that a quorum needs: what is wrong with one target is not the path's fault. Over an upper limit for `degraded_after`
//! it is degraded; below all lower limits for `restored_after` it is not any more.
//!
//! # Traffic
//! Silence raises doubt at once, and so do TCP connections that do not come about ([`Connecting`]); while probes are answered that
//! makes it degraded, never down. What keeps coming in ([`Passive`]) vouches for a suspect path for `vouch` at most: a full line
//! loses probes, but is alive.
//!
//! # Coming back
//! A path that was down is up again after good rounds for `up_after` without a bad one, or with the first good
//! round if no other ISP is usable. Failures are damped as in RFC 2439: each costs 1000 (one while it was coming back 250),
//! halved with every `flap_half_life`. From `flap_suppress` on it is held until it is down to `flap_reuse`, for
//! `up_after_max` at most.
//!
//! # No targets
//! A target that cannot be asked in a family (a name without an address of it, the gateway of a point-to-point device)
//! does not count there, until it answers or fails. Where none counts the path alone decides: up when it is there (after `up_after` where it had been up before), down when not.

mod attempts;
mod damping;
mod inapplicable;
mod known;
mod passive;
mod quality;
mod reason;
mod rounds;
mod state;
mod transitions;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use attempts::{Attempts, Connecting, Unanswered};
use damping::Damping;
pub use passive::{Evidence, Passive, Traffic};
use quality::Standing;
pub use quality::{Measured, Symptom};
pub use reason::{Missing, Reason};
use rounds::{Aim, Rounds, after};
use state::Belief;
pub use state::State;

use super::rtt::Rtt;
use crate::config::{MonitorConfig, Target};

/// However small the configured intervals are, rounds are this far apart.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

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
#[expect(clippy::struct_excessive_bools, reason = "each may be so or not, whatever the others are")]
pub struct Health {
    monitor: MonitorConfig,
    targets: Vec<Target>,
    belief: Belief,
    since: Instant,
    /// It has been down for long.
    is_long: bool,
    /// It answered again while it was not to be used.
    held: bool,
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
    damping: Damping,
    standing: Standing,
    /// When it became suspect.
    doubt_since: Instant,
    /// When traffic last said that it lives.
    heard: Option<Instant>,
    /// When silence, or connections that do not come about, last turned out not to mean that it is dead.
    silence_refuted: Option<Instant>,
    /// TCP connections that are asked for and do not come about.
    unanswered: Option<Unanswered>,
    /// When one last came about.
    connected: Option<Instant>,

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
    Unanswered(Unanswered),
    NoAnswer(Vec<Missing>),
    Adopted(State),
}

impl Health {
    /// A path of which nothing is known yet; it is there until [`Self::set_path`] says otherwise. The first round is
    /// due at once. `targets` are those of the path's family.
    #[must_use]
    pub fn new(monitor: MonitorConfig, targets: Vec<Target>, now: Instant) -> Self {
        let mut rounds = Rounds::default();
        rounds.set_interval(monitor.interval);
        Self {
            monitor,
            targets,
            belief: Belief::Unknown,
            since: now,
            is_long: false,
            held: false,
            cause: Cause::None,
            no_path: None,
            ever_up: false,
            others_usable: true,
            rounds,
            next_round: now,
            first_round: 0,
            newest_good: None,
            settled_from: None,
            bad_in_row: 0,
            returning: None,
            damping: Damping::default(),
            standing: Standing::default(),
            doubt_since: now,
            heard: None,
            silence_refuted: None,
            unanswered: None,
            connected: None,
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
        let cause = match state {
            State::Unknown | State::Up | State::Degraded => Cause::None,
            State::Suspect | State::Down | State::LongDown | State::Held => Cause::Adopted(state),
        };
        let held = state == State::Held;
        let damping = if held { Damping::held(&monitor, now) } else { Damping::default() };
        Self {
            belief: state.into(),
            since,
            is_long: state == State::LongDown,
            held,
            cause,
            ever_up: state != State::Unknown,
            damping,
            ..Self::new(monitor, targets, now)
        }
    }

    /// It was degraded, too.
    pub fn adopt_degraded(&mut self) {
        self.standing = Standing::adopted(&self.monitor.limits);
    }

    /// Judges the deadlines that have passed and returns the probes to send now. Tell it the answers that have
    /// already arrived first, or it takes them for late after the process was held up.
    #[must_use = "these probes count as sent"]
    pub fn poll(&mut self, now: Instant) -> Vec<Probe> {
        self.is_long |= self.long_from().is_some_and(|from| from <= now);
        self.held &= self.damping.until(now).is_some();
        if self.no_path.is_some() {
            return Vec::new();
        }
        for judged in self.rounds.expire(now) {
            self.judge(judged, now);
        }
        if !self.counts() {
            self.path_alone(now);
        }
        self.assess(now);
        if self.targets.is_empty() || now < self.next_round { Vec::new() } else { self.start_round(now) }
    }

    /// When to call [`Self::poll`] at the latest; none while there is nothing to wait for but other events.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_check().into_iter().chain(self.long_from()).min()
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
        self.assess(now);
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
        self.assess(now);
    }

    /// Other evidence than probes: so many packets were sent within [`Self::silence`] and nothing was received.
    pub fn silent(&mut self, sent: u64, now: Instant) {
        if self.can_be_doubted(now) {
            self.suspect(Cause::Silence { sent, within: self.silence() }, now);
        }
    }

    /// Other evidence than probes: what connections do not come about, if several do not and none does. That raises doubt once;
    /// as long as it goes on with probes answered, it works badly. And when one last did come about.
    pub fn connects(&mut self, unanswered: Option<Unanswered>, connected: Option<Instant>, now: Instant) {
        self.connected = connected;
        let before = std::mem::replace(&mut self.unanswered, unanswered);
        if let (None, Some(unanswered)) = (before, unanswered)
            && self.can_be_doubted(now)
        {
            self.suspect(Cause::Unanswered(unanswered), now);
        }
        if unanswered.is_some() {
            self.assess(now);
        }
    }

    /// Other evidence than probes: so much comes in that the ISP must be alive ([`Evidence::Life`]).
    pub fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Nobody could look after it for so long. Whether what was asked then was answered in time nobody knows; and that time does not
    /// count for what must last a while, except for how long it has been down.
    pub fn held_up(&mut self, gap: Duration, now: Instant) {
        let later = |then: Instant| after(then, gap).min(now);
        self.forget_rounds(now);
        self.returning = self.returning.map(|(start, first)| (later(start), first));
        self.doubt_since = later(self.doubt_since);
        self.standing.held_up(gap, now);
    }

    /// Says why there is no way to send anything (no device, no carrier, no gateway), or that there is one.
    pub fn set_path(&mut self, why_not: Option<String>, now: Instant) {
        let was_there = self.no_path.is_none();
        self.no_path = why_not;
        if self.no_path.is_some() {
            self.settled_from = None;
            self.forget_rounds(now);
            self.stop_returning(now);
            self.held = false;
            self.down(Cause::None, now);
            self.cause = Cause::None;
        } else if !was_there {
            self.next_round = now;
            if !self.ever_up {
                self.enter(Belief::Unknown, Cause::None, now);
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
        if !usable && self.belief == Belief::Down && self.returning.is_some() {
            self.up(now);
        }
    }

    /// Goes on by another config, in the same state.
    pub fn reconfigure(&mut self, monitor: MonitorConfig, targets: Vec<Target>, now: Instant) {
        self.rounds.set_interval(monitor.interval);
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
            let end = self.hold_end(start, now);
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
        self.rounds.start(self.need(), now, timeout.saturating_mul(2), aims)
    }

    /// How long the next probe of a target may take.
    fn patience(&self, target: &Target) -> Duration {
        let timeout = self.monitor.timeout;
        if !self.belief.is_usable() {
            return timeout;
        }
        // A target that never answers must not hold up the verdict: it gets no more than the slowest other.
        let others = || self.rtts.values().map(|rtt| rtt.patience(timeout)).max();
        self.rtts.get(target).map(|rtt| rtt.patience(timeout)).or_else(others).unwrap_or(timeout)
    }

    /// The time between rounds.
    fn pace(&self) -> Duration {
        let interval = match self.belief {
            Belief::Up | Belief::Down => self.monitor.interval,
            Belief::Unknown | Belief::Suspect => self.monitor.suspect_interval,
        };
        interval.max(LEAST_INTERVAL)
    }

    /// Until when it must go on answering to come back, if it has answered since `start`.
    fn hold_end(&self, start: Instant, now: Instant) -> Instant {
        let end = after(start, self.monitor.up_after);
        self.damping.until(now).map_or(end, |until| end.max(until))
    }

    /// The weight of the answers that make a round good.
    fn need(&self) -> usize {
        let all: usize = self.targets.iter().map(Target::weight).sum();
        self.monitor.quorum.clamp(1, all.max(1))
    }

    /// When it will have been down for long, if it is not yet.
    fn long_from(&self) -> Option<Instant> {
        let is_short = self.belief == Belief::Down && !self.is_long;
        is_short.then(|| after(self.since, self.monitor.long_down_after))
    }

    /// When there is something to send or to judge.
    fn next_check(&self) -> Option<Instant> {
        if self.no_path.is_some() {
            return None;
        }
        if self.targets.is_empty() {
            return match (self.belief, self.returning) {
                (Belief::Up, _) => None,
                (Belief::Down, Some((start, _))) => Some(self.hold_end(start, self.next_round)),
                _ => Some(self.next_round),
            };
        }
        Some(self.rounds.next_deadline().map_or(self.next_round, |deadline| deadline.min(self.next_round)))
    }

    /// Whether traffic may raise doubt. Not when a doubt of that kind was just refuted, and not if no probe could refute it.
    fn can_be_doubted(&self, now: Instant) -> bool {
        let refuted = self.silence_refuted.is_some_and(|refuted| now < after(refuted, self.monitor.interval));
        self.belief == Belief::Up && self.counts() && !refuted
    }

    /// Whether it works well or badly, if it works.
    fn assess(&mut self, now: Instant) {
        if self.belief.is_usable() {
            let measured = self.measured();
            self.standing.judge(&measured, &self.monitor.limits, now);
        }
    }
}
