use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{RouteNextHop, RouteScope};

use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn link(index: u32, name: &str, flags: LinkFlags, state: State) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::OperState(state)];
    message
}

fn address(index: u32, text: &str, flags: AddressFlags) -> AddressMessage {
    let net: IpNet = text.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Address(net.addr()), AddressAttribute::Flags(flags)];
    message
}

fn route(table: u32, metric: u32, index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family =
        if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    message.attributes = vec![
        RouteAttribute::Table(table),
        RouteAttribute::Priority(metric),
        RouteAttribute::Gateway(gateway.into()),
        RouteAttribute::Oif(index),
    ];
    message
}

fn up() -> LinkFlags {
    LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running
}

fn with_link(index: u32) -> Network {
    let mut network = Network::default();
    let message = RouteNetlinkMessage::NewLink(link(index, "isp", up(), State::Up));
    assert_eq!(apply(&mut network, &message, false), Outcome::Changed);
    network
}

fn with_default(index: u32) -> Network {
    let mut network = with_link(index);
    let message = RouteNetlinkMessage::NewRoute(route(254, 0, index, GATEWAY.into()));
    assert_eq!(apply(&mut network, &message, false), Outcome::Changed);
    network
}

#[test]
fn a_link_is_known_by_its_index_through_a_change_of_name() {
    let mut network = with_link(3);
    let renamed = RouteNetlinkMessage::NewLink(link(3, "cable", up(), State::Up));
    assert_eq!(apply(&mut network, &renamed, false), Outcome::Changed);
    assert_eq!(apply(&mut network, &renamed, false), Outcome::Unchanged);
    assert_eq!(network.link_named("cable").map(|link| link.index), Some(3));
    assert_eq!(network.link_named("isp"), None);
}

#[test]
fn carrier_follows_the_state_and_the_flags_where_there_is_none() {
    let lower_up = LinkFlags::Up | LinkFlags::LowerUp;
    let cases = [
        (up(), State::Up, true),
        (lower_up, State::LowerLayerDown, false),
        (LinkFlags::Up, State::Down, false),
        (lower_up, State::Dormant, false),
        (lower_up, State::Unknown, true),
        (LinkFlags::Up | LinkFlags::Running, State::Unknown, true),
        (LinkFlags::Up, State::Unknown, false),
    ];
    for (flags, state, carrier) in cases {
        assert_eq!(read_link(&link(1, "x", flags, state)).unwrap().carrier, carrier, "{flags:?} {state:?}");
    }
}

#[test]
fn devices_without_neighbours_are_point_to_point() {
    let mut ppp = link(1, "ppp0", up() | LinkFlags::Pointopoint | LinkFlags::Noarp, State::Unknown);
    ppp.header.link_layer_type = LinkLayerType::Ppp;
    let ppp = read_link(&ppp).unwrap();
    assert!(ppp.point_to_point && !ppp.ethernet);
    let mut wg = link(1, "wg0", up() | LinkFlags::Noarp, State::Unknown);
    wg.header.link_layer_type = LinkLayerType::None;
    assert!(read_link(&wg).unwrap().point_to_point);
    let ethernet = read_link(&link(1, "eth0", up() | LinkFlags::Noarp, State::Up)).unwrap();
    assert!(ethernet.ethernet && !ethernet.point_to_point);
}

#[test]
fn what_a_bridge_says_of_its_ports_is_ignored() {
    let mut network = with_default(3);
    let mut message = link(3, "isp", LinkFlags::empty(), State::Down);
    message.header.interface_family = AddressFamily::Bridge;
    let before = network.clone();
    for message in [RouteNetlinkMessage::NewLink(message.clone()), RouteNetlinkMessage::DelLink(message)] {
        assert_eq!(apply(&mut network, &message, false), Outcome::Unchanged);
    }
    assert_eq!(network, before);
}

#[test]
fn a_device_that_goes_takes_its_addresses_and_routes_along() {
    let mut network = with_link(3);
    for message in [
        RouteNetlinkMessage::NewAddress(address(3, "2001:db8::2/64", AddressFlags::empty())),
        RouteNetlinkMessage::NewRoute(route(254, 1024, 3, Ipv6Addr::LOCALHOST.into())),
    ] {
        assert_eq!(apply(&mut network, &message, false), Outcome::Changed);
    }
    let gone = RouteNetlinkMessage::DelLink(link(3, "isp", LinkFlags::empty(), State::Down));
    assert_eq!(apply(&mut network, &gone, false), Outcome::Changed);
    assert_eq!(network, Network::default());
}

