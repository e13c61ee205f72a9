//! Makes the default routes of our tables as planned, and our routes to networks in the main table.
//!
//! A route of ours is known by its protocol number and by its table, which must be one of this instance's.
//! What is missing is added, what differs is replaced in place (so there is always a route), and only then goes
//! what is not planned. A route of somebody else in one of our tables is never replaced: adding fails instead.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use balance_common::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{family, gateway_of, metric_of, table_of};
use super::socket::{Frame, Socket};
use super::{NetlinkError, ROUNDS};
use crate::core::network::family_of;
use crate::core::plan::{NextHop, ROUTE_PROTOCOL, Route};

/// The routes of a plan, as in [`crate::core::plan::KernelPlan::routes`].
pub type Planned = BTreeMap<(u32, Family), Route>;

/// The networks of a plan, as in [`crate::core::plan::KernelPlan::networks`].
pub type Networks = BTreeMap<IpNet, NextHop>;

/// A route of ours that is in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its table.
    pub table: u32,
    /// Its family.
    pub family: Family,
    /// Where it is for; everywhere, if it is as we make them.
    pub destination: IpNet,
    /// Its metric.
    pub metric: u32,
    /// Its kind; unicast, if it is as we make them.
    pub kind: RouteType,
    /// Where it leads, in order.
    pub next_hops: Vec<NextHop>,
}

/// A change to the kernel's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// There is no default route in this table for this family: add one.
    Add(Installed),
    /// There is one of ours: put this one in its place.
    Replace(Installed),
    /// Delete a route of ours.
    Delete(Installed),
}

/// Makes the routes of ours in these tables as planned; does not write when they are. All errors are collected,
/// none stops the rest.
pub async fn reconcile(planned: &Planned, tables: RangeInclusive<u32>) -> Vec<NetlinkError> {
    let wanted: Vec<Installed> = wanted(planned).collect();
    settle(&wanted, tables, |_| true).await.unwrap_or_else(|error| vec![error])
}

/// Makes the routes of ours to networks other than everywhere as planned, in the main table. There they are known by their
/// metric as well, which other instances do not use. A route of somebody else in the place of one of them stays, and that
/// is no error: then the network has a route.
pub async fn reconcile_networks(planned: &Networks, metric: u32) -> Vec<NetlinkError> {
    let wanted: Vec<Installed> = planned.iter().map(|(&to, &hop)| network(to, hop, metric)).collect();
    let ours = |route: &Installed| route.metric == metric;
    let errors = settle(&wanted, MAIN_TABLE..=MAIN_TABLE, ours).await.unwrap_or_else(|error| vec![error]);
    let is_taken = |error: &NetlinkError| matches!(error, NetlinkError::Refused { refusal, .. } if refusal.errno == libc::EEXIST);
    errors.into_iter().filter(|error| !is_taken(error)).collect()
}

/// The routes of ours in these tables, in the kernel's order.
pub async fn observe(tables: RangeInclusive<u32>) -> Result<Vec<Installed>, NetlinkError> {
    read(&mut Socket::open()?, tables).await
}

/// What it takes to get from the routes of ours that are there to the planned ones: first what puts routes in
/// place, then what deletes.
#[must_use]
pub fn diff(observed: &[Installed], planned: &Planned) -> Vec<Operation> {
    difference(observed, wanted(planned))
}

fn difference(observed: &[Installed], wanted: impl IntoIterator<Item = Installed>) -> Vec<Operation> {
    let mut kept = vec![false; observed.len()];
    let mut operations = Vec::new();
    for wanted in wanted {
        let mut slot =
            observed.iter().enumerate().filter(|(_, route)| is_same_slot(route, &wanted)).peekable();
        let first = slot.peek().map(|(position, _)| *position);
        let place = slot.find(|(_, route)| **route == wanted).map(|(position, _)| position);
        match place.or(first) {
            None => operations.push(Operation::Add(wanted)),
            Some(position) => {
                if place.is_none() {
                    operations.push(Operation::Replace(wanted));
                }
                if let Some(kept) = kept.get_mut(position) {
                    *kept = true;
                }
            }
        }
    }
    let stale = observed.iter().zip(kept).filter(|(_, kept)| !kept);
    operations.extend(stale.map(|(route, _)| Operation::Delete(route.clone())));
    operations
}

