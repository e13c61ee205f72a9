use super::*;

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

fn targets(targets: &[&str]) -> Vec<IpAddr> {
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

#[derive(Clone, Copy, Debug)]
enum Input {
    GoodRound,
    /// One target of two answers, which is a quorum.
    QuorumOnly,
    BadRound,
    BadRounds,
    SendingFails,
    Silence,
    PathLost,
    PathLostAndBack,
    OthersGone,
    OthersGoneAndGoodRound,
    GoodForUpAfter,
    Reconfigured,
}

impl Input {
    const ALL: [Self; 12] = [
        Self::GoodRound,
        Self::QuorumOnly,
        Self::BadRound,
        Self::BadRounds,
        Self::SendingFails,
        Self::Silence,
        Self::PathLost,
        Self::PathLostAndBack,
        Self::OthersGone,
        Self::OthersGoneAndGoodRound,
        Self::GoodForUpAfter,
        Self::Reconfigured,
    ];

    fn apply(self, bench: &mut Bench) {
        match self {
            Self::GoodRound => bench.good_round(20),
            Self::QuorumOnly => {
                bench.next_round();
                bench.now += ms(20);
                bench.health.answered(bench.sent[1].sequence, ms(20), bench.now);
            }
            Self::BadRound => {
                bench.next_round();
                fail_all(bench);
            }
            Self::BadRounds => {
                for _ in 0..4 {
                    bench.next_round();
                    fail_all(bench);
                }
            }
            Self::SendingFails => {
                bench.next_round();
                bench.health.failed(bench.sent[0].sequence, "network unreachable".into(), bench.now);
            }
            Self::Silence => bench.health.silent(12, bench.now),
            Self::PathLost => bench.health.set_path(Some("no carrier on eth0".into()), bench.now),
            Self::PathLostAndBack => {
                Self::PathLost.apply(bench);
                bench.health.set_path(None, bench.now);
            }
            Self::OthersGone => bench.health.set_others_usable(false, bench.now),
            Self::OthersGoneAndGoodRound => {
                Self::OthersGone.apply(bench);
                bench.good_round(20);
            }
            Self::GoodForUpAfter => {
                let end = bench.now + ms(7000);
                while bench.now < end {
                    bench.good_round(20);
                }
            }
            Self::Reconfigured => bench.health.reconfigure(
                MonitorConfig { interval: ms(500), ..MonitorConfig::default() },
                targets(&["8.8.8.8"]),
                bench.now,
            ),
        }
    }
}

fn fail_all(bench: &mut Bench) {
    for probe in std::mem::take(&mut bench.sent) {
        bench.health.failed(probe.sequence, "network unreachable".into(), bench.now);
    }
}

#[test]
fn every_input_in_every_state_leads_where_the_diagram_says() {
    use Input::*;
    use State::*;
    for state in [Unknown, Up, Suspect, Down] {
        for input in Input::ALL {
            let expected = match (state, input) {
                (Unknown, PathLostAndBack) => Unknown,
                (_, PathLost | PathLostAndBack | BadRounds) | (Down, GoodRound | QuorumOnly) => Down,
                (_, OthersGoneAndGoodRound | GoodForUpAfter | GoodRound | QuorumOnly) => Up,
                (Up, BadRound | Silence) => Suspect,
                (_, BadRound | Silence | OthersGone | Reconfigured | SendingFails) => state,
            };
            let mut bench = Bench::in_state(state);
            input.apply(&mut bench);
            assert_eq!(bench.state(), expected, "{state} and {input:?}: {}", bench.reason());
        }
    }
}

#[test]
fn the_first_good_round_of_all_brings_it_up_without_a_hold() {
    let mut bench = Bench::new(&[A, B]);
    assert_eq!(bench.health.next_deadline(), Some(bench.start), "the first round is due at once");
    bench.good_round(20);
    assert_eq!((bench.state(), bench.since_start()), (State::Up, 20));
    assert_eq!(bench.reason(), "");
}

#[test]
fn a_path_that_never_answers_is_down_after_as_many_rounds_as_configured() {
    let mut bench = Bench::new(&[A, B]);
    assert_eq!(bench.reason(), "waiting for a first answer from 1.1.1.1, 9.9.9.9");
    bench.run_dead_until(|health| health.state() == State::Down);
    assert_eq!(bench.since_start(), 1200);
    assert_eq!(bench.reason(), "no answer from 1.1.1.1, 9.9.9.9");
}

#[test]
fn silent_death_under_traffic_is_noticed_within_three_quarters_of_a_second() {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..20 {
        bench.good_round(20);
    }
    let death = bench.now;
    assert_eq!(bench.health.silence(), ms(300));
    bench.now += ms(300);
    bench.health.silent(12, bench.now);
    assert_eq!(bench.reason(), "sent 12 packets, received nothing for 300 ms");
    bench.run_dead_until(|health| health.state() == State::Down);
    assert_eq!(bench.now - death, ms(700));
    assert_eq!(bench.reason(), "no answer from 1.1.1.1, 9.9.9.9 for 0.7 s");
}

#[test]
fn silent_death_when_idle_is_noticed_within_two_seconds() {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..20 {
        bench.good_round(20);
    }
    let death = bench.now;
    bench.run_dead_until(|health| health.state() == State::Suspect);
    assert_eq!(bench.now - death, ms(1180), "the next round was 20 ms nearer");
    bench.run_dead_until(|health| health.state() == State::Down);
    assert_eq!(bench.now - death, ms(1580));
}

#[test]
fn a_target_that_never_answers_does_not_delay_the_verdict() {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..20 {
        bench.next_round();
        bench.now += ms(20);
        let probe = bench.sent[0];
        bench.health.answered(probe.sequence, ms(20), bench.now);
    }
    let death = bench.now;
    bench.run_dead_until(|health| health.state() == State::Down);
    assert!(bench.now - death < ms(1700), "{:?}", bench.now - death);
}

#[test]
fn a_late_answer_acquits_and_corrects_loss_and_rtt() {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..10 {
        bench.good_round(20);
    }
    bench.next_round();
    let late = bench.sent.clone();
    bench.run_dead_until(|health| health.state() == State::Suspect);
    assert!(bench.health.loss_percent() > 0.0);
    bench.now += ms(90);
    bench.health.answered(late[0].sequence, ms(290), bench.now);
    assert_eq!(bench.state(), State::Up);
    bench.health.answered(late[1].sequence, ms(290), bench.now);
    assert!(bench.health.loss_percent() < f64::EPSILON);
    assert!(bench.health.rtt().unwrap() > ms(50), "{:?}", bench.health.rtt());
    assert!(bench.health.jitter().unwrap() > ms(50), "{:?}", bench.health.jitter());
}

#[test]
fn an_answer_to_a_probe_from_before_a_silence_does_not_end_the_doubt() {
    let mut bench = Bench::in_state(State::Up);
    bench.next_round();
    let before = std::mem::take(&mut bench.sent);
    bench.health.silent(3, bench.now);
    bench.poll();
    bench.health.answered(before[0].sequence, ms(20), bench.now);
    assert_eq!(bench.state(), State::Suspect);
    bench.answer_all(20);
    assert_eq!(bench.state(), State::Up);
}

#[test]
fn traffic_that_nobody_answers_makes_it_suspect_once_an_interval_at_most() {
    let mut bench = Bench::in_state(State::Up);
    let mut doubts = 0;
    let end = bench.now + ms(10_000);
    while bench.now < end {
        bench.now += ms(50);
        bench.health.silent(1, bench.now);
        doubts += u32::from(bench.state() == State::Suspect);
        bench.poll();
        bench.answer_all(20);
    }
    assert!((9..=10).contains(&doubts), "{doubts}");
}

#[test]
fn a_slow_line_is_given_its_time() {
    let mut bench = Bench::new(&[A]);
    for _ in 0..30 {
        bench.good_round(600);
    }
    assert_eq!(bench.state(), State::Up);
    assert!(bench.health.silence() > ms(600));
    bench.health.silent(5, bench.now);
    bench.next_round();
    bench.now += ms(600);
    bench.answer_all(600);
    assert_eq!(bench.state(), State::Up);
}

#[test]
fn a_round_that_turns_bad_after_a_later_one_was_good_raises_no_doubt() {
    let mut bench = Bench::with(MonitorConfig { interval: ms(100), ..MonitorConfig::default() }, &[A]);
    bench.good_round(20);
    bench.next_round();
    bench.good_round(20);
    let end = bench.now + ms(400);
    while bench.now < end {
        bench.now += ms(20);
        bench.poll();
        bench.answer_all(0);
        assert_eq!(bench.state(), State::Up);
    }
    assert!(bench.health.loss_percent() > 0.0, "but it counts as lost");
}

#[test]
fn coming_back_takes_up_after_exactly() {
    let mut bench = Bench::in_state(State::Down);
    // With a slow first answer the fifth round's comes a moment too early: there is one more round just for that.
    bench.good_round(60);
    let first = bench.now;
    assert_eq!(bench.state(), State::Down);
    assert_eq!(bench.reason(), "answering again, up in 5 s");
    bench.run_alive_until(|health| health.state() == State::Up);
    assert_eq!(bench.now - first, ms(5020));
}

#[test]
fn a_bad_round_starts_the_hold_time_anew() {
    let mut bench = Bench::in_state(State::Down);
    for _ in 0..3 {
        bench.good_round(20);
    }
    Input::BadRound.apply(&mut bench);
    assert_eq!(bench.reason(), "no answer from 1.1.1.1, 9.9.9.9 for 0.9 s (network unreachable)");
    bench.good_round(20);
    let first = bench.now;
    bench.run_alive_until(|health| health.state() == State::Up);
    assert!(bench.now - first >= ms(5000));
}

#[test]
fn when_the_last_other_isp_goes_down_a_returning_one_steps_in_at_once() {
    let mut bench = Bench::in_state(State::Down);
    bench.good_round(20);
    bench.health.set_others_usable(false, bench.now);
    assert_eq!(bench.state(), State::Up);
}

#[test]
fn flapping_doubles_the_hold_time_up_to_its_limit_and_calm_resets_it() {
    let monitor = MonitorConfig { up_after_max: ms(15_000), ..MonitorConfig::default() };
    let mut bench = Bench::with(monitor, &[A, B]);
    bench.good_round(20);
    let hold = |bench: &mut Bench| {
        bench.run_dead_until(|health| health.state() == State::Down);
        bench.settle();
        bench.good_round(20);
        let first = bench.now;
        bench.run_alive_until(|health| health.state() == State::Up);
        (bench.now - first).as_secs()
    };
    assert_eq!([0; 4].map(|_| hold(&mut bench)), [5, 10, 15, 15]);
    let calm = bench.now + ms(300_000);
    while bench.now < calm {
        bench.good_round(20);
    }
    assert_eq!(hold(&mut bench), 5);
}

#[test]
fn without_a_path_it_is_down_silent_and_says_why() {
    let mut bench = Bench::in_state(State::Up);
    bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
    assert_eq!((bench.state(), bench.reason()), (State::Down, "no carrier on eth0".into()));
    assert_eq!(bench.health.next_deadline(), None);
    bench.now += ms(60_000);
    assert_eq!(bench.health.poll(bench.now), []);
    bench.health.set_path(Some("no gateway for eth0".into()), bench.now);
    assert_eq!(bench.reason(), "no gateway for eth0");
    assert!(bench.health.loss_percent() < f64::EPSILON, "what was under way is not lost");
    bench.health.set_path(None, bench.now);
    assert_eq!(bench.reason(), "waiting for a first answer from 1.1.1.1, 9.9.9.9");
    bench.good_round(20);
    assert_eq!(bench.state(), State::Down, "it was up before, so it is held");
    bench.run_alive_until(|health| health.state() == State::Up);
}

#[test]
fn answers_from_before_the_path_was_lost_do_not_count() {
    let mut bench = Bench::in_state(State::Down);
    bench.health.set_others_usable(false, bench.now);
    bench.next_round();
    bench.health.set_path(Some("no carrier".into()), bench.now);
    bench.answer_all(20);
    bench.health.set_path(None, bench.now);
    bench.answer_all(20);
    assert_eq!(bench.state(), State::Down);
}

#[test]
fn without_targets_the_path_decides() {
    let mut bench = Bench::new(&[]);
    bench.poll();
    assert_eq!((bench.state(), bench.sent.len()), (State::Up, 0));
    assert_eq!(bench.health.next_deadline(), None);
    bench.health.silent(100, bench.now);
    assert_eq!(bench.state(), State::Up);
    bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
    assert_eq!(bench.state(), State::Down);
    bench.now += ms(1000);
    bench.health.set_path(None, bench.now);
    let back = bench.now;
    assert_eq!((bench.state(), bench.reason()), (State::Down, "connected again, up in 5 s".into()));
    bench.step();
    assert_eq!((bench.state(), bench.now - back), (State::Up, ms(5000)));
}

#[test]
fn without_targets_it_is_up_at_once_where_nothing_speaks_for_waiting() {
    let mut never_up = Bench::new(&[]);
    never_up.health.set_path(Some("no device eth7".into()), never_up.now);
    never_up.health.set_path(None, never_up.now);
    assert_eq!(never_up.state(), State::Up);

    let mut alone = Bench::new(&[]);
    alone.poll();
    alone.health.set_others_usable(false, alone.now);
    alone.health.set_path(Some("no carrier on eth0".into()), alone.now);
    alone.health.set_path(None, alone.now);
    assert_eq!(alone.state(), State::Up);
}

#[test]
fn what_another_daemon_judged_is_taken_over_without_a_dip() {
    let now = Instant::now();
    for state in [State::Up, State::Suspect, State::Down] {
        let since = now.checked_sub(ms(9)).unwrap();
        let adopted = Health::adopt(state, since, MonitorConfig::default(), targets(&[A, B]), now);
        let mut bench = Bench { now, start: now, health: adopted, sent: Vec::new() };
        let words =
            if state == State::Up { String::new() } else { format!("{state} when the daemon started") };
        assert_eq!((bench.state(), bench.reason()), (state, words));
        assert_eq!(bench.health.since(), since);
        bench.good_round(20);
        assert_eq!(bench.state(), if state == State::Down { State::Down } else { State::Up });
        bench.run_alive_until(|health| health.state() == State::Up);
    }
}

#[test]
fn doubt_does_not_touch_since() {
    let mut bench = Bench::in_state(State::Up);
    let since = bench.health.since();
    for _ in 0..5 {
        bench.good_round(20);
    }
    Input::BadRound.apply(&mut bench);
    assert_eq!((bench.state(), bench.health.since()), (State::Suspect, since));
    bench.good_round(20);
    assert_eq!((bench.state(), bench.health.since()), (State::Up, since));
}

#[test]
fn a_quorum_of_two_needs_two_and_one_of_five_is_no_more_than_there_are() {
    let two = MonitorConfig { quorum: 2, ..MonitorConfig::default() };
    let mut bench = Bench::with(two, &[A, B]);
    bench.good_round(20);
    bench.next_round();
    bench.health.failed(bench.sent[0].sequence, "192.0.2.1 says host unreachable".into(), bench.now);
    assert_eq!(bench.state(), State::Suspect);
    assert_eq!(bench.health.poll(bench.now).len(), 2, "doubt is settled at once");

    let many = MonitorConfig { quorum: 5, ..MonitorConfig::default() };
    let mut bench = Bench::with(many, &[A]);
    bench.good_round(20);
    assert_eq!(bench.state(), State::Up);
}

#[test]
fn unknown_and_repeated_answers_change_nothing() {
    let mut bench = Bench::in_state(State::Down);
    bench.health.answered(u64::MAX, ms(1), bench.now);
    bench.next_round();
    let probe = bench.sent[0];
    bench.now += ms(20);
    bench.answer_all(20);
    let before = bench.health.rtt();
    bench.now += ms(6000);
    bench.health.answered(probe.sequence, ms(900), bench.now);
    bench.health.failed(probe.sequence, "too late".into(), bench.now);
    assert_eq!((bench.state(), bench.health.rtt()), (State::Down, before));
}

#[test]
fn a_process_that_was_held_up_does_not_take_its_isp_down() {
    let mut bench = Bench::in_state(State::Suspect);
    bench.now += ms(5000);
    bench.poll();
    assert!(bench.state().is_usable());
    bench.answer_all(20);
    assert_eq!(bench.state(), State::Up);
}

#[test]
fn new_targets_are_probed_at_once_and_old_ones_forgotten() {
    let mut bench = Bench::in_state(State::Up);
    bench.health.reconfigure(MonitorConfig::default(), targets(&["8.8.8.8"]), bench.now);
    bench.poll();
    assert_eq!(bench.sent.iter().map(|probe| probe.target).collect::<Vec<_>>(), targets(&["8.8.8.8"]));
    bench.health.reconfigure(MonitorConfig::default(), vec![], bench.now);
    assert_eq!((bench.state(), bench.health.next_deadline()), (State::Up, None));
}
