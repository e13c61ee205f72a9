//! Prints the table of docs/health.md: what the judgement of this program makes of recorded lines, and what state machines with
//! the rules of foolsm and of mwan3's tracker make of the same records.
//!
//! A record says for each target, every 10 ms, whether a probe sent then is answered, and after how long. Each machine probes at
//! its own times. Nothing depends on a clock or on chance: the same table comes out every time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use balance_user::config::{MonitorConfig, Target};
use balance_user::core::health::{Evidence, Health, Passive, State, Traffic};

/// Records of each kind, with as many seeds of chance and phases against the machines' rounds.
const RUNS: u64 = 20;
/// When something begins to happen, in milliseconds: all machines know by then that the line works.
const CALM: u64 = 120_000;
const MINUTES: u64 = 60_000;
const TARGETS: [[u8; 4]; 3] = [[1, 1, 1, 1], [9, 9, 9, 9], [8, 8, 8, 8]];

/// A line.
struct Line {
    name: &'static str,
    /// Milliseconds after [`CALM`].
    lasts: u64,
    dies: bool,
    /// How many targets are probed, where a machine can probe several.
    targets: usize,
    /// What becomes of a probe: of which target, how long after the calm, by a number from 0 to 99. The time its answer
    /// takes in milliseconds; none, if there is none.
    answer: fn(usize, u64, u64) -> Option<u64>,
    /// In the calm, and so long after it.
    traffic: (Packets, fn(u64) -> Packets),
}

/// Packets sent and received within 50 ms.
type Packets = (u64, u64);

/// A line that is silent but for probes.
const fn idle(
    name: &'static str,
    lasts: u64,
    targets: usize,
    answer: fn(usize, u64, u64) -> Option<u64>,
) -> Line {
    Line { name, lasts, dies: false, targets, answer, traffic: ((0, 0), |_| (0, 0)) }
}

/// A line that dies.
const fn dead(name: &'static str, before: Packets, after: fn(u64) -> Packets) -> Line {
    Line {
        name,
        lasts: 2 * MINUTES,
        dies: true,
        targets: 2,
        answer: |_, _, _| None,
        traffic: (before, after),
    }
}

const LINES: [Line; 10] = [
    dead("silent death, idle", (0, 0), |_| (0, 0)),
    dead("silent death, with flows", (10, 10), |_| (10, 0)),
    // What was not acknowledged is repeated, fewer and fewer times.
    dead("only the way out dies, with downloads", (10, 30), |since| (6, 30 * 200 / (since + 200))),
    dead("only the way out dies, with a call", (3, 3), |_| (3, 3)),
    idle("10 % random loss, 10 minutes", 10 * MINUTES, 2, |_, _, chance| (chance >= 10).then_some(20)),
    idle("30 % random loss, 10 minutes", 10 * MINUTES, 2, |_, _, chance| (chance >= 30).then_some(20)),
    idle("up and down every 3 s, 5 minutes", 5 * MINUTES, 2, |_, since, _| {
        (since / 3_000 % 2 == 1).then_some(20)
    }),
    idle("latency goes from 20 to 500 ms, 10 minutes", 10 * MINUTES, 2, |_, _, chance| {
        Some(480 + chance / 3)
    }),
    Line {
        name: "saturated, loses 85 % of probes, 10 minutes",
        lasts: 10 * MINUTES,
        dies: false,
        targets: 2,
        answer: |_, _, chance| (chance >= 85).then_some(300 + chance),
        traffic: ((20, 12), |_| (20, 12)),
    },
    idle("one dead target of three, 10 minutes", 10 * MINUTES, 3, |target, _, _| (target > 0).then_some(20)),
];

/// A line as it was in one run: for each target, the answers to probes sent every 10 ms.
struct Record<'a> {
    line: &'a Line,
    answers: Vec<Vec<Option<u64>>>,
    start: u64,
}

impl<'a> Record<'a> {
    fn new(line: &'a Line, run: u64) -> Self {
        // Phases spread evenly over ten seconds, the longest interval of all machines.
        let start = CALM + run * 10_000 / RUNS + run * 30 % 500;
        let mut random = (run + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut slot = |target: usize, at: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if at < start { Some(20) } else { (line.answer)(target, at - start, (random >> 20) % 100) }
        };
        let slots = (start + line.lasts) / 10;
        let answers =
            (0..line.targets).map(|target| (0..slots).map(|n| slot(target, n * 10)).collect()).collect();
        Self { line, answers, start }
    }

    fn answer(&self, target: usize, at: u64) -> Option<u64> {
        *self.answers.get(target)?.get(usize::try_from(at / 10).ok()?)?
    }

    fn end(&self) -> u64 {
        self.start + self.line.lasts
    }
}

/// What a machine has made of a record: when it changed its mind after the calm, and to what.
#[derive(Default)]
struct Outcome {
    changes: Vec<(u64, State)>,
}

impl Outcome {
    fn note(&mut self, record: &Record<'_>, at: u64, state: State) {
        let before = self.changes.last().map_or(State::Up, |(_, state)| *state);
        if at >= record.start && state != before && state != State::Suspect {
            self.changes.push((at - record.start, state));
        }
    }

    fn first(&self, wanted: State) -> Option<u64> {
        self.changes.iter().find(|(_, state)| *state == wanted).map(|(at, _)| *at)
    }
}

