//! Asking the rules in force about very many flows.

use std::cell::RefCell;
use std::collections::HashMap;

use aya::maps::lpm_trie::Key;
use balance_common::layout::{
    ACTIVE_RULES, MAX_RULES, RULE_PREFIX_HEAD, RuleClass, RuleFields, class_copy, rule_prefix_key,
};
use balance_common::{Address, Flow, PolicyId};

use super::{DatapathError, Maps, map_error};
use crate::rules::first;

/// The rules in force when it was made. What is the same for all flows is read once.
pub struct Ruler<'a> {
    maps: &'a Maps,
    copy: u32,
    fields: Box<RuleFields>,
    classes: RefCell<HashMap<u16, RuleClass>>,
    /// One of each class of DSCPs.
    dscps: Vec<u8>,
}

impl Maps {
    /// Asks the rules in force.
    pub fn ruler(&self) -> Result<Ruler<'_>, DatapathError> {
        let copy = self.active.get(&ACTIVE_RULES, 0).map_err(map_error("ACTIVE"))? & 1;
        let fields = Box::new(self.rules.fields.get(&copy, 0).map_err(map_error("RULE_FIELDS"))?);
        let mut dscps = vec![0];
        if fields.asks_dscp != 0 {
            let mut classes: HashMap<u16, u8> = HashMap::new();
            for (dscp, &class) in (0..).zip(&fields.dscps) {
                classes.entry(class).or_insert(dscp);
            }
            dscps = classes.into_values().collect();
        }
        Ok(Ruler { maps: self, copy, fields, classes: RefCell::default(), dscps })
    }
}

impl Ruler<'_> {
    /// The first rule that is about a flow from that LAN with that DSCP, from 0, and the policy, or
    /// [`balance_common::layout::BYPASS`], that it leads to; without one, that of flows that no rule is about.
    #[must_use]
    pub fn ruling(&self, flow: &Flow, lan: u8, dscp: u8) -> (Option<usize>, u8) {
        let prefix = |is_destination, address| {
            let key = Key::new(RULE_PREFIX_HEAD + 128, rule_prefix_key(self.copy, is_destination, address));
            self.maps.rules.prefixes.get(&key, 0).ok()
        };
        let rule = first(&self.fields, (flow, lan, dscp), prefix, |class| self.class(class));
        let policy =
            rule.filter(|&rule| rule < MAX_RULES).and_then(|rule| self.fields.policies.get(rule).copied());
        (rule, policy.unwrap_or(PolicyId::DEFAULT.get()))
    }

    /// The same for a flow that may be from any of these LANs, with any DSCP; none if it depends on that.
    #[must_use]
    pub fn ruling_of_any(&self, flow: &Flow, lans: &[u8]) -> Option<(Option<usize>, u8)> {
        let mut rulings =
            lans.iter().flat_map(|&lan| self.dscps.iter().map(move |&dscp| self.ruling(flow, lan, dscp)));
        let ruling = rulings.next()?;
        rulings.all(|other| other == ruling).then_some(ruling)
    }

    /// Is an address in a prefix that is never balanced?
    #[must_use]
    pub fn is_local(&self, address: Address) -> bool {
        self.maps.local.get(&Key::new(128, address.octets()), 0).is_ok()
    }

    fn class(&self, class: u16) -> Option<RuleClass> {
        if let Some(known) = self.classes.borrow().get(&class) {
            return Some(*known);
        }
        let read = self.maps.rules.classes.get(&class_copy(class, self.copy), 0).ok()?;
        self.classes.borrow_mut().insert(class, read);
        Some(read)
    }
}
