//! Paths that work badly, and traffic that vouches for them.

use super::*;
use crate::config::{Band, Limits};

/// Rounds for so long, of which each target's probes are lost at random with such a chance in percent; how long it was
/// degraded and how often it went down.
fn lossy(seconds: u64, loss: [u64; 2], seed: u64) -> (Duration, u32) {
    lossy_with(MonitorConfig::default(), seconds, loss, seed)
}

fn lossy_with(monitor: MonitorConfig, seconds: u64, loss: [u64; 2], seed: u64) -> (Duration, u32) {
    let mut bench = Bench::with(monitor, &[A, B]);
    bench.good_round(20);
    let (end, mut random) = (bench.now + ms(seconds * 1000), seed * 2 + 1);
    let (mut degraded, mut downs, mut before) = (Duration::ZERO, 0, (bench.now, bench.state()));
    while bench.now < end {
        bench.step();
        bench.now += ms(20);
        for probe in std::mem::take(&mut bench.sent) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let place = usize::from(probe.target.to_string() == B);
            if (random >> 20) % 100 >= loss[place] {
                bench.health.answered(probe.sequence, ms(20), bench.now);
            }
        }
        let state = bench.state();
        if before.1 == State::Degraded {
            degraded += bench.now - before.0;
        }
        downs += u32::from(state == State::Down && before.1.is_usable());
        before = (bench.now, state);
    }
    (degraded, downs)
}

#[test]
fn a_third_of_loss_degrades_within_a_minute_and_a_tenth_does_not_in_three_hours() {
    for seed in 1..20 {
        let (degraded, downs) = lossy(600, [35, 35], seed);
        assert!(degraded > ms(400_000), "{degraded:?}");
        assert_eq!(downs, 0);
        assert_eq!(lossy(600, [10, 10], seed), (Duration::ZERO, 0));
    }
}

#[test]
fn losses_count_as_much_as_answers_where_rounds_are_quicker_than_patience() {
    let quick = MonitorConfig {
        interval: ms(50),
        suspect_interval: ms(20),
        down_after: 30,
        ..MonitorConfig::default()
    };
    let (degraded, downs) = lossy_with(quick, 120, [45, 45], 3);
    assert!(degraded > ms(60_000), "{degraded:?}");
    assert_eq!(downs, 0);
}

#[test]
fn a_target_that_is_dead_is_not_the_paths_fault() {
    assert_eq!(lossy(600, [0, 100], 1), (Duration::ZERO, 0));
    let two = MonitorConfig { quorum: 2, ..MonitorConfig::default() };
    let mut bench = Bench::with(two, &[A, B, "8.8.8.8"]);
    for _ in 0..300 {
        bench.next_round();
        bench.now += ms(20);
        for probe in std::mem::take(&mut bench.sent).into_iter().take(2) {
            bench.health.answered(probe.sequence, ms(20), bench.now);
        }
    }
    assert_eq!(bench.state(), State::Up);
    assert!(bench.health.measured().loss < f64::EPSILON);
}

#[test]
fn latency_degrades_where_it_has_a_limit_and_the_reason_says_so() {
    let latency = Some(Band { enter: ms(400), leave: ms(200) });
    let limits = Limits { latency, ..MonitorConfig::default().limits };
    let mut bench = Bench::with(MonitorConfig { limits, ..MonitorConfig::default() }, &[A]);
    for _ in 0..30 {
        bench.good_round(20);
    }
    let step = bench.now;
    for _ in 0..40 {
        bench.good_round(500);
    }
    assert_eq!((bench.state(), bench.reason()), (State::Degraded, "latency over 400ms".into()));
    assert!(bench.health.state().is_usable());
    bench.run_alive_until(|health| health.state() == State::Up);
    assert!(bench.now - step > ms(70_000), "30 s below the lower limit");
    assert_eq!(bench.reason(), "");
}

#[test]
fn doubt_about_a_degraded_path_does_not_make_it_a_good_one() {
    let mut bench = Bench::in_state(State::Degraded);
    bench.health.silent(12, bench.now);
    assert_eq!((bench.state(), bench.health.is_degraded()), (State::Suspect, true));
    bench.good_round(20);
    assert_eq!(bench.state(), State::Degraded);
    bench.run_dead_until(|health| health.state() == State::Down);
    assert!(!bench.health.is_degraded());
    bench.run_alive_until(|health| health.state() == State::Up);
}

#[test]
fn what_another_daemon_found_degraded_is_so_until_it_has_been_well_for_its_time() {
    let now = Instant::now();
    let mut health = Health::adopt(State::Degraded, now, MonitorConfig::default(), targets(&[A]), now);
    health.adopt_degraded();
    let mut bench = Bench { now, start: now, health, sent: Vec::new() };
    assert_eq!(bench.state(), State::Degraded);
    bench.run_alive_until(|health| health.state() == State::Up);
    assert_eq!(bench.since_start() / 1000, 30);
}

/// The line loses all probes while traffic goes on for so long; after how long it is down.
fn all_lost(traffic_goes_on_for: Duration, why: Option<&str>) -> Duration {
    let mut bench = Bench::new(&[A, B]);
    for _ in 0..20 {
        bench.good_round(20);
    }
    let start = bench.now;
    while bench.state() != State::Down {
        bench.now += ms(50);
        if bench.now - start < traffic_goes_on_for {
            bench.health.heard(bench.now);
        }
        bench.poll();
        if let Some(why) = why {
            for probe in std::mem::take(&mut bench.sent) {
                bench.health.failed(probe.sequence, why.into(), bench.now);
            }
        }
        assert!(bench.now - start < ms(60_000));
    }
    bench.now - start
}

#[test]
fn traffic_vouches_for_a_line_that_loses_its_probes_but_not_for_ever() {
    assert_eq!(all_lost(Duration::ZERO, None), ms(1600));
    assert_eq!(all_lost(ms(3000), None), ms(3200), "the verdict is made up for at once");
    let longest = all_lost(ms(60_000), None);
    assert!((ms(6000)..ms(6500)).contains(&longest), "an interval, a patience and vouch: {longest:?}");
}

#[test]
fn a_router_that_says_there_is_no_way_is_believed_whatever_comes_in() {
    let refused = all_lost(ms(60_000), Some("192.0.2.1 says network unreachable"));
    assert!(refused < ms(1600), "{refused:?}");
}

#[test]
fn a_saturated_line_is_degraded_and_not_down() {
    let mut bench = Bench::new(&[A, B]);
    bench.good_round(20);
    let (end, mut number) = (bench.now + ms(120_000), 0_u32);
    while bench.now < end {
        bench.now += ms(50);
        bench.health.heard(bench.now);
        bench.poll();
        // Nine of ten are lost.
        for probe in std::mem::take(&mut bench.sent) {
            number += 1;
            if number.is_multiple_of(10) {
                bench.health.answered(probe.sequence, ms(0), bench.now);
            }
        }
        assert!(bench.state().is_usable(), "{}", bench.reason());
    }
    assert!(bench.health.is_degraded());
}
