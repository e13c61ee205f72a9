//! The pure core: events in, a [`plan::Plan`] and [`Effect`]s out. No I/O, and no clock of its own.

mod absence;
mod change;
mod clock;
mod event;
mod forecast;
mod ids;
mod in_force;
mod ipv6;
mod isp;
mod meter;
mod path;
mod planner;
mod policies;
mod select;
mod tally;
mod weigh;

pub mod health;
pub mod network;
pub mod plan;
pub mod rtt;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use balance_common::layout::{Forced, IspEntry};
use balance_common::{Family, IspId, MarkMask, PolicyId};
use ipnet::Ipv6Net;

pub use self::policies::last_resort_of;
use crate::config::{Config, Ipv6Mode};
use crate::control::in_force::InForce;
use crate::sysctl::SysctlFacts;
use change::Changes;
pub use clock::Clock;
pub use event::{Effect, Event};
pub use forecast::Forecast;
pub use health::{Attempts, Traffic};
pub use ids::TooManyIsps;
use ids::{assign_ids, mask_of};
pub(crate) use in_force::protocol_name;
pub use isp::Fingerprint;
use isp::{DOWN_ORDERS, Isp};
pub use meter::{Account, QuotaStatus, Reading, Record, SpillStatus, Today};
use network::Network;
pub(crate) use path::is_link_local;
pub use path::{name_of as family_name, why_no_way};
use plan::Plan;
pub use planner::nft_table_name;
use policies::Policies;
pub(crate) use policies::refusal;

/// The state of an instance.
#[derive(Debug)]
pub struct Core {
    config: Config,
    mask: MarkMask,
    isps: BTreeMap<IspId, Isp>,
    /// ISPs that a reload has removed, until their flows have another way.
    removed: BTreeSet<IspId>,
    policies: Policies,
    network: Network,
    /// How many times an ISP has become unusable; orders those that are.
    downs: u64,
    changes: Changes,
    clock: Clock,
}

impl Core {
    /// The core of an instance, going on from what an earlier daemon has left in the `ISPS` map: an ISP of the same
    /// name keeps its id, state, weight and whether it is forced.
    pub fn new(
        config: Config,
        left: &BTreeMap<IspId, IspEntry>,
        network: Network,
        clock: Clock,
    ) -> Result<Self, TooManyIsps> {
        let mask = mask_of(&config)?;
        let now = clock.instant;
        let policies = Policies::new(&config, &BTreeMap::new());
        let (isps, removed) = (BTreeMap::new(), BTreeSet::new());
        let changes = Changes::default();
        let mut core =
            Self { config, mask, isps, removed, policies, network, downs: 2 * DOWN_ORDERS, changes, clock };
        let known = left.iter().map(|(&id, entry)| (entry.name(), id)).collect();
        core.removed.extend(left.keys());
        for (id, isp) in assign_ids(&core.config, mask, &known, &core.removed) {
            let isp = match left.get(&id) {
                Some(entry) if entry.name() == isp.name => {
                    core.changes.adopt(id, entry);
                    Isp::adopt(id, isp, entry, clock)
                }
                _ => Isp::new(id, isp, now),
            };
            core.removed.remove(&id);
            core.isps.insert(id, isp);
        }
        core.update_paths(now);
        Ok(core)
    }

    /// Lets policies keep the numbers that they have had with an earlier daemon.
    pub fn keep_policies(&mut self, left: &BTreeMap<PolicyId, String>) {
        self.policies = Policies::new(&self.config, left);
    }

    /// Somebody may have set the wall clock, or it went on while the machine was asleep. Only what is told depends on it.
    pub const fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Uses these ISPs and no others.
    pub fn force_only(&mut self, names: &[String]) {
        for isp in self.isps.values_mut() {
            isp.forced = if names.contains(&isp.config.name) { Forced::Up } else { Forced::Down };
        }
    }

