//! Measuring many cases in turn.

use std::collections::BTreeMap;

use crate::cases::{self, Case, Size, floor_of};
use crate::core::Core;
use crate::environment::Environment;
use crate::harness::Sample;
use crate::report::{Figure, Missing, Report};
use crate::site::Site;
use crate::statistics::{self, Spread};
use crate::traffic::{self, Group, Traffic};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kinds of traffic.
    pub traffics: Vec<Traffic>,
    /// The cases; the floors that they need come by themselves.
    pub cases: Vec<Case>,
    /// How often each is measured.
    pub rounds: u32,
    /// Samples of each time, of which the median counts.
    pub samples: u32,
    /// Packets of a sample.
    pub packets: u32,
}

/// Says how far it is.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

impl Plan {
    /// The traffic and the cases of these names; everything where there are none.
    #[must_use]
    pub fn choose(traffics: &[String], cases: &[String]) -> (Vec<Traffic>, Vec<Case>) {
        let chosen = |name: &str, wanted: &[String]| wanted.is_empty() || wanted.iter().any(|it| name == it);
        let traffics: Vec<Traffic> =
            traffic::ALL.into_iter().filter(|it| chosen(it.name, traffics)).collect();
        let picked: Vec<Case> = cases::ALL.into_iter().filter(|it| chosen(it.name, cases)).collect();
        let groups: Vec<Group> = traffics.iter().map(|traffic: &Traffic| traffic.group).collect();
        let is_needed = |floor: &Case| {
            let mut floors =
                picked.iter().flat_map(|case| groups.iter().map(|&group| floor_of(group, case.entrance)));
            floors.any(|needed| needed == floor.name)
        };
        let is_picked = |case: &Case| picked.iter().any(|it| it.name == case.name);
        let with_floors = cases::ALL.into_iter().filter(|case| is_picked(case) || is_needed(case)).collect();
        (traffics, with_floors)
    }

    /// Measures. What cannot be measured is in the report, with the reason.
    pub fn run(&self, core: &Core, progress: Progress<'_>) -> Report {
        // Before anything else: the sources may be changed meanwhile.
        let environment = Environment::look(core.number());
        let mut results = Results::default();
        for group in [Group::Packets, Group::Flows, Group::Isps, Group::Bulk] {
            let traffics: Vec<&Traffic> = self.traffics.iter().filter(|it| it.group == group).collect();
            if !traffics.is_empty() {
                self.run_group(core, group, &traffics, &mut results, progress);
            }
        }
        results.report(environment, self)
    }

    /// Measures all cases with several kinds of traffic in turn.
    fn run_group(
        &self,
        core: &Core,
        group: Group,
        traffics: &[&Traffic],
        results: &mut Results,
        progress: Progress<'_>,
    ) {
        let mut sites = self.build(core, group, traffics, results, progress);
        // Many flows take long to get to know.
        let rounds = if group == Group::Flows { self.rounds.div_ceil(3) } else { self.rounds };
        for round in 1..=rounds {
            for traffic in traffics {
                progress(&format!("round {round} of {rounds}: {}", traffic.title));
                // Another case is the first each time, so that none has the quietest place for itself.
                if !sites.is_empty() {
                    sites.rotate_left(1);
                }
                for (isps, site) in &mut sites {
                    let case = *site.case();
                    if *isps != case.isps(traffic.isps) || !case.takes(group, traffic.family) {
                        continue;
                    }
                    match site.measure(traffic, self.samples, self.packets) {
                        Ok(samples) => results.add(traffic, &case, &samples),
                        Err(error) => results.miss(traffic, &case, &error),
                    }
                }
            }
        }
    }

    /// Builds every lab that is needed, with the number of its ISPs.
    fn build(
        &self,
        core: &Core,
        group: Group,
        traffics: &[&Traffic],
        results: &mut Results,
        progress: Progress<'_>,
    ) -> Vec<(u8, Site)> {
        let most = |traffic: &&Traffic| traffic.load.frames().map_or(0, |(_, flows)| flows);
        let is_endless = |traffic: &&&Traffic| traffic.load == traffic::Load::NewFlows;
        let known = traffics.iter().filter(|traffic| !is_endless(traffic));
        let room = Size { flows: known.map(most).max().unwrap_or(0) };
        let mut sites: Vec<(u8, Site)> = Vec::new();
        for case in &self.cases {
            for traffic in traffics {
                let isps = case.isps(traffic.isps);
                let is_there =
                    sites.iter().any(|(count, site)| *count == isps && site.case().name == case.name);
                if is_there || !case.takes(group, traffic.family) || results.is_missing(traffic, case) {
                    continue;
                }
                progress(&format!("building {} with {isps} ISPs", case.title));
                match Site::build(case, core, group, isps, room) {
                    Ok(site) => sites.push((isps, site)),
                    Err(error) => {
                        let same = traffics.iter().filter(|it| case.isps(it.isps) == isps);
                        same.for_each(|traffic| results.miss(traffic, case, &error));
                    }
                }
            }
        }
        sites
    }
}

