//! Policies: their numbers, and what the maps say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use balance_common::layout::{BYPASS, PolicyEntry};
use balance_common::{IspId, MAX_ISPS, MarkMask, PolicyId};

use crate::config::Config;
use crate::config::policy::{LastResort, PolicyConfig};
use crate::nat::refuse::Refusals;
use crate::rules::{self, Rules};

/// The policies of a config, with their numbers, and its rules with these.
#[derive(Debug)]
pub(super) struct Policies {
    by_id: BTreeMap<PolicyId, PolicyConfig>,
    rules: Arc<Rules>,
}

impl Policies {
    /// A policy keeps its number in `known`, since what flows have been found to be about stays noted by it.
    pub(super) fn new(config: &Config, known: &BTreeMap<PolicyId, String>) -> Self {
        let id_in = |name: &str| known.iter().find(|(_, one)| *one == name).map(|(&id, _)| id);
        let named = || config.policies.iter().enumerate().skip(1);
        let kept: BTreeSet<PolicyId> = named().filter_map(|(_, policy)| id_in(&policy.name)).collect();
        let mut free = PolicyId::all()
            .filter(|id| *id != PolicyId::DEFAULT && !kept.contains(id))
            .collect::<Vec<_>>()
            .into_iter();
        let mut ids = BTreeMap::from([(0, PolicyId::DEFAULT)]);
        for (place, policy) in named() {
            let id = id_in(&policy.name).filter(|id| *id != PolicyId::DEFAULT).or_else(|| free.next());
            ids.extend(id.map(|id| (place, id)));
        }
        let number = |place| ids.get(&place).map_or(BYPASS, |id| id.get());
        // Config::parse has tried the same.
        let rules = rules::compile(&config.rules, number).unwrap_or_else(|_| Rules::none());
        let by_id =
            ids.iter().filter_map(|(&place, &id)| Some((id, config.policies.get(place)?.clone()))).collect();
        Self { by_id, rules: Arc::new(rules) }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PolicyId, &PolicyConfig)> {
        self.by_id.iter().map(|(&id, policy)| (id, policy))
    }

    /// One of them.
    pub(super) fn get(&self, id: PolicyId) -> Option<&PolicyConfig> {
        self.by_id.get(&id)
    }

    /// The rules.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// Their names, by number.
    pub(super) fn names(&self) -> BTreeMap<PolicyId, String> {
        self.iter().map(|(id, policy)| (id, policy.name.clone())).collect()
    }

    /// The marks of what is refused, if any policy refuses.
    pub(super) fn refusals(&self, mask: MarkMask) -> Option<Refusals> {
        let value = |last_resort| refusal(mask, last_resort).map(|id| mask.value(id));
        let any = self.iter().any(|(_, policy)| policy.last_resort != LastResort::Main);
        let (unreachable, drop) = (value(LastResort::Unreachable)?, value(LastResort::Drop)?);
        any.then_some(Refusals { unreachable, drop })
    }

    /// What the map says of them.
    pub(super) fn entries(&self, mask: MarkMask) -> BTreeMap<PolicyId, PolicyEntry> {
        let entry = |policy: &PolicyConfig| PolicyEntry {
            name: super::planner::padded(&policy.name),
            sticky: policy.sticky as u8,
            last_resort: refusal(mask, policy.last_resort).map_or(0, IspId::get),
            padding: [0; 6],
        };
        self.iter().map(|(id, policy)| (id, entry(policy))).collect()
    }
}

/// The number that stands in the mark, in place of an ISP's, for packets that are to be refused: one of the two next to the
/// highest that there is.
pub(crate) fn refusal(mask: MarkMask, last_resort: LastResort) -> Option<IspId> {
    let highest = u8::try_from(mask.capacity()).unwrap_or(u8::MAX).min(MAX_ISPS);
    let below = match last_resort {
        LastResort::Main => return None,
        LastResort::Unreachable => 1,
        LastResort::Drop => 2,
    };
    IspId::new(highest.checked_sub(below)?)
}

/// What a [`PolicyEntry`] says of flows that no ISP can take.
#[must_use]
pub fn last_resort_of(mask: MarkMask, entry: &PolicyEntry) -> LastResort {
    let refuses = |kind: &LastResort| refusal(mask, *kind).is_some_and(|id| id.get() == entry.last_resort);
    [LastResort::Unreachable, LastResort::Drop].into_iter().find(refuses).unwrap_or(LastResort::Main)
}

/// Does any policy refuse what its ISPs cannot take?
pub(super) fn are_refusing(config: &Config) -> bool {
    config.policies.iter().any(|policy| policy.last_resort != LastResort::Main)
}
