//! Targets that not every family has.

use super::*;

const NAME: &str = "https://example.com/";

/// A router whose first ISP has this target, of which that family knows nothing.
fn world_without(family: Family) -> World {
    let mut config = config(isps(2));
    config.isps[0].targets = vec![NAME.parse().unwrap()];
    let mut world = World::new(config, Network::with_isps(2));
    world.answer_but(family);
    world
}

impl World {
    /// Rounds in which that family has nothing to ask, and the other one answers.
    fn answer_but(&mut self, blind: Family) {
        for _ in 0..30 {
            let due = self.core.next_deadline().unwrap_or(self.now);
            self.now = self.now.max(due);
            for effect in self.core.advance(self.now) {
                let Effect::Probe { isp, family, probe } = effect else { continue };
                let sequence = probe.sequence;
                let dead = self.dead.contains(&(self.name(isp), family));
                if family == blind {
                    let why = "example.com has no address".to_owned();
                    self.core.handle(Event::Inapplicable { isp, family, sequence, why }, self.now);
                } else if !dead {
                    self.core.handle(Event::Answered { isp, family, sequence, rtt: ms(20) }, self.now);
                }
            }
        }
    }
}

#[test]
fn a_family_without_anything_to_ask_goes_by_the_other_one() {
    for (blind, seeing) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut world = world_without(blind);
        assert!(world.is_usable(0, blind) && world.is_usable(0, seeing));
        let name = super::super::family_name(blind);
        assert_eq!(
            world.reason(0),
            format!("{name}: https://example.com/ does not count, as example.com has no address")
        );
        world.kill(0, &[seeing]);
        world.answer_but(blind);
        assert!(!world.is_usable(0, blind) && !world.is_usable(0, seeing));
    }
}