/// The name of some traffic and of a case.
type Key = (&'static str, &'static str);

#[derive(Default)]
struct Results {
    rounds: BTreeMap<Key, Vec<Round>>,
    missing: BTreeMap<Key, String>,
}

/// What one round came to.
struct Round {
    nanoseconds: f64,
    sent: u64,
    arrived: u64,
}

impl Results {
    fn add(&mut self, traffic: &Traffic, case: &Case, samples: &[Sample]) {
        let nanoseconds: Vec<f64> = samples.iter().map(|sample| sample.nanoseconds).collect();
        if let Some(nanoseconds) = statistics::median(&nanoseconds) {
            let sent = samples.iter().map(|sample| sample.sent).sum();
            let arrived = samples.iter().map(|sample| sample.arrived).sum();
            self.rounds.entry((traffic.name, case.name)).or_default().push(Round {
                nanoseconds,
                sent,
                arrived,
            });
        }
    }

    fn miss(&mut self, traffic: &Traffic, case: &Case, error: &anyhow::Error) {
        self.missing.entry((traffic.name, case.name)).or_insert_with(|| format!("{error:#}"));
    }

    fn is_missing(&self, traffic: &Traffic, case: &Case) -> bool {
        self.missing.contains_key(&(traffic.name, case.name))
    }

    fn report(&self, environment: Environment, plan: &Plan) -> Report {
        let each =
            || plan.traffics.iter().flat_map(|traffic| plan.cases.iter().map(move |case| (traffic, case)));
        let figures = each().filter_map(|(traffic, case)| self.figure(traffic, case));
        let missing = each().filter_map(|(traffic, case)| {
            let reason = self.missing.get(&(traffic.name, case.name))?.clone();
            Some(Missing { traffic: traffic.name.to_owned(), case: case.name.to_owned(), reason })
        });
        Report { environment, figures: figures.collect(), missing: missing.collect() }
    }

    fn figure(&self, traffic: &Traffic, case: &Case) -> Option<Figure> {
        let spread = self.spread(traffic.name, case.name)?;
        let floor = Some(floor_of(traffic.group, case.entrance));
        let floor = floor.filter(|floor| *floor != case.name && !case.is_floor());
        let floor = floor.and_then(|floor| self.spread(traffic.name, floor));
        let rounds = self.rounds.get(&(traffic.name, case.name))?;
        let sent: u64 = rounds.iter().map(|round| round.sent).sum();
        let arrived: u64 = rounds.iter().map(|round| round.arrived).sum();
        Some(Figure {
            traffic: traffic.name.to_owned(),
            case: case.name.to_owned(),
            unit: traffic.load.unit().to_owned(),
            spread,
            above_floor: floor.map(|floor| spread.median - floor.median),
            lost: 1.0 - arrived as f64 / sent.max(1) as f64,
        })
    }

    fn spread(&self, traffic: &'static str, case: &'static str) -> Option<Spread> {
        let rounds = self.rounds.get(&(traffic, case))?;
        Spread::of(&rounds.iter().map(|round| round.nanoseconds).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cases: &[Case]) -> Vec<&str> {
        cases.iter().map(|case| case.name).collect()
    }

    #[test]
    fn a_chosen_case_brings_its_floor_along() {
        let (traffics, cases) = Plan::choose(&["v4-60".to_owned()], &["xdp".to_owned()]);
        assert_eq!(names(&cases), ["floor-xdp", "xdp"]);
        assert_eq!(traffics.len(), 1);
    }

    #[test]
    fn what_grows_with_isps_has_a_floor_that_does() {
        let (_, cases) = Plan::choose(&["isps-2".to_owned()], &["xdp".to_owned()]);
        assert_eq!(names(&cases), ["devices-xdp", "xdp"]);
    }

    #[test]
    fn without_a_choice_everything_is_measured() {
        let (traffics, cases) = Plan::choose(&[], &[]);
        assert_eq!((traffics.len(), cases.len()), (traffic::ALL.len(), cases::ALL.len()));
    }

    #[test]
    fn the_floor_is_taken_off_and_losses_are_summed() {
        let (traffics, cases) = Plan::choose(&["v4-60".to_owned()], &["plain".to_owned()]);
        let mut results = Results::default();
        for round in [0.0, 100.0, 200.0] {
            let sample = |nanoseconds, arrived| [Sample { nanoseconds, sent: 10, arrived }];
            results.add(&traffics[0], &cases[0], &sample(400.0 + round, 10));
            results.add(&traffics[0], &cases[1], &sample(900.0 + round, 9));
        }
        let plain = results.figure(&traffics[0], &cases[1]).unwrap();
        assert_eq!(plain.above_floor, Some(500.0));
        assert!((plain.lost - 0.1).abs() < 1e-9 && plain.is_doubtful());
        assert_eq!(results.figure(&traffics[0], &cases[0]).unwrap().above_floor, None);
    }
}