    /// Takes in an event. What follows from it, and from those that came with it, [`Self::advance`] tells.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Network(network) => {
                self.network = network;
                self.update_paths(now);
            }
            Event::Answered { isp, family, sequence, rtt } => {
                self.changes.tally(isp).answered(family, sequence, rtt);
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.path_mut(family).health.answered(sequence, rtt, now);
                }
            }
            Event::Failed { isp, family, sequence, why } => {
                self.changes.tally(isp).failed(family, sequence);
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.path_mut(family).health.failed(sequence, why, now);
                }
            }
            Event::Inapplicable { isp, family, sequence, why } => {
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.path_mut(family).health.inapplicable(sequence, why, now);
                }
            }
            Event::Traffic(traffic) => {
                for (id, traffic) in traffic {
                    if let Some(isp) = self.isps.get_mut(&id) {
                        isp.observe(traffic, now);
                    }
                }
            }
            Event::Attempts(attempts) => {
                for (id, attempts) in attempts {
                    if let Some(isp) = self.isps.get_mut(&id) {
                        isp.connects(attempts, now);
                    }
                }
            }
            Event::HeldUp(gap) => {
                for isp in self.isps.values_mut() {
                    isp.held_up(gap, now);
                }
            }
            Event::Volume { readings, today } => {
                for (id, reading) in readings {
                    if let Some(isp) = self.isps.get_mut(&id) {
                        isp.meter.observe(&isp.config.metered, reading, today, now);
                    }
                }
            }
            Event::SetUsed { isp, bytes, today } => {
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.meter.set_used(&isp.config.metered, bytes, today);
                }
            }
            Event::SetWeight { isp, weight } => {
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.set_weight(weight);
                }
            }
            Event::Force { isp, forced } => {
                if let Some(isp) = self.isps.get_mut(&isp) {
                    isp.forced = forced;
                }
            }
            Event::Reload(config) => self.reload(*config, now),
        }
    }

    /// Lets time pass and draws the conclusions; [`Self::plan`] may be another one afterwards.
    pub fn advance(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = self.poll(now);
        self.settle(now);
        effects.extend(self.delete_flows());
        effects.extend(self.renumbered());
        effects.extend(self.returned());
        for isp in self.isps.values_mut() {
            let conclusion = isp.conclusion();
            if isp.announced == Some(conclusion) {
                continue;
            }
            let before = isp.announced.replace(conclusion);
            if before.is_some_and(|before| !before.goes_on_as(conclusion)) || isp.since_ms == 0 {
                isp.since_ms = self.clock.epoch_ms(now);
            }
            effects.push(Effect::Announce {
                isp: isp.config.name.clone(),
                state: isp.state_text(),
                reason: isp.reason(now),
                change: self.changes.of(isp, &self.network, now).map(Box::new),
            });
        }
        for isp in self.isps.values_mut() {
            if let Some((kind, words)) = isp.meter.news(&isp.config.metered) {
                let change = self.changes.of_quota(isp, kind, words, &self.network, now);
                effects.push(Effect::AnnounceQuota(Box::new(change)));
            }
        }
        effects
    }

    /// When to call [`Self::advance`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.isps.values().flat_map(Isp::paths).filter_map(|path| path.health.next_deadline()).min()
    }

    /// All that the plan depends on apart from the network and the config: while it is the same, so is the plan.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<Fingerprint> {
        self.isps.values().map(Isp::fingerprint).collect()
    }

    /// What the kernel should look like now.
    #[must_use]
    pub fn plan(&self, instance: &str, facts: &SysctlFacts) -> Plan {
        planner::plan(self, instance, facts)
    }

    /// The ISP of that name, whatever its case.
    #[must_use]
    pub fn isp_named(&self, name: &str) -> Option<IspId> {
        self.isps.iter().find(|(_, isp)| isp.config.name.eq_ignore_ascii_case(name)).map(|(&id, _)| id)
    }

    /// What only the daemon knows of the ISPs.
    #[must_use]
    pub fn quality(&self, now: Instant) -> BTreeMap<String, Quality> {
        self.isps.values().map(|isp| (isp.config.name.clone(), isp.quality(now))).collect()
    }

    /// The config in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What the config in force says of flows.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        in_force::in_force(self)
    }

    /// The ISPs that can be used now, in either family.
    pub fn usable(&self) -> impl Iterator<Item = &str> {
        let usable = |isp: &&Isp| Family::ALL.iter().any(|&family| isp.is_usable(family));
        self.isps.values().filter(usable).map(|isp| isp.config.name.as_str())
    }

    /// The mark's bits.
    #[must_use]
    pub const fn mask(&self) -> MarkMask {
        self.mask
    }

    /// The addresses of each ISP, by which flows that are older than us are known.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IspId, Vec<std::net::IpAddr>)> {
        let addresses = |isp: &Isp| {
            let link = self.network.link_named(&isp.config.device)?;
            Some(self.network.addresses_of(link.index).map(|address| address.net.addr()).collect())
        };
        self.isps.iter().map(|(&id, isp)| (id, addresses(isp).unwrap_or_default())).collect()
    }

    /// By which ISPs new flows go, now that the maps are as planned.
    #[must_use]
    pub fn forecast(&self, maps: &plan::MapPlan, seed: u64) -> Forecast {
        Forecast::new(self, maps, seed)
    }

    /// The prefixes whose hosts use one ISP and no other, up or down, with that ISP. No two of them overlap.
    #[must_use]
    pub fn source_prefixes(&self) -> Vec<(Ipv6Net, IspId)> {
        ipv6::source_prefixes(self)
    }

    /// The ISPs that have no way out in a family, and why.
    pub fn pathless(&self, family: Family) -> impl Iterator<Item = (&str, &str)> {
        self.isps.values().filter_map(move |isp| {
            let why = isp.path(family).next_hop.as_ref().err()?;
            Some((isp.config.name.as_str(), why.0.as_str()))
        })
    }

    fn reload(&mut self, config: Config, now: Instant) {
        let Ok(mask) = mask_of(&config) else { return };
        self.mask = mask;
        self.policies = Policies::new(&config, &self.policies.names());
        self.config = config;
        let known = self.isps.iter().map(|(&id, isp)| (isp.config.name.clone(), id)).collect();
        let mut old = std::mem::take(&mut self.isps);
        for (id, config) in assign_ids(&self.config, mask, &known, &self.removed) {
            let isp = match old.remove(&id) {
                Some(isp) => isp.reconfigure(config, now),
                None => Isp::new(id, config, now),
            };
            self.removed.remove(&id);
            self.isps.insert(id, isp);
        }
        self.removed.extend(old.into_keys());
        self.changes.keep(&self.isps);
        self.update_paths(now);
    }

    fn update_paths(&mut self, now: Instant) {
        for isp in self.isps.values_mut() {
            for family in Family::ALL {
                isp.update_path(family, &self.network, now);
            }
            isp.delegated.update(&isp.config, &self.network);
        }
    }

    fn poll(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (&id, isp) in &mut self.isps {
            for family in Family::ALL {
                let probes = isp.path_mut(family).health.poll(now);
                for probe in &probes {
                    self.changes.tally(id).sent(family, probe.sequence, now);
                }
                effects.extend(probes.into_iter().map(|probe| Effect::Probe { isp: id, family, probe }));
            }
        }
        effects
    }

    /// Brings what follows from the paths' health up to date: who is usable, and in which order the others fell out.
    fn settle(&mut self, now: Instant) {
        for family in Family::ALL {
            let usable: BTreeSet<IspId> =
                self.isps.iter().filter(|(_, isp)| isp.is_usable(family)).map(|(&id, _)| id).collect();
            for (id, isp) in &mut self.isps {
                let others = usable.iter().any(|other| other != id);
                isp.path_mut(family).health.set_others_usable(others, now);
            }
        }
        // Only now: one family may go by the health of the other.
        for family in Family::ALL {
            for isp in self.isps.values_mut() {
                isp.follow_quality(family, now);
                isp.settle(family, &mut self.downs);
            }
        }
    }

    fn renumbered(&mut self) -> Vec<Effect> {
        let renumbered = self.isps.values_mut().filter(|isp| isp.config.ipv6 == Ipv6Mode::Npt);
        let renumbered = renumbered.filter_map(|isp| isp.delegated.take_renumbered().then_some(isp.id));
        renumbered.map(|isp| Effect::Renumbered { isp }).collect()
    }

    fn returned(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (&id, isp) in &mut self.isps {
            for family in Family::ALL {
                if isp.path_mut(family).absence.take_end() {
                    effects.push(Effect::Returned { isp: id, family });
                }
            }
        }
        effects
    }

    /// Flows of an ISP that stopped working are cut loose as soon as there is another one for them, and not before:
    /// with nowhere to go they are better off waiting for it to come back. Those of an ISP that is forced up stay: it
    /// is to be used whatever its health.
    fn delete_flows(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for family in Family::ALL {
            let usable: BTreeSet<IspId> =
                self.isps.iter().filter(|(_, isp)| isp.is_usable(family)).map(|(&id, _)| id).collect();
            for (&id, isp) in &mut self.isps {
                let in_use = usable.contains(&id);
                if isp.path(family).stranded && !in_use && !usable.is_empty() {
                    isp.path_mut(family).stranded = false;
                    // Flows from the ISP's own prefix are not translated, and have nowhere else to go.
                    let waits = family == Family::V6 && isp.config.ipv6 == Ipv6Mode::Source;
                    effects.push(Effect::DeleteFlows { isp: id, family, reset: !waits });
                }
            }
        }
        if self.isps.values().any(|isp| Family::ALL.iter().any(|&family| isp.is_usable(family))) {
            for isp in std::mem::take(&mut self.removed) {
                effects.extend(Family::ALL.map(|family| Effect::DeleteFlows { isp, family, reset: true }));
            }
        }
        effects
    }
}

/// What only the daemon knows of an ISP.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quality {
    /// Smoothed round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its variation.
    pub jitter_ms: Option<f64>,
    /// Lost probes, in percent.
    pub loss_percent: Option<f64>,
    /// Milliseconds since something came in by its device; none if nothing has since the daemon started.
    pub received_ms_ago: Option<u64>,
    /// Why it is in its state, if there is anything to say.
    pub reason: Option<String>,
    /// How it is with its quota, if it has one.
    pub quota: Option<QuotaStatus>,
    /// How full it is, if that matters.
    pub spill_over: Option<SpillStatus>,
}
