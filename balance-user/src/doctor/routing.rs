//! Ways out, and rules and routes of others.

use balance_common::{Family, IspId, MarkMask};

use super::{Facts, Finding, problem, warning};
use crate::config::{Config, IspConfig, RoutingConfig};
use crate::core::why_no_way;
use crate::netlink::foreign::ForeignRule;

/// `RT_TABLE_DEFAULT`, `_MAIN` and `_LOCAL`.
const OF_THE_SYSTEM: [u32; 3] = [253, 254, 255];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        facts.good_config().into_iter().flat_map(|config| ways(facts, config)).collect();
    let RoutingConfig { table, priority } = facts.routing();
    findings.extend(facts.rules.iter().filter_map(|rule| clash(facts, rule, priority)));
    findings.extend(facts.routes.iter().map(|route| {
        let (family, destination) = (flag(route.family), &route.destination);
        let what = format!(
            "table {} is ours and has a route of somebody else (protocol {}): {destination}",
            route.table, route.protocol
        );
        let fix =
            format!("ip{family} route del {destination} table {}, or `table` in [routing]", route.table);
        problem("routing", what, fix)
    }));
    let taken = facts
        .rules
        .iter()
        .filter(|rule| rule.priority < priority || rule.priority >= priority + RoutingConfig::PRIORITIES);
    let ours = table..table + RoutingConfig::TABLES;
    findings.extend(taken.filter(|rule| rule.table.is_some_and(|table| ours.contains(&table))).map(|rule| {
        let what = format!("a rule of somebody else (priority {}) leads to a table of ours", rule.priority);
        warning("routing", what, format!("ip{} rule del priority {}", flag(rule.family), rule.priority))
    }));
    findings
}

/// ISPs that have no way out.
fn ways(facts: &Facts, config: &Config) -> Vec<Finding> {
    config.isps.iter().filter_map(|isp| way(facts, isp)).collect()
}

fn way(facts: &Facts, isp: &IspConfig) -> Option<Finding> {
    let known = facts.gateways.get(&isp.name).copied().unwrap_or_default();
    let why = |family: Family| {
        let why = why_no_way(isp, family, &facts.network)?;
        let is_known = known.get(family as usize).is_some_and(|known| *known);
        // It was there; some DHCP clients take away each other's routes.
        (!(is_known && why.contains("gateway"))).then_some(why)
    };
    let (v4, v6) = (why(Family::V4), why(Family::V6));
    let (name, device) = (&isp.name, &isp.device);
    let fix = |why: &str| {
        if why.contains("gateway") {
            format!("gateway = \"...\" in the [[isp]] {name}, or a DHCP client that makes a default route")
        } else if why.contains("switched off") {
            format!("ip link set {device} up")
        } else if why.contains("carrier") {
            "look at the cable and the modem".to_owned()
        } else if why.contains("address") {
            format!("get an address: DHCP, PPP, or ip address add ... dev {device}")
        } else {
            format!("`ip link` shows what there is; device = \"...\" in the [[isp]] {name}")
        }
    };
    match (v4, v6) {
        (Some(v4), Some(_)) => Some(problem("isp", format!("{name} has no way out: {v4}"), fix(&v4))),
        (Some(why), None) | (None, Some(why)) if why.contains("gateway") => {
            Some(warning("isp", format!("{name} has an address without a way out: {why}"), fix(&why)))
        }
        _ => None,
    }
}

/// A rule that takes, or may take, what is ours.
fn clash(facts: &Facts, rule: &ForeignRule, first: u32) -> Option<Finding> {
    let number = rule.priority;
    let delete = format!("ip{} rule del priority {number}", flag(rule.family));
    let comes_first = number < first + RoutingConfig::PRIORITIES;
    if let Some((value, mask)) = rule.mark.filter(|_| comes_first)
        && takes_ours(facts, value, mask)
    {
        let what =
            format!("the rule of priority {number} takes packets with a mark of ours ({value:#x}/{mask:#x})");
        let fix = format!("other bits for one of the two: `mask` in [mark], or {delete}");
        return Some(problem("mark", what, fix));
    }
    if (first..first + RoutingConfig::PRIORITIES).contains(&number) {
        let what = format!("a rule of somebody else has priority {number}, which is among ours");
        return Some(warning("routing", what, format!("`priority` in [routing], or {delete}")));
    }
    let table = rule.table.filter(|table| !OF_THE_SYSTEM.contains(table))?;
    (rule.is_about_all && number < first).then(|| {
        let what = format!("the rule of priority {number} leads all traffic to table {table} before us");
        let fix = format!(
            "a priority above {} for it, unless it is a VPN that shall win",
            first + RoutingConfig::PRIORITIES
        );
        warning("routing", what, fix)
    })
}

/// Does a rule for this mark take packets that have the mark of an ISP, and no other bits?
fn takes_ours(facts: &Facts, value: u32, mask: u32) -> bool {
    let Some(ours) = MarkMask::new(facts.mask()) else { return false };
    let count = facts.good_config().map_or(1, |config| config.isps.len());
    let marks = IspId::all().take(count).map(|isp| ours.value(isp));
    mask & ours.bits() != 0 && marks.into_iter().any(|mark| mark & mask == value & mask)
}

const fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => " -6",
    }
}
