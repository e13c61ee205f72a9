//! TCP connections that are asked for and do not come about.

use balance_common::fast::SYN_CLASSES;

use super::super::Attempts;
use super::super::health::State;
use super::*;

/// An ISP whose targets answer, observed ten times a second.
struct Line {
    world: World,
    attempts: Attempts,
}

impl Line {
    fn new(isp: IspConfig) -> Self {
        let world = World::new(config(vec![isp]), Network::with_isps(1));
        let mut line = Self { world, attempts: Attempts::default() };
        line.world.wait(ms(3000));
        line.pass(100);
        line
    }

    fn state(&self) -> State {
        self.world.core.isps[&self.world.id(0)].state()
    }

    /// So many milliseconds.
    fn pass(&mut self, time: u64) -> State {
        for _ in 0..time / 100 {
            self.world.wait(ms(100));
            self.observe();
            self.world.advance();
        }
        self.state()
    }

    /// As above, asking several hosts each second.
    fn pass_asking(&mut self, time: u64) -> State {
        for _ in 0..time / 1000 {
            self.ask();
            self.pass(1000);
        }
        self.state()
    }

    fn ask(&mut self) {
        for syns in self.attempts.syns.iter_mut().take(SYN_CLASSES / 2) {
            *syns += 1;
        }
    }

    /// Without looking at deadlines.
    fn observe(&mut self) {
        let isp = self.world.id(0);
        self.world.core.handle(Event::Attempts([(isp, self.attempts)].into()), self.world.now);
    }
}

fn answering() -> IspConfig {
    probed(isp(0), &[Family::V4])
}

#[test]
fn doubt_comes_at_once_is_said_and_is_refuted_by_a_probe() {
    let mut line = Line::new(answering());
    line.ask();
    assert_eq!(line.pass(1000), State::Up);
    line.world.now += ms(100);
    line.observe();
    assert_eq!(line.state(), State::Suspect);
    assert_eq!(line.world.reason(0), "IPv4: sent 8 SYN to several hosts, none answered for 1000 ms");
    line.world.advance();
    assert_eq!(line.state(), State::Up, "its targets answer");
    assert_eq!(line.world.deleted(), []);
}

#[test]
fn as_long_as_it_goes_on_it_is_degraded_and_says_why_and_never_down() {
    for isp in [answering(), isp(0)] {
        let mut line = Line::new(isp);
        assert_eq!(line.pass_asking(10_000), State::Up);
        assert_eq!(line.pass_asking(2_000), State::Degraded);
        assert!(line.world.reason(0).contains("TCP connections are asked for and none is answered"));
        let told = line.world.announced();
        assert!(told.iter().any(|told| told.contains("degraded")), "{told:?}");
        assert_eq!(line.pass_asking(120_000), State::Degraded);
        assert!(line.world.is_usable(0, Family::V4));
        assert_eq!(line.world.deleted(), []);

        line.attempts.answers += 1;
        assert_eq!(line.pass(29_000), State::Degraded, "not at the first answer");
        assert_eq!(line.pass(2_000), State::Up);
    }
}

#[test]
fn when_nobody_asks_any_more_it_is_forgotten() {
    let mut line = Line::new(answering());
    assert_eq!(line.pass_asking(13_000), State::Degraded);
    assert_eq!(line.pass(52_000), State::Up);
}
