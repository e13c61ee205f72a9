//! Packets that are sent and not answered.

use super::super::Traffic;
use super::super::health::State;
use super::*;

/// A router under observation ten times a second, whose first ISP has targets that answer.
struct Line {
    world: World,
    traffic: Traffic,
}

impl Line {
    fn new() -> Self {
        let world = World::new(config(vec![probed(isp(0), &[Family::V4]), isp(1)]), Network::with_isps(2));
        let mut line = Self { world, traffic: Traffic { tx: 1000, rx: 1000 } };
        line.pass(0, 0);
        line
    }

    /// So many packets are sent and received within a tenth of a second; what the ISP is then.
    fn pass(&mut self, tx: u64, rx: u64) -> State {
        // Less than an interval in all, so that probes play no part.
        self.world.now += ms(100);
        self.traffic.tx += tx;
        self.traffic.rx += rx;
        self.observe()
    }

    /// Without looking at deadlines: only silence is at work here.
    fn observe(&mut self) -> State {
        let isp = self.world.id(0);
        self.world.core.handle(Event::Traffic([(isp, self.traffic)].into()), self.world.now);
        self.world.core.isps[&isp].state()
    }

    fn passes(&mut self, all: &[(u64, u64)]) -> Vec<State> {
        all.iter().map(|&(tx, rx)| self.pass(tx, rx)).collect()
    }
}

#[test]
fn packets_that_nothing_answers_for_the_silence_time_make_it_suspect() {
    use State::{Suspect, Up};
    let mut line = Line::new();
    assert_eq!(line.passes(&[(5, 5), (1, 0), (1, 0), (1, 0)]), [Up, Up, Up, Suspect]);
    assert!(line.world.is_usable(0, Family::V4), "doubt moves nobody");
    assert_eq!(line.world.reason(0), "IPv4: sent 3 packets, received nothing for 300 ms");
    line.world.advance();
    assert_eq!(line.world.core.isps[&line.world.id(0)].state(), Up, "its targets answer");
}

#[test]
fn a_burst_counts_from_the_look_before_it() {
    use State::{Suspect, Up};
    assert_eq!(Line::new().passes(&[(9, 0), (0, 0), (0, 0)]), [Up, Up, Suspect]);
}

#[test]
fn anything_received_ends_the_silence() {
    let mut line = Line::new();
    for _ in 0..20 {
        assert_eq!(line.passes(&[(5, 0), (5, 0), (0, 1)]), [State::Up; 3]);
    }
}

#[test]
fn a_few_packets_such_as_arp_asks_are_no_traffic() {
    assert_eq!(Line::new().passes(&[(1, 0), (1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]), [State::Up; 6]);
}

#[test]
fn silence_on_both_sides_is_no_silence() {
    assert_eq!(Line::new().passes(&[(0, 0); 8]), [State::Up; 8]);
}

#[test]
fn receiving_alone_is_fine() {
    assert_eq!(Line::new().passes(&[(0, 7); 8]), [State::Up; 8]);
}

#[test]
fn counters_that_start_anew_accuse_nobody() {
    for (tx, rx) in [(0, 0), (0, 1000), (1000, 0), (2, 1000), (u64::MAX, 0)] {
        let mut line = Line::new();
        assert_eq!(line.passes(&[(5, 0), (5, 0)]), [State::Up; 2]);
        line.traffic = Traffic { tx, rx };
        line.world.now += ms(100);
        assert_eq!(line.observe(), State::Up, "{tx} {rx}");
        if tx < u64::MAX {
            assert_eq!(line.passes(&[(1, 0), (1, 0), (0, 0), (0, 0)]), [State::Up; 4], "{tx} {rx}");
        }
    }
}

#[test]
fn after_counters_started_anew_silence_is_noticed_as_before() {
    use State::{Suspect, Up};
    let mut line = Line::new();
    // Received nothing before nor after, so only what was sent tells.
    line.traffic = Traffic { tx: 0, rx: 1000 };
    line.pass(0, 0);
    assert_eq!(line.passes(&[(3, 0), (3, 0), (0, 0)]), [Up, Up, Suspect]);
}

#[test]
fn without_targets_nothing_could_clear_the_doubt_so_there_is_none() {
    let mut world = World::of(1);
    let isp = world.id(0);
    for tx in 0..100 {
        world.event(Event::Traffic([(isp, Traffic { tx: tx * 10, rx: 0 })].into()));
        world.wait(ms(100));
        assert_eq!(world.core.isps[&isp].state(), State::Up);
    }
}

#[test]
fn silent_death_under_traffic_takes_its_flows_away_within_a_second() {
    let mut line = Line::new();
    line.world.wait(ms(350));
    line.world.kill(0, &Family::ALL);
    let death = line.world.now;
    while line.world.is_usable(0, Family::V4) {
        line.traffic.tx += 10;
        line.observe();
        line.world.advance();
        line.world.wait(ms(100));
        assert!(line.world.now - death <= ms(1000));
    }
    assert_eq!(line.world.deleted().len(), 2);
}

#[test]
fn traffic_of_an_isp_that_is_not_there_is_ignored() {
    let mut world = World::of(1);
    world.event(Event::Traffic([(id(44), Traffic { tx: 9, rx: 9 })].into()));
    world.event(Event::SetWeight { isp: id(44), weight: 3 });
    world.event(Event::Force { isp: id(44), forced: Forced::Up });
    world.event(Event::Answered { isp: id(44), family: Family::V4, sequence: 0, rtt: ms(1) });
    world.event(Event::Failed { isp: id(44), family: Family::V4, sequence: 0, why: String::new() });
    assert_eq!(world.shares(Family::V4), [4096]);
}
