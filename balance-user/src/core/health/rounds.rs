//! The rounds of probes that are under way, and what became of the latest probes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::quality::Loss;
use super::{Missing, Probe};
use crate::config::Target;

/// How many probes the loss statistics look back on.
const WINDOW: usize = 100;

/// All rounds whose answers still matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    recent: VecDeque<Round>,
    started: u64,
    sent: u64,
    /// What became of the latest probes, oldest first.
    window: VecDeque<Noted>,
    losses: BTreeMap<Target, Loss>,
    last_start: Option<Instant>,
    /// Between peaceful rounds.
    interval: Duration,
}

/// What became of a probe, and with what weight that counts for the loss of its target.
#[derive(Clone, Copy, Debug)]
struct Noted {
    sequence: u64,
    lost: bool,
    weight: f64,
}

/// A probe of the round that is about to start.
pub(super) struct Aim {
    pub(super) target: Target,
    /// When it counts as lost.
    pub(super) deadline: Instant,
    /// Whether its being lost means anything.
    pub(super) counts: bool,
}

/// A round that has just turned out good or bad.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The round; later ones have higher numbers.
    pub(super) number: u64,
    pub(super) verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Enough targets have answered. `late`: the round had been bad before.
    Good { late: bool },
    /// Too many answers are missing: these.
    Bad(Vec<Missing>),
}

/// A probe that has been answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) target: Target,
    /// Its round.
    pub(super) number: u64,
    /// It was the first answer in its round.
    pub(super) first: bool,
    pub(super) judged: Option<Judged>,
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    /// How long after the round before it started.
    gap: Duration,
    /// Answers of this weight make it good, or all that count.
    need: usize,
    /// When late answers do not matter any more.
    forget: Instant,
    judged: Option<bool>,
    probes: Vec<Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    sequence: u64,
    target: Target,
    deadline: Instant,
    fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    /// It says nothing, unless it is answered.
    Void,
    Answered,
    Lost(Option<String>),
}

impl Rounds {
    /// The number that the next round will have.
    pub(super) fn next_number(&self) -> u64 {
        self.started
    }

    /// Starts a round that is good with answers of the weight `need`, and whose answers count for something for `patience`.
    pub(super) fn start(
        &mut self,
        need: usize,
        now: Instant,
        patience: Duration,
        aims: Vec<Aim>,
    ) -> Vec<Probe> {
        let forget = after(now, patience);
        let mut round = Round {
            number: self.started,
            gap: self.last_start.map_or(self.interval, |last| now.saturating_duration_since(last)),
            need,
            forget,
            judged: None,
            probes: Vec::with_capacity(aims.len()),
        };
        self.started += 1;
        self.last_start = Some(now);
        let mut probes = Vec::with_capacity(aims.len());
        for Aim { target, deadline, counts } in aims {
            probes.push(Probe { target: target.clone(), sequence: self.sent, patience });
            let fate = if counts { Fate::Waiting } else { Fate::Void };
            round.probes.push(Sent { sequence: self.sent, target, deadline, fate });
            self.sent += 1;
        }
        self.recent.push_back(round);
        probes
    }

    /// The probe with this sequence was answered; none if it is not known any more, or was answered before.
    pub(super) fn answer(&mut self, sequence: u64) -> Option<Answered> {
        let (round, index) = self.find(sequence)?;
        let first = round.weight(&Fate::Answered) == 0;
        let probe = round.probes.get_mut(index)?;
        let before = std::mem::replace(&mut probe.fate, Fate::Answered);
        if before == Fate::Answered {
            return None;
        }
        let target = probe.target.clone();
        let gap = round.gap;
        let answered = Answered { target, number: round.number, first, judged: round.judge() };
        if before == Fate::Waiting {
            self.note(sequence, answered.target.clone(), false, gap);
        } else if let Some(noted) = self.window.iter_mut().find(|noted| noted.sequence == sequence) {
            noted.lost = false;
            if let Some(loss) = self.losses.get_mut(&answered.target) {
                loss.correct(noted.weight);
            }
        }
        Some(answered)
    }

    /// The target of the probe with this sequence.
    pub(super) fn target(&mut self, sequence: u64) -> Option<&Target> {
        let (round, index) = self.find(sequence)?;
        round.probes.get(index).map(|probe| &probe.target)
    }

    /// The probe with this sequence says nothing; unless it has been answered, which cannot be.
    pub(super) fn void(&mut self, sequence: u64) -> Option<Judged> {
        let (round, index) = self.find(sequence)?;
        let probe = round.probes.get_mut(index).filter(|probe| probe.fate != Fate::Answered)?;
        probe.fate = Fate::Void;
        round.judge()
    }

