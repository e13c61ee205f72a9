//! Every map. Their layout is `balance_common::layout`; they are pinned by name.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use balance_common::layout::{
    BUCKET_COPIES, BucketTable, Count, Device, ISP_ENTRIES, IspCounters, IspEntry, LocalKey, Settings,
    Verdict,
};

/// What holds for the whole instance.
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::pinned(1, 0);

/// What each device is to us, by its index.
#[map]
pub(crate) static DEVICES: HashMap<u32, Device> = HashMap::pinned(256, 0);

/// Prefixes that are never balanced.
#[map]
pub(crate) static LOCAL: LpmTrie<LocalKey, u8> = LpmTrie::pinned(4096, 1);

/// The selection tables, two copies a family.
#[map]
pub(crate) static BUCKETS: Array<BucketTable> = Array::pinned(BUCKET_COPIES, 0);

/// Which copy of `BUCKETS` is in force, by family.
#[map]
pub(crate) static ACTIVE: Array<u32> = Array::pinned(2, 0);

/// The ISPs. No program reads it: it is the daemon's memory, and what `status` shows without a daemon.
#[map]
pub(crate) static ISPS: Array<IspEntry> = Array::pinned(ISP_ENTRIES, 0);

/// What went to and came from each ISP.
#[map]
pub(crate) static COUNTERS: PerCpuArray<IspCounters> = PerCpuArray::pinned(ISP_ENTRIES, 0);

/// What became of the packets from the LANs.
#[map]
pub(crate) static VERDICTS: PerCpuArray<Count> = PerCpuArray::pinned(Verdict::COUNT, 0);

/// The flows steered lately, by hash, to tell new ones from known ones; with the generation of the local prefixes
/// under which they were found not to be for one. An LRU evicts before it is full.
#[map]
pub(crate) static SEEN: LruHashMap<u64, u32> = LruHashMap::pinned(131_072, 0);
