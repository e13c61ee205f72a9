//! IPv6 with several providers: which prefix an ISP has delegated to us, and which prefix inside becomes which of its
//! prefixes outside.

use std::net::Ipv6Addr;

use balance_common::{Family, IspId};
use ipnet::{IpNet, Ipv6Net};

use super::Core;
use super::isp::Isp;
use super::network::{Link, Network};
use crate::config::{Ipv6Mode, IspConfig};
use crate::nat::Ipv6Nat;

/// The longest prefix that is looked for as a delegated one; what is longer is no network for hosts (RFC 7421).
const LONGEST_DELEGATED: u8 = 64;
/// And the shortest, so that no odd route passes for one.
const SHORTEST_DELEGATED: u8 = 16;

/// The prefix of an ISP, and whether it has just become another one.
#[derive(Debug, Default)]
pub(super) struct Delegated {
    now: Option<Ipv6Net>,
    /// The last one there was, for while there is none.
    last: Option<Ipv6Net>,
    renumbered: bool,
}

impl Delegated {
    pub(super) const fn prefix(&self) -> Option<Ipv6Net> {
        self.now
    }

    /// Finds it again after the network or the config has changed. A prefix that comes back is no other one.
    pub(super) fn update(&mut self, isp: &IspConfig, network: &Network) {
        self.now = prefix_of(isp, network);
        if let Some(prefix) = self.now {
            let before = self.last.replace(prefix);
            self.renumbered |= before.is_some_and(|before| before != prefix);
        }
    }

    /// Whether it has become another one since this was last asked.
    pub(super) fn take_renumbered(&mut self) -> bool {
        std::mem::take(&mut self.renumbered)
    }
}

/// The prefix that an ISP has delegated, if it is one whose prefix matters.
///
/// It is the one of the config, else, shortest first, one that a default route by the device is for (`default from
/// 2001:db8:a::/56 dev eth0`, as OpenWrt makes them), else one that a DHCPv6 client has made an unreachable route for and
/// the device has an address of, else the network of a point-to-point device (RFC 7278). The network of any other
/// device is none: whatever has an address of it must answer there to neighbour solicitations.
fn prefix_of(isp: &IspConfig, network: &Network) -> Option<Ipv6Net> {
    if !matches!(isp.ipv6, Ipv6Mode::Npt | Ipv6Mode::Source) {
        return None;
    }
    isp.prefix.or_else(|| found(network.link_named(&isp.device)?, network))
}

fn found(link: &Link, network: &Network) -> Option<Ipv6Net> {
    let own: Vec<Ipv6Net> = network
        .addresses_of(link.index)
        .filter_map(|address| ipv6(address.network()))
        .filter(|net| is_global(net.addr()))
        .collect();
    let shortest = |candidates: &mut dyn Iterator<Item = Ipv6Net>| {
        candidates
            .filter(|net| (SHORTEST_DELEGATED..=LONGEST_DELEGATED).contains(&net.prefix_len()))
            .filter(|net| is_global(net.addr()) && (link.point_to_point || !own.contains(net)))
            .min_by_key(|net| (net.prefix_len(), *net))
    };
    let routed = network.sources.iter().filter(|source| source.index == link.index).map(|it| it.prefix);
    let reserved = network.unreachable.iter().copied().filter(|net| own.iter().any(|own| net.contains(own)));
    shortest(&mut routed.into_iter())
        .or_else(|| shortest(&mut reserved.into_iter()))
        .or_else(|| shortest(&mut own.iter().copied().filter(|_| link.point_to_point)))
}

/// The prefixes whose hosts use one ISP and no other, with that ISP. No two of them overlap: of those that would, the
/// ISP with the lower id has its own.
pub(super) fn source_prefixes(core: &Core) -> Vec<(Ipv6Net, IspId)> {
    let mut prefixes: Vec<(Ipv6Net, IspId)> = Vec::new();
    for isp in core.isps.values().filter(|isp| isp.config.ipv6 == Ipv6Mode::Source) {
        let Some(prefix) = isp.delegated.prefix() else { continue };
        if !prefixes.iter().any(|(other, _)| overlap(other, &prefix)) {
            prefixes.push((prefix, isp.id));
        }
    }
    prefixes
}

/// What becomes of the source addresses of flows that leave by an ISP.
pub(super) fn nat(core: &Core, isp: &Isp) -> Ipv6Nat {
    match (isp.config.ipv6, isp.delegated.prefix()) {
        (Ipv6Mode::Off, _) => Ipv6Nat::Off,
        (Ipv6Mode::Source, Some(own)) => {
            let decides = source_prefixes(core).contains(&(own, isp.id));
            Ipv6Nat::Source { own, decides }
        }
        (Ipv6Mode::Npt, Some(own)) => {
            Ipv6Nat::Npt { own, mapping: mapping(&inside(core), own, &networks(core, own)) }
        }
        (Ipv6Mode::Masquerade | Ipv6Mode::Npt | Ipv6Mode::Source, _) => Ipv6Nat::Masquerade,
    }
}

