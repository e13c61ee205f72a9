//! Which ISP has which id.

use std::collections::{BTreeMap, BTreeSet};

use balance_common::{IspId, MAX_ISPS, MarkMask};

use super::policies;
use crate::config::{Config, IspConfig};

/// The config has more ISPs than the mark has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mark mask {mask:#x} has no room for {isps} ISPs")]
pub struct TooManyIsps {
    mask: u32,
    isps: usize,
}

/// The mask of a config whose ISPs all have room in it.
pub(super) fn mask_of(config: &Config) -> Result<MarkMask, TooManyIsps> {
    let too_many = TooManyIsps { mask: config.mark_mask, isps: config.isps.len() };
    let mask = MarkMask::new(config.mark_mask).ok_or(too_many)?;
    if config.isps.len() > highest_id(config, mask) as usize { Err(too_many) } else { Ok(mask) }
}

/// The highest id that an ISP can have. Connections that have lost their ISP have the mark of all bits, and what no ISP can take and
/// is refused has the two next to it, or to the highest id that there is.
pub(super) fn highest_id(config: &Config, mask: MarkMask) -> u32 {
    let ids = mask.capacity().min(u32::from(MAX_ISPS));
    match (policies::are_refusing(config), config.reset) {
        (true, _) => ids.saturating_sub(3),
        (false, true) => ids.min(mask.capacity() - 1),
        (false, false) => ids,
    }
}

/// Gives every ISP of the config an id that fits the mask: the one it has, or else the lowest that is free. An id must
/// stay with its name, because conntrack marks of live flows carry it. `removed` are those whose flows have not been
/// deleted yet.
pub(super) fn assign_ids(
    config: &Config,
    mask: MarkMask,
    known: &BTreeMap<String, IspId>,
    removed: &BTreeSet<IspId>,
) -> Vec<(IspId, IspConfig)> {
    let highest = highest_id(config, mask);
    let fits = |id: &IspId| u32::from(id.get()) <= highest;
    let known_id = |isp: &IspConfig| known.get(&isp.name).copied().filter(fits);
    let kept: BTreeSet<IspId> = config.isps.iter().filter_map(known_id).collect();
    // An id that was just freed still has flows; it is taken only when all others are.
    let freed: BTreeSet<IspId> =
        known.values().chain(removed).copied().filter(|id| !kept.contains(id) && fits(id)).collect();
    let fresh = IspId::all().filter(|id| fits(id) && !kept.contains(id) && !freed.contains(id));
    let mut free = fresh.chain(freed.iter().copied());
    let with_id = |isp: &IspConfig| Some((known_id(isp).or_else(|| free.next())?, isp.clone()));
    config.isps.iter().filter_map(with_id).collect()
}
