//! Coming back, the path, taking over, and new configs.

use super::*;

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
    bench.next_round();
    bench.fail_all();
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
fn without_a_path_it_is_down_silent_and_says_why() {
    let mut bench = Bench::in_state(State::Up);
    bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
    assert_eq!((bench.state(), bench.reason()), (State::Down, "no carrier on eth0".into()));
    let long = bench.now + ms(120_000);
    assert_eq!(bench.health.next_deadline(), Some(long), "nothing to do but to be down for long");
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
    for state in [State::Up, State::Suspect, State::Down, State::LongDown] {
        let since = now.checked_sub(ms(9)).unwrap();
        let adopted = Health::adopt(state, since, MonitorConfig::default(), targets(&[A, B]), now);
        let mut bench = Bench { now, start: now, health: adopted, sent: Vec::new() };
        let words =
            if state == State::Up { String::new() } else { format!("{state} when the daemon started") };
        assert_eq!((bench.state(), bench.reason()), (state, words));
        assert_eq!(bench.health.since(), since);
        bench.good_round(20);
        assert_eq!(bench.state(), if state.is_usable() { State::Up } else { state });
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
    bench.next_round();
    bench.fail_all();
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
    let probe = bench.sent[0].clone();
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
    assert_eq!(
        bench.sent.iter().map(|probe| probe.target.clone()).collect::<Vec<_>>(),
        targets(&["8.8.8.8"])
    );
    bench.health.reconfigure(MonitorConfig::default(), vec![], bench.now);
    assert_eq!((bench.state(), bench.health.next_deadline()), (State::Up, None));
}
