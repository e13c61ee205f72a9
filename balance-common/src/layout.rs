//! The layout of the maps' keys and values. All integers are in host byte order, all addresses in network
//! byte order. A change here is a change of [`ABI`].

use crate::fast::{L4, SYN_CLASSES};
use crate::{Address, BUCKETS, Family, MAX_ISPS, PolicyId};

/// The version of all layouts here; the maps are pinned in a folder of this name.
pub const ABI: u32 = 6;

/// Entries of the maps that are indexed by [`crate::IspId`]; entry 0 stays empty.
pub const ISP_ENTRIES: u32 = 1 + MAX_ISPS as u32;

/// The value of `BUCKETS`: a whole selection table, an ISP's id (or 0, no ISP) in each slot. One update replaces
/// it; there are two copies of each and `ACTIVE` names the one in force.
pub type BucketTable = [u8; BUCKETS];

/// The index in `ACTIVE` of the table of a policy in a family.
#[must_use]
#[inline(always)]
pub const fn table_index(policy: PolicyId, family: Family) -> u32 {
    (policy.get() as u32) << 1 | family as u32
}

/// The entry of `BUCKETS` that holds a copy (0 or 1) of the table of a policy in a family.
#[must_use]
#[inline(always)]
pub const fn bucket_copy(policy: PolicyId, family: Family, copy: u32) -> u32 {
    table_index(policy, family) << 1 | (copy & 1)
}

/// The index in `ACTIVE` that says which copy of the rules is in force.
pub const ACTIVE_RULES: u32 = 2 * PolicyId::COUNT as u32;

/// Entries of `ACTIVE`.
pub const ACTIVE_ENTRIES: u32 = ACTIVE_RULES + 1;

/// Entries of `BUCKETS`.
pub const BUCKET_COPIES: u32 = 4 * PolicyId::COUNT as u32;

/// The value of `POLICIES`, by [`PolicyId`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PolicyEntry {
    /// The name, filled up with zeros; empty where there is no policy of this id.
    pub name: [u8; 32],
    /// [`Sticky`].
    pub sticky: u8,
    /// What the mark gets in place of an ISP's id when no ISP can take a flow; 0: it is left alone.
    pub last_resort: u8,
    /// Always 0.
    pub padding: [u8; 6],
}

/// How many rules there can be.
pub const MAX_RULES: usize = 1024;

/// How many prefixes the rules of one config can have, sources and destinations together.
pub const MAX_RULE_PREFIXES: u32 = 8192;

/// How many different classes of values the rules of one config can tell apart.
pub const MAX_CLASSES: u32 = 8192;

/// The value of `RULE_CLASSES`: the rules that a value of some field does not rule out, one bit each, the first rule lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct RuleClass {
    /// Which of the words are not zero, one bit each.
    pub summary: u64,
    /// The bits.
    pub words: [u64; MAX_RULES / 64],
}

/// The index in `RULE_CLASSES` of a class in a copy of the rules.
#[must_use]
#[inline(always)]
pub const fn class_copy(class: u16, copy: u32) -> u32 {
    (copy & 1) * MAX_CLASSES + class as u32
}

/// The value of `RULE_FIELDS`, one for each copy of the rules: the class of each value of each field but the addresses, and what
/// the rules say.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RuleFields {
    /// How many rules there are.
    pub count: u32,
    /// Whether any of them asks for a DSCP.
    pub asks_dscp: u32,
    /// By protocol number.
    pub protocols: [u16; 256],
    /// By [`Device::lan`]; [`LAN_SELF`] for what this machine sends.
    pub lans: [u16; 256],
    /// By DSCP (RFC 2474).
    pub dscps: [u16; 64],
    /// By source port.
    pub source_ports: [u16; 65_536],
    /// By destination port.
    pub destination_ports: [u16; 65_536],
    /// The policy of each rule, or [`BYPASS`].
    pub policies: [u8; MAX_RULES],
}

/// In place of a policy: the flow is not steered.
pub const BYPASS: u8 = 0xff;

/// In place of a [`Device::lan`]: this machine itself.
pub const LAN_SELF: u8 = 0;

/// The key of `RULE_PREFIXES` (beside its length in bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct RulePrefixKey {
    /// The copy of the rules, 0 or 1.
    pub copy: u8,
    /// 0 for a source, 1 for a destination.
    pub is_destination: u8,
    /// Always 0.
    pub padding: [u8; 2],
    /// As in [`LocalKey`].
    pub address: [u8; 16],
}

/// The bits of [`RulePrefixKey`] before the address.
pub const RULE_PREFIX_HEAD: u32 = 32;

