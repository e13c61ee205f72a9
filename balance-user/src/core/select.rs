//! Who takes part in the selection, and with which weight.

use std::collections::BTreeMap;

use balance_common::{Family, IspId, Member, PolicyId, Table, build_table};

use super::Core;
use super::isp::Isp;
use super::weigh::BEST;
use crate::config::Mode;
use crate::config::policy::{Degraded, PolicyConfig, Weights};

/// The selection tables: of every policy in every family.
pub(super) fn tables(core: &Core) -> BTreeMap<(PolicyId, Family), Table> {
    // Many policies are of the same ISPs.
    let mut built: Vec<(Members, Table)> = Vec::new();
    let mut tables = BTreeMap::new();
    for (id, policy) in core.policies.iter() {
        for family in Family::ALL {
            let members = members(core, policy, family);
            if let Some((_, table)) = built.iter().find(|(same, _)| *same == members) {
                tables.insert((id, family), table.clone());
                continue;
            }
            let table = build_table(&members.all, &members.down);
            tables.insert((id, family), table.clone());
            built.push((members, table));
        }
    }
    tables
}

/// The ISPs that new flows of a family go to that no rule is about, with their weights.
pub(super) fn in_use(core: &Core, family: Family) -> BTreeMap<IspId, u16> {
    let Some(policy) = core.policies.get(PolicyId::DEFAULT) else { return BTreeMap::new() };
    let Members { all, down } = members(core, policy, family);
    all.into_iter()
        .filter(|member| !down.contains(&member.isp))
        .map(|member| (member.isp, member.weight))
        .collect()
}

/// The ISPs of the tier in use, with their weights, those that are down included.
pub(super) fn takers(core: &Core, policy: &PolicyConfig, family: Family) -> Vec<Member> {
    members(core, policy, family).all
}

/// The members of a selection, and those of them that are down, in the order in which they went.
#[derive(PartialEq, Eq)]
struct Members {
    all: Vec<Member>,
    down: Vec<IspId>,
}

/// The ISPs of the lowest tier that has one that is usable; in failover mode only the best of these.
fn members(core: &Core, policy: &PolicyConfig, family: Family) -> Members {
    let part = |isp: &Isp| policy.member(&isp.config.name, isp.weight, isp.config.tier);
    let mut isps: Vec<(&Isp, u16, u8)> =
        core.isps.values().filter_map(|isp| part(isp).map(|(weight, tier)| (isp, weight, tier))).collect();
    weigh(&mut isps, policy, policy.weights.unwrap_or(core.config.weights), family);
    // Degraded ones are better than nothing.
    let is_good = |isp: &Isp| isp.is_usable(family) && !isp.is_degraded(family);
    let choosy = policy.degraded == Degraded::Avoid && isps.iter().any(|(isp, ..)| is_good(isp));
    let is_fit = |isp: &Isp| if choosy { is_good(isp) } else { isp.is_usable(family) };
    // Likewise those that carry enough: the tiers are those of the others, as long as there is one.
    let best = isps.iter().filter(|(isp, ..)| is_fit(isp)).map(|(isp, ..)| isp.standing()).min();
    let is_wanted = |isp: &Isp| is_fit(isp) && Some(isp.standing()) == best;
    let usable = || isps.iter().filter(|(isp, ..)| is_wanted(isp));
    let none = Members { all: Vec::new(), down: Vec::new() };
    let Some(tier) = usable().map(|&(_, _, tier)| tier).min() else { return none };
    if policy.mode.unwrap_or(core.config.mode) == Mode::Failover {
        let place = |isp: &Isp| {
            let position = |name: &String| *name == isp.config.name;
            if policy.members.is_empty() {
                core.config.isps.iter().position(|one| position(&one.name))
            } else {
                policy.members.iter().position(|one| position(&one.isp))
            }
        };
        let best = usable()
            .filter(|(_, _, its)| *its == tier)
            .max_by_key(|(isp, weight, _)| (*weight, std::cmp::Reverse(place(isp))));
        let all = best.map(|(isp, ..)| Member { isp: isp.id, weight: 1 }).into_iter().collect();
        return Members { all, down: Vec::new() };
    }
    let of_tier = || isps.iter().filter(|(_, _, its)| *its == tier);
    let all = of_tier().map(|&(isp, weight, _)| Member { isp: isp.id, weight }).collect();
    // Those that are avoided come last, so that their coming back moves no other's buckets.
    let order = |isp: &Isp| isp.path(family).down_order.or_else(|| (!is_wanted(isp)).then_some(u64::MAX));
    let mut down: Vec<(u64, IspId)> = of_tier().filter_map(|(isp, ..)| Some((order(isp)?, isp.id))).collect();
    down.sort_unstable();
    Members { all, down: down.into_iter().map(|(_, id)| id).collect() }
}

/// Turns the weights of a policy's ISPs into those that are in force, for all of them on another scale if need be.
fn weigh(isps: &mut [(&Isp, u16, u8)], policy: &PolicyConfig, weights: Weights, family: Family) {
    let is_reduced = |isp: &Isp| policy.degraded == Degraded::Reduce && isp.is_degraded(family);
    // Tables depend on the weights' proportions alone, but where nothing changes them, numbers are best left as they are.
    if weights == Weights::Fixed && !isps.iter().any(|(isp, ..)| is_reduced(isp)) {
        return;
    }
    for (isp, weight, _) in isps {
        let factor = match weights {
            Weights::Fixed => BEST,
            Weights::Quality => isp.worth(family),
        };
        let full = weight.saturating_mul(u16::from(factor));
        *weight = if is_reduced(isp) { (full / 4).max(1) } else { full };
    }
}