/// A planned route in the form in which the kernel has it; none if it leads nowhere.
///
/// IPv6 has no multipath over devices without a gateway: such next hops give way to those that have one, or to
/// the heaviest of them.
#[must_use]
pub fn installed(table: u32, family: Family, route: &Route) -> Option<Installed> {
    let mut next_hops = route.next_hops.clone();
    if family == Family::V6 && next_hops.len() > 1 && next_hops.iter().any(|hop| hop.gateway.is_none()) {
        if next_hops.iter().any(|hop| hop.gateway.is_some()) {
            next_hops.retain(|hop| hop.gateway.is_some());
        } else {
            next_hops.sort_by_key(|hop| (std::cmp::Reverse(hop.weight), hop.index));
            next_hops.truncate(1);
        }
    }
    let single = next_hops.len() == 1;
    for hop in &mut next_hops {
        hop.weight = if single { 1 } else { hop.weight.clamp(1, 256) };
        hop.onlink &= hop.gateway.is_some();
    }
    next_hops.sort_unstable();
    let destination = everywhere(family);
    let metric = if family == Family::V6 { IPV6_METRIC } else { 0 };
    let kind = RouteType::Unicast;
    (!next_hops.is_empty()).then_some(Installed { table, family, destination, metric, kind, next_hops })
}

/// A planned route to a network in the form in which the kernel has it.
#[must_use]
pub fn network(to: IpNet, hop: NextHop, metric: u32) -> Installed {
    let family = family_of(to.addr());
    let (table, kind, next_hops) = (MAIN_TABLE, RouteType::Unicast, vec![hop]);
    Installed { table, family, destination: to, metric, kind, next_hops }
}

fn wanted(planned: &Planned) -> impl Iterator<Item = Installed> {
    planned.iter().filter_map(|(&(table, family), route)| installed(table, family, route))
}

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

/// What IPv6 takes for a route that says no metric.
const IPV6_METRIC: u32 = 1024;

async fn settle(
    wanted: &[Installed],
    tables: RangeInclusive<u32>,
    ours: impl Fn(&Installed) -> bool,
) -> Result<Vec<NetlinkError>, NetlinkError> {
    let mut socket = Socket::open()?;
    for _ in 0..ROUNDS {
        let mut observed = read(&mut socket, tables.clone()).await?;
        observed.retain(&ours);
        let operations = difference(&observed, wanted.iter().cloned());
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let mut errors = Vec::new();
        for operation in &operations {
            errors.extend(carry_out(&mut socket, operation).await.err());
        }
        if !errors.is_empty() {
            return Ok(errors);
        }
    }
    Err(NetlinkError::Unsettled("routes"))
}

async fn carry_out(socket: &mut Socket, operation: &Operation) -> Result<(), NetlinkError> {
    let (verb, route, flags) = match operation {
        Operation::Add(route) => ("add", route, NLM_F_CREATE | NLM_F_EXCL),
        Operation::Replace(route) => ("replace", route, NLM_F_CREATE | NLM_F_REPLACE),
        Operation::Delete(route) => ("delete", route, 0),
    };
    let message = build(route);
    let request = match operation {
        Operation::Delete(_) => RouteNetlinkMessage::DelRoute(message),
        Operation::Add(_) | Operation::Replace(_) => RouteNetlinkMessage::NewRoute(message),
    };
    let action = || format!("{verb} the route to {} in table {}", route.destination, route.table);
    match (operation, socket.request(request, flags, action).await) {
        // Gone by itself, with its device or its address.
        (Operation::Delete(_), Err(NetlinkError::Refused { refusal, .. }))
            if matches!(refusal.errno, libc::ESRCH | libc::ENODEV) =>
        {
            Ok(())
        }
        (_, result) => result,
    }
}

