//! What is not ours, but may be in our way: rules, routes, MTUs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use balance_common::Family;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetlinkError;
use super::message::{family, table_of};
use super::socket::{Frame, Socket};
use super::watch::link_request;
use crate::core::plan::ROUTE_PROTOCOL;

/// A rule of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// Its family.
    pub family: Family,
    /// Its priority.
    pub priority: u32,
    /// The table that it leads to; none if it does something else.
    pub table: Option<u32>,
    /// The mark and the mask that it asks for.
    pub mark: Option<(u32, u32)>,
    /// It is about all packets.
    pub is_about_all: bool,
}

/// A route of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Its family.
    pub family: Family,
    /// Its table.
    pub table: u32,
    /// What it is for, as `ip` says it.
    pub destination: String,
    /// The number of the protocol that made it.
    pub protocol: u8,
}

/// All rules of others. Needs no rights.
pub async fn foreign_rules() -> Result<Vec<ForeignRule>, NetlinkError> {
    let mut socket = Socket::open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let each = |frame: &Frame<'_>| {
            if let Some(RouteNetlinkMessage::NewRule(message)) = frame.parse() {
                found.extend(rule(&message));
            }
        };
        match socket.dump(RouteNetlinkMessage::GetRule(message), "list the rules", each).await {
            // A kernel without IPv6.
            Err(NetlinkError::Refused { .. }) if family == AddressFamily::Inet6 => {}
            result => drop(result?),
        }
    }
    Ok(found)
}

/// All routes of others in these tables. Needs no rights.
pub async fn foreign_routes(tables: RangeInclusive<u32>) -> Result<Vec<ForeignRoute>, NetlinkError> {
    let mut socket = Socket::open()?;
    let mut found = Vec::new();
    for table in tables.clone() {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Table(table));
            let each = |frame: &Frame<'_>| {
                if let Some(RouteNetlinkMessage::NewRoute(message)) = frame.parse() {
                    found.extend(route(&message).filter(|route| tables.contains(&route.table)));
                }
            };
            match socket.dump(RouteNetlinkMessage::GetRoute(message), "list routes", each).await {
                // No such table, or no IPv6.
                Err(NetlinkError::Refused { .. }) => {}
                result => drop(result?),
            }
        }
    }
    Ok(found)
}

/// The MTUs of all devices, by their names. Needs no rights.
pub async fn mtus() -> Result<BTreeMap<String, u32>, NetlinkError> {
    let mut found = BTreeMap::new();
    let each = |frame: &Frame<'_>| {
        let Some(RouteNetlinkMessage::NewLink(message)) = frame.parse() else { return };
        let (mut name, mut mtu) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(value) => name = Some(value),
                LinkAttribute::Mtu(value) => mtu = Some(value),
                _ => {}
            }
        }
        found.extend(name.zip(mtu));
    };
    Socket::open()?.dump(link_request(None), "list the devices", each).await?;
    Ok(found)
}

fn rule(message: &RuleMessage) -> Option<ForeignRule> {
    let header = &message.header;
    let mut rule = ForeignRule {
        family: family(header.family)?,
        priority: 0,
        table: (header.action == RuleAction::ToTable).then_some(u32::from(header.table)),
        mark: None,
        is_about_all: header.src_len == 0 && header.dst_len == 0 && header.tos == 0,
    };
    let (mut value, mut mask) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)) => return None,
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = rule.table.map(|_| *table),
            RuleAttribute::FwMark(asked) => value = *asked,
            RuleAttribute::FwMask(bits) => mask = Some(*bits),
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::Protocol(_)
            | RuleAttribute::Other(_) => {}
            _ => rule.is_about_all = false,
        }
    }
    // What is said of the mark is then about all others.
    let is_inverted = header.flags.contains(RuleFlags::Invert);
    rule.mark = mask.filter(|mask| *mask != 0 && !is_inverted).map(|mask| (value, mask));
    rule.is_about_all &= rule.mark.is_none() && !is_inverted;
    Some(rule)
}

fn route(message: &RouteMessage) -> Option<ForeignRoute> {
    let header = &message.header;
    let protocol = u8::from(header.protocol);
    if protocol == ROUTE_PROTOCOL || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(address.to_string()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(address.to_string()),
        _ => None,
    });
    let length = header.destination_prefix_length;
    Some(ForeignRoute {
        family: family(header.address_family)?,
        table: table_of(message),
        destination: address.map_or("default".to_owned(), |address| format!("{address}/{length}")),
        protocol,
    })
}
