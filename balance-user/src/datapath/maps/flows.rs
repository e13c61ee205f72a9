//! The flow cache, as user space reads and voids it.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::Pod;
use aya::maps::MapData;
use balance_common::fast::{Entry, Flags, Ip, Key, Slot, V4, V6};
use balance_common::layout::{Path, path_index};
use balance_common::{Family, IspId, MAX_ISPS};
use nix::time::{ClockId, clock_gettime};

use super::{Maps, map_error};
use crate::datapath::{DatapathError, batch};

impl Maps {
    /// All entries of the flow cache for IPv4, also those that are void or of flows that have ended. Entries that come or
    /// go meanwhile may be missed. An error ends it.
    pub fn flows_v4(&self) -> impl Iterator<Item = Result<(Key<V4>, Entry<V4>), DatapathError>> {
        entries(&self.flows_v4, "FLOWS_V4")
    }

    /// The same for IPv6.
    pub fn flows_v6(&self) -> impl Iterator<Item = Result<(Key<V6>, Entry<V6>), DatapathError>> {
        entries(&self.flows_v6, "FLOWS_V6")
    }

    /// How many connections of each ISP go by the fast path now; ISPs that have none are left out. Both directions of a
    /// connection have an entry, so those to the ISP are counted.
    pub fn fast_flows(&self) -> Result<BTreeMap<IspId, u64>, DatapathError> {
        let mut counts = BTreeMap::new();
        self.each_live(|isp, flags| {
            if let Some(isp) = IspId::new(isp).filter(|_| !flags.has(Flags::FROM_ISP)) {
                *counts.entry(isp).or_default() += 1;
            }
        })?;
        Ok(counts)
    }

    /// How many entries are in use, of one ISP, or of all and between LANs.
    pub fn live_entries(&self, of: Option<IspId>) -> Result<u64, DatapathError> {
        let mut count = 0;
        self.each_live(|isp, _| count += u64::from(of.is_none_or(|of| of.get() == isp)))?;
        Ok(count)
    }

    /// Voids the entries of one ISP, or all, at once. Their flows go through the kernel until they are learned anew.
    pub fn flush(&mut self, of: Option<IspId>) -> Result<(), DatapathError> {
        for isp in (0..=MAX_ISPS).filter(|&isp| of.is_none_or(|of| of.get() == isp)) {
            self.void(isp, raised)?;
        }
        Ok(())
    }

    /// Voids the entries by which packets go to an ISP. The answers that are under way still find their way for a lease, which the
    /// kernel would not know any more if the flows have been taken from it.
    pub fn flush_to(&mut self, isp: IspId) -> Result<(), DatapathError> {
        self.void(isp.get(), |[to, from]| [to.wrapping_add(1), from])
    }

    fn void(&mut self, isp: u8, raise: impl Fn([u32; 2]) -> [u32; 2]) -> Result<(), DatapathError> {
        for index in Family::ALL.map(|family| path_index(isp, family)) {
            let path = self.path(index)?;
            self.set_path(index, Path { generations: raise(path.generations), ..path })?;
        }
        Ok(())
    }

    /// Shows every entry that is in use: its ISP, 0 between LANs, and its flags.
    fn each_live(&self, mut look: impl FnMut(u8, Flags)) -> Result<(), DatapathError> {
        let life = self.life()?;
        for entry in self.flows_v4() {
            let (_, entry) = entry?;
            if life.has(&entry) {
                look(entry.path >> 1, entry.flags);
            }
        }
        for entry in self.flows_v6() {
            let (_, entry) = entry?;
            if life.has(&entry) {
                look(entry.path >> 1, entry.flags);
            }
        }
        Ok(())
    }

    pub(super) fn life(&self) -> Result<Life, DatapathError> {
        let paths = self.paths.iter().map(|path| path.map_err(map_error("PATHS")));
        let paths = paths.collect::<Result<Vec<_>, DatapathError>>()?;
        Ok(Life { now: now(), lease: self.settings()?.lease, paths })
    }
}

fn entries<A: Ip + Default>(
    map: &MapData,
    name: &'static str,
) -> impl Iterator<Item = Result<(Key<A>, Entry<A>), DatapathError>>
where
    Slot<A>: Pod,
{
    let slots = batch::values::<Slot<A>>(map);
    slots.filter_map(move |slot| slot.map(|slot| slot.content()).map_err(map_error(name)).transpose())
}

/// Generations of a path after which what is in the flow cache now is void.
pub(super) fn raised(generations: [u32; 2]) -> [u32; 2] {
    generations.map(|generation| generation.wrapping_add(1))
}

/// What tells whether entries are in use.
pub(super) struct Life {
    /// In nanoseconds of the monotonic clock.
    now: u64,
    /// In nanoseconds.
    lease: u64,
    /// By index in `PATHS`.
    paths: Vec<Path>,
}

impl Life {
    /// Time has passed.
    pub(super) fn go_on(&mut self) {
        self.now = now();
    }

    /// Is it? As long as packets come, each lease is followed by another one. One that waits to be confirmed either is so
    /// very soon, or will never be.
    pub(super) fn has<A>(&self, entry: &Entry<A>) -> bool {
        let path = self.paths.get(usize::from(entry.path));
        let generation = path.map(|path| path.generation(entry.flags.has(Flags::FROM_ISP)));
        generation == Some(entry.generation)
            && entry.expires != 0
            && self.now < entry.expires.saturating_add(2 * self.lease)
    }
}

/// The clock by which leases expire.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_use_for_two_leases_after_it_has_expired_unless_it_is_void() {
        let paths = [[0, 1], [7, 8]].map(|generations| Path { generations, learn: 1 }).to_vec();
        let life = Life { now: 10_000, lease: 1_000, paths };
        let entry = |path, generation, expires| Entry::<V4> { path, generation, expires, ..Entry::default() };
        let back = |entry| Entry::<V4> { flags: Flags::FROM_ISP, ..entry };
        for (entry, expected) in [
            (entry(1, 7, 10_500), true),
            (entry(1, 7, 8_001), true),
            (entry(1, 7, 8_000), false),
            (entry(1, 7, 0), false),
            (entry(1, 6, 10_500), false),
            (entry(0, 7, 10_500), false),
            (entry(0, 0, u64::MAX), true),
            (entry(2, 0, 10_500), false),
            (back(entry(1, 8, 10_500)), true),
            (back(entry(1, 7, 10_500)), false),
        ] {
            assert_eq!(life.has(&entry), expected, "{entry:?}");
        }
    }
}