/// The key for an address, or the first address of a prefix.
#[must_use]
#[inline(always)]
pub const fn rule_prefix_key(copy: u32, is_destination: bool, address: Address) -> RulePrefixKey {
    RulePrefixKey {
        copy: (copy & 1) as u8,
        is_destination: is_destination as u8,
        padding: [0; 2],
        address: address.octets(),
    }
}

/// The value of `SETTINGS`, a single entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Seeds the flow hash; drawn once, kept as long as the pins live.
    pub seed: u64,
    /// The bits of the mark that are ours.
    pub mark_mask: u32,
    /// The routing table of the balanced default, so that `stop` finds it without the daemon.
    pub table: u32,
    /// The first rule priority, likewise.
    pub priority: u32,
    /// Changes after every change of `LOCAL` and of the rules: what was found there for a flow holds only until then. Never 0.
    pub generation: u32,
    /// How long an entry of the flow cache may be used before the kernel must confirm it, in nanoseconds.
    pub lease: u64,
    /// How much longer than that at most when there are more than can be confirmed, in nanoseconds, by [`L4`].
    pub stretch: [u64; L4::COUNT],
}

/// The value of `DEVICES`, by device index: what a device is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Device {
    /// The ISP's id; 0 for a LAN.
    pub isp: u8,
    /// 1 where packets begin with an Ethernet header, 0 where they begin with IP.
    pub ethernet: u8,
    /// 1 where packets may come in and leave by the fast path.
    pub fast: u8,
    /// 1 where they come in by XDP then.
    pub xdp: u8,
    /// Which LAN it is, from 1 in the order of the config; 0 for an ISP's.
    pub lan: u8,
    /// Always 0.
    pub padding: [u8; 3],
}

/// The value of `PATHS`, by [`path_index`]: an ISP in one family, or, where there is no ISP, traffic between LANs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Path {
    /// Entries of the flow cache with another generation are void: of those to the ISP, and of those from it.
    pub generations: [u32; 2],
    /// 1 where flows may be learned.
    pub learn: u32,
}

impl Path {
    /// The generation that holds for entries from the ISP, or else for those to it, as entries have it.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "its lower half tells generations apart for longer than entries last"
    )]
    pub const fn generation(&self, is_from_isp: bool) -> u16 {
        let [to, from] = self.generations;
        (if is_from_isp { from } else { to }) as u16
    }
}

/// The index in `PATHS` of an ISP, or of none (0), in a family.
#[must_use]
#[inline(always)]
pub const fn path_index(isp: u8, family: Family) -> u8 {
    (isp & MAX_ISPS) << 1 | family as u8
}

/// Entries of `INDEX_V4` and `INDEX_V6` in the object.
pub const OBJECT_ROWS: u32 = 64;

/// Entries of `FLOWS_V4` and `FLOWS_V6` in the object.
pub const OBJECT_SLOTS: u32 = 512;

/// Entries of `PATHS`.
pub const PATHS: u32 = 2 * ISP_ENTRIES;

/// The value of `SEEN`: what is known of a flow before it is in the flow cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// [`Settings::generation`] when it was found not to be for a local prefix; 0 if that was not asked.
    pub generation: u32,
    /// Its packets that the kernel has sent on, up to [`Self::PERSISTENT`].
    pub packets: u8,
    /// 1 once it was answered.
    pub answered: u8,
    /// The policy that the rules had for it in that generation, or [`BYPASS`].
    pub policy: u8,
    /// Always 0.
    pub padding: u8,
}

impl Seen {
    /// So many packets without an answer are a flow too.
    pub const PERSISTENT: u8 = 16;
}

/// Entries of `SNAPSHOTS_V4` and `SNAPSHOTS_V6` for each CPU: more than the packets that the kernel takes in together.
pub const SNAPSHOTS: u32 = 256;

/// The key of `LOCAL` (beside its prefix length in bits, where IPv4 prefixes are 96 longer).
pub type LocalKey = [u8; 16];

/// What became of a packet from a LAN; the index in `VERDICTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Stamped with an ISP's mark.
    Steered = 0,
    /// For a local prefix: left alone.
    Local = 1,
    /// Truncated or malformed: left alone.
    Unparsable = 2,
    /// Not IP: left alone.
    NotIp = 3,
    /// No ISP can take it: the last resort of its policy.
    NoIsp = 4,
    /// A rule says so: left alone.
    Bypassed = 5,
}

impl Verdict {
    /// Entries of `VERDICTS`.
    pub const COUNT: u32 = 6;
}

/// The value of `VERDICTS`, one for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

