//! What the kernel should look like, as it follows from the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use balance_common::fast::L4;
use balance_common::layout::{Device, IspEntry, IspState, Settings, path_index};
use balance_common::{Family, IspId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::health::State;
use super::isp::{Isp, targets};
use super::path::{hop_by, is_link_local};
use super::plan::{Attachment, KernelPlan, MapPlan, NextHop, Plan, ProberPlan, Role, Route, Rule, Selector};
use super::{Core, ipv6, select};
use crate::config::policy::lan_number;
use crate::config::{Acceleration, RouteConfig};
use crate::nat::{self, NatIsp, Standing, local_chains, networks, nft_table, refuse, reset};
use crate::sysctl::{self, FlowTimeouts, SysctlFacts};

/// Offsets into our priorities. Routes of the main table but its default ones come first, so that LANs, VPNs
/// and what a routing daemon knows is never sent to an ISP.
const PRIORITY_MARK: u32 = 100;
const PRIORITY_FROM: u32 = 200;
const PRIORITY_OUTPUT: u32 = 300;
const PRIORITY_DEFAULT: u32 = 900;

const MAIN_TABLE: u32 = 254;

/// The kernel's own timeout for UDP that nobody answers and for echo: what counts until something has loaded conntrack.
const FLOW_TIMEOUT: u32 = 30;

/// The greatest weight of a next hop (it is stored less one in a byte).
const MAX_HOP_WEIGHT: u32 = 256;

pub(super) fn plan(core: &Core, instance: &str, facts: &SysctlFacts) -> Plan {
    Plan {
        kernel: kernel(core, instance, facts),
        maps: maps(core, facts),
        attachments: attachments(core),
        probers: probers(core),
    }
}

/// The name of the nft table of an instance.
#[must_use]
pub fn nft_table_name(instance: &str) -> String {
    if instance == "main" { "balance".to_owned() } else { format!("balance-{instance}") }
}

fn kernel(core: &Core, instance: &str, facts: &SysctlFacts) -> KernelPlan {
    let families: &[Family] = if facts.ipv6 { &Family::ALL } else { &[Family::V4] };
    let base = core.config.routing.table;
    let mut routes = BTreeMap::new();
    let mut rules = BTreeSet::new();
    let name = nft_table_name(instance);
    let mut table_names = BTreeMap::from([(base, name.clone())]);
    for isp in core.isps.values() {
        table_names.insert(table_of(core, isp.id), format!("{name}-{}", isp.config.name));
    }
    for &family in families {
        for isp in core.isps.values() {
            if let Ok(hop) = isp.path(family).next_hop {
                routes.insert((table_of(core, isp.id), family), Route { next_hops: vec![hop] });
            }
        }
        let next_hops = balanced_next_hops(core, family);
        if !next_hops.is_empty() {
            routes.insert((base, family), Route { next_hops });
        }
        rules.extend(rules_of(core, family));
    }
    let isps: Vec<NatIsp> = core.isps.values().map(|isp| nat_isp(core, isp)).collect();
    let isp_devices: Vec<&str> = core.isps.values().map(|isp| isp.config.device.as_str()).collect();
    let lan_devices = inside_devices(core);
    let mut sysctls = sysctl::plan(&isp_devices, &lan_devices, facts);
    if core.config.acceleration != Acceleration::Off {
        sysctls.push(sysctl::liberal_conntrack());
        sysctls.extend(sysctl::patient_conntrack());
    }
    let mut nft = nft_table(&name, core.mask.bits(), &isps);
    nft.body
        .extend(core.policies.refusals(core.mask).map(|refusals| refuse::chain(core.mask.bits(), refusals)));
    nft.body.push_str(&nat::extras(&name, &core.config, &core.network));
    if core.config.local_traffic {
        nft.body += &local_chains(core.mask.bits(), &isps, &standings(core));
    }
    if core.config.reset {
        nft.body.push_str(&reset::chains(core.mask.bits(), &isps));
    }
    nft.body.push_str(&networks::chain(&core.config.routes));
    let (networks, networks_metric) = (networks(core, families), core.config.routing.priority);
    KernelPlan { routes, networks, networks_metric, rules, nft, sysctls, table_names }
}

fn nat_isp(core: &Core, isp: &Isp) -> NatIsp {
    NatIsp { id: isp.id, device: isp.config.device.clone(), ipv6: ipv6::nat(core, isp) }
}

/// How the ISPs stand with new flows.
fn standings(core: &Core) -> Vec<Standing> {
    let in_use = Family::ALL.map(|family| select::in_use(core, family));
    let standing = |isp: &Isp| Standing {
        isp: isp.id,
        usable: Family::ALL.map(|family| isp.is_usable(family)),
        weights: in_use.each_ref().map(|in_use| in_use.get(&isp.id).copied().unwrap_or(0)),
    };
    core.isps.values().map(standing).collect()
}

/// The routes to networks behind devices that are there. The metric is so high that routes of others come first.
fn networks(core: &Core, families: &[Family]) -> BTreeMap<IpNet, NextHop> {
    let routes = core.config.routes.iter();
    let routes = routes.filter(|route| families.contains(&super::network::family_of(route.to.addr())));
    let hop = |route: &RouteConfig| {
        let link = core.network.link_named(&route.device).filter(|link| link.up)?;
        Some((route.to, hop_by(&core.network, link, route.gateway)))
    };
    routes.filter_map(hop).collect()
}

/// The devices of LANs and of networks behind other devices, if packets are forwarded at all.
fn inside_devices(core: &Core) -> Vec<&str> {
    let mut devices: Vec<&str> = core.config.lans.iter().map(|lan| lan.device.as_str()).collect();
    if devices.is_empty() {
        return devices;
    }
    for route in &core.config.routes {
        let device = route.device.as_str();
        let is_known = devices.contains(&device) || core.config.isps.iter().any(|isp| isp.device == device);
        if !is_known {
            devices.push(device);
        }
    }
    devices
}

fn table_of(core: &Core, isp: IspId) -> u32 {
    core.config.routing.table + u32::from(isp.get())
}

/// The default route for what carries no mark: the router's own traffic, and that of devices which are no LAN.
fn balanced_next_hops(core: &Core, family: Family) -> Vec<NextHop> {
    let in_use = select::in_use(core, family);
    let heaviest = in_use.values().copied().map(u32::from).max().unwrap_or(1);
    let scaled = |weight: u16| {
        let weight = u32::from(weight);
        let weight = if heaviest > MAX_HOP_WEIGHT { weight * MAX_HOP_WEIGHT / heaviest } else { weight };
        u16::try_from(weight.max(1)).unwrap_or(u16::MAX)
    };
    let hop = |(id, weight): (&IspId, &u16)| {
        let hop = core.isps.get(id)?.path(family).next_hop.as_ref().ok()?;
        Some(NextHop { weight: scaled(*weight), ..*hop })
    };
    let mut hops: Vec<NextHop> = in_use.iter().filter_map(hop).collect();
    if let [only] = hops.as_mut_slice() {
        only.weight = 1;
    }
    hops
}

fn rules_of(core: &Core, family: Family) -> Vec<Rule> {
    let first = core.config.routing.priority;
    let rule = |offset: u32, selector, table| Rule { priority: first + offset, family, selector, table };
    let mut rules = vec![
        rule(0, Selector::AllButDefault, MAIN_TABLE),
        rule(PRIORITY_DEFAULT, Selector::All, core.config.routing.table),
    ];
    for isp in core.isps.values().filter(|isp| !isp.is_off(family)) {
        let (id, table) = (u32::from(isp.id.get()), table_of(core, isp.id));
        let mark = Selector::Mark { value: core.mask.value(isp.id), mask: core.mask.bits() };
        rules.push(rule(PRIORITY_MARK + id, mark, table));
        rules.push(rule(PRIORITY_OUTPUT + id, Selector::OutputDevice(isp.config.device.clone()), table));
        let Some(link) = core.network.link_named(&isp.config.device) else { continue };
        for address in core.network.addresses_of(link.index).map(|address| address.net.addr()) {
            if super::network::family_of(address) == family && !is_link_local(address) {
                rules.push(rule(PRIORITY_FROM + id, Selector::From(IpNet::from(address)), table));
            }
        }
    }
    rules
}

/// How long a flow goes by the fast path until the kernel must confirm it, and how much longer, by protocol, when there are very
/// many. Both together are two thirds of the time after which conntrack would forget it, so that its next packet finds it there
/// still. Connections of TCP are remembered for longer, but for none is it to take longer than for UDP until a change of the
/// firewall counts.
fn lease_and_stretch(lease: Duration, timeouts: FlowTimeouts) -> (Duration, [Duration; L4::COUNT]) {
    let longest = |timeout: Option<u32>| Duration::from_secs(timeout.unwrap_or(FLOW_TIMEOUT).into()) * 2 / 3;
    let (udp, echo) = (longest(timeouts.udp), longest(timeouts.echo));
    let lease = lease.min(udp).min(echo);
    (lease, [udp, udp, echo].map(|longest| longest.saturating_sub(lease)))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn maps(core: &Core, facts: &SysctlFacts) -> MapPlan {
    let (lease, stretch) = lease_and_stretch(core.config.fast_path.lease, facts.flow_timeouts);
    let settings = Settings {
        seed: 0,
        mark_mask: core.mask.bits(),
        table: core.config.routing.table,
        priority: core.config.routing.priority,
        generation: 0,
        lease: nanoseconds(lease),
        stretch: stretch.map(nanoseconds),
    };
    MapPlan {
        settings,
        isps: core.isps.iter().map(|(&id, isp)| (id, entry(core, isp))).collect(),
        policies: core.policies.entries(core.mask),
        tables: select::tables(core).into_iter().map(|(which, table)| (which, table.bytes())).collect(),
        rules: core.policies.rules(),
        local: local_prefixes(core),
        devices: devices(core),
        learn: learn(core),
    }
}

/// Where flows may be learned: between LANs, and on what works. An ISP that is being drained works.
fn learn(core: &Core) -> BTreeSet<u8> {
    if core.config.acceleration == Acceleration::Off {
        return BTreeSet::new();
    }
    let paths = core.isps.values().flat_map(|isp| {
        let working = Family::ALL.into_iter().filter(|&family| isp.works(family) || isp.is_usable(family));
        working.map(|family| path_index(isp.id.get(), family))
    });
    Family::ALL.map(|family| path_index(0, family)).into_iter().chain(paths).collect()
}

fn entry(core: &Core, isp: &Isp) -> IspEntry {
    let [v4, v6] = Family::ALL.map(|family| isp.path(family));
    let gateway = |path: &super::isp::Path| path.next_hop.as_ref().ok().and_then(|hop| hop.gateway);
    IspEntry {
        name: padded(&isp.config.name),
        device: padded(&isp.config.device),
        gateway_v4: match gateway(v4) {
            Some(IpAddr::V4(address)) => address.octets(),
            _ => [0; 4],
        },
        gateway_v6: match gateway(v6) {
            Some(IpAddr::V6(address)) => address.octets(),
            _ => [0; 16],
        },
        index: core.network.link_named(&isp.config.device).map_or(0, |link| link.index),
        since: isp.since_ms,
        weight: isp.weight,
        configured_weight: isp.config.weight,
        tier: isp.config.tier,
        state: stored(isp.state()) as u8,
        states: [v4, v6].map(|path| stored(path.health.state()) as u8),
        forced: isp.forced as u8,
        usable: Family::ALL.map(|family| u8::from(isp.is_usable(family))),
        down_order: Family::ALL.map(|family| rank(core, family, isp)),
        worth: [v4, v6].map(|path| path.worth.stored()),
        degraded: u8::from(v4.health.is_degraded()) | u8::from(v6.health.is_degraded()) << 1,
    }
}

/// The place of an ISP among those that are down, from 1; 0 if it is not.
fn rank(core: &Core, family: Family, isp: &Isp) -> u8 {
    let Some(own) = isp.path(family).down_order else { return 0 };
    let earlier =
        core.isps.values().filter_map(|isp| isp.path(family).down_order).filter(|&order| order < own);
    u8::try_from(earlier.count() + 1).unwrap_or(u8::MAX)
}

const fn stored(state: State) -> IspState {
    match state {
        State::Unknown => IspState::Unknown,
        State::Up => IspState::Up,
        State::Suspect => IspState::Suspect,
        State::Degraded => IspState::Degraded,
        State::Down => IspState::Down,
        State::LongDown => IspState::LongDown,
        State::Held => IspState::Held,
    }
}

pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// What is never balanced: what the config says, networks behind other devices, whatever is not unicast or not global, our own addresses, and the
/// networks that we are part of by devices other than the ISPs'.
fn local_prefixes(core: &Core) -> BTreeSet<IpNet> {
    let v4 = |a, b, c, d, length| Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length).ok().map(IpNet::V4);
    let v6 =
        |first, length| Ipv6Net::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length).ok().map(IpNet::V6);
    let always = [
        v4(0, 0, 0, 0, 8),
        v4(127, 0, 0, 0, 8),
        v4(169, 254, 0, 0, 16),
        v4(224, 0, 0, 0, 4),
        v4(255, 255, 255, 255, 32),
        Some(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))),
        Some(IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED))),
        v6(0xfe80, 10),
        v6(0xff00, 8),
    ];
    let isp_indices: BTreeSet<u32> = core
        .isps
        .values()
        .filter_map(|isp| core.network.link_named(&isp.config.device))
        .map(|link| link.index)
        .collect();
    let own = core.network.addresses.iter().flat_map(|address| {
        let network = (!isp_indices.contains(&address.index)).then(|| address.network());
        [Some(IpNet::from(address.net.addr())), network]
    });
    let configured = core.config.local.iter().copied().chain(core.config.routes.iter().map(|route| route.to));
    configured.chain(always.into_iter().chain(own).flatten()).collect()
}

