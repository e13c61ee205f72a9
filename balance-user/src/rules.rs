//! Rules as the eBPF programs read them: for each field of a flow a class, and for each class the rules that it does not rule out.
//!
//! This is the bit-vector scheme of Lakshman and Stiliadis (SIGCOMM 1998), with the summaries of Baboescu and
//! Varghese (SIGCOMM 2001).

mod lookup;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use balance_common::Address;
use balance_common::layout::{BYPASS, MAX_CLASSES, MAX_RULE_PREFIXES, MAX_RULES, RuleClass, RuleFields};
use ipnet::IpNet;

use crate::config::policy::{RuleConfig, RuleTarget};

pub use lookup::first;

/// Compiled rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Rules {
    /// Every field but the addresses.
    pub fields: Box<RuleFields>,
    /// The classes.
    pub classes: Vec<RuleClass>,
    /// The classes of addresses: of sources (false) or destinations, by prefix (its first address, its length of 128 bits).
    pub prefixes: BTreeMap<(bool, [u8; 16], u8), u16>,
}

impl Rules {
    /// No rules: every flow has the default policy.
    #[must_use]
    pub fn none() -> Self {
        Self { fields: empty(), classes: Vec::new(), prefixes: BTreeMap::new() }
    }
}

/// The rules do not fit into the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Of rules.
    #[error("the rules are more than {MAX_RULES}: merge some, lists save rules")]
    Rules,
    /// Of prefixes.
    #[error("the rules up to this one have more than {MAX_RULE_PREFIXES} different prefixes: merge some")]
    Prefixes,
    /// Of combinations.
    #[error(
        "the rules up to this one combine prefixes and ports in more than {MAX_CLASSES} ways: merge some"
    )]
    Classes,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rules of {} classes", self.fields.count, self.classes.len())
    }
}

/// Compiles rules; `policy` gives the number of the policy at a place in the config.
pub fn compile(rules: &[RuleConfig], policy: impl Fn(usize) -> u8) -> Result<Rules, TooMany> {
    if rules.len() > MAX_RULES {
        return Err(TooMany::Rules);
    }
    let mut classes = Classes::default();
    let mut fields = empty();
    fields.count = u32::try_from(rules.len()).map_err(|_| TooMany::Rules)?;
    fields.asks_dscp = u32::from(rules.iter().any(|rule| !rule.dscps.is_empty()));
    for (slot, rule) in fields.policies.iter_mut().zip(rules) {
        *slot = match rule.to {
            RuleTarget::Policy(place) => policy(place),
            RuleTarget::Bypass => BYPASS,
        };
    }
    let single = |asked: &[u8], number| asked.is_empty() || asked.contains(&number);
    for (number, slot) in (0..=u8::MAX).zip(&mut fields.protocols) {
        *slot = classes.of(bits(rules, |rule| single(&rule.protocols, number)))?;
    }
    for (number, slot) in (0..=u8::MAX).zip(&mut fields.lans) {
        *slot = classes.of(bits(rules, |rule| single(&rule.lans, number)))?;
    }
    for (number, slot) in (0..=u8::MAX).zip(&mut fields.dscps) {
        *slot = classes.of(bits(rules, |rule| single(&rule.dscps, number)))?;
    }
    fill_ports(&mut fields.source_ports, rules, |rule| &rule.source_ports, &mut classes)?;
    fill_ports(&mut fields.destination_ports, rules, |rule| &rule.destination_ports, &mut classes)?;
    let mut prefixes = BTreeMap::new();
    fill_prefixes(&mut prefixes, false, rules, |rule| &rule.source, &mut classes)?;
    fill_prefixes(&mut prefixes, true, rules, |rule| &rule.destination, &mut classes)?;
    if u32::try_from(prefixes.len()).is_ok_and(|count| count > MAX_RULE_PREFIXES) {
        return Err(TooMany::Prefixes);
    }
    Ok(Rules { fields, classes: classes.in_order(), prefixes })
}

type Bits = [u64; MAX_RULES / 64];

/// The classes so far, with their numbers.
#[derive(Default)]
struct Classes(BTreeMap<RuleClass, u16>);

