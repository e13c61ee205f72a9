//! The way out by an ISP in one family: is there one, and through which gateway?

use std::net::IpAddr;

use balance_common::Family;

use super::network::{Link, Network, family_of};
use super::plan::NextHop;
use crate::config::{Ipv6Mode, IspConfig};

/// The routing table that DHCP clients and the kernel use (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

/// Finds the next hop of an ISP, or says for the operator why there is none.
///
/// The gateway is the one of the config, else none on a point-to-point device, else that of a default route by the
/// device in any table (main before others, then by metric), else the one known before, as long as the device stays
/// in its network: some DHCP clients take away each other's default routes.
pub(super) fn find_next_hop(
    isp: &IspConfig,
    family: Family,
    network: &Network,
    known: Option<NextHop>,
) -> Result<NextHop, NoPath> {
    if family == Family::V6 && isp.ipv6 == Ipv6Mode::Off {
        return Err(NoPath("IPv6 is off in the config".to_owned()));
    }
    let device = &isp.device;
    let link = network.link_named(device).ok_or_else(|| NoPath(format!("no device {device}")))?;
    if !link.up {
        return Err(NoPath(format!("{device} is switched off")));
    }
    if !link.carrier {
        return Err(NoPath(format!("no carrier on {device}")));
    }
    if !has_address(network, link, family) {
        return Err(NoPath(format!("no {} address on {device}", name_of(family))));
    }
    let configured = match family {
        Family::V4 => isp.gateway_v4.map(IpAddr::V4),
        Family::V6 => isp.gateway_v6.map(IpAddr::V6),
    };
    let gateway = match configured.or_else(|| found(network, link, family)) {
        Some(gateway) => Some(gateway),
        None if link.point_to_point => None,
        None => {
            let known = known.filter(|known| known.index == link.index && is_reachable(network, link, known));
            let gateway = known.and_then(|known| known.gateway);
            Some(gateway.ok_or_else(|| NoPath(format!("no {} gateway on {device}", name_of(family))))?)
        }
    };
    Ok(hop_by(network, link, gateway))
}

/// Why an ISP has no way out in a family, if so.
#[must_use]
pub fn why_no_way(isp: &IspConfig, family: Family, network: &Network) -> Option<String> {
    find_next_hop(isp, family, network, None).err().map(|NoPath(why)| why)
}

/// The next hop by a device, through this gateway if there is one.
pub(super) fn hop_by(network: &Network, link: &Link, gateway: Option<IpAddr>) -> NextHop {
    let onlink = gateway.is_some_and(|gateway| !is_on_link(network, link, gateway));
    NextHop { index: link.index, gateway, onlink, weight: 1 }
}

/// Why there is no way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoPath(pub(super) String);

/// Can a device reach the internet in this family at all? Every device has a link-local IPv6 address, which
/// says nothing.
pub(super) fn has_address(network: &Network, link: &Link, family: Family) -> bool {
    network
        .addresses_of(link.index)
        .any(|address| family_of(address.net.addr()) == family && !is_link_local(address.net.addr()))
}

/// Is it an IPv6 link-local address (fe80::/10)?
#[must_use]
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The name of a family, for messages.
#[must_use]
pub const fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn found(network: &Network, link: &Link, family: Family) -> Option<IpAddr> {
    network
        .defaults
        .iter()
        .filter(|route| route.index == link.index && route.family == family && route.gateway.is_some())
        .min_by_key(|route| (route.table != MAIN_TABLE, route.metric, route.gateway))
        .and_then(|route| route.gateway)
}

/// A gateway that was in a prefix of the device has to be still.
fn is_reachable(network: &Network, link: &Link, known: &NextHop) -> bool {
    known.onlink || known.gateway.is_some_and(|gateway| is_on_link(network, link, gateway))
}

fn is_on_link(network: &Network, link: &Link, gateway: IpAddr) -> bool {
    is_link_local(gateway)
        || network.addresses_of(link.index).any(|address| address.network().contains(&gateway))
}
