//! By which ISP a flow would go if it began now: what the eBPF programs decide, decided here as far as it can be known.

use std::collections::{BTreeMap, BTreeSet};

use balance_common::layout::BucketTable;
use balance_common::{Address, Family, Flow, IspId, PolicyId, Sticky, bucket_of};
use ipnet::IpNet;

use super::Core;
use super::plan::MapPlan;
use crate::config::policy::{Failback, PolicyConfig, RuleConfig, RuleTarget, contains, lan_number};

/// All that decides about flows from the LANs.
#[derive(Clone, Debug)]
pub struct Forecast {
    rules: Vec<Rule>,
    /// By their places in the config.
    policies: BTreeMap<usize, Policy>,
    tables: BTreeMap<(PolicyId, Family), BucketTable>,
    /// The networks of the LANs, with their numbers.
    lans: Vec<(IpNet, u8)>,
    /// The addresses of this machine.
    own: BTreeSet<Address>,
    /// What is never balanced.
    local: BTreeSet<IpNet>,
    /// Sources that have an ISP of their own.
    sources: Vec<IpNet>,
    seed: u64,
}

/// A rule without the DSCPs that it asks for, which nobody knows of a flow that exists.
#[derive(Clone, Debug)]
struct Rule {
    config: RuleConfig,
    asks_dscp: bool,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    id: PolicyId,
    sticky: Sticky,
    failback: Failback,
}

impl Forecast {
    pub(super) fn new(core: &Core, maps: &MapPlan, seed: u64) -> Self {
        let config = &core.config;
        let rule = |rule: &RuleConfig| Rule {
            asks_dscp: !rule.dscps.is_empty(),
            config: RuleConfig { dscps: Vec::new(), ..rule.clone() },
        };
        let policy = |(place, policy): (usize, &PolicyConfig)| {
            let (id, _) = core.policies.iter().find(|(_, one)| one.name == policy.name)?;
            let failback = policy.failback.unwrap_or(config.failback);
            Some((place, Policy { id, sticky: policy.sticky, failback }))
        };
        Self {
            rules: config.rules.iter().map(rule).collect(),
            policies: config.policies.iter().enumerate().filter_map(policy).collect(),
            tables: maps.tables.clone(),
            lans: lans(core),
            own: core.network.addresses.iter().map(|address| address.net.addr().into()).collect(),
            local: maps.local.clone(),
            sources: core.source_prefixes().into_iter().map(|(prefix, _)| prefix.into()).collect(),
            seed,
        }
    }

    /// What becomes of flows when an ISP is back, in any policy.
    pub fn failbacks(&self) -> impl Iterator<Item = Failback> {
        self.policies.values().map(|policy| policy.failback)
    }

    /// The ISP that the flow would have, and what its policy says of failback. None if it would have none, or if that cannot be
    /// known: if it is not from a LAN, as those from outside and this machine's own, or if its DSCP might decide.
    #[must_use]
    pub fn isp_of(&self, flow: &Flow) -> Option<(IspId, Failback)> {
        let is_local = || self.local.iter().any(|prefix| contains(*prefix, flow, flow.destination));
        let has_its_own = || self.sources.iter().any(|prefix| contains(*prefix, flow, flow.source));
        let lan = self.lan_of(flow)?;
        if self.own.contains(&flow.source) || is_local() || has_its_own() {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.config.is_about(flow, lan, 0));
        let place = match rule {
            None => 0,
            Some(Rule { asks_dscp: true, .. }) => return None,
            Some(Rule { config, .. }) => match config.to {
                RuleTarget::Policy(place) => place,
                RuleTarget::Bypass => return None,
            },
        };
        let policy = self.policies.get(&place)?;
        let table = self.tables.get(&(policy.id, flow.family))?;
        let bucket = bucket_of(policy.sticky.key(*flow).hash(self.seed));
        Some((IspId::new(*table.get(bucket)?)?, policy.failback))
    }

    /// The LAN whose network has the source; none if two LANs have the same network.
    fn lan_of(&self, flow: &Flow) -> Option<u8> {
        let around = || self.lans.iter().filter(|(network, _)| contains(*network, flow, flow.source));
        let longest = around().map(|(network, _)| network.prefix_len()).max()?;
        let mut lans = around().filter(|(network, _)| network.prefix_len() == longest).map(|&(_, lan)| lan);
        let lan = lans.next()?;
        lans.all(|other| other == lan).then_some(lan)
    }
}

/// The networks that the LANs' devices are part of, and those behind them that the config knows of.
fn lans(core: &Core) -> Vec<(IpNet, u8)> {
    let mut networks = Vec::new();
    for (place, lan) in core.config.lans.iter().enumerate() {
        let number = lan_number(place);
        let connected =
            core.network.link_named(&lan.device).map(|link| core.network.addresses_of(link.index));
        networks.extend(connected.into_iter().flatten().map(|address| (address.network(), number)));
        let behind = core.config.routes.iter().filter(|route| route.device == lan.device);
        networks.extend(behind.map(|route| (route.to, number)));
    }
    networks
}
