//! Every map. Their layout is `balance_common::layout`; they are pinned by name.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray};
use balance_common::PolicyId;
use balance_common::fast::{Cache, Confirmations, Dimensions, Ip, Row, Slot, Snapshot, V4, V6};
use balance_common::layout::{
    ACTIVE_ENTRIES, BUCKET_COPIES, BucketTable, Count, Device, ISP_ENTRIES, IspCounters, IspEntry, LocalKey,
    MAX_CLASSES, MAX_RULE_PREFIXES, OBJECT_ROWS, OBJECT_SLOTS, PATHS as PATH_ENTRIES, Path, PolicyEntry,
    RuleClass, RuleFields, RulePrefixKey, SNAPSHOTS, Seen, Settings, Verdict,
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

/// The selection tables, two copies of each.
#[map]
pub(crate) static BUCKETS: Array<BucketTable> = Array::pinned(BUCKET_COPIES, 0);

/// Which copy of each table, and of the rules, is in force.
#[map]
pub(crate) static ACTIVE: Array<u32> = Array::pinned(ACTIVE_ENTRIES, 0);

/// The policies.
#[map]
pub(crate) static POLICIES: Array<PolicyEntry> = Array::pinned(PolicyId::COUNT as u32, 0);

/// The classes of the addresses that rules ask for, by the longest prefix.
#[map]
pub(crate) static RULE_PREFIXES: LpmTrie<RulePrefixKey, u16> = LpmTrie::pinned(2 * MAX_RULE_PREFIXES, 1);

/// The classes of all other fields.
#[map]
pub(crate) static RULE_FIELDS: Array<RuleFields> = Array::pinned(2, 0);

/// What the classes rule out.
#[map]
pub(crate) static RULE_CLASSES: Array<RuleClass> = Array::pinned(2 * MAX_CLASSES, 0);

/// The ISPs: the daemon's memory, and what `status` shows without a daemon. Programs only look at who is usable.
#[map]
pub(crate) static ISPS: Array<IspEntry> = Array::pinned(ISP_ENTRIES, 0);

/// What went to and came from each ISP.
#[map]
pub(crate) static COUNTERS: PerCpuArray<IspCounters> = PerCpuArray::pinned(ISP_ENTRIES, 0);

/// What became of the packets from the LANs.
#[map]
pub(crate) static VERDICTS: PerCpuArray<Count> = PerCpuArray::pinned(Verdict::COUNT, 0);

/// Flows of late, by hash, to tell new ones from known ones, and which of them are worth learning. Its size comes from the
/// config.
#[map]
pub(crate) static SEEN: LruHashMap<u64, Seen> = LruHashMap::pinned(1024, 0);

/// The sizes of the flow caches, which come from the config: the daemon fills in those that it makes the maps with.
#[unsafe(no_mangle)]
static FLOW_ROWS: u32 = OBJECT_ROWS;
#[unsafe(no_mangle)]
static FLOW_SLOTS: u32 = OBJECT_SLOTS;

/// The index of the flow cache for IPv4. What user space may map begins with a page, and so a row with a cache line.
#[map]
pub(crate) static INDEX_V4: Array<Row> = Array::pinned(OBJECT_ROWS, BPF_F_MMAPABLE);

/// The same for IPv6.
#[map]
pub(crate) static INDEX_V6: Array<Row> = Array::pinned(OBJECT_ROWS, BPF_F_MMAPABLE);

/// The flow cache for IPv4.
#[map]
pub(crate) static FLOWS_V4: Array<Slot<V4>> = Array::pinned(OBJECT_SLOTS, BPF_F_MMAPABLE);

/// The same for IPv6.
#[map]
pub(crate) static FLOWS_V6: Array<Slot<V6>> = Array::pinned(OBJECT_SLOTS, BPF_F_MMAPABLE);

/// The slot of the flow cache that each CPU looks at first for one to use, by family.
#[map]
pub(crate) static NEXT_SLOTS: PerCpuArray<u32> = PerCpuArray::pinned(2, 0);

/// Packets on their way through the kernel, by token. A CPU takes a packet in and sends it on, so each has its own.
#[map]
pub(crate) static SNAPSHOTS_V4: PerCpuArray<Snapshot<V4>> = PerCpuArray::pinned(SNAPSHOTS, 0);

/// The same for IPv6.
#[map]
pub(crate) static SNAPSHOTS_V6: PerCpuArray<Snapshot<V6>> = PerCpuArray::pinned(SNAPSHOTS, 0);

/// Which entries of the flow cache hold, by ISP and family.
#[map]
pub(crate) static PATHS: Array<Path> = Array::pinned(PATH_ENTRIES, 0);

/// How many entries each CPU sends to be confirmed.
#[map]
pub(crate) static CONFIRMATIONS: PerCpuArray<Confirmations> = PerCpuArray::pinned(1, 0);

/// The devices to which XDP may redirect, by their index.
#[map]
pub(crate) static XDP_TARGETS: DevMapHash = DevMapHash::pinned(256, 0);

/// The marks that we have given to sockets of this machine, by the sockets' cookies: a socket with another mark has it from
/// somebody else. One that is forgotten is left alone from then on.
#[map]
pub(crate) static LOCAL_MARKS: LruHashMap<u64, u32> = LruHashMap::pinned(16_384, 0);

/// How large the flow caches are.
#[inline(always)]
pub(crate) fn dimensions() -> Option<Dimensions> {
    // SAFETY: the values are those of the object as it was loaded, not as it was built.
    let (rows, slots) =
        unsafe { ((&raw const FLOW_ROWS).read_volatile(), (&raw const FLOW_SLOTS).read_volatile()) };
    Some(Dimensions { rows, slots, seed: SETTINGS.get(0)?.seed })
}

/// The flow cache of a family.
pub(crate) struct Flows;

impl<A: Cached> Cache<A> for Flows {
    #[inline(always)]
    fn row(&self, number: u32) -> Option<*mut Row> {
        A::INDEX.get_ptr_mut(number)
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> Option<*mut Slot<A>> {
        A::FLOWS.get_ptr_mut(number)
    }
}

/// A family that has maps of its own.
pub(crate) trait Cached: Ip + 'static {
    /// The index of the flow cache.
    const INDEX: &Array<Row>;
    /// The flow cache.
    const FLOWS: &Array<Slot<Self>>;
    /// Packets on their way.
    const SNAPSHOTS: &PerCpuArray<Snapshot<Self>>;
    /// The length of the IP header.
    const HEADER: usize;
}

impl Cached for V4 {
    const INDEX: &Array<Row> = &INDEX_V4;
    const FLOWS: &Array<Slot<Self>> = &FLOWS_V4;
    const SNAPSHOTS: &PerCpuArray<Snapshot<Self>> = &SNAPSHOTS_V4;
    const HEADER: usize = 20;
}

impl Cached for V6 {
    const INDEX: &Array<Row> = &INDEX_V6;
    const FLOWS: &Array<Slot<Self>> = &FLOWS_V6;
    const SNAPSHOTS: &PerCpuArray<Snapshot<Self>> = &SNAPSHOTS_V6;
    const HEADER: usize = 40;
}