/// An ISP, or a LAN by its number.
enum Owner {
    Isp(IspId),
    Lan(u8),
}

/// The devices that exist, with whose they are.
fn owners(core: &Core) -> impl Iterator<Item = (&super::network::Link, Owner)> {
    let isps = core.isps.values().map(|isp| (&isp.config.device, Owner::Isp(isp.id)));
    let lans = core.config.lans.iter().enumerate();
    let lans = lans.map(|(place, lan)| (&lan.device, Owner::Lan(lan_number(place))));
    isps.chain(lans).filter_map(|(device, owner)| Some((core.network.link_named(device)?, owner)))
}

fn devices(core: &Core) -> BTreeMap<u32, Device> {
    owners(core)
        .map(|(link, owner)| {
            let (isp, lan) = match owner {
                Owner::Isp(isp) => (isp.get(), 0),
                Owner::Lan(lan) => (0, lan),
            };
            (link.index, Device { isp, lan, ethernet: u8::from(link.ethernet), ..Device::default() })
        })
        .collect()
}

fn attachments(core: &Core) -> BTreeSet<Attachment> {
    owners(core)
        .map(|(link, owner)| Attachment {
            index: link.index,
            device: link.name.clone(),
            role: if matches!(owner, Owner::Isp(_)) { Role::Isp } else { Role::Lan },
            ethernet: link.ethernet,
        })
        .collect()
}

fn probers(core: &Core) -> BTreeMap<(IspId, Family), ProberPlan> {
    let paths = core.isps.values().flat_map(|isp| Family::ALL.map(|family| (isp, family)));
    paths
        .filter(|(isp, family)| !targets(&isp.config, *family).is_empty())
        .filter_map(|(isp, family)| {
            let hop = isp.path(family).next_hop.as_ref().ok()?;
            let resolvers = isp.config.monitor.resolvers.clone();
            let mark = core.mask.value(isp.id);
            Some(((isp.id, family), ProberPlan { index: hop.index, mark, gateway: hop.gateway, resolvers }))
        })
        .collect()
}
