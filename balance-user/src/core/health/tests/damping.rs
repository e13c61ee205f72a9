//! Paths that come and go.

use super::*;

/// Toggles every 3 s for 5 minutes, ten looks a second; the states that it goes through, and those after it.
fn toggling(monitor: MonitorConfig) -> (Vec<State>, Vec<State>) {
    let mut bench = Bench::with(monitor, &[A, B]);
    bench.good_round(20);
    let start = bench.now;
    let (mut seen, mut last) = ([Vec::new(), Vec::new()], State::Up);
    while bench.now < start + ms(900_000) {
        bench.now += ms(100);
        let passed = (bench.now - start).as_millis();
        bench.poll();
        let is_over = passed > 300_000;
        if is_over || passed / 3000 % 2 == 1 {
            bench.answer_all(20);
        } else {
            bench.sent.clear();
        }
        // Moments of doubt are nobody's business.
        let state = bench.state();
        if state != last && state != State::Suspect {
            seen[usize::from(is_over)].push(state);
            last = state;
        }
    }
    let [during, after] = seen;
    (during, after)
}

#[test]
fn toggling_every_three_seconds_for_five_minutes_is_four_transitions_at_most() {
    use State::{Down, Held, Up};
    let default = MonitorConfig::default();
    assert_eq!(toggling(default.clone()), (vec![Down, Held], vec![Up]));
    for profile in [Profile::Fast, Profile::Balanced, Profile::Patient, Profile::Metered] {
        let (during, _) = toggling(MonitorConfig::of(profile));
        assert!(during.len() <= 4, "{profile:?}: {during:?}");
    }
    // Where it could come back within each three seconds, it is let once.
    let eager = MonitorConfig { up_after: ms(1000), ..default };
    assert_eq!(toggling(eager), (vec![Down, Up, Down, Held], vec![Up]));
}

#[test]
fn without_damping_it_would_come_and_go() {
    let monitor = MonitorConfig { up_after: ms(1000), up_after_max: ms(1000), ..MonitorConfig::default() };
    let (during, _) = toggling(monitor);
    assert!(during.len() > 50, "{}", during.len());
}

#[test]
fn a_held_path_says_for_how_long_and_answers_meanwhile() {
    let mut bench = Bench::in_state(State::Held);
    let Reason::Held(left) = bench.health.reason(bench.now) else { panic!("{}", bench.reason()) };
    assert!((60..85).contains(&left.as_secs()), "{left:?}");
    let end = bench.now + left;
    bench.run_alive_until(|health| health.state() == State::Up);
    assert!(bench.now >= end && bench.now - end < ms(100), "{:?}", bench.now - end);
}

#[test]
fn a_held_path_that_dies_for_good_is_down_for_long_in_the_end() {
    let mut bench = Bench::in_state(State::Held);
    bench.run_dead_until(|health| health.state() == State::LongDown);
}

#[test]
fn a_failure_now_and_then_is_no_flapping() {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..5 {
        bench.run_alive_until(|health| health.state() == State::Up);
        let calm = bench.now + ms(120_000);
        while bench.now < calm {
            bench.good_round(20);
        }
        bench.run_dead_until(|health| health.state() == State::Down);
        bench.settle();
        bench.good_round(20);
        assert_eq!(bench.state(), State::Down);
    }
}

#[test]
fn down_is_down_for_long_after_two_minutes_to_the_millisecond_with_and_without_a_path() {
    for path in [true, false] {
        let mut bench = Bench::in_state(State::Up);
        if !path {
            bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
        }
        bench.run_dead_until(|health| health.state() == State::Down);
        let since = bench.health.since();
        bench.run_dead_until(|health| health.state() == State::LongDown);
        assert_eq!((bench.now - since, bench.health.since()), (ms(120_000), since));
    }
}

#[test]
fn a_carrier_that_comes_and_goes_is_flapping_too() {
    let mut bench = Bench::new(&[]);
    bench.poll();
    for _ in 0..2 {
        bench.health.set_path(Some("no carrier on eth0".into()), bench.now);
        bench.now += ms(1000);
        bench.health.set_path(None, bench.now);
        bench.now += ms(6000);
        bench.poll();
    }
    assert_eq!(bench.state(), State::Held, "{}", bench.reason());
    let mut last = Bench::new(&[]);
    last.poll();
    last.health.set_others_usable(false, last.now);
    for _ in 0..9 {
        last.health.set_path(Some("no carrier on eth0".into()), last.now);
        last.health.set_path(None, last.now);
        assert_eq!(last.state(), State::Up, "with nothing else there is nothing to wait for");
    }
}

#[test]
fn what_another_daemon_held_stays_held_for_a_while() {
    let now = Instant::now();
    let health = Health::adopt(State::Held, now, MonitorConfig::default(), targets(&[A]), now);
    let mut bench = Bench { now, start: now, health, sent: Vec::new() };
    assert_eq!(bench.state(), State::Held);
    bench.run_alive_until(|health| health.state() == State::Up);
    assert_eq!(bench.since_start() / 1000, 60);
}
