//! The eBPF programs without a device: packets are handed to the kernel one by one, and it says what came of them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use aya::maps::{Array, DevMapHash, HashMap, LpmTrie, MapData, lpm_trie};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use balance_common::fast::{Dimensions, Entry, Ip, Key, cache};
use balance_common::layout::{
    ABI, BucketTable, Device, LocalKey, PATHS, Path, Settings, bucket_copy, local_key, table_index,
};
use balance_common::packet::LinkLayer;
use balance_common::{Family, PolicyId};

use crate::Host;
use crate::flow_cache::FlowCache;

/// The object as it is built into the daemon.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../balance-ebpf/prebuilt/balance.bpf.o"
));

/// Every network namespace's loopback device, from which the kernel has the packets come.
pub const LOOPBACK: u32 = 1;
/// The size of `struct __sk_buff` of `linux/bpf.h`, and where the mark stands in it, in bytes.
const CONTEXT: usize = 192;
const CONTEXT_MARK: usize = 8;

/// The sizes of the flow caches.
const ROWS: u32 = 1 << 12;
const SLOTS: u32 = 1 << 16;

/// The programs, loaded into the kernel with maps of their own, which are pinned on a host of their own.
pub struct Steering {
    host: Host,
    programs: Ebpf,
    next_slot: u32,
}

/// One of the programs.
#[derive(Clone, Copy)]
pub struct Program<'a>(&'a SchedClassifier);

/// What came of a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the program returned.
    pub returned: i32,
    /// The packet's mark.
    pub mark: u32,
    /// The packet's bytes.
    pub bytes: Vec<u8>,
}

impl Steering {
    /// The instance whose pins the maps have.
    pub const INSTANCE: &str = "lab";

    /// Loads the programs; all maps are empty.
    ///
    /// # Errors
    /// When the kernel does not accept them.
    pub fn load() -> anyhow::Result<Self> {
        let host = Host::new("steering")?;
        let folder = format!("/sys/fs/bpf/balance/{}/v{ABI}", Self::INSTANCE);
        let mut programs = host.run(|| -> anyhow::Result<Ebpf> {
            std::fs::create_dir_all(&folder)?;
            let mut loader = EbpfLoader::new();
            loader.map_max_entries("SEEN", 1 << 16);
            for (name, entries) in
                [("INDEX_V4", ROWS), ("INDEX_V6", ROWS), ("FLOWS_V4", SLOTS), ("FLOWS_V6", SLOTS)]
            {
                loader.map_max_entries(name, entries);
            }
            loader.override_global("FLOW_ROWS", &ROWS, true);
            loader.override_global("FLOW_SLOTS", &SLOTS, true);
            Ok(loader.default_map_pin_directory(&folder).load(OBJECT)?)
        })?;
        for (name, program) in programs.programs_mut() {
            let loaded = match program {
                aya::programs::Program::Xdp(program) => program.load(),
                // They see sockets, not packets.
                aya::programs::Program::CgroupSock(_) | aya::programs::Program::CgroupSockAddr(_) => continue,
                program => <&mut SchedClassifier>::try_from(program)?.load(),
            };
            loaded.with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Self { host, programs, next_slot: 0 })
    }

