//! What a netlink message changes in what we know of the network. Pure.

use std::net::IpAddr;

use balance_common::Family;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, State};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::delegation;
use crate::core::network::{Address, DefaultRoute, Link, Network};
use crate::core::plan::ROUTE_PROTOCOL;

/// What a message did to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing that matters here.
    Unchanged,
    /// Something changed, or a route or rule of ours is gone.
    Changed,
    /// Something changed, and the message does not say all of it: the kernel drops IPv4 routes without a word
    /// when their device or address goes, and does not say which of several routes a new one replaces. What
    /// is known of the network must be read anew.
    Unclear,
}

impl Outcome {
    fn changed(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }
}

/// Brings the network up to date with what the kernel says. `replaces` is whether the message carries
/// `NLM_F_REPLACE`: then a new route stands in the place of an old one, of which nothing more is heard.
pub fn apply(network: &mut Network, message: &RouteNetlinkMessage, replaces: bool) -> Outcome {
    match message {
        RouteNetlinkMessage::NewLink(message) => new_link(network, message),
        RouteNetlinkMessage::DelLink(message) => del_link(network, message),
        RouteNetlinkMessage::NewAddress(message) => new_address(network, message),
        RouteNetlinkMessage::DelAddress(message) => del_address(network, message),
        RouteNetlinkMessage::NewRoute(message) => {
            delegation::added(network, message).max(new_route(network, message, replaces))
        }
        RouteNetlinkMessage::DelRoute(message) => {
            delegation::removed(network, message).max(del_route(network, message))
        }
        RouteNetlinkMessage::DelRule(message) => del_rule(message),
        _ => Outcome::Unchanged,
    }
}

/// The table of a route: the attribute where there is one, since the header has room only up to 255.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| message.header.table.into())
}

/// The metric of a route.
pub(super) fn metric_of(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or_default()
}

/// The gateway among the attributes of a route or of one of its next hops. An IPv4 route may have an IPv6
/// gateway; that comes as another attribute.
pub(super) fn gateway_of(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address))
        | RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })
}

/// The family of a route or rule, if it is one of the two.
pub(super) fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

fn new_link(network: &mut Network, message: &LinkMessage) -> Outcome {
    // A bridge announces its ports in messages of its own family, which say less.
    if message.header.interface_family != AddressFamily::Unspec {
        return Outcome::Unchanged;
    }
    let index = message.header.index;
    let Some(link) = read_link(message) else { return Outcome::Unchanged };
    let went_down = !link.up && network.links.get(&index).is_some_and(|known| known.up);
    let changed = network.links.get(&index) != Some(&link);
    network.links.insert(index, link);
    if went_down && has_ipv4_default(network, index) { Outcome::Unclear } else { Outcome::changed(changed) }
}

fn del_link(network: &mut Network, message: &LinkMessage) -> Outcome {
    // In the family of bridges it only means that the device is no port of a bridge any more.
    if message.header.interface_family != AddressFamily::Unspec {
        return Outcome::Unchanged;
    }
    let index = message.header.index;
    // A multipath route goes as a whole with any device of its next hops.
    let unclear = has_ipv4_default(network, index);
    let known = network.links.remove(&index).is_some();
    network.addresses.retain(|address| address.index != index);
    network.defaults.retain(|route| route.index != index);
    network.sources.retain(|source| source.index != index);
    if unclear { Outcome::Unclear } else { Outcome::changed(known) }
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut state = State::Unknown;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::OperState(value) => state = *value,
            _ => {}
        }
    }
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Some(Link {
        index: message.header.index,
        name: name?,
        up: flags.contains(LinkFlags::Up),
        // ppp, tun and wg never report a state; for all others the state knows more than the flags (a modem
        // that is dormant, a veth whose other end is down).
        carrier: match state {
            // The flag falls at once, the state when the kernel gets to it.
            State::Up => flags.contains(LinkFlags::LowerUp),
            State::Unknown => flags.intersects(LinkFlags::LowerUp | LinkFlags::Running),
            _ => false,
        },
        ethernet,
        point_to_point: flags.contains(LinkFlags::Pointopoint)
            || (flags.contains(LinkFlags::Noarp) && !ethernet),
    })
}

