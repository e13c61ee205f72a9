//! Policies and rules in the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map, MapData};
use balance_common::layout::{
    ACTIVE_RULES, PolicyEntry, RULE_PREFIX_HEAD, RuleClass, RuleFields, RulePrefixKey, class_copy,
    rule_prefix_key,
};
use balance_common::{Flow, PolicyId};

use super::{DatapathError, Maps, Pins, map_error, open};
use crate::rules::Rules;

/// The maps of policies and rules.
pub(super) struct RuleMaps {
    policies: Array<MapData, PolicyEntry>,
    pub(super) prefixes: LpmTrie<MapData, RulePrefixKey, u16>,
    pub(super) fields: Array<MapData, RuleFields>,
    pub(super) classes: Array<MapData, RuleClass>,
    /// What we have put in force; none: whatever an earlier daemon has left.
    in_force: Option<Arc<Rules>>,
}

impl RuleMaps {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            policies: open(pins, "POLICIES", Map::Array)?,
            prefixes: open(pins, "RULE_PREFIXES", Map::LpmTrie)?,
            fields: open(pins, "RULE_FIELDS", Map::Array)?,
            classes: open(pins, "RULE_CLASSES", Map::Array)?,
            in_force: None,
        })
    }
}

impl Maps {
    /// The policies that have an entry.
    pub fn policies(&self) -> Result<BTreeMap<PolicyId, PolicyEntry>, DatapathError> {
        let all = PolicyId::all().map(|id| Ok((id, self.policy(id)?)));
        all.filter(|entry| !entry.as_ref().is_ok_and(|(_, entry)| entry.name == [0; 32])).collect()
    }

    /// The first of the rules in force that is about a flow from that LAN with that DSCP, from 0, and the policy, or
    /// [`balance_common::layout::BYPASS`], that it leads to; without one, that of flows that no rule is about.
    pub fn ruling(&self, flow: &Flow, lan: u8, dscp: u8) -> Result<(Option<usize>, u8), DatapathError> {
        Ok(self.ruler()?.ruling(flow, lan, dscp))
    }

    /// Writes the policies, before anything leads to them.
    pub(super) fn apply_policies(
        &mut self,
        plan: &BTreeMap<PolicyId, PolicyEntry>,
    ) -> Result<(), DatapathError> {
        for (&id, &wanted) in plan {
            self.set_policy(id, wanted)?;
        }
        Ok(())
    }

    /// Empties the entries of policies that are no more, when nothing leads to them.
    pub(super) fn forget_policies(
        &mut self,
        plan: &BTreeMap<PolicyId, PolicyEntry>,
    ) -> Result<(), DatapathError> {
        for id in PolicyId::all().filter(|id| !plan.contains_key(id)) {
            self.set_policy(id, PolicyEntry::default())?;
        }
        Ok(())
    }

    /// Writes the rules to the idle copy and flips the index. What has been found for flows is void then.
    pub(super) fn apply_rules(&mut self, plan: &Arc<Rules>) -> Result<(), DatapathError> {
        if self.rules.in_force.as_ref() == Some(plan) {
            return Ok(());
        }
        let active = self.active.get(&ACTIVE_RULES, 0).map_err(map_error("ACTIVE"))?;
        let idle = (active & 1) ^ 1;
        for (class, bits) in (0..).zip(&plan.classes) {
            self.rules.classes.set(class_copy(class, idle), bits, 0).map_err(map_error("RULE_CLASSES"))?;
        }
        self.rules.fields.set(idle, plan.fields.as_ref(), 0).map_err(map_error("RULE_FIELDS"))?;
        self.apply_rule_prefixes(plan, idle)?;
        self.active.set(ACTIVE_RULES, idle, 0).map_err(map_error("ACTIVE"))?;
        self.renew_generation()?;
        self.rules.in_force = Some(Arc::clone(plan));
        Ok(())
    }

    fn apply_rule_prefixes(&mut self, plan: &Rules, copy: u32) -> Result<(), DatapathError> {
        let key = |is_destination, address: [u8; 16], length: u8| {
            let data = rule_prefix_key(copy, is_destination, balance_common::Address::v6(address));
            (data, RULE_PREFIX_HEAD + u32::from(length))
        };
        let wanted: BTreeMap<(RulePrefixKey, u32), u16> = plan
            .prefixes
            .iter()
            .map(|(&(is_destination, address, length), &class)| (key(is_destination, address, length), class))
            .collect();
        let prefixes = &mut self.rules.prefixes;
        let present: BTreeSet<(RulePrefixKey, u32)> = prefixes
            .keys()
            .flatten()
            .map(|key| (key.data(), key.prefix_len()))
            .filter(|(data, _)| u32::from(data.copy) == copy)
            .collect();
        for &(data, length) in present.iter().filter(|key| !wanted.contains_key(*key)) {
            prefixes.remove(&Key::new(length, data)).map_err(map_error("RULE_PREFIXES"))?;
        }
        for (&(data, length), &class) in &wanted {
            prefixes.insert(&Key::new(length, data), class, 0).map_err(map_error("RULE_PREFIXES"))?;
        }
        Ok(())
    }

    fn policy(&self, id: PolicyId) -> Result<PolicyEntry, DatapathError> {
        self.rules.policies.get(&u32::from(id.get()), 0).map_err(map_error("POLICIES"))
    }

    fn set_policy(&mut self, id: PolicyId, entry: PolicyEntry) -> Result<(), DatapathError> {
        if self.policy(id)? == entry {
            return Ok(());
        }
        self.rules.policies.set(u32::from(id.get()), entry, 0).map_err(map_error("POLICIES"))
    }
}