impl Classes {
    fn of(&mut self, words: Bits) -> Result<u16, TooMany> {
        let used = words.iter().enumerate().filter(|&(_, &word)| word != 0);
        let class = RuleClass { summary: used.map(|(word, _)| 1 << word).sum(), words };
        let next = self.0.len();
        match self.0.get(&class) {
            Some(&number) => Ok(number),
            None if next >= MAX_CLASSES as usize => Err(TooMany::Classes),
            None => {
                let number = u16::try_from(next).map_err(|_| TooMany::Classes)?;
                self.0.insert(class, number);
                Ok(number)
            }
        }
    }

    fn in_order(self) -> Vec<RuleClass> {
        let by_number: BTreeMap<u16, RuleClass> =
            self.0.into_iter().map(|(class, number)| (number, class)).collect();
        by_number.into_values().collect()
    }
}

fn empty() -> Box<RuleFields> {
    // On the stack it would be too large for threads with a small one.
    // SAFETY: these are integers, of which all bits may be zero.
    unsafe { Box::new_zeroed().assume_init() }
}

fn bits(rules: &[RuleConfig], allows: impl Fn(&RuleConfig) -> bool) -> Bits {
    let mut words = [0; MAX_RULES / 64];
    for (word, rules) in words.iter_mut().zip(rules.chunks(64)) {
        for (bit, _) in rules.iter().enumerate().filter(|(_, rule)| allows(rule)) {
            *word |= 1 << bit;
        }
    }
    words
}

/// Ports between two at which a range begins, or has just ended, are of one class.
fn fill_ports(
    slots: &mut [u16],
    rules: &[RuleConfig],
    ranges: impl Fn(&RuleConfig) -> &Vec<RangeInclusive<u16>>,
    classes: &mut Classes,
) -> Result<(), TooMany> {
    let all = || rules.iter().flat_map(&ranges);
    let ends = all().filter_map(|range| range.end().checked_add(1));
    let starts: BTreeSet<u16> = all().map(|range| *range.start()).chain(ends).chain([0]).collect();
    let mut class = 0;
    for (port, slot) in (0..=u16::MAX).zip(slots) {
        if starts.contains(&port) {
            let allows = |ranges: &[RangeInclusive<u16>]| {
                ranges.is_empty() || ranges.iter().any(|one| one.contains(&port))
            };
            class = classes.of(bits(rules, |rule| allows(ranges(rule))))?;
        }
        *slot = class;
    }
    Ok(())
}

/// A prefix allows what asks for nothing, for it, or for one that contains it.
fn fill_prefixes(
    slots: &mut BTreeMap<(bool, [u8; 16], u8), u16>,
    is_destination: bool,
    rules: &[RuleConfig],
    prefixes: impl Fn(&RuleConfig) -> &Vec<IpNet>,
    classes: &mut Classes,
) -> Result<(), TooMany> {
    let anything = bits(rules, |rule| prefixes(rule).is_empty());
    let mut asking: BTreeMap<IpNet, Bits> = BTreeMap::new();
    // IPv4 is inside of IPv6 here, but a prefix of all IPv6 does not ask for it.
    for family in ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()) {
        asking.insert(family, [0; MAX_RULES / 64]);
    }
    for (number, rule) in rules.iter().enumerate() {
        for prefix in prefixes(rule) {
            let words = asking.entry(prefix.trunc()).or_insert([0; MAX_RULES / 64]);
            if let Some(word) = words.get_mut(number / 64) {
                *word |= 1 << (number % 64);
            }
        }
    }
    for &prefix in asking.keys() {
        let containing =
            std::iter::successors(Some(prefix), IpNet::supernet).filter_map(|one| asking.get(&one));
        let mut words = anything;
        for asking in containing {
            words.iter_mut().zip(asking).for_each(|(word, asking)| *word |= asking);
        }
        let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
        let key = (is_destination, Address::from(prefix.network()).octets(), mapped + prefix.prefix_len());
        slots.insert(key, classes.of(words)?);
    }
    Ok(())
}
