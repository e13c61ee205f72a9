//! Targets that cannot be asked in a family do not count there; and what targets weigh.

use super::*;

const NAME: &str = "https://example.com/";

/// Whether the target of a probe has this name.
fn is(probe: &Probe, name: &str) -> bool {
    probe.target.to_string() == name
}

impl Bench {
    /// The next round, in which that target turns out not to be one here.
    fn round_without(&mut self, name: &str, answer_the_others: bool) {
        self.next_round();
        for probe in std::mem::take(&mut self.sent) {
            if is(&probe, name) {
                self.health.inapplicable(probe.sequence, "it has no address".into(), self.now);
            } else if answer_the_others {
                self.health.answered(probe.sequence, ms(20), self.now);
            }
        }
        self.poll();
    }
}

#[test]
fn a_target_that_cannot_be_asked_is_neither_good_nor_bad() {
    let monitor = MonitorConfig { quorum: 2, ..MonitorConfig::default() };
    let mut bench = Bench::with(monitor, &[A, NAME]);
    for _ in 0..20 {
        bench.round_without(NAME, true);
        assert_eq!(bench.state(), State::Up, "{}", bench.reason());
    }
    assert_eq!(bench.health.loss_percent().to_string(), "0");
    let idle: Vec<_> = bench.health.not_counted().map(|(target, why)| format!("{target}: {why}")).collect();
    assert_eq!(idle, ["https://example.com/: it has no address"]);
    bench.run_dead_until(|health| health.state() == State::Down);
    assert_eq!(bench.reason(), "no answer from 1.1.1.1 for 1.6 s", "the other one says nothing");
}

#[test]
fn where_no_target_can_be_asked_the_path_decides() {
    let mut bench = Bench::new(&[NAME]);
    bench.round_without(NAME, false);
    assert_eq!((bench.state(), bench.health.counts()), (State::Up, false));
    bench.health.silent(12, bench.now);
    assert_eq!(bench.state(), State::Up, "there is nothing to find out by");
    bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
    bench.health.set_path(None, bench.now);
    assert_eq!((bench.state(), &*bench.reason()), (State::Down, "connected again, up in 5 s"));
    for _ in 0..10 {
        bench.round_without(NAME, false);
    }
    assert_eq!(bench.state(), State::Up);
    bench.settle();
    assert_eq!(bench.state(), State::Up, "not even an outcome that never comes");
}

#[test]
fn it_counts_again_with_its_first_answer_or_failure() {
    for answered in [true, false] {
        let mut bench = Bench::new(&[NAME]);
        bench.round_without(NAME, false);
        assert!(!bench.health.counts());
        bench.next_round();
        if answered {
            bench.answer_all(20);
            assert_eq!(bench.state(), State::Up);
        } else {
            bench.fail_all();
        }
        assert!(bench.health.counts());
        bench.run_dead_until(|health| health.state() == State::Down);
    }
}

#[test]
fn the_quorum_is_one_of_weights() {
    let text = "[[isp]]\nname = 'A'\ndevice = 'a0'\nmonitor.quorum = 2\n\
                targets = [{ ping = '1.1.1.1', weight = 2 }, '9.9.9.9']\n";
    let config = crate::config::Config::parse(text, std::path::Path::new("balance.toml")).unwrap();
    let isp = &config.isps[0];
    for (answering, state) in [(A, State::Up), (B, State::Unknown)] {
        let now = Instant::now();
        let health = Health::new(isp.monitor.clone(), isp.targets.clone(), now);
        let mut bench = Bench { now, start: now, health, sent: Vec::new() };
        bench.next_round();
        for probe in std::mem::take(&mut bench.sent).iter().filter(|probe| is(probe, answering)) {
            bench.health.answered(probe.sequence, ms(20), bench.now);
        }
        assert_eq!(bench.state(), state, "{answering} alone");
    }
}

#[test]
fn a_verdict_does_not_wait_for_what_cannot_be_asked() {
    let mut bench = Bench::in_state(State::Up);
    bench.health.reconfigure(MonitorConfig::default(), targets(&[A, NAME]), bench.now);
    bench.next_round();
    for probe in std::mem::take(&mut bench.sent) {
        if is(&probe, A) {
            bench.health.failed(probe.sequence, "host unreachable".into(), bench.now);
            assert_eq!(bench.state(), State::Up, "the other one may still answer");
        } else {
            bench.health.inapplicable(probe.sequence, "it has no address".into(), bench.now);
        }
    }
    assert_eq!(bench.state(), State::Suspect);
}
