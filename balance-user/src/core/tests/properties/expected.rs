//! What must hold, worked out from plans alone.

use super::*;

/// What has to hold of every plan by itself.
pub(super) fn check_plan(world: &World, plan: &Plan) {
    let isps = &plan.maps.isps;
    assert_eq!(isps.len(), world.core.config().isps.len());
    for family in Family::ALL {
        let usable = |entry: &IspEntry| entry.usable[family as usize] == 1;
        let table = &plan.maps.tables[&(PolicyId::DEFAULT, family)];
        let best = isps.values().filter(|entry| usable(entry)).map(|entry| entry.tier).min();
        let mut in_use: Vec<_> =
            isps.iter().filter(|(_, entry)| usable(entry) && Some(entry.tier) == best).collect();
        if world.core.config().mode == Mode::Failover {
            let heaviest = in_use.iter().map(|(_, entry)| entry.weight).max();
            in_use.retain(|(isp, entry)| Some(entry.weight) == heaviest && table[0] == isp.get());
            assert!(in_use.len() == 1 || best.is_none());
        }
        let total: f64 = in_use.iter().map(|(_, entry)| f64::from(entry.weight)).sum();
        let mut given = 0;
        for (isp, entry) in &in_use {
            let count = count(table, **isp);
            given += count;
            let quota = 4096.0 * f64::from(entry.weight) / total;
            let count = f64::from(u16::try_from(count).unwrap());
            // One more is the price, seldom enough, of moving no bucket but those of the ISP that goes.
            let others_down = plan.maps.isps.values().any(|entry| Some(entry.tier) == best && !usable(entry));
            let tolerance = if others_down { 2.0 } else { 1.0 };
            assert!((count - quota).abs() < tolerance, "{}: {count} buckets of {quota}", entry.name());
        }
        assert_eq!(given, if in_use.is_empty() { 0 } else { 4096 });
        assert!(!in_use.is_empty() || table.iter().all(|&owner| owner == 0));

        for (isp, entry) in isps {
            assert!((1..=1000).contains(&entry.weight));
            assert_eq!(entry.down_order[family as usize] == 0, usable(entry), "{}", entry.name());
            let route = plan.kernel.routes.get(&(1000 + u32::from(isp.get()), family));
            assert!(route.is_some() || !usable(entry), "usable without a route");
            assert!(route.is_none_or(|route| route.next_hops.len() == 1));
        }
        let default = plan.kernel.routes.get(&(1000, family));
        let weights = default.iter().flat_map(|route| &route.next_hops).map(|hop| hop.weight);
        assert!(weights.clone().all(|weight| (1..=256).contains(&weight)));
        assert_eq!(weights.count(), in_use.len());
    }
}

/// When one ISP is the only one to go, or the last that went comes back, and nothing else has changed, only its
/// buckets move.
pub(super) fn check_buckets(before: &Plan, after: &Plan, modes: [Mode; 2]) {
    if modes != [Mode::Balanced; 2] {
        return;
    }
    for family in Family::ALL {
        let index = family as usize;
        let usable = |plan: &Plan| -> BTreeSet<IspId> {
            plan.maps.isps.iter().filter(|(_, entry)| entry.usable[index] == 1).map(|(&isp, _)| isp).collect()
        };
        let tier = |plan: &Plan| {
            plan.maps.isps.values().filter(|entry| entry.usable[index] == 1).map(|entry| entry.tier).min()
        };
        let members = |plan: &Plan| -> Vec<(IspId, u16)> {
            let all = plan.maps.isps.iter().filter(|(_, entry)| Some(entry.tier) == tier(plan));
            all.map(|(&isp, entry)| (isp, entry.weight)).collect()
        };
        if tier(before) != tier(after) || members(before) != members(after) {
            continue;
        }
        let (was, is) = (usable(before), usable(after));
        let (gone, back): (Vec<_>, Vec<_>) =
            (was.difference(&is).copied().collect(), is.difference(&was).copied().collect());
        let last = |isp: IspId| {
            let order = |entry: &IspEntry| entry.down_order[index];
            before.maps.isps.values().all(|entry| order(entry) <= order(&before.maps.isps[&isp]))
        };
        let mover = match (gone.as_slice(), back.as_slice()) {
            ([], []) => None,
            (&[gone], []) => Some(gone),
            ([], &[back]) if last(back) => Some(back),
            _ => continue,
        };
        for (was, is) in before.maps.tables[&(PolicyId::DEFAULT, family)]
            .iter()
            .zip(&after.maps.tables[&(PolicyId::DEFAULT, family)])
        {
            assert!(
                was == is || mover.is_some_and(|mover| [*was, *is].contains(&mover.get())),
                "a bucket went from {was} to {is} when {mover:?} moved"
            );
        }
    }
}