/// This program's, with its defaults.
fn balance(record: &Record<'_>) -> Outcome {
    let targets: Vec<Target> =
        TARGETS.iter().take(record.line.targets).map(|&octets| IpAddr::from(octets).into()).collect();
    let origin = Instant::now();
    let mut health = Health::new(MonitorConfig::default(), targets.clone(), origin);
    let (mut passive, mut traffic) = (Passive::default(), Traffic::default());
    let mut under_way: Vec<(u64, u64, u64)> = Vec::new();
    let mut outcome = Outcome::default();
    for at in (0..record.end()).step_by(10) {
        let now = origin + Duration::from_millis(at);
        for (_, sequence, rtt) in under_way.extract_if(.., |(arrival, ..)| *arrival <= at) {
            health.answered(sequence, Duration::from_millis(rtt), now);
            traffic.rx += 1;
        }
        if at % 50 == 0 {
            let (before, after) = record.line.traffic;
            let (tx, rx) = if at < record.start { before } else { after(at - record.start) };
            traffic = Traffic { tx: traffic.tx + tx, rx: traffic.rx + rx };
            match passive.observe(traffic, now) {
                Evidence::Silence { sent, lasts } if lasts >= health.silence() => health.silent(sent, now),
                Evidence::Life => health.heard(now),
                Evidence::Silence { .. } | Evidence::None => {}
            }
        }
        for probe in health.poll(now) {
            traffic.tx += 1;
            let place = targets.iter().position(|target| *target == probe.target).unwrap_or_default();
            if let Some(rtt) = record.answer(place, at) {
                under_way.push((at + rtt, probe.sequence, rtt));
            }
        }
        outcome.note(record, at, health.state());
    }
    outcome
}

/// foolsm as Net::ISP::Balance sets it: one target, a ping a second that may take 0.5 s, a window of 100. Down with 20 lost of
/// these or 7 in a row; up with 10 lost at most and 5 in a row answered.
fn foolsm(record: &Record<'_>) -> Outcome {
    let mut window: VecDeque<bool> = VecDeque::new();
    let (mut state, mut outcome) = (State::Up, Outcome::default());
    for at in (0..record.end()).step_by(1000) {
        if window.len() == 100 {
            window.pop_front();
        }
        window.push_back(record.answer(0, at).is_none_or(|rtt| rtt > 500));
        let lost = window.iter().filter(|lost| **lost).count();
        let in_row = |what| window.iter().rev().take_while(|lost| **lost == what).count();
        if state == State::Up && (lost >= 20 || in_row(true) >= 7) {
            state = State::Down;
        } else if state == State::Down && lost <= 10 && in_row(false) >= 5 {
            state = State::Up;
        }
        // The verdict is that of the moment when the answer is overdue.
        outcome.note(record, at + 500, state);
    }
    outcome
}

/// mwan3's tracker with its own defaults: every 10 s one ping to each target until one answers within 4 s; five failures in a row
/// are down, five successes up.
fn mwan3(record: &Record<'_>) -> Outcome {
    let (mut state, mut score, mut outcome) = (State::Up, 0_u32, Outcome::default());
    let mut at = 0;
    while at < record.end() {
        let mut is_good = false;
        for target in 0..record.line.targets {
            let answer = record.answer(target, at).filter(|rtt| *rtt <= 4000);
            at += answer.unwrap_or(4000);
            is_good = answer.is_some();
            if is_good {
                break;
            }
        }
        score = if is_good == (state == State::Up) { 0 } else { score + 1 };
        if score == 5 {
            state = if state == State::Up { State::Down } else { State::Up };
            score = 0;
        }
        outcome.note(record, at, state);
        at = at.div_ceil(10) * 10 + 10_000;
    }
    outcome
}

/// What to say of the outcomes of all runs.
fn cell(line: &Line, outcomes: &[Outcome]) -> String {
    let times = |wanted| -> Vec<u64> {
        let mut times: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.first(wanted)).collect();
        times.sort_unstable();
        times
    };
    let seconds = |ms: Option<&u64>| {
        ms.map_or_else(|| "never".to_owned(), |&ms| format!("{}.{} s", ms / 1000, ms / 100 % 10))
    };
    let downs = times(State::Down);
    if line.dies {
        // Of 20 runs, the 99th percentile is the worst.
        return format!("{} / {}", seconds(downs.get(downs.len() / 2)), seconds(downs.last()));
    }
    let of = |outcome: &Outcome| outcome.changes.iter().filter(|(_, state)| *state == State::Down).count();
    let alarms: usize = outcomes.iter().map(of).sum();
    let most = outcomes.iter().map(|outcome| outcome.changes.len()).max().unwrap_or(0);
    let mut said = vec![match alarms {
        0 => "0".to_owned(),
        _ => format!("{alarms} in {} runs", downs.len()),
    }];
    let degraded = times(State::Degraded);
    if !degraded.is_empty() {
        said.push(format!("degraded after {}", seconds(degraded.get(degraded.len() / 2))));
    }
    if most > 1 {
        said.push(format!("{most} changes at most"));
    }
    said.join("; ")
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| line | balance | foolsm | mwan3 |\n|---|---|---|---|")?;
    for line in &LINES {
        let records: Vec<Record<'_>> = (0..RUNS).map(|run| Record::new(line, run)).collect();
        let of = |machine: fn(&Record<'_>) -> Outcome| {
            cell(line, &records.iter().map(machine).collect::<Vec<_>>())
        };
        writeln!(out, "| {} | {} | {} | {} |", line.name, of(balance), of(foolsm), of(mwan3))?;
    }
    Ok(())
}
