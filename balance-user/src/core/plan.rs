//! The plan: what the kernel should look like, as data. The reconciler makes it so; `--dry-run` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use balance_common::layout::{BucketTable, Device, IspEntry, PolicyEntry, Settings};
use balance_common::{Family, IspId, PolicyId};
use ipnet::IpNet;

use crate::rules::Rules;

/// The routing protocol number on every route and rule of ours, by which we know them again.
pub const ROUTE_PROTOCOL: u8 = 201;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Routing, netfilter and sysctls.
    pub kernel: KernelPlan,
    /// The eBPF maps.
    pub maps: MapPlan,
    /// Where the eBPF programs are attached.
    pub attachments: BTreeSet<Attachment>,
    /// The paths that are probed.
    pub probers: BTreeMap<(IspId, Family), ProberPlan>,
}

/// What the eBPF maps should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapPlan {
    /// What holds for the whole instance; the seed and the generation are the maps' own.
    pub settings: Settings,
    /// The ISPs; all other entries are emptied.
    pub isps: BTreeMap<IspId, IspEntry>,
    /// The policies; all other entries are emptied.
    pub policies: BTreeMap<PolicyId, PolicyEntry>,
    /// The selection tables of all policies.
    pub tables: BTreeMap<(PolicyId, Family), BucketTable>,
    /// The rules.
    pub rules: Arc<Rules>,
    /// Prefixes that are never balanced.
    pub local: BTreeSet<IpNet>,
    /// What the devices are to us, by index; how they are accelerated is found out later.
    pub devices: BTreeMap<u32, Device>,
    /// Where flows may be learned for the fast path: indices in `PATHS`.
    pub learn: BTreeSet<u8>,
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Its flows are steered.
    Lan,
    /// Its packets are counted.
    Isp,
}

/// A device that programs should be attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub device: String,
    /// Which programs.
    pub role: Role,
    /// Its packets begin with an Ethernet header.
    pub ethernet: bool,
}

/// How the probes of a path leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProberPlan {
    /// By the device of this index.
    pub index: u32,
    /// With this mark.
    pub mark: u32,
    /// The path's gateway; none on a point-to-point device.
    pub gateway: Option<IpAddr>,
    /// Who is asked for the addresses of names. None: those of the system, then well-known ones.
    pub resolvers: Vec<IpAddr>,
}

/// What routing, netfilter and the sysctls should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// The default routes of our tables: at most one for each table and family.
    pub routes: BTreeMap<(u32, Family), Route>,
    /// Routes of the main table to networks behind devices, and their metric, by which they are known to be this instance's.
    pub networks: BTreeMap<IpNet, NextHop>,
    /// See `networks`.
    pub networks_metric: u32,
    /// The policy routing rules.
    pub rules: BTreeSet<Rule>,
    /// The nft table.
    pub nft: NftTable,
    /// Values under `/proc/sys` (keys like `net/ipv4/conf/eth0/rp_filter`), in the order in which to set them.
    pub sysctls: Vec<Sysctl>,
    /// Names for our routing tables, for `/etc/iproute2/rt_tables.d/`.
    pub table_names: BTreeMap<u32, String>,
}

/// A default route: one next hop for an ISP's own table, several for the balanced default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; never empty.
    pub next_hops: Vec<NextHop>,
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The device's index.
    pub index: u32,
    /// The gateway; none on point-to-point devices.
    pub gateway: Option<IpAddr>,
    /// The gateway lies in no prefix of the device, so the kernel must take our word for it.
    pub onlink: bool,
    /// The share of this next hop among its siblings, 1 to 256.
    pub weight: u16,
}

/// A policy routing rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Lower is looked at first.
    pub priority: u32,
    /// Its family.
    pub family: Family,
    /// What it applies to.
    pub selector: Selector,
    /// The table it leads to.
    pub table: u32,
}

/// What a [`Rule`] applies to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Everything.
    All,
    /// Everything, but default routes of the table do not count (`suppress_prefixlength 0`).
    AllButDefault,
    /// Packets whose mark, masked, has this value.
    Mark {
        /// The ISP's id, shifted into the mask.
        value: u32,
        /// The mask.
        mask: u32,
    },
    /// Packets from this prefix.
    From(IpNet),
    /// Packets of sockets that are bound to this device.
    OutputDevice(String),
}

/// The nft table `inet <name>`: its whole definition as the text between the braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NftTable {
    /// The table's name in family `inet`.
    pub name: String,
    /// What stands between its braces.
    pub body: String,
}

/// A kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// The path under `/proc/sys`.
    pub key: String,
    /// The value it should have.
    pub value: String,
}
