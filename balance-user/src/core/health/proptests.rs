//! Whatever happens: a line is simulated, and what the judgement comes to is compared with what the line did.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// How the line is for a while.
#[derive(Clone, Debug)]
struct Weather {
    lasts: Duration,
    line: Line,
    before: Option<Event>,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    /// Answers after so long, but loses so many percent.
    Works {
        rtt: Duration,
        loss: u32,
    },
    Dead,
    /// Probes cannot even be sent.
    Refuses,
}

#[derive(Clone, Debug)]
enum Event {
    Silent,
    /// TCP connections do not come about, or do again.
    Unanswered(bool),
    /// Nobody looks after it for so long.
    HeldUp(Duration),
    Path(bool),
    OthersUsable(bool),
    Targets(usize),
}

/// What evidence there can be, apart from [`Event`]s.
#[derive(Clone, Copy, Debug)]
enum Input {
    Answer,
    /// Nothing but time.
    Poll,
    Failure,
}

impl Input {
    /// Whether this may make `after` of `before`, which is another state.
    fn leads(self, before: State, after: State, has_targets: bool) -> bool {
        use State::{Degraded, Down, Held, LongDown, Suspect, Unknown, Up};
        let quality = matches!((before, after), (Up, Degraded) | (Degraded, Up));
        let path_alone = !has_targets && matches!(self, Input::Poll);
        match (before, after) {
            (Up | Degraded, Up | Degraded) => quality,
            (Unknown | Held, Up) | (Suspect, Up | Degraded) | (Down | LongDown, Held | Up) => {
                matches!(self, Input::Answer) || path_alone
            }
            (Up | Degraded, Suspect) | (Unknown | Suspect, Down) => !matches!(self, Input::Answer),
            (Down, LongDown) | (Held, Down | LongDown) => matches!(self, Input::Poll),
            _ => false,
        }
    }
}

struct World {
    now: Instant,
    /// When it became suspect, if it is.
    doubted: Instant,
    health: Health,
    /// Answers on their way: when they arrive, the probe's sequence, its RTT.
    answers: Vec<(Instant, u64, Duration)>,
    sequences: BTreeSet<u64>,
    polls: u32,
    sent: u32,
    random: u64,
    path: bool,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn target_list(count: usize) -> Vec<Target> {
    (1..=count).map(|n| format!("192.0.2.{n}").parse().unwrap()).collect()
}

impl World {
    fn new(targets: usize, monitor: MonitorConfig, random: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            doubted: now,
            health: Health::new(monitor, target_list(targets), now),
            answers: Vec::new(),
            sequences: BTreeSet::new(),
            polls: 0,
            sent: 0,
            random: random | 1,
            path: true,
        }
    }

    /// xorshift: 0 to 99.
    fn percent(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % 100
    }

    fn happen(&mut self, event: &Event) {
        let before = self.health.state();
        match event {
            Event::Silent => self.health.silent(7, self.now),
            Event::Unanswered(unanswered) => {
                let unanswered = unanswered.then_some(Unanswered { syns: 9, lasts: ms(1000) });
                self.health.connects(unanswered, None, self.now);
            }
            Event::HeldUp(gap) => {
                self.now += *gap;
                self.answers.clear();
                self.health.held_up(*gap, self.now);
                assert_eq!(self.health.state(), before, "being held up is no evidence");
            }
            Event::Path(there) => {
                self.path = *there;
                self.health.set_path((!there).then(|| "no carrier on eth0".to_owned()), self.now);
                if !there {
                    let is_down = matches!(self.health.state(), State::Down | State::LongDown);
                    assert!(is_down, "without a path it is down at once");
                }
            }
            Event::OthersUsable(usable) => self.health.set_others_usable(*usable, self.now),
            Event::Targets(count) => {
                let monitor = self.health.monitor.clone();
                self.health.reconfigure(monitor, target_list(*count), self.now);
            }
        }
        if let Event::Silent | Event::Unanswered(_) = event {
            let after = self.health.state();
            // That nobody answers connections makes it degraded once it has lasted.
            let has_lasted =
                matches!(event, Event::Unanswered(true)) && (before, after) == (State::Up, State::Degraded);
            assert!(after == before || after == State::Suspect || has_lasted, "{before:?} to {after:?}");
        }
    }

