//! What there is to know of flows, from the maps and the machine's addresses.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Context;
use balance_common::layout::{Device, IspEntry};
use balance_common::{Address, Family, Flow, IspId, MarkMask, Sticky};
use ipnet::IpNet;
use nix::net::if_::if_indextoname;

use super::super::addresses::addresses;
use crate::conntrack::Live;
use crate::control::{Request, Response, ask};
use crate::daemon::Instance;
use crate::datapath::{FlowCache, Maps, Pins, Ruler};
use crate::flows::{Chooser, FlowTold, PolicyFacts, Rules, tell};
use crate::nat::Ipv6Nat;

/// What there is to know of flows.
pub(in crate::cli) struct View<'a> {
    maps: &'a Maps,
    mask: MarkMask,
    chooser: Chooser,
    ruler: Ruler<'a>,
    cache: FlowCache,
}

impl<'a> View<'a> {
    pub(in crate::cli) fn open(instance: &str, maps: &'a Maps) -> anyhow::Result<Self> {
        let settings = maps.settings()?;
        let mask = MarkMask::new(settings.mark_mask).context("the instance has not begun to balance yet")?;
        let lans = maps.device_entries().into_iter().filter(|(_, device)| device.lan != 0);
        let devices = lans.map(|(index, _)| index).collect();
        Ok(Self {
            maps,
            mask,
            chooser: chooser(instance, maps)?,
            ruler: maps.ruler()?,
            cache: FlowCache::open(&Pins::of(instance), maps, devices)?,
        })
    }

    /// Reads anew what may have changed.
    pub(in crate::cli) fn renew(&mut self, instance: &str) -> anyhow::Result<()> {
        *self = Self::open(instance, self.maps)?;
        Ok(())
    }

    pub(in crate::cli) const fn mask(&self) -> MarkMask {
        self.mask
    }

    /// The ISP that a flow is on, if it is on one.
    pub(in crate::cli) fn isp_of(&self, live: &Live) -> Option<IspId> {
        self.mask.isp(live.mark).filter(|isp| self.chooser.names.contains_key(isp))
    }

    pub(in crate::cli) fn name(&self, isp: IspId) -> String {
        self.chooser.names.get(&isp).cloned().unwrap_or_default()
    }

    pub(in crate::cli) fn tell(&mut self, live: &Live, isp: IspId, now: SystemTime) -> FlowTold {
        let name = self.name(isp);
        let Self { chooser, ruler, cache, .. } = self;
        tell(live, (isp, &name), chooser, &InForce(ruler), now, |incoming| cache.is_fast(incoming))
    }
}

/// The rules in force.
struct InForce<'a>(&'a Ruler<'a>);

impl Rules for InForce<'_> {
    fn is_local(&self, address: Address) -> bool {
        self.0.is_local(address)
    }

    fn ruling(&self, flow: &Flow, lans: &[u8]) -> Option<(Option<usize>, u8)> {
        self.0.ruling_of_any(flow, lans)
    }
}

fn chooser(instance: &str, maps: &Maps) -> anyhow::Result<Chooser> {
    let addresses = addresses();
    let mut policies = BTreeMap::new();
    for (id, entry) in maps.policies()? {
        let [v4, v6] = Family::ALL.map(|family| maps.table(id, family).map(Box::new));
        let (name, sticky) = (entry.name(), Sticky::from(entry.sticky));
        policies.insert(id, PolicyFacts { name, sticky, tables: [v4?, v6?] });
    }
    let deciding = match ask(&Instance::new(instance), &Request::InForce) {
        Ok(Response::InForce(in_force)) => in_force.ipv6.values().filter_map(deciding).collect(),
        _ => Vec::new(),
    };
    Ok(Chooser {
        names: maps.isps()?.iter().map(|(&id, entry): (_, &IspEntry)| (id, entry.name())).collect(),
        policies,
        lans: lans(maps, &addresses),
        own: addresses.iter().map(|(_, net)| net.addr().into()).collect(),
        deciding,
        seed: maps.settings()?.seed,
    })
}

/// The networks of the LANs' devices.
fn lans(maps: &Maps, addresses: &[(String, IpNet)]) -> Vec<(IpNet, u8)> {
    let of_lan = |(index, device): (u32, Device)| {
        let name = if_indextoname(index).ok()?.into_string().ok()?;
        let networks = addresses.iter().filter(move |(on, _)| *on == name);
        Some(networks.map(move |(_, net)| (net.trunc(), device.lan)))
    };
    let lans = maps.device_entries().into_iter().filter(|(_, device)| device.lan != 0);
    lans.filter_map(of_lan).flatten().collect()
}

fn deciding(nat: &Ipv6Nat) -> Option<IpNet> {
    match nat {
        Ipv6Nat::Source { own, decides: true } => Some((*own).into()),
        _ => None,
    }
}