    /// The probe with this sequence failed for this reason: lost without waiting any longer.
    pub(super) fn fail(&mut self, sequence: u64, why: String) -> Option<Judged> {
        let (round, index) = self.find(sequence)?;
        let probe = round.probes.get_mut(index)?;
        if probe.fate != Fate::Waiting {
            return None;
        }
        probe.fate = Fate::Lost(Some(why));
        let (target, gap) = (probe.target.clone(), round.gap);
        let judged = round.judge();
        self.note(sequence, target, true, gap);
        judged
    }

    /// Judges the probes whose deadline has passed; what rounds turn bad by it, oldest first.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Judged> {
        let mut judged = Vec::new();
        let mut lost = Vec::new();
        for round in &mut self.recent {
            for probe in &mut round.probes {
                if probe.fate == Fate::Waiting && probe.deadline <= now {
                    probe.fate = Fate::Lost(None);
                    lost.push((probe.sequence, probe.target.clone(), round.gap));
                }
            }
            judged.extend(round.judge());
        }
        for (sequence, target, gap) in lost {
            self.note(sequence, target, true, gap);
        }
        while self.recent.front().is_some_and(|round| round.forget <= now) {
            self.recent.pop_front();
        }
        judged
    }

    /// When [`Self::expire`] will have something to judge.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let probes = self.recent.iter().flat_map(|round| &round.probes);
        probes.filter(|probe| probe.fate == Fate::Waiting).map(|probe| probe.deadline).min()
    }

    /// Forgets what is under way: its answers will not count for anything. The statistics stay.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
    }

    /// How many of the latest probes were lost, in percent.
    #[expect(clippy::cast_precision_loss, reason = "the window is short")]
    pub(super) fn loss_percent(&self) -> f64 {
        let lost = self.window.iter().filter(|noted| noted.lost).count();
        if self.window.is_empty() { 0.0 } else { lost as f64 * 100.0 / self.window.len() as f64 }
    }

    /// The part of the probes that was lost, 0 to 1, lately and on average: of the best targets that make a weight of `need`.
    pub(super) fn loss(&self, need: usize) -> f64 {
        let mut losses: Vec<(f64, usize)> =
            self.losses.iter().map(|(target, loss)| (loss.part(), target.weight())).collect();
        losses.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut weight = 0;
        let enough = losses.iter().find(|(_, its)| {
            weight += its;
            weight >= need
        });
        enough.or(losses.last()).map_or(0.0, |(loss, _)| *loss)
    }

    /// Starts averaging anew.
    pub(super) fn forget_losses(&mut self) {
        self.losses.clear();
    }

    /// Peaceful rounds are so far apart.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    fn find(&mut self, sequence: u64) -> Option<(&mut Round, usize)> {
        self.recent.iter_mut().find_map(|round| {
            let index = round.probes.iter().position(|probe| probe.sequence == sequence)?;
            Some((round, index))
        })
    }

    /// Writes down what became of a probe.
    fn note(&mut self, sequence: u64, target: Target, lost: bool, gap: Duration) {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        let weight = self.losses.entry(target).or_default().note(lost, gap, self.interval);
        self.window.push_back(Noted { sequence, lost, weight });
    }
}

impl Round {
    /// The weight of the targets whose probes have this fate.
    fn weight(&self, fate: &Fate) -> usize {
        self.probes.iter().filter(|probe| probe.fate == *fate).map(|probe| probe.target.weight()).sum()
    }

    /// The verdict, if there is a new one.
    fn judge(&mut self) -> Option<Judged> {
        let [answered, waiting] = [Fate::Answered, Fate::Waiting].map(|fate| self.weight(&fate));
        let all: usize = self.probes.iter().map(|probe| probe.target.weight()).sum();
        let counted = all - self.weight(&Fate::Void);
        let need = self.need.clamp(1, counted.max(1));
        let good = answered >= need;
        if counted == 0 || !good && answered + waiting >= need {
            return None;
        }
        // A bad round may still turn good by late answers; a good one stays good.
        let before = self.judged.replace(good);
        if before == Some(good) {
            return None;
        }
        let verdict =
            if good { Verdict::Good { late: before.is_some() } } else { Verdict::Bad(self.missing()) };
        Some(Judged { number: self.number, verdict })
    }

    fn missing(&self) -> Vec<Missing> {
        let missing = self.probes.iter().filter_map(|probe| match &probe.fate {
            Fate::Answered | Fate::Void => None,
            Fate::Waiting => Some((probe.target.clone(), None)),
            Fate::Lost(why) => Some((probe.target.clone(), why.clone())),
        });
        missing.map(|(target, why)| Missing { target, why }).collect()
    }
}

/// `now + time`, for times that come from a config and may be absurd.
pub(super) fn after(now: Instant, time: Duration) -> Instant {
    const LONG: Duration = Duration::from_hours(10 * 365 * 24);
    now + time.min(LONG)
}