    /// Lets the line be so until `end`, as the daemon would: answers first, then poll when something is due.
    fn run(&mut self, line: Line, end: Instant, mut watch: impl FnMut(&Health, Instant)) {
        loop {
            let due = self.health.next_deadline();
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            let Some(next) = due.into_iter().chain(answer).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.answers.sort();
            while self.answers.first().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, sequence, rtt) = self.answers.remove(0);
                self.step(Input::Answer, |health, now| health.answered(sequence, rtt, now));
                watch(&self.health, self.now);
            }
            self.poll(line);
            watch(&self.health, self.now);
        }
        self.now = end;
    }

    fn poll(&mut self, line: Line) {
        self.polls += 1;
        let mut probes = Vec::new();
        self.step(Input::Poll, |health, now| probes = health.poll(now));
        assert!(self.path || probes.is_empty(), "nothing is sent without a path");
        assert!(self.health.next_deadline().is_none_or(|due| due > self.now), "polling in circles");
        for probe in probes {
            self.sent += 1;
            assert!(self.sequences.insert(probe.sequence), "a sequence was used twice");
            match line {
                Line::Works { rtt, loss } if self.percent() >= u64::from(loss) => {
                    self.answers.push((self.now + rtt, probe.sequence, rtt));
                }
                Line::Works { .. } | Line::Dead => {}
                Line::Refuses => {
                    self.step(Input::Failure, |health, now| {
                        health.failed(probe.sequence, "network unreachable".into(), now);
                    });
                }
            }
        }
        self.health.reason(self.now).to_string();
        assert_eq!(self.health.state() == State::Up, self.health.reason(self.now) == Reason::Fine);
        assert!((0.0..=100.0).contains(&self.health.loss_percent()));
    }

    /// One input; only the arrows of the diagram may follow that this evidence is for.
    fn step(&mut self, kind: Input, input: impl FnOnce(&mut Health, Instant)) {
        let (before, since) = (self.health.state(), self.health.since());
        let has_targets = !self.health.targets.is_empty();
        input(&mut self.health, self.now);
        let after = self.health.state();
        assert!(
            before == after || kind.leads(before, after, has_targets),
            "{kind:?}: {before} became {after}"
        );
        if before.is_usable() && !after.is_usable() {
            let doubt = self.now - self.doubted;
            let rounds = self.health.monitor.down_after.saturating_sub(1);
            let pace = self.health.monitor.suspect_interval.min(self.health.monitor.interval);
            assert!(doubt >= pace * rounds, "down after no more than {doubt:?} of doubt");
        }
        if after != State::Suspect || before != State::Suspect {
            self.doubted = self.now;
        }
        let kind = |state| match state {
            State::Unknown => 0,
            State::Up | State::Degraded | State::Suspect => 1,
            State::Down | State::LongDown | State::Held => 2,
        };
        if kind(before) == kind(after) {
            assert_eq!(self.health.since(), since);
        } else {
            assert_eq!(self.health.since(), self.now);
        }
    }
}

/// From a moment to a night.
fn gap() -> impl Strategy<Value = Duration> {
    prop_oneof![(1000..60_000_u64).prop_map(ms), Just(Duration::from_hours(9))]
}

fn weather() -> impl Strategy<Value = Weather> {
    let line = prop_oneof![
        4 => (1..900_u64, 0..50_u32).prop_map(|(rtt, loss)| Line::Works { rtt: ms(rtt), loss }),
        2 => Just(Line::Dead),
        1 => Just(Line::Refuses),
    ];
    let event = prop_oneof![
        Just(Event::Silent),
        any::<bool>().prop_map(Event::Unanswered),
        gap().prop_map(Event::HeldUp),
        any::<bool>().prop_map(Event::Path),
        any::<bool>().prop_map(Event::OthersUsable),
        (0..4_usize).prop_map(Event::Targets),
    ];
    (0..9000_u64, line, proptest::option::of(event)).prop_map(|(lasts, line, before)| Weather {
        lasts: ms(lasts),
        line,
        before,
    })
}

fn monitor() -> impl Strategy<Value = MonitorConfig> {
    (100..2000_u64, 20..300_u64, 50..3000_u64, 1..4_usize, 1..6_u32, 0..8000_u64).prop_map(
        |(interval, suspect_interval, timeout, quorum, down_after, up_after)| MonitorConfig {
            interval: ms(interval),
            suspect_interval: ms(suspect_interval),
            timeout: ms(timeout),
            quorum,
            down_after,
            up_after: ms(up_after),
            ..MonitorConfig::default()
        },
    )
}

/// The longest that a dead path can stay usable, or unknown.
fn worst_case(monitor: &MonitorConfig) -> Duration {
    monitor.interval + monitor.timeout * 2 + monitor.suspect_interval * monitor.down_after
}