/// Pairs prefixes inside with prefixes of the same length in `outside`, one to one (as RFC 6296 translates, but for its
/// checksums, since conntrack corrects those). Each gets the one that has its own bits behind `outside`'s: under
/// `2001:db8:a::/48`, `fd00:1:2:3::/64` gets `2001:db8:a:3::/64`. If that is taken, by one of `taken` or by one that stands
/// before it here, it gets the first that is free, if any is. What overlaps `outside` or one that stands before it here
/// gets none.
pub(super) fn mapping(inside: &[Ipv6Net], outside: Ipv6Net, taken: &[Ipv6Net]) -> Vec<(Ipv6Net, Ipv6Net)> {
    let outside = outside.trunc();
    let mut distinct: Vec<Ipv6Net> = Vec::new();
    for net in inside.iter().map(Ipv6Net::trunc) {
        if !overlap(&net, &outside) && !distinct.iter().any(|other| overlap(other, &net)) {
            distinct.push(net);
        }
    }
    let mut used = taken.to_vec();
    let mut places: Vec<Option<Ipv6Net>> = Vec::new();
    // First all that can have what is theirs, so that nobody's place depends on who else has found none.
    for net in &distinct {
        let place = same_place(*net, outside).filter(|place| !used.iter().any(|used| overlap(used, place)));
        used.extend(place);
        places.push(place);
    }
    for (net, place) in distinct.iter().zip(&mut places) {
        if place.is_none() {
            *place = first_free(net.prefix_len(), outside, &used);
            used.extend(*place);
        }
    }
    distinct.into_iter().zip(places).filter_map(|(net, place)| Some((net, place?))).collect()
}

/// The prefix in `outside` that has the bits of `net` behind those of `outside`.
fn same_place(net: Ipv6Net, outside: Ipv6Net) -> Option<Ipv6Net> {
    if net.prefix_len() < outside.prefix_len() {
        return None;
    }
    let bits = net.addr().to_bits() & outside.hostmask().to_bits();
    let address = Ipv6Addr::from_bits(outside.addr().to_bits() | bits);
    Ipv6Net::new(address, net.prefix_len()).ok()
}

/// The first prefix of this length in `outside` that overlaps none of `used`.
fn first_free(length: u8, outside: Ipv6Net, used: &[Ipv6Net]) -> Option<Ipv6Net> {
    let mut candidate = Ipv6Net::new(outside.addr(), length).ok().filter(|net| outside.contains(net))?;
    while let Some(in_the_way) = used.iter().find(|used| overlap(used, &candidate)) {
        let last = in_the_way.broadcast().max(candidate.broadcast());
        let next = Ipv6Addr::from_bits(last.to_bits().checked_add(1)?);
        candidate = Ipv6Net::new(next, length).ok().filter(|net| outside.contains(net))?;
    }
    Some(candidate)
}

/// The LANs' own prefixes in the order of the LANs; of one LAN those that hosts use to reach the internet before the
/// unique local ones (RFC 6724), should there not be room for all.
fn inside(core: &Core) -> Vec<Ipv6Net> {
    let links = core.config.lans.iter().filter_map(|lan| core.network.link_named(&lan.device));
    links
        .flat_map(|link| {
            let nets = core.network.addresses_of(link.index).filter_map(|address| ipv6(address.network()));
            let mut nets: Vec<Ipv6Net> = nets.filter(is_network).collect();
            nets.sort_unstable_by_key(|net| (net.addr().is_unique_local(), *net));
            nets
        })
        .collect()
}

/// The networks within a prefix that the machine is part of: their addresses are in use as they are.
fn networks(core: &Core, prefix: Ipv6Net) -> Vec<Ipv6Net> {
    let nets = core.network.addresses.iter().filter_map(|address| ipv6(address.network()));
    nets.filter(|net| is_network(net) && prefix.contains(net) && *net != prefix.trunc()).collect()
}

/// A prefix that hosts can be in: neither a single address nor link-local.
fn is_network(net: &Ipv6Net) -> bool {
    net.prefix_len() < 128 && !net.addr().is_unicast_link_local()
}

/// Of 2000::/3, the only addresses of the internet that have been given out.
fn is_global(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    first & 0xe000 == 0x2000
}

fn overlap(one: &Ipv6Net, other: &Ipv6Net) -> bool {
    one.contains(other) || other.contains(one)
}

const fn ipv6(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net),
    }
}

/// What an operator should know of an ISP's IPv6, besides its health: none if all is as usual.
pub(super) fn note(isp: &Isp) -> Option<String> {
    let wanted = match isp.config.ipv6 {
        Ipv6Mode::Npt => "npt",
        Ipv6Mode::Source => "source",
        Ipv6Mode::Masquerade | Ipv6Mode::Off => return None,
    };
    let lacking = isp.path(Family::V6).next_hop.is_ok() && isp.delegated.prefix().is_none();
    lacking.then(|| format!("IPv6: no prefix for \"{wanted}\", so masqueraded"))
}

#[cfg(test)]
mod tests;