/// What the operator and conntrack have to be told, worked out anew from what plans say.
#[derive(Default)]
pub(super) struct Expected {
    worked: BTreeMap<(String, Family), bool>,
    pub(super) stranded: BTreeSet<(String, Family)>,
    told: BTreeMap<String, (bool, bool, u8)>,
    /// By name, so that the id is that of before.
    ids: BTreeMap<String, IspId>,
    pub(super) removed: BTreeSet<IspId>,
}

impl Expected {
    /// Compares the effects of one call of `advance` with what follows from the plan after it.
    pub(super) fn check(&mut self, world: &World, plan: &Plan, effects: &[Effect]) {
        let isps = &plan.maps.isps;
        let names: BTreeMap<String, IspId> = isps.iter().map(|(&isp, entry)| (entry.name(), isp)).collect();
        let gone: Vec<String> = self.ids.keys().filter(|name| !names.contains_key(*name)).cloned().collect();
        for name in gone {
            self.worked.retain(|(of, _), _| *of != name);
            self.stranded.retain(|(of, _)| *of != name);
            self.told.remove(&name);
            self.removed.extend(self.ids.remove(&name));
        }
        for (name, isp) in &names {
            assert!(
                self.ids.insert(name.clone(), *isp).is_none_or(|before| before == *isp),
                "{name} has a new id"
            );
            assert!(!self.removed.contains(isp), "{name} got an id whose flows are still there");
        }

        let mut deleted = BTreeSet::new();
        for family in Family::ALL {
            let any = isps.values().any(|entry| entry.usable[family as usize] == 1);
            for (isp, entry) in isps {
                let path = (entry.name(), family);
                let has_path = plan.kernel.routes.contains_key(&(1000 + u32::from(isp.get()), family));
                let judge = judge(world, *isp, family);
                let works = has_path && matches!(entry.states[judge as usize], 1 | 2);
                if works {
                    self.stranded.remove(&path);
                } else if self.worked.get(&path) == Some(&true) || entry.usable[family as usize] == 1 {
                    self.stranded.insert(path.clone());
                }
                if any && entry.usable[family as usize] == 0 && self.stranded.remove(&path) {
                    deleted.insert((*isp, family));
                }
                self.worked.insert(path, works);
            }
        }
        if isps.values().any(|entry| entry.usable.contains(&1)) {
            let removed = std::mem::take(&mut self.removed);
            deleted.extend(removed.into_iter().flat_map(|isp| Family::ALL.map(|family| (isp, family))));
        }
        let all: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::DeleteFlows { isp, family, .. } => Some((*isp, *family)),
                _ => None,
            })
            .collect();
        assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), deleted);
        assert_eq!(all.len(), deleted.len(), "twice: {all:?}");

        let mut news = BTreeSet::new();
        for entry in isps.values() {
            let conclusion = (matches!(entry.state, 1 | 2), entry.state == 3, entry.forced);
            if self.told.insert(entry.name(), conclusion) != Some(conclusion) {
                news.insert(entry.name());
                assert_eq!(entry.since, world.clock.epoch_ms(world.now), "since when it was told");
            }
        }
        let announced: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Announce { isp, .. } => Some(isp.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(announced.iter().cloned().collect::<BTreeSet<_>>(), news);
        assert_eq!(announced.len(), news.len(), "twice: {announced:?}");
    }
}