/// The value of `COUNTERS`, by ISP, one for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IspCounters {
    /// What was steered to the ISP.
    pub steered: Count,
    /// What was sent by its device, but for what went fast.
    pub tx: Count,
    /// What was received on its device for this machine or whom it forwards for: IP, but for neighbour discovery, and
    /// for what went fast.
    pub rx: Count,
    /// What was sent by its device on the fast path.
    pub fast_tx: Count,
    /// What was received on its device and went on on the fast path.
    pub fast_rx: Count,
    /// Flows among what was steered: how often a packet was of a flow not seen lately.
    pub new_flows: u64,
    /// Answers to SYN that were received on its device ([`crate::fast::Headers::answers_syn`]).
    pub syn_answers: u64,
    /// SYN without ACK that its device sent, again or not, by the class of whom they are for ([`crate::fast::syn_class`]).
    pub syns: [u32; SYN_CLASSES],
}

/// The value of `ISPS`: what the daemon knows of an ISP that must outlive it, for `status` and for the next daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IspEntry {
    /// The name, filled up with zeros; empty where there is no ISP of this id.
    pub name: [u8; 32],
    /// The device's name, filled up with zeros.
    pub device: [u8; 16],
    /// The IPv6 gateway, or zeros.
    pub gateway_v6: [u8; 16],
    /// The IPv4 gateway, or zeros.
    pub gateway_v4: [u8; 4],
    /// The device's index, 0 if there is no such device.
    pub index: u32,
    /// When the state was entered, in milliseconds of the Unix epoch.
    pub since: u64,
    /// The weight in force.
    pub weight: u16,
    /// The weight that the config had when that was set: a changed config takes over again.
    pub configured_weight: u16,
    /// The tier.
    pub tier: u8,
    /// [`IspState`] as a whole.
    pub state: u8,
    /// [`IspState`] in each family.
    pub states: [u8; 2],
    /// [`Forced`].
    pub forced: u8,
    /// Whether flows of each family can be steered to it.
    pub usable: [u8; 2],
    /// When it went down among those that are: 1 is the first, 0 is not down.
    pub down_order: [u8; 2],
    /// What each family is worth by what was measured, where weights follow that: 1 to 64; 0 is not measured.
    pub worth: [u8; 2],
    /// Whether it works badly: a bit for each family, IPv4 lowest.
    pub degraded: u8,
}

impl IspCounters {
    /// What was sent, whichever way.
    #[must_use]
    pub const fn all_tx(&self) -> Count {
        self.tx.and(self.fast_tx)
    }

    /// What was received, whichever way.
    #[must_use]
    pub const fn all_rx(&self) -> Count {
        self.rx.and(self.fast_rx)
    }
}

impl Count {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

#[cfg(any(test, feature = "user"))]
impl IspEntry {
    /// The name.
    #[must_use]
    pub fn name(&self) -> String {
        unpadded(&self.name)
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> String {
        unpadded(&self.device)
    }
}

#[cfg(any(test, feature = "user"))]
impl PolicyEntry {
    /// The name.
    #[must_use]
    pub fn name(&self) -> String {
        unpadded(&self.name)
    }
}

#[cfg(any(test, feature = "user"))]
fn unpadded(bytes: &[u8]) -> String {
    let text: Vec<u8> = bytes.iter().copied().take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// The state of an ISP, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum IspState {
    /// Not known yet.
    #[default]
    Unknown = 0,
    /// It works.
    Up = 1,
    /// In doubt, but in use.
    Suspect = 2,
    /// It does not work.
    Down = 3,
    /// It works, but badly.
    Degraded = 4,
    /// It has not worked for long.
    LongDown = 5,
    /// It comes and goes, and is kept out until it is steady.
    Held = 6,
}

/// What the operator wants of an ISP, whatever its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Forced {
    /// Health decides.
    #[default]
    No = 0,
    /// In use.
    Up = 1,
    /// Not in use.
    Down = 2,
}

impl From<u8> for IspState {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Up,
            2 => Self::Suspect,
            3 => Self::Down,
            4 => Self::Degraded,
            5 => Self::LongDown,
            6 => Self::Held,
            _ => Self::Unknown,
        }
    }
}

impl From<u8> for Forced {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Up,
            2 => Self::Down,
            _ => Self::No,
        }
    }
}

/// The key of `LOCAL` for a prefix: its bytes and its length in bits.
#[must_use]
pub fn local_key(address: core::net::IpAddr, length: u8) -> (LocalKey, u32) {
    let mapped = if address.is_ipv4() { 96 } else { 0 };
    (Address::from(address).octets(), mapped + u32::from(length))
}

#[cfg(feature = "user")]
mod pod {
    use super::{
        Count, Device, IspCounters, IspEntry, Path, PolicyEntry, RuleClass, RuleFields, RulePrefixKey, Seen,
        Settings,
    };
    use crate::fast::{Confirmations, Row, Slot, V4, V6};

    // SAFETY: all are repr(C), of integers only, without padding that is not a field.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Device {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PolicyEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleClass {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RulePrefixKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RuleFields {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for IspCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for IspEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Confirmations {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Row {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot<V4> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot<V6> {}
}
