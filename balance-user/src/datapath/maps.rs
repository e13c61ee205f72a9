//! The pinned maps, typed.

mod flows;
mod lookup;
mod ruler;
mod rules;
mod stretch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use balance_common::layout::{
    BucketTable, Count, Device, IspCounters, IspEntry, LocalKey, Path, Settings, Verdict, bucket_copy,
    local_key, path_index, table_index,
};
use balance_common::{Family, IspId, MAX_ISPS, PolicyId};
use ipnet::IpNet;

pub use self::lookup::{FlowCache, Incoming};
pub use self::ruler::Ruler;
pub use self::stretch::Stretch;

use self::flows::raised;
use self::rules::RuleMaps;
use super::{DatapathError, Pins};
use crate::core::plan::MapPlan;

/// An instance's maps.
pub struct Maps {
    settings: Array<MapData, Settings>,
    devices: HashMap<MapData, u32, Device>,
    local: LpmTrie<MapData, LocalKey, u8>,
    buckets: Array<MapData, BucketTable>,
    active: Array<MapData, u32>,
    isps: Array<MapData, IspEntry>,
    counters: PerCpuArray<MapData, IspCounters>,
    verdicts: PerCpuArray<MapData, Count>,
    paths: Array<MapData, Path>,
    xdp_targets: DevMapHash<MapData>,
    flows_v4: MapData,
    flows_v6: MapData,
    rules: RuleMaps,
}

