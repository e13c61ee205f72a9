//! From the start to being up, and from there through doubt to being down.

use super::*;

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
        let probe = bench.sent[0].clone();
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

/// A line whose probes are all lost while traffic keeps coming in, and a connection comes about every so often, if at all; when it is
/// down, in milliseconds since it was suspect, if it is within half a minute.
fn full_line(connections: Option<u64>) -> Option<u128> {
    let mut bench = Bench::in_state(State::Suspect);
    let doubt = bench.now;
    bench.sent.clear();
    for step in 0..3000 {
        bench.now += ms(10);
        bench.health.heard(bench.now);
        if connections.is_some_and(|every| (step * 10) % every == 0) {
            bench.health.connects(None, Some(bench.now), bench.now);
        }
        bench.poll();
        if bench.state() == State::Down {
            return Some((bench.now - doubt).as_millis());
        }
    }
    None
}

#[test]
fn traffic_vouches_for_its_time_and_as_long_as_connections_come_about() {
    assert!((5000..5200).contains(&full_line(None).unwrap()), "{:?}", full_line(None));
    assert_eq!(full_line(Some(4000)), None);
    assert!((5000..5200).contains(&full_line(Some(30_000)).unwrap()), "one at the beginning");
}
