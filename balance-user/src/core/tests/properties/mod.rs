//! Whatever happens, in whatever order: what must hold after every step, and what a second core makes of it.

mod expected;
mod steps;

use expected::{Expected, check_buckets, check_plan};
use proptest::prelude::*;
use steps::{Step, configs, step};

use super::super::Fingerprint;
use super::super::isp::targets;
use super::*;

/// A world that is watched at each step.
struct Watched {
    world: World,
    expected: Expected,
    before: (Plan, Mode),
    /// What the plan was, for what it should depend on.
    plans: Vec<(Vec<Fingerprint>, Network, Config, Plan)>,
}

impl Watched {
    fn new(config: Config) -> Self {
        let mode = config.mode;
        let count = NAMES.len();
        let clock = Clock { instant: Instant::now(), epoch_ms: EPOCH_MS };
        let network = Network::with_isps(count);
        let core = Core::new(config, &BTreeMap::new(), network.clone(), clock).unwrap();
        let before = (core.plan("main", &facts()), mode);
        let world =
            World { core, network, now: clock.instant, clock, dead: BTreeSet::new(), effects: Vec::new() };
        Self { world, expected: Expected::default(), before, plans: Vec::new() }
    }

    /// One call of `advance`, with all that must hold after it; whether a probe was answered.
    fn advance(&mut self) -> bool {
        let world = &mut self.world;
        let effects = world.core.advance(world.now);
        let plan = world.plan();
        check_plan(world, &plan);
        let mode = world.core.config().mode;
        check_buckets(&self.before.0, &plan, [self.before.1, mode]);
        self.expected.check(world, &plan, &effects);
        let fingerprint = world.core.fingerprint();
        let config = world.core.config();
        let known = self
            .plans
            .iter()
            .find(|(of, network, by, _)| *of == fingerprint && *network == world.network && by == config);
        assert!(known.is_none_or(|(.., known)| *known == plan), "the fingerprint misses something");
        if known.is_none() {
            self.plans.push((fingerprint, world.network.clone(), config.clone(), plan.clone()));
            let restarted = world.restarted().plan("main", &facts());
            assert_eq!(restarted, plan, "a new daemon would change something");
        }
        self.before = (plan, mode);

        let mut answered = false;
        for effect in effects {
            let Effect::Probe { isp, family, probe } = effect else { continue };
            assert!(
                self.before.0.probers.contains_key(&(isp, family)),
                "a probe where there is no prober: {isp:?} {family:?}"
            );
            if !world.dead.contains(&(world.name(isp), family)) {
                let answer = Event::Answered { isp, family, sequence: probe.sequence, rtt: ms(20) };
                world.core.handle(answer, world.now);
                answered = true;
            }
        }
        answered
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Wait(time) => {
                let end = self.world.now + ms(*time);
                while let Some(due) = self.world.core.next_deadline().filter(|due| *due <= end) {
                    self.world.now = self.world.now.max(due);
                    while self.advance() {}
                }
                self.world.now = end;
            }
            Step::Restart => {
                self.world.restart();
                // What the new daemon cannot know is whether the one before came to cut the dead loose.
                self.expected.removed.clear();
                for (isp, entry) in &self.before.0.maps.isps {
                    for family in Family::ALL {
                        let judges = [family, judge(&self.world, *isp, family)];
                        if judges.iter().any(|&family| entry.states[family as usize] == 3) {
                            self.expected.stranded.insert((entry.name(), family));
                        }
                    }
                }
            }
            step => {
                if let Some(event) = self.world.event_of(step) {
                    self.world.core.handle(event, self.world.now);
                }
            }
        }
        while self.advance() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_happens_what_must_hold_holds(
        config in configs(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut watched = Watched::new(config);
        while watched.advance() {}
        for step in &steps {
            watched.take(step);
        }
    }

    #[test]
    fn the_same_events_lead_to_the_same_plans(
        config in configs(),
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let mut worlds = [(); 2].map(|()| World::new(config.clone(), Network::with_isps(NAMES.len())));
        // Neither what the monotonic clock began with nor who they are may matter.
        let shift = Duration::from_secs(12_345);
        worlds[1].now += shift;
        let clock = Clock { instant: worlds[1].now, epoch_ms: EPOCH_MS };
        worlds[1].core =
            Core::new(config, &BTreeMap::new(), worlds[1].network.clone(), clock).unwrap();
        worlds[1].clock = clock;
        worlds[1].effects.clear();
        worlds[1].advance();
        for step in &steps {
            for world in &mut worlds {
                match step {
                    Step::Wait(time) => world.wait(ms(*time)),
                    Step::Restart => world.restart(),
                    step => {
                        if let Some(event) = world.event_of(step) {
                            world.core.handle(event, world.now);
                        }
                    }
                }
                world.advance();
            }
            prop_assert!(worlds[0].plan() == worlds[1].plan());
            prop_assert_eq!(&worlds[0].effects, &worlds[1].effects);
            prop_assert_eq!(
                worlds[0].core.next_deadline().map(|due| due - worlds[0].now),
                worlds[1].core.next_deadline().map(|due| due - worlds[1].now)
            );
        }
    }
}

/// The family by whose health one is judged.
fn judge(world: &World, isp: IspId, family: Family) -> Family {
    let config = &world.core.isps[&isp].config;
    let follows = targets(config, family).is_empty() && !config.targets.is_empty();
    match family {
        Family::V4 if follows => Family::V6,
        Family::V6 if follows => Family::V4,
        own => own,
    }
}
