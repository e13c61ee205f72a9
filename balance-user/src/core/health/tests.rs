mod damping;
mod doubt;
mod held_up;
mod inapplicable;
mod quality;
mod return_and_path;
mod table;

use super::*;
use crate::config::Profile;

const A: &str = "1.1.1.1";
const B: &str = "9.9.9.9";

/// A path under test: time, the judgement, and what was sent and not yet answered.
struct Bench {
    now: Instant,
    start: Instant,
    health: Health,
    sent: Vec<Probe>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn targets(targets: &[&str]) -> Vec<Target> {
    targets.iter().map(|target| target.parse().unwrap()).collect()
}

impl Bench {
    fn new(list: &[&str]) -> Self {
        Self::with(MonitorConfig::default(), list)
    }

    fn with(monitor: MonitorConfig, list: &[&str]) -> Self {
        let now = Instant::now();
        Self { now, start: now, health: Health::new(monitor, targets(list), now), sent: Vec::new() }
    }

    /// Two targets, in this state, in it for no longer than it takes.
    fn in_state(state: State) -> Self {
        let mut bench = Self::new(&[A, B]);
        match state {
            State::Unknown => bench.poll(),
            State::Up => bench.good_round(20),
            State::Suspect => {
                bench.good_round(20);
                bench.health.silent(12, bench.now);
                bench.poll();
            }
            State::Down => {
                bench.good_round(20);
                bench.run_dead_until(|health| health.state() == State::Down);
                bench.settle();
            }
            State::Degraded => {
                let end = bench.now + ms(60_000);
                bench.good_round(20);
                bench.run_lossy_until(|health| health.state() == State::Degraded, end);
            }
            State::LongDown => {
                bench.good_round(20);
                bench.run_dead_until(|health| health.state() == State::LongDown);
            }
            State::Held => {
                bench.good_round(20);
                for _ in 0..2 {
                    bench.run_alive_until(|health| health.state() == State::Up);
                    bench.run_dead_until(|health| health.state() == State::Down);
                }
                bench.settle();
                bench.good_round(20);
            }
        }
        assert_eq!(bench.health.state(), state);
        bench
    }

    fn poll(&mut self) {
        self.sent.extend(self.health.poll(self.now));
    }

    /// The next moment at which something is due, without any answers.
    fn step(&mut self) {
        self.now = self.now.max(self.health.next_deadline().expect("something is due"));
        self.poll();
    }

    /// Waits for the next round, and answers it after `rtt` milliseconds.
    fn good_round(&mut self, rtt: u64) {
        self.next_round();
        self.now += ms(rtt);
        self.answer_all(rtt);
    }

    fn next_round(&mut self) {
        self.sent.clear();
        self.poll();
        while self.sent.is_empty() {
            self.step();
        }
    }

    fn answer_all(&mut self, rtt: u64) {
        for probe in std::mem::take(&mut self.sent) {
            self.health.answered(probe.sequence, ms(rtt), self.now);
        }
    }

    fn fail_all(&mut self) {
        for probe in std::mem::take(&mut self.sent) {
            self.health.failed(probe.sequence, "network unreachable".into(), self.now);
        }
    }

    fn run_dead_until(&mut self, reached: impl Fn(&Health) -> bool) {
        for _ in 0..1000 {
            if reached(&self.health) {
                return;
            }
            self.step();
        }
        panic!("never reached; {} ({})", self.health.state(), self.health.reason(self.now));
    }

    /// Answers every round 20 ms after it was sent until that makes it so.
    fn run_alive_until(&mut self, reached: impl Fn(&Health) -> bool) {
        for _ in 0..1000 {
            if reached(&self.health) {
                return;
            }
            self.good_round(20);
        }
        panic!("never reached; {} ({})", self.health.state(), self.health.reason(self.now));
    }

    /// Every other round is lost until that makes it so, or until `end`; the last one is answered.
    fn run_lossy_until(&mut self, reached: impl Fn(&Health) -> bool, end: Instant) {
        while !reached(&self.health) && self.now < end {
            self.next_round();
            self.fail_all();
            self.good_round(20);
        }
    }

    /// Lets everything that is under way be lost and forgotten.
    fn settle(&mut self) {
        let end = self.now + ms(3000);
        while self.now < end {
            self.step();
        }
    }

    fn state(&self) -> State {
        self.health.state()
    }

    fn reason(&self) -> String {
        self.health.reason(self.now).to_string()
    }

    fn since_start(&self) -> u128 {
        (self.now - self.start).as_millis()
    }
}