impl Maps {
    /// Opens the maps by their pins.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            settings: open(pins, "SETTINGS", Map::Array)?,
            devices: open(pins, "DEVICES", Map::HashMap)?,
            local: open(pins, "LOCAL", Map::LpmTrie)?,
            buckets: open(pins, "BUCKETS", Map::Array)?,
            active: open(pins, "ACTIVE", Map::Array)?,
            isps: open(pins, "ISPS", Map::Array)?,
            counters: open(pins, "COUNTERS", Map::PerCpuArray)?,
            verdicts: open(pins, "VERDICTS", Map::PerCpuArray)?,
            paths: open(pins, "PATHS", Map::Array)?,
            xdp_targets: open(pins, "XDP_TARGETS", Map::DevMapHash)?,
            flows_v4: MapData::from_pin(pins.map("FLOWS_V4")).map_err(map_error("FLOWS_V4"))?,
            flows_v6: MapData::from_pin(pins.map("FLOWS_V6")).map_err(map_error("FLOWS_V6"))?,
            rules: RuleMaps::open(pins)?,
        })
    }

    /// The settings in force; all zero in maps that are new.
    pub fn settings(&self) -> Result<Settings, DatapathError> {
        self.settings.get(&0, 0).map_err(map_error("SETTINGS"))
    }

    /// The ISPs that have an entry.
    pub fn isps(&self) -> Result<BTreeMap<IspId, IspEntry>, DatapathError> {
        IspId::all()
            .map(|isp| Ok((isp, self.isps.get(&u32::from(isp.get()), 0).map_err(map_error("ISPS"))?)))
            .filter(|entry| !entry.as_ref().is_ok_and(|(_, entry)| entry.name == [0; 32]))
            .collect()
    }

    /// The devices that are ours, by index.
    #[must_use]
    pub fn devices(&self) -> BTreeSet<u32> {
        self.devices.keys().flatten().collect()
    }

    /// The same with what they are to us.
    #[must_use]
    pub fn device_entries(&self) -> BTreeMap<u32, Device> {
        self.devices.iter().flatten().collect()
    }

    /// The table in force of a policy in a family.
    pub fn table(&self, policy: PolicyId, family: Family) -> Result<BucketTable, DatapathError> {
        let copy = self.active(policy, family)?;
        self.buckets.get(&bucket_copy(policy, family, copy), 0).map_err(map_error("BUCKETS"))
    }

    /// The longest of the prefixes that are never balanced that an address is in.
    pub fn local_prefix(&self, address: IpAddr) -> Option<IpNet> {
        let keys = self.local.keys().flatten().filter_map(|key| local_net(key.data(), key.prefix_len()));
        keys.filter(|net| net.contains(&address)).max_by_key(IpNet::prefix_len)
    }

    /// What an ISP has carried, summed over the CPUs.
    pub fn counters(&self, isp: IspId) -> Result<IspCounters, DatapathError> {
        let values = self.counters.get(&u32::from(isp.get()), 0).map_err(map_error("COUNTERS"))?;
        Ok(values.iter().fold(IspCounters::default(), |sum, one| IspCounters {
            steered: sum.steered.and(one.steered),
            tx: sum.tx.and(one.tx),
            rx: sum.rx.and(one.rx),
            fast_tx: sum.fast_tx.and(one.fast_tx),
            fast_rx: sum.fast_rx.and(one.fast_rx),
            new_flows: sum.new_flows.wrapping_add(one.new_flows),
            syn_answers: sum.syn_answers.wrapping_add(one.syn_answers),
            syns: std::array::from_fn(|class| {
                let [sum, one] =
                    [sum.syns, one.syns].map(|syns| syns.get(class).copied().unwrap_or_default());
                sum.wrapping_add(one)
            }),
        }))
    }

    /// What became of the packets from the LANs, summed over the CPUs.
    pub fn verdict(&self, verdict: Verdict) -> Result<Count, DatapathError> {
        let values = self.verdicts.get(&(verdict as u32), 0).map_err(map_error("VERDICTS"))?;
        Ok(values.iter().fold(Count::default(), |sum, one| sum.and(*one)))
    }

    /// Makes the maps hold what the plan says, the tables first: they are what takes new flows off a dead ISP.
    /// Nothing is written that is so already.
    pub fn apply(&mut self, plan: &MapPlan) -> Result<(), DatapathError> {
        let before = self.settings()?;
        let seed = if before.seed == 0 { random_seed() } else { before.seed };
        let settings = Settings { seed, generation: before.generation.max(1), ..plan.settings };
        if settings != before {
            self.settings.set(0, settings, 0).map_err(map_error("SETTINGS"))?;
        }
        for (&(policy, family), table) in &plan.tables {
            self.apply_table(policy, family, table)?;
        }
        self.apply_policies(&plan.policies)?;
        self.apply_rules(&plan.rules)?;
        self.forget_policies(&plan.policies)?;
        self.apply_paths(plan)?;
        self.apply_devices(&plan.devices)?;
        self.apply_isps(&plan.isps)?;
        self.apply_local(&plan.local)
    }

    /// Writes the idle copy and flips the index.
    fn apply_table(
        &mut self,
        policy: PolicyId,
        family: Family,
        table: &BucketTable,
    ) -> Result<(), DatapathError> {
        let active = self.active(policy, family)?;
        let in_force =
            self.buckets.get(&bucket_copy(policy, family, active), 0).map_err(map_error("BUCKETS"))?;
        if in_force == *table {
            return Ok(());
        }
        let idle = (active & 1) ^ 1;
        self.buckets.set(bucket_copy(policy, family, idle), table, 0).map_err(map_error("BUCKETS"))?;
        self.active.set(table_index(policy, family), idle, 0).map_err(map_error("ACTIVE"))
    }

    /// Where flows may no longer be learned, or an ISP's device is another one, what was learned is void.
    fn apply_paths(&mut self, plan: &MapPlan) -> Result<(), DatapathError> {
        let left = self.isps()?;
        for isp in 0..=MAX_ISPS {
            let id = IspId::new(isp);
            let device = |isps: &BTreeMap<IspId, IspEntry>| {
                id.and_then(|id| isps.get(&id)).map(|entry| (entry.name, entry.index))
            };
            let moved = device(&left) != device(&plan.isps);
            for family in Family::ALL {
                let index = path_index(isp, family);
                let before = self.path(index)?;
                let learn = plan.learn.contains(&index);
                let is_void = moved || (before.learn != 0 && !learn);
                let generations = if is_void { raised(before.generations) } else { before.generations };
                let after = Path { generations, learn: u32::from(learn) };
                if after != before {
                    self.set_path(index, after)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, index: u8) -> Result<Path, DatapathError> {
        self.paths.get(&u32::from(index), 0).map_err(map_error("PATHS"))
    }

    fn set_path(&mut self, index: u8, path: Path) -> Result<(), DatapathError> {
        self.paths.set(u32::from(index), path, 0).map_err(map_error("PATHS"))
    }

    fn apply_isps(&mut self, plan: &BTreeMap<IspId, IspEntry>) -> Result<(), DatapathError> {
        for isp in IspId::all() {
            let wanted = plan.get(&isp).copied().unwrap_or_default();
            let index = u32::from(isp.get());
            if self.isps.get(&index, 0).map_err(map_error("ISPS"))? != wanted {
                self.isps.set(index, wanted, 0).map_err(map_error("ISPS"))?;
            }
        }
        Ok(())
    }

    /// Lets XDP send packets to the devices of these indices, and to no others.
    pub fn set_xdp_targets(&mut self, wanted: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let present: BTreeSet<u32> = self.xdp_targets.keys().flatten().collect();
        for &index in wanted.difference(&present) {
            self.xdp_targets.insert(index, index, None, 0)?;
        }
        for &index in present.difference(wanted) {
            self.xdp_targets.remove(index).map_err(map_error("XDP_TARGETS"))?;
        }
        Ok(())
    }

    /// Where packets no longer may come in or leave by the fast path, what was learned is void.
    fn apply_devices(&mut self, plan: &BTreeMap<u32, Device>) -> Result<(), DatapathError> {
        let was_fast =
            |maps: &Self, index: &u32| maps.devices.get(index, 0).is_ok_and(|device| device.fast != 0);
        let slows = plan.iter().any(|(index, device)| device.fast == 0 && was_fast(self, index));
        for (&index, &device) in plan {
            if self.devices.get(&index, 0).ok() != Some(device) {
                self.devices.insert(index, device, 0).map_err(map_error("DEVICES"))?;
            }
        }
        for index in self.devices().into_iter().filter(|index| !plan.contains_key(index)) {
            self.devices.remove(&index).map_err(map_error("DEVICES"))?;
        }
        if slows {
            self.flush(None)?;
        }
        Ok(())
    }

    fn apply_local(&mut self, plan: &BTreeSet<IpNet>) -> Result<(), DatapathError> {
        let wanted: BTreeSet<(LocalKey, u32)> =
            plan.iter().map(|net| local_key(net.network(), net.prefix_len())).collect();
        let present: BTreeSet<(LocalKey, u32)> =
            self.local.keys().flatten().map(|key| (key.data(), key.prefix_len())).collect();
        if wanted == present {
            return Ok(());
        }
        for &(data, length) in wanted.difference(&present) {
            self.local.insert(&Key::new(length, data), 1, 0).map_err(map_error("LOCAL"))?;
        }
        for &(data, length) in present.difference(&wanted) {
            self.local.remove(&Key::new(length, data)).map_err(map_error("LOCAL"))?;
        }
        self.renew_generation()
    }

    /// What has been found for flows is void from now on.
    fn renew_generation(&mut self) -> Result<(), DatapathError> {
        let settings = self.settings()?;
        // Never 0, which is that of no flow.
        let generation = settings.generation.wrapping_add(1).max(1);
        self.settings.set(0, Settings { generation, ..settings }, 0).map_err(map_error("SETTINGS"))
    }

    fn active(&self, policy: PolicyId, family: Family) -> Result<u32, DatapathError> {
        self.active.get(&table_index(policy, family), 0).map_err(map_error("ACTIVE"))
    }
}

/// The prefix of a key of `LOCAL`.
fn local_net(key: LocalKey, length: u32) -> Option<IpNet> {
    let address = Ipv6Addr::from(key);
    let length = u8::try_from(length).ok()?;
    match (address.to_ipv4_mapped(), length.checked_sub(96)) {
        (Some(address), Some(length)) => IpNet::new(address.into(), length).ok(),
        _ => IpNet::new(address.into(), length).ok(),
    }
}

fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<T, DatapathError> {
    MapData::from_pin(pins.map(name)).and_then(|data| T::try_from(kind(data))).map_err(map_error(name))
}

pub(super) fn map_error(name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| DatapathError::Map { name, source: Box::new(source) }
}

/// A seed that nobody outside can guess, so that nobody can choose his ISP; never 0, which says "none yet".
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}
