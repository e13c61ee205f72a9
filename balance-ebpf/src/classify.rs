//! Which policy a flow has: the first rule that is about it.
//!
//! Every field of the flow has a class, and a class the set of rules that do not exclude it. The rules about the flow are in
//! all of these sets. So the cost does not depend on how many rules there are, and hardly on what they say: words
//! of the sets that are empty for any field are skipped.

use core::hint::black_box;

use aya_ebpf::maps::lpm_trie::Key;
use balance_common::layout::{
    ACTIVE_RULES, MAX_RULES, RULE_PREFIX_HEAD, RuleClass, RuleFields, class_copy, rule_prefix_key,
};
use balance_common::{Address, Flow, PolicyId};

use crate::maps::{ACTIVE, RULE_CLASSES, RULE_FIELDS, RULE_PREFIXES};

const WORDS: usize = MAX_RULES / 64;

/// The rules in force, if there are any.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    fields: &'static RuleFields,
    copy: u32,
}

impl Rules {
    #[inline(always)]
    pub(crate) fn in_force() -> Option<Self> {
        let copy = *ACTIVE.get(ACTIVE_RULES)?;
        let fields = RULE_FIELDS.get(copy & 1)?;
        (fields.count != 0).then_some(Self { fields, copy })
    }

    /// Does any of them ask for a DSCP?
    #[inline(always)]
    pub(crate) const fn ask_dscp(&self) -> bool {
        self.fields.asks_dscp != 0
    }

    /// The number of the policy of a flow, or `BYPASS`.
    #[inline(always)]
    pub(crate) fn policy(&self, flow: &Flow, lan: u8, dscp: u8) -> u8 {
        self.first(flow, lan, dscp).unwrap_or(PolicyId::DEFAULT.get())
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the words of all classes are as many")]
    fn first(&self, flow: &Flow, lan: u8, dscp: u8) -> Option<u8> {
        let fields = self.fields;
        let source = self.class(self.prefix(false, flow.source)?)?;
        let destination = self.class(self.prefix(true, flow.destination)?)?;
        let protocol = self.class(*fields.protocols.get(flow.protocol as usize)?)?;
        let source_port = self.class(*fields.source_ports.get(flow.source_port as usize)?)?;
        let destination_port = self.class(*fields.destination_ports.get(flow.destination_port as usize)?)?;
        let lan = self.class(*fields.lans.get(lan as usize)?)?;
        let dscp = self.class(*fields.dscps.get((dscp & 63) as usize)?)?;
        let summary = source.summary
            & destination.summary
            & protocol.summary
            & source_port.summary
            & destination_port.summary
            & lan.summary
            & dscp.summary;
        for word in 0..WORDS {
            if summary >> word & 1 == 0 {
                continue;
            }
            let rules = source.words[word]
                & destination.words[word]
                & protocol.words[word]
                & source_port.words[word]
                & destination_port.words[word]
                & lan.words[word]
                & dscp.words[word];
            if rules != 0 {
                // The compiler knows that this is in bounds; the verifier wants to see it checked.
                let rule = black_box(word * 64 + rules.trailing_zeros() as usize);
                return fields.policies.get(rule).copied();
            }
        }
        None
    }

    #[inline(always)]
    fn prefix(&self, is_destination: bool, address: Address) -> Option<u16> {
        let key = Key::new(RULE_PREFIX_HEAD + 128, rule_prefix_key(self.copy, is_destination, address));
        RULE_PREFIXES.get(key).copied()
    }

    #[inline(always)]
    fn class(&self, class: u16) -> Option<&'static RuleClass> {
        RULE_CLASSES.get(class_copy(class, self.copy))
    }
}
