//! What IPv6 routes tell of prefixes that ISPs have delegated. Pure.
//!
//! Two kinds of routes do: a default route for packets from one prefix, which OpenWrt makes by the device that the prefix
//! came from; and the unreachable route for a whole prefix, which systemd-networkd, dhcpcd and OpenWrt make so that
//! packets to what is unused of it do not go round in circles (RFC 7084, WPD-5).

use ipnet::Ipv6Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType,
};

use super::message::Outcome;
use crate::core::network::{Network, SourceRoute};
use crate::core::plan::ROUTE_PROTOCOL;

/// Takes in a new route.
pub(super) fn added(network: &mut Network, message: &RouteMessage) -> Outcome {
    let Some(change) = read(message) else { return Outcome::Unchanged };
    let new = match change {
        Told::Source(sources) => {
            let before = network.sources.len();
            network.sources.extend(sources);
            network.sources.len() != before
        }
        Told::Unreachable(prefix) => network.unreachable.insert(prefix),
    };
    if new { Outcome::Changed } else { Outcome::Unchanged }
}

/// Takes in that a route is gone. There may be others that say the same, which only reading all of them tells.
pub(super) fn removed(network: &Network, message: &RouteMessage) -> Outcome {
    let known = match read(message) {
        Some(Told::Source(sources)) => sources.iter().any(|source| network.sources.contains(source)),
        Some(Told::Unreachable(prefix)) => network.unreachable.contains(&prefix),
        None => false,
    };
    if known { Outcome::Unclear } else { Outcome::Unchanged }
}

/// Whether a route message (`struct rtmsg`) may be of the second kind, by its family, type and the length of its
/// destination: a look at three bytes.
pub(super) fn may_be_reserved(payload: &[u8]) -> bool {
    matches!(payload, [AF_INET6, 1..=127, _, _, _, _, _, libc::RTN_UNREACHABLE, ..])
}

/// `AF_INET6`, in the one byte that routes have for it.
const AF_INET6: u8 = 10;

enum Told {
    /// One for each next hop.
    Source(Vec<SourceRoute>),
    Unreachable(Ipv6Net),
}

fn read(message: &RouteMessage) -> Option<Told> {
    let header = &message.header;
    if header.address_family != AddressFamily::Inet6
        || header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let source = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Source(RouteAddress::Inet6(address)) => Some(*address),
        _ => None,
    });
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(*address),
        _ => None,
    });
    match (header.kind, header.destination_prefix_length, header.source_prefix_length) {
        (RouteType::Unicast, 0, length @ 1..) => {
            let prefix = Ipv6Net::new(source?, length).ok()?;
            Some(Told::Source(devices(message).map(|index| SourceRoute { index, prefix }).collect()))
        }
        (RouteType::Unreachable, length @ 1.., 0) => {
            Some(Told::Unreachable(Ipv6Net::new(destination?, length).ok()?))
        }
        _ => None,
    }
}

fn devices(message: &RouteMessage) -> impl Iterator<Item = u32> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source_route(index: u32, prefix: &str) -> RouteMessage {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.kind = RouteType::Unicast;
        message.header.source_prefix_length = prefix.prefix_len();
        let source = RouteAttribute::Source(RouteAddress::from(IpAddr::from(prefix.addr())));
        message.attributes = vec![source, RouteAttribute::Oif(index)];
        message
    }

    fn unreachable(prefix: &str) -> RouteMessage {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.kind = RouteType::Unreachable;
        message.header.destination_prefix_length = prefix.prefix_len();
        let destination = RouteAddress::from(IpAddr::from(prefix.addr()));
        message.attributes = vec![RouteAttribute::Destination(destination), RouteAttribute::Oif(1)];
        message
    }

    #[test]
    fn a_default_route_for_a_prefix_says_whose_it_is() {
        let mut network = Network::default();
        let route = source_route(3, "2001:db8:a::/56");
        assert_eq!(removed(&network, &route), Outcome::Unchanged);
        assert_eq!(added(&mut network, &route), Outcome::Changed);
        assert_eq!(added(&mut network, &route), Outcome::Unchanged);
        let prefix = "2001:db8:a::/56".parse().unwrap();
        assert_eq!(network.sources, [SourceRoute { index: 3, prefix }].into());
        assert_eq!(removed(&network, &route), Outcome::Unclear);
    }

    #[test]
    fn an_unreachable_route_says_that_a_prefix_is_ours() {
        let mut network = Network::default();
        let route = unreachable("2001:db8:a::/56");
        assert_eq!(added(&mut network, &route), Outcome::Changed);
        assert_eq!(network.unreachable, ["2001:db8:a::/56".parse().unwrap()].into());
        assert_eq!(removed(&network, &route), Outcome::Unclear);
    }

    #[test]
    fn neither_other_routes_nor_ours_say_anything() {
        let mut ours = source_route(3, "2001:db8:a::/56");
        ours.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        let mut plain = source_route(3, "2001:db8:a::/56");
        plain.header.source_prefix_length = 0;
        // What kernels have at the end of the main table.
        let nowhere = unreachable("::/0");
        for message in [ours, plain, nowhere] {
            let mut network = Network::default();
            assert_eq!(added(&mut network, &message), Outcome::Unchanged);
            assert_eq!(network, Network::default());
        }
    }

    #[test]
    fn three_bytes_tell_what_is_worth_reading() {
        let message = |family, length, kind| [family, length, 0, 0, 254, 16, 0, kind, 0, 0, 0, 0];
        let (v4, v6) = (2, AF_INET6);
        assert_eq!(libc::c_int::from(AF_INET6), libc::AF_INET6);
        assert!(may_be_reserved(&message(v6, 56, libc::RTN_UNREACHABLE)));
        assert!(!may_be_reserved(&message(v6, 0, libc::RTN_UNREACHABLE)));
        assert!(!may_be_reserved(&message(v4, 24, libc::RTN_UNREACHABLE)));
        assert!(!may_be_reserved(&message(v6, 56, libc::RTN_UNICAST)));
        assert!(!may_be_reserved(&[v6, 56]));
    }
}