    /// The host that has the pins.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A program, by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn program(&self, name: &str) -> anyhow::Result<Program<'_>> {
        let program = self.programs.program(name).with_context(|| format!("no program {name}"))?;
        Ok(Program(program.try_into()?))
    }

    /// Sets the seed and the bits of the mark that are ours.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_settings(&mut self, seed: u64, mark_mask: u32) -> anyhow::Result<()> {
        let settings = Settings { seed, mark_mask, generation: 1, ..Settings::default() };
        self.array::<Settings>("SETTINGS")?.set(0, settings, 0).context("SETTINGS")
    }

    /// Says what the device is from which the packets come: an ISP's, or a LAN's where `isp` is 0.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_device(&mut self, link_layer: LinkLayer, isp: u8) -> anyhow::Result<()> {
        let ethernet = u8::from(link_layer == LinkLayer::Ethernet);
        let device = Device { isp, ethernet, ..Device::default() };
        let map = self.programs.map_mut("DEVICES").context("no map DEVICES")?;
        HashMap::<_, u32, Device>::try_from(map)?.insert(LOOPBACK, device, 0).context("DEVICES")
    }

    /// Puts a selection table in force.
    ///
    /// # Errors
    /// When the maps cannot be written.
    pub fn set_table(&mut self, family: Family, table: BucketTable) -> anyhow::Result<()> {
        self.array::<BucketTable>("BUCKETS")?
            .set(bucket_copy(PolicyId::DEFAULT, family, 1), table, 0)
            .context("BUCKETS")?;
        self.array::<u32>("ACTIVE")?.set(table_index(PolicyId::DEFAULT, family), 1, 0).context("ACTIVE")
    }

    /// Adds prefixes that are never balanced.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn add_local(&mut self, prefixes: &[(IpAddr, u8)]) -> anyhow::Result<()> {
        let map = self.programs.map_mut("LOCAL").context("no map LOCAL")?;
        let mut local = LpmTrie::<_, LocalKey, u8>::try_from(map)?;
        for &(address, length) in prefixes {
            let (data, length) = local_key(address, length);
            local.insert(&lpm_trie::Key::new(length, data), 1, 0).context("LOCAL")?;
        }
        Ok(())
    }

    /// Makes a generation of the flow cache the valid one, for all paths.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_generation(&mut self, generation: u32) -> anyhow::Result<()> {
        let mut paths = self.array::<Path>("PATHS")?;
        (0..PATHS)
            .try_for_each(|index| paths.set(index, Path { generations: [generation; 2], learn: 1 }, 0))
            .context("PATHS")
    }

    /// Adds an entry to the flow cache.
    ///
    /// # Errors
    /// When the maps cannot be accessed, or are full.
    pub fn add_entry<A: Ip>(&mut self, key: &Key<A>, entry: &Entry<A>) -> anyhow::Result<()> {
        let seed = self.array::<Settings>("SETTINGS")?.get(&0, 0)?.seed;
        let dimensions = Dimensions { rows: ROWS, slots: SLOTS, seed };
        let cache = FlowCache::<A>::of(&self.programs, &dimensions)?;
        if let Some(found) = cache::find(&cache, &dimensions, key) {
            found.replace(key, entry);
            return Ok(());
        }
        cache::insert(&cache, &dimensions, key, entry, &mut self.next_slot, |_| true).context("no room")
    }

    /// Lets XDP send packets to the loopback device.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn allow_xdp(&mut self) -> anyhow::Result<()> {
        let map = self.programs.map_mut("XDP_TARGETS").context("no map XDP_TARGETS")?;
        let mut targets = DevMapHash::try_from(map)?;
        self.host.run(|| targets.insert(LOOPBACK, LOOPBACK, None, 0)).context("XDP_TARGETS")
    }

    /// Has the XDP program look at a packet from the loopback device. What it returns has no mark.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_xdp(&self, packet: &[u8]) -> anyhow::Result<Outcome> {
        let program: &Xdp = self.programs.program("fast_xdp").context("no program fast_xdp")?.try_into()?;
        let mut bytes = vec![0; packet.len() + 64];
        let outcome = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut bytes),
            ..TestRunOptions::new()
        })?;
        bytes.truncate(outcome.data_size_out.try_into()?);
        Ok(Outcome { returned: outcome.return_value.cast_signed(), mark: 0, bytes })
    }

    fn array<V: Pod>(&mut self, name: &str) -> anyhow::Result<Array<&mut MapData, V>> {
        let map = self.programs.map_mut(name).with_context(|| format!("no map {name}"))?;
        Ok(Array::try_from(map)?)
    }
}

impl Program<'_> {
    /// Has the program look at a packet, which comes with this mark.
    ///
    /// # Errors
    /// When the kernel does not take the packet: it wants an Ethernet header's length at least.
    pub fn run(self, packet: &[u8], mark: u32) -> anyhow::Result<Outcome> {
        let mut context = [[0; 4]; CONTEXT / 4];
        context[CONTEXT_MARK / 4] = mark.to_ne_bytes();
        let mut context_after = context;
        // Longer than the packet, to notice it when that grows.
        let mut bytes = vec![0; packet.len() + 64];
        let outcome = self.0.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut bytes),
            ctx_in: Some(context.as_flattened()),
            ctx_out: Some(context_after.as_flattened_mut()),
            ..TestRunOptions::new()
        })?;
        bytes.truncate(outcome.data_size_out.try_into()?);
        let mark = u32::from_ne_bytes(context_after[CONTEXT_MARK / 4]);
        Ok(Outcome { returned: outcome.return_value.cast_signed(), mark, bytes })
    }

    /// Has the program look at a packet so often and returns how long it took each time, in the mean and without what
    /// surrounds it.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn time(self, packet: &[u8], repeat: u32) -> anyhow::Result<Duration> {
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
        let outcome = self.0.test_run(options)?;
        ensure!(outcome.return_value.cast_signed() == -1, "returned {}", outcome.return_value.cast_signed());
        Ok(outcome.duration)
    }
}