#[test]
fn the_state_must_be_read_anew_when_ipv4_routes_go_without_a_word() {
    let down = RouteNetlinkMessage::NewLink(link(3, "isp", LinkFlags::empty(), State::Down));
    let gone = RouteNetlinkMessage::DelLink(link(3, "isp", LinkFlags::empty(), State::Down));
    let no_address = RouteNetlinkMessage::DelAddress(address(3, "10.0.0.2/24", AddressFlags::empty()));
    for message in [down, gone, no_address] {
        assert_eq!(apply(&mut with_default(3), &message, false), Outcome::Unclear);
        assert_ne!(apply(&mut with_link(3), &message, false), Outcome::Unclear);
    }
}

#[test]
fn an_address_counts_while_it_is_usable() {
    let mut network = Network::default();
    let mut say = |flags| {
        let message = RouteNetlinkMessage::NewAddress(address(3, "2001:db8::2/64", flags));
        let outcome = apply(&mut network, &message, false);
        (outcome, network.addresses.len())
    };
    assert_eq!(say(AddressFlags::Tentative), (Outcome::Unchanged, 0));
    assert_eq!(say(AddressFlags::Permanent), (Outcome::Changed, 1));
    assert_eq!(say(AddressFlags::Deprecated), (Outcome::Unchanged, 1));
    assert_eq!(say(AddressFlags::Tentative | AddressFlags::Dadfailed), (Outcome::Changed, 0));
    assert_eq!(say(AddressFlags::Tentative | AddressFlags::Optimistic), (Outcome::Changed, 1));
}

#[test]
fn the_peer_of_an_address_is_told_from_the_address() {
    let mut message = address(3, "10.9.0.2/32", AddressFlags::empty());
    message.attributes.push(AddressAttribute::Local(Ipv4Addr::new(10, 9, 0, 1).into()));
    let read = read_address(&message).unwrap();
    assert_eq!(read.net, "10.9.0.1/32".parse().unwrap());
    assert_eq!(read.peer, Some(Ipv4Addr::new(10, 9, 0, 2).into()));
}

#[test]
fn only_default_routes_of_others_count() {
    let mut network = with_link(3);
    let mut ours = route(1000, 0, 3, GATEWAY.into());
    ours.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    let mut narrow = route(254, 0, 3, GATEWAY.into());
    narrow.header.destination_prefix_length = 8;
    let mut unreachable = route(254, 0, 3, GATEWAY.into());
    unreachable.header.kind = RouteType::Unreachable;
    for message in [ours, narrow, unreachable] {
        let message = RouteNetlinkMessage::NewRoute(message);
        assert_eq!(apply(&mut network, &message, false), Outcome::Unchanged);
    }
    assert!(network.defaults.is_empty());
}

#[test]
fn a_multipath_route_is_one_default_for_each_next_hop() {
    let hop = |index, last| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes.push(RouteAttribute::Gateway(Ipv4Addr::new(10, 0, 0, last).into()));
        hop
    };
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.kind = RouteType::Unicast;
    message.header.table = 9;
    message.attributes.push(RouteAttribute::MultiPath(vec![hop(3, 1), hop(4, 2)]));
    let mut network = Network::default();
    assert_eq!(apply(&mut network, &RouteNetlinkMessage::NewRoute(message.clone()), false), Outcome::Changed);
    let found: Vec<_> = network.defaults.iter().map(|route| (route.table, route.index)).collect();
    assert_eq!(found, [(9, 3), (9, 4)]);
    assert_eq!(apply(&mut network, &RouteNetlinkMessage::DelRoute(message), false), Outcome::Changed);
    assert!(network.defaults.is_empty());
}

#[test]
fn a_route_that_replaces_takes_the_place_of_the_old_one_only() {
    let mut network = with_default(3);
    let elsewhere = RouteNetlinkMessage::NewRoute(route(77, 0, 3, GATEWAY.into()));
    assert_eq!(apply(&mut network, &elsewhere, false), Outcome::Changed);
    let new = RouteNetlinkMessage::NewRoute(route(254, 0, 3, Ipv4Addr::new(10, 0, 0, 9).into()));
    assert_eq!(apply(&mut network, &new, true), Outcome::Changed);
    assert_eq!(apply(&mut network, &new, true), Outcome::Unchanged);
    assert_eq!(network.defaults.len(), 2);
    let appended = RouteNetlinkMessage::NewRoute(route(254, 0, 3, GATEWAY.into()));
    assert_eq!(apply(&mut network, &appended, false), Outcome::Changed);
    assert_eq!(apply(&mut network, &new, true), Outcome::Unclear, "which of the two?");
}