/// Asks table by table, and for our protocol only: the kernel filters by both, so a full routing table elsewhere
/// is never walked.
async fn read(socket: &mut Socket, tables: RangeInclusive<u32>) -> Result<Vec<Installed>, NetlinkError> {
    let mut found = Vec::new();
    for table in tables.clone() {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
            message.attributes.push(RouteAttribute::Table(table));
            let request = RouteNetlinkMessage::GetRoute(message);
            let each = |frame: &Frame<'_>| {
                if let Some(RouteNetlinkMessage::NewRoute(message)) = frame.parse() {
                    found.extend(parse(&message).filter(|route| tables.contains(&route.table)));
                }
            };
            match socket.dump(request, "list the routes of ours", each).await {
                // No such table yet.
                Err(NetlinkError::Refused { refusal, .. }) if refusal.errno == libc::ENOENT => {}
                result => {
                    result?;
                }
            }
        }
    }
    Ok(found)
}

/// Reads a route of ours; none if it is not, or no route proper but a cached decision.
fn parse(message: &RouteMessage) -> Option<Installed> {
    let header = &message.header;
    if header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let family = family(header.address_family)?;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(address),
        _ => None,
    });
    let length = header.destination_prefix_length;
    let destination = match address {
        Some(RouteAddress::Inet(address)) => IpNet::new((*address).into(), length).ok()?,
        Some(RouteAddress::Inet6(address)) => IpNet::new((*address).into(), length).ok()?,
        _ => everywhere(family),
    };
    let mut next_hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => next_hops.push(NextHop {
                index: *index,
                gateway: gateway_of(&message.attributes),
                onlink: header.flags.contains(RouteFlags::Onlink),
                weight: 1,
            }),
            RouteAttribute::MultiPath(hops) => next_hops.extend(hops.iter().map(|hop| NextHop {
                index: hop.interface_index,
                gateway: gateway_of(&hop.attributes),
                onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
                weight: u16::from(hop.hops) + 1,
            })),
            _ => {}
        }
    }
    next_hops.sort_unstable();
    let (table, metric) = (table_of(message), metric_of(message));
    Some(Installed { table, family, destination, metric, kind: header.kind, next_hops })
}

/// The message that adds, replaces or deletes a route.
fn build(route: &Installed) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = match route.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    header.destination_prefix_length = route.destination.prefix_len();
    header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    header.kind = route.kind;
    // What needs a gateway cannot have the scope of what does not.
    header.scope = if route.family == Family::V4 && route.next_hops.iter().all(|hop| hop.gateway.is_none()) {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() != 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.addr().into()));
    }
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let [hop] = route.next_hops.as_slice() {
        message.header.flags.set(RouteFlags::Onlink, hop.onlink);
        message.attributes.push(RouteAttribute::Oif(hop.index));
        message.attributes.extend(gateway(route.family, hop));
    } else if !route.next_hops.is_empty() {
        let hops = route.next_hops.iter().map(|hop| {
            let mut built = RouteNextHop::default();
            built.flags.set(RouteNextHopFlags::Onlink, hop.onlink);
            built.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
            built.interface_index = hop.index;
            built.attributes.extend(gateway(route.family, hop));
            built
        });
        message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
    }
    message
}

fn gateway(family: Family, hop: &NextHop) -> Option<RouteAttribute> {
    let gateway = hop.gateway?;
    Some(if family_of(gateway) == family {
        RouteAttribute::Gateway(gateway.into())
    } else {
        RouteAttribute::Via(RouteVia::from(gateway))
    })
}

/// Whether the kernel takes the one for the place of the other.
fn is_same_slot(one: &Installed, other: &Installed) -> bool {
    (one.table, one.family, one.destination, one.metric)
        == (other.table, other.family, other.destination, other.metric)
}

fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[cfg(test)]
mod tests;
