//! The shape of a map: whether one that is pinned is like the one that programs are about to be loaded with.

use aya::maps::{MapError, MapInfo, MapType};
use aya_obj::Map;
use aya_obj::generated::{BPF_F_NO_COMMON_LRU, BPF_F_RDONLY_PROG};

/// What two maps must have in common for one to stand in for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl Shape {
    /// Of a map that exists.
    pub(super) fn of(info: &MapInfo) -> Result<Self, MapError> {
        Ok(Self {
            kind: info.map_type()? as u32,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }

    /// Of what the kernel makes when it is asked for this map with so many entries, on a machine with that many
    /// possible CPUs.
    pub(super) fn made_of(map: &Map, max_entries: u32, cpus: u32) -> Self {
        let mut shape = Self {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries,
            flags: map.map_flags(),
        };
        // Each CPU gets as many of the entries as the others.
        if shape.flags & BPF_F_NO_COMMON_LRU != 0 {
            shape.max_entries = max_entries.checked_next_multiple_of(cpus).unwrap_or(max_entries);
        }
        // The kernel adds this by itself.
        if [MapType::DevMap as u32, MapType::DevMapHash as u32].contains(&shape.kind) {
            shape.flags |= BPF_F_RDONLY_PROG;
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::MapData;
    use balance_lab::ready;

    use super::*;

    /// Of a map that the kernel has made as asked for, and what we expect that to be.
    fn made_and_expected(kind: MapType, sizes: (u32, u32), max_entries: u32, flags: u32) -> (Shape, Shape) {
        let map = Map::new_from_params(kind as u32, sizes.0, sizes.1, max_entries, flags);
        let made = MapData::create(map.clone(), "test", None).unwrap();
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
        (Shape::of(&made.info().unwrap()).unwrap(), Shape::made_of(&map, max_entries, cpus))
    }

    #[test]
    fn what_the_kernel_makes_is_what_is_expected() {
        if !ready() {
            return;
        }
        for (kind, sizes, flags) in [
            (MapType::Array, (4, 100), 0),
            (MapType::PerCpuArray, (4, 8), 0),
            (MapType::Hash, (4, 2), 1),
            (MapType::LpmTrie, (20, 1), 1),
            (MapType::LruHash, (40, 64), 0),
            (MapType::LruHash, (40, 64), BPF_F_NO_COMMON_LRU),
            (MapType::LruPerCpuHash, (8, 8), 0),
            (MapType::DevMap, (4, 8), 0),
            (MapType::DevMapHash, (4, 8), 0),
        ] {
            for max_entries in [1, 13, 1024] {
                let (made, expected) = made_and_expected(kind, sizes, max_entries, flags);
                assert_eq!(made, expected, "{kind:?}");
            }
        }
    }

    #[test]
    fn entries_are_spread_evenly_where_each_cpu_has_its_own() {
        let map = |flags| Map::new_from_params(MapType::LruHash as u32, 4, 4, 1, flags);
        assert_eq!(Shape::made_of(&map(BPF_F_NO_COMMON_LRU), 1024, 6).max_entries, 1026);
        assert_eq!(Shape::made_of(&map(BPF_F_NO_COMMON_LRU), 1024, 0).max_entries, 1024);
        assert_eq!(Shape::made_of(&map(0), 1024, 6).max_entries, 1024);
    }
}
