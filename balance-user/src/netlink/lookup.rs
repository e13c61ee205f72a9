//! Which way a packet would go: what `ip route get` asks.

use std::net::IpAddr;

use balance_common::Family;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetlinkError;
use super::message::{gateway_of, table_of};
use super::socket::Socket;
use crate::core::network::family_of;

/// A packet, as far as routes depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Its source; none for one whose source the route shall tell.
    pub from: Option<IpAddr>,
    /// Its destination.
    pub to: IpAddr,
    /// Its mark.
    pub mark: u32,
    /// The index of the device it comes in by; none if this machine sends it.
    pub input: Option<u32>,
    /// The protocol, and both ports, of TCP and UDP.
    pub ports: Option<(u8, u16, u16)>,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The kind of the route: out, to this machine itself, or nowhere.
    pub kind: RouteType,
    /// The table that the route is in.
    pub table: u32,
    /// The index of the device it leaves by.
    pub index: Option<u32>,
    /// The gateway; none if the destination is right behind the device.
    pub gateway: Option<IpAddr>,
    /// The source that it would have if it had none.
    pub source: Option<IpAddr>,
}

/// The way of a packet. Where there is no route, the kernel refuses to name one.
pub async fn way(packet: Packet) -> Result<Way, NetlinkError> {
    let mut found = None;
    Socket::open()?
        .get(RouteNetlinkMessage::GetRoute(request(packet)), "find a route", |frame| {
            if let Some(RouteNetlinkMessage::NewRoute(message)) = frame.parse() {
                found = Some(read(&message));
            }
        })
        .await?;
    found.ok_or_else(|| std::io::Error::other("no route in the kernel's answer").into())
}

fn request(packet: Packet) -> RouteMessage {
    let is_v4 = family_of(packet.to) == Family::V4;
    let length = if is_v4 { 32 } else { 128 };
    let header = RouteHeader {
        address_family: if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 },
        destination_prefix_length: length,
        source_prefix_length: packet.from.map_or(0, |_| length),
        // IPv6 does not take the flag, as it tells the table anyway.
        flags: if is_v4 { RouteFlags::LookupTable } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let mut attributes =
        vec![RouteAttribute::Destination(packet.to.into()), RouteAttribute::Mark(packet.mark)];
    attributes.extend(packet.from.map(|from| RouteAttribute::Source(from.into())));
    attributes.extend(packet.input.map(RouteAttribute::Iif));
    if let Some((protocol, source, destination)) = packet.ports {
        attributes.extend([
            RouteAttribute::IpProto(protocol),
            RouteAttribute::Sport(source),
            RouteAttribute::Dport(destination),
        ]);
    }
    let mut message = RouteMessage::default();
    message.header = header;
    message.attributes = attributes;
    message
}

fn read(message: &RouteMessage) -> Way {
    let find = |of: fn(&RouteAttribute) -> Option<u32>| message.attributes.iter().find_map(of);
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    Way {
        kind: message.header.kind,
        table: table_of(message),
        index: find(|attribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }),
        gateway: gateway_of(&message.attributes),
        source,
    }
}
