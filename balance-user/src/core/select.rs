//! Who takes part in the selection, and with which weight.

use std::collections::BTreeMap;

use balance_common::{Family, IspId, Member, Table, build_table};

use super::Core;
use crate::config::Mode;

/// The selection table of a family.
pub(super) fn table(core: &Core, family: Family) -> Table {
    let (members, down) = members(core, family);
    build_table(&members, &down)
}

/// The ISPs that new flows of a family go to, with their weights.
pub(super) fn in_use(core: &Core, family: Family) -> BTreeMap<IspId, u16> {
    let (members, down) = members(core, family);
    members
        .into_iter()
        .filter(|member| !down.contains(&member.isp))
        .map(|member| (member.isp, member.weight))
        .collect()
}

/// The members of the selection, and those of them that are down, in the order in which they went: the ISPs of the
/// lowest tier that has one that is usable; in failover mode only the best of these.
fn members(core: &Core, family: Family) -> (Vec<Member>, Vec<IspId>) {
    let usable = || core.isps.values().filter(|isp| isp.is_usable(family));
    let Some(tier) = usable().map(|isp| isp.config.tier).min() else { return (Vec::new(), Vec::new()) };
    if core.config.mode == Mode::Failover {
        let position = |id: IspId| {
            core.isps
                .get(&id)
                .and_then(|isp| core.config.isps.iter().position(|one| one.name == isp.config.name))
        };
        let best = usable()
            .filter(|isp| isp.config.tier == tier)
            .max_by_key(|isp| (isp.weight, std::cmp::Reverse(position(isp.id))));
        return (best.map(|isp| Member { isp: isp.id, weight: 1 }).into_iter().collect(), Vec::new());
    }
    let of_tier = || core.isps.values().filter(|isp| isp.config.tier == tier);
    let members = of_tier().map(|isp| Member { isp: isp.id, weight: isp.weight }).collect();
    let mut down: Vec<(u64, IspId)> =
        of_tier().filter_map(|isp| Some((isp.path(family).down_order?, isp.id))).collect();
    down.sort_unstable();
    (members, down.into_iter().map(|(_, id)| id).collect())
}