fn new_address(network: &mut Network, message: &AddressMessage) -> Outcome {
    let Some(address) = read_address(message) else { return Outcome::Unchanged };
    let known = take_address(network, &address);
    let usable = is_usable(message);
    if usable {
        network.addresses.insert(address);
    }
    Outcome::changed(known != usable.then_some(address))
}

fn del_address(network: &mut Network, message: &AddressMessage) -> Outcome {
    let Some(address) = read_address(message) else { return Outcome::Unchanged };
    let known = take_address(network, &address).is_some();
    // With its last IPv4 address a device loses its routes, and a route loses its life with its source address.
    if address.net.addr().is_ipv4() && has_ipv4_default(network, address.index) {
        return Outcome::Unclear;
    }
    Outcome::changed(known)
}

/// Takes out what is known of an address, whatever its peer.
fn take_address(network: &mut Network, address: &Address) -> Option<Address> {
    let known = network
        .addresses
        .iter()
        .find(|known| known.index == address.index && known.net == address.net)
        .copied()?;
    network.addresses.take(&known)
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            _ => {}
        }
    }
    // With a peer, "address" is the peer's; without one, IPv6 leaves "local" out.
    let own = local.or(address)?;
    Some(Address {
        index: message.header.index,
        net: IpNet::new(own, message.header.prefix_len).ok()?,
        peer: address.filter(|address| *address != own),
    })
}

/// Not while duplicate detection has yet to tell, nor once it has found one. Deprecated is good enough for
/// replies and better than none.
fn is_usable(message: &AddressMessage) -> bool {
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
        .unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    !tentative && !flags.contains(AddressFlags::Dadfailed)
}

fn new_route(network: &mut Network, message: &RouteMessage, replaces: bool) -> Outcome {
    let routes = read_defaults(message);
    let Some(first) = routes.first() else { return Outcome::Unchanged };
    let mut changed = false;
    if replaces {
        let slot = |route: &DefaultRoute| {
            route.family == first.family && route.table == first.table && route.metric == first.metric
        };
        // Which of several it replaces, or whether they are the next hops of one, it does not say.
        if network.defaults.iter().filter(|route| slot(route)).count() > 1 {
            return Outcome::Unclear;
        }
        let before = network.defaults.len();
        network.defaults.retain(|route| !slot(route) || routes.contains(route));
        changed = network.defaults.len() != before;
    }
    for route in routes {
        changed |= network.defaults.insert(route);
    }
    Outcome::changed(changed)
}

fn del_route(network: &mut Network, message: &RouteMessage) -> Outcome {
    let mut changed = message.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
    for route in read_defaults(message) {
        changed |= network.defaults.remove(&route);
    }
    // There may be others that differ in nothing but what is not looked at here.
    if changed && (message.header.source_prefix_length != 0 || message.header.tos != 0) {
        return Outcome::Unclear;
    }
    Outcome::changed(changed)
}

/// A rule of ours that is gone tells nothing of the network, but whoever waits for changes must look: it may not
/// have been us.
fn del_rule(message: &RuleMessage) -> Outcome {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
    Outcome::changed(message.attributes.contains(&ours))
}

/// The default routes in a message, one for each next hop; none if it is another kind of route, or ours.
fn read_defaults(message: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &message.header;
    let Some(family) = family(header.address_family) else { return Vec::new() };
    if header.destination_prefix_length != 0
        || header.kind != RouteType::Unicast
        || header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        || header.flags.contains(RouteFlags::Cloned)
    {
        return Vec::new();
    }
    let table = table_of(message);
    let metric = metric_of(message);
    let default = |index, gateway| DefaultRoute { family, table, metric, index, gateway };
    let mut routes = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => routes.push(default(*index, gateway_of(&message.attributes))),
            RouteAttribute::MultiPath(hops) => {
                routes
                    .extend(hops.iter().map(|hop| default(hop.interface_index, gateway_of(&hop.attributes))));
            }
            _ => {}
        }
    }
    routes
}

fn has_ipv4_default(network: &Network, index: u32) -> bool {
    network.defaults.iter().any(|route| route.index == index && route.family == Family::V4)
}

#[cfg(test)]
mod tests;