proptest! {
    #[test]
    fn in_any_weather_only_the_arrows_of_the_diagram_are_taken_and_death_and_life_are_seen_in_time(
        monitor in monitor(),
        targets in 1..4_usize,
        weathers in proptest::collection::vec(weather(), 1..12),
        random in any::<u64>(),
    ) {
        let mut world = World::new(targets, monitor.clone(), random);
        for Weather { lasts, line, before } in weathers {
            if let Some(event) = before {
                world.happen(&event);
            }
            let end = world.now + lasts;
            world.run(line, end, |_, _| {});
        }
        world.happen(&Event::Targets(2));
        world.happen(&Event::Path(true));
        world.happen(&Event::Unanswered(false));

        // Answers that are still on their way may acquit it once more.
        let late = world.now + ms(1000);
        world.run(Line::Dead, late, |_, _| {});
        let dead = world.now + worst_case(&monitor);
        world.run(Line::Dead, dead, |_, _| {});
        prop_assert!(matches!(world.health.state(), State::Down | State::Held | State::LongDown));

        let hold = world.health.hold_end(world.now, world.now) - world.now;
        // One timeout for rounds of before to be judged, and an interval for the first round.
        let back = world.now + monitor.timeout + monitor.interval * 2 + hold + ms(200);
        world.run(Line::Works { rtt: ms(20), loss: 0 }, back, |_, _| {});
        prop_assert_eq!(world.health.state(), State::Up);
    }

    #[test]
    fn a_line_that_always_answers_in_time_is_never_doubted(
        monitor in monitor(),
        targets in 1..4_usize,
        rtt in 1..45_u64,
    ) {
        let mut world = World::new(targets, monitor, 1);
        let end = world.now + ms(60_000);
        let mut ever_up = false;
        world.run(Line::Works { rtt: ms(rtt), loss: 0 }, end, |health, _| {
            assert!(health.state() == State::Up || !ever_up && health.state() == State::Unknown);
            ever_up = health.state() == State::Up;
        });
        prop_assert!(ever_up);
        prop_assert!(world.health.loss_percent() < f64::EPSILON);
    }

    #[test]
    fn whatever_is_under_way_when_nobody_looks_after_it_speaks_against_no_line(
        monitor in monitor(),
        targets in 1..4_usize,
        rtt in 1..45_u64,
        gaps in proptest::collection::vec((0..4000_u64, gap()), 1..9),
    ) {
        let mut world = World::new(targets, monitor, 1);
        let line = Line::Works { rtt: ms(rtt), loss: 0 };
        let (mut worst, end) = (State::Up, world.now + ms(4000));
        world.run(line, end, |_, _| {});
        for (pause, gap) in gaps {
            let end = world.now + ms(pause);
            world.run(line, end, |health, _| worst = worst.max(health.state()));
            // In doubt every round that is under way counts.
            world.health.silent(7, world.now);
            world.poll(Line::Dead);
            world.happen(&Event::HeldUp(gap));
            let back = world.now + ms(rtt);
            world.run(line, back, |health, _| worst = worst.max(health.state()));
            prop_assert_eq!(world.health.state(), State::Up);
        }
        prop_assert!(worst <= State::Suspect, "{worst}");
        prop_assert!(world.health.loss_percent() < f64::EPSILON);
    }

    #[test]
    fn a_line_that_fills_up_is_not_taken_for_dead(
        before in 1..100_u64,
        jump in 1..550_u64,
        phase in 0..1000_u64,
    ) {
        let mut world = World::new(2, MonitorConfig::default(), 1);
        let filled = world.now + ms(20_000 + phase);
        let end = filled + ms(30_000);
        world.run(Line::Works { rtt: ms(before), loss: 0 }, filled, |_, _| {});
        world.run(Line::Works { rtt: ms(jump), loss: 0 }, end, |health, _| {
            assert_ne!(health.state(), State::Down);
        });
        prop_assert_eq!(world.health.state(), State::Up);
    }

    #[test]
    fn it_never_comes_back_before_its_time_and_never_sends_more_than_its_pace(
        monitor in monitor(),
        targets in 1..4_usize,
        loss in 0..60_u32,
        random in any::<u64>(),
    ) {
        let mut world = World::new(targets, monitor.clone(), random);
        let (mut before, start) = ((State::Unknown, world.now), world.now);
        let end = start + ms(120_000);
        world.run(Line::Works { rtt: ms(30), loss }, end, |health, now| {
            if before.0 == State::Down && health.state().is_usable() {
                assert!(now - before.1 >= monitor.up_after);
            }
            if before.0.is_usable() != health.state().is_usable() {
                before = (health.state(), now);
            }
        });
        // Each suspicion and each return may add a round to the even pace.
        let fastest = monitor.suspect_interval.min(monitor.interval);
        let rounds = 120_000 / u32::try_from(fastest.as_millis()).unwrap() * 2 + 2;
        prop_assert!(world.sent <= rounds * u32::try_from(targets).unwrap());
        prop_assert!(world.polls <= 6 * world.sent + 100, "{} polls, {} probes", world.polls, world.sent);
    }
}

#[test]
fn ten_percent_random_loss_on_two_targets_takes_nothing_down_in_three_days() {
    let mut world = World::new(2, MonitorConfig::default(), 0x5eed);
    let (mut doubts, mut last) = (0_u32, State::Unknown);
    for _ in 0..3 {
        let end = world.now + Duration::from_hours(24);
        world.run(Line::Works { rtt: ms(20), loss: 10 }, end, |health, _| {
            assert_ne!(health.state(), State::Down);
            doubts += u32::from(health.state() == State::Suspect && last == State::Up);
            last = health.state();
        });
        world.sequences.clear();
    }
    // One round in a hundred is bad, of nearly 260,000.
    assert!((2300..2900).contains(&doubts), "{doubts}");
}
