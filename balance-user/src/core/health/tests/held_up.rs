//! The process was stopped, or the machine asleep.

use super::*;

const NIGHT: Duration = Duration::from_hours(9);

impl Bench {
    /// Nobody looks after it for so long; what it is right after that, before anything is sent.
    fn hold_up(&mut self, gap: Duration) -> State {
        self.now += gap;
        self.health.held_up(gap, self.now);
        self.sent.clear();
        self.state()
    }
}

#[test]
fn a_night_changes_no_state_and_everything_is_asked_anew_at_once() {
    for state in State::ALL {
        let mut bench = Bench::in_state(state);
        assert_eq!(bench.hold_up(NIGHT), state);
        bench.poll();
        assert_eq!(bench.sent.len(), 2, "{state}: a round at once");
        let after = match state {
            // So long it really has been so.
            State::Down | State::Held => State::LongDown,
            state => state,
        };
        assert_eq!(bench.state(), after);
    }
}

#[test]
fn all_deadlines_that_have_passed_meanwhile_are_nothing() {
    let mut bench = Bench::in_state(State::Suspect);
    let end = bench.now + ms(190);
    while bench.health.next_deadline().is_some_and(|due| due < end) {
        bench.step();
    }
    let under_way = std::mem::take(&mut bench.sent);
    assert!(under_way.len() >= 4, "several rounds");
    assert_eq!(bench.hold_up(NIGHT), State::Suspect);
    bench.poll();
    assert_eq!(bench.state(), State::Suspect);
    let rtt = bench.health.rtt();
    for probe in under_way {
        bench.health.answered(probe.sequence, NIGHT, bench.now);
    }
    assert_eq!(bench.health.rtt(), rtt, "what is read only now did not take so long");
    bench.answer_all(20);
    assert_eq!(bench.state(), State::Up);
    assert!(bench.health.loss_percent() < f64::EPSILON);
}

#[test]
fn a_line_that_has_died_meanwhile_is_found_out_as_fast_as_ever() {
    let mut bench = Bench::in_state(State::Up);
    bench.hold_up(NIGHT);
    let start = bench.now;
    bench.run_dead_until(|health| health.state() == State::Down);
    assert!(bench.now - start < ms(1700), "{:?}", bench.now - start);
}

#[test]
fn the_time_in_which_it_must_work_does_not_pass_meanwhile() {
    let mut bench = Bench::in_state(State::Down);
    bench.good_round(20);
    assert_eq!(bench.reason(), "answering again, up in 5 s");
    bench.hold_up(NIGHT);
    assert_eq!(bench.reason(), "answering again, up in 5 s");
    bench.good_round(20);
    assert_eq!(bench.state(), State::LongDown, "one more answer is not enough");
    let start = bench.now;
    bench.run_alive_until(|health| health.state() == State::Up);
    assert!(bench.now - start > ms(4900), "{:?}", bench.now - start);
}
