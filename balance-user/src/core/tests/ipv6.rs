//! What becomes of IPv6 by ISPs that differ in it.

use std::net::IpAddr;

use balance_common::Family;
use ipnet::Ipv6Net;

use super::*;
use crate::core::network::SourceRoute;
use crate::core::plan::Selector;

fn prefix(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn with_mode(mode: Ipv6Mode) -> IspConfig {
    IspConfig { ipv6: mode, ..isp(0) }
}

/// The first ISP as given, the second as ever.
fn world(first: IspConfig) -> World {
    World::new(config(vec![first, isp(1)]), Network::with_isps(2))
}

fn nft(world: &World) -> String {
    world.plan().kernel.nft.body
}

#[test]
fn an_isp_with_ipv6_off_is_used_for_ipv4_alone_and_says_so() {
    let world = world(with_mode(Ipv6Mode::Off));
    assert_eq!(world.shares(Family::V6), [0, 4096]);
    assert!(world.is_usable(0, Family::V4) && !world.is_usable(0, Family::V6));
    assert_eq!(world.reason(0), "IPv6 is off in the config");
    let plan = world.plan();
    let table = 1000 + u32::from(world.id(0).get());
    assert!(!plan.kernel.routes.contains_key(&(table, Family::V6)));
    assert!(plan.kernel.routes.contains_key(&(table, Family::V4)));
    assert!(!plan.kernel.rules.iter().any(|rule| rule.table == table && rule.family == Family::V6));
    assert!(!plan.probers.contains_key(&(world.id(0), Family::V6)));
    assert!(nft(&world).contains("meta nfproto ipv6 return"));
}

#[test]
fn a_configured_prefix_is_there_without_its_device() {
    let first = IspConfig { prefix: Some(prefix("2001:db8:a::/48")), ..with_mode(Ipv6Mode::Source) };
    let mut world = world(first);
    let expected = [(prefix("2001:db8:a::/48"), world.id(0))];
    assert_eq!(world.core.source_prefixes(), expected);
    // It decides while its ISP is down, too.
    world.network(|network| network.unplug(index(0)));
    assert_eq!(world.core.source_prefixes(), expected);
    assert!(nft(&world).contains("ip6 saddr vmap { 2001:db8:a::/48 : goto restore_1 }"), "{}", nft(&world));
}

#[test]
fn prefixes_are_found_by_what_tells_whose_they_are() {
    let mut world = world(with_mode(Ipv6Mode::Source));
    let found = |world: &World| world.core.source_prefixes().first().map(|(prefix, _)| *prefix);
    // A network with neighbours is no prefix to hand out.
    assert_eq!(found(&world), None);
    assert_eq!(world.reason(0), "IPv6: no prefix for \"source\", so masqueraded");
    // Whose it is does not follow from there being a reserved one.
    world.network(|network| {
        network.unreachable.insert(prefix("2001:db8:b::/48"));
    });
    assert_eq!(found(&world), None);
    world.network(|network| {
        network.address(index(0), "2001:db8:b:1::1/64");
    });
    assert_eq!(found(&world), Some(prefix("2001:db8:b::/48")));
    assert_eq!(world.reason(0), "");
    // A route that says more beats it, but not one for the device's own network, nor one of another device.
    world.network(|network| {
        for (place, net) in [(0, "2001:db8:0::/64"), (1, "2001:db8:c::/48"), (0, "2001:db8:d::/56")] {
            network.sources.insert(SourceRoute { index: index(place), prefix: prefix(net) });
        }
    });
    assert_eq!(found(&world), Some(prefix("2001:db8:d::/56")));
}

#[test]
fn the_network_of_a_point_to_point_device_is_its_prefix() {
    let mut world = world(with_mode(Ipv6Mode::Npt));
    world.network(|network| network.link(0).point_to_point = true);
    assert!(nft(&world).contains("snat ip6 prefix to ip6 saddr map { fd00::/64 : 2001:db8::/64 }"));
}

#[test]
fn without_a_prefix_or_with_one_too_small_all_is_masqueraded() {
    let masqueraded = |mode, length| {
        let given = (length > 0).then(|| Ipv6Net::new("2001:db8:a::".parse().unwrap(), length).unwrap());
        nft(&world(IspConfig { prefix: given, ..with_mode(mode) }))
    };
    let plain = masqueraded(Ipv6Mode::Masquerade, 0);
    assert_eq!(masqueraded(Ipv6Mode::Npt, 0), plain);
    assert_eq!(masqueraded(Ipv6Mode::Source, 0), plain);
    let small = masqueraded(Ipv6Mode::Npt, 72);
    assert!(!small.contains("snat") && small.contains("ip6 saddr 2001:db8:a::/72 return\n\t\tmasquerade"));
}

#[test]
fn networks_of_the_router_in_a_prefix_keep_their_place() {
    let first = IspConfig { prefix: Some(prefix("2001:db8:a::/48")), ..with_mode(Ipv6Mode::Npt) };
    let mut world = world(first);
    assert!(nft(&world).contains("{ fd00::/64 : 2001:db8:a::/64 }"));
    world.network(|network| {
        network.plug("dmz", 5);
        network.address(5, "2001:db8:a::1/64").address(2, "2001:db8:a:1::1/64");
    });
    assert!(nft(&world).contains("{ fd00::/64 : 2001:db8:a:2::/64 }"), "{}", nft(&world));
}

#[test]
fn global_prefixes_of_a_lan_have_room_before_local_ones() {
    let first = IspConfig { prefix: Some(prefix("2001:db8:a:1::/64")), ..with_mode(Ipv6Mode::Npt) };
    let mut world = world(first);
    world.network(|network| {
        network.address(2, "2001:db8:b::1/64");
    });
    assert!(nft(&world).contains("{ 2001:db8:b::/64 : 2001:db8:a:1::/64 }"), "{}", nft(&world));
}

#[test]
fn of_two_isps_that_claim_a_prefix_one_has_it() {
    let mut both = World::new(
        config(vec![with_mode(Ipv6Mode::Source), IspConfig { ipv6: Ipv6Mode::Source, ..isp(1) }]),
        Network::with_isps(2),
    );
    both.network(|network| {
        for (place, net) in [(0, "2001:db8:a::/48"), (1, "2001:db8:a:8000::/52")] {
            network.sources.insert(SourceRoute { index: index(place), prefix: prefix(net) });
        }
    });
    assert_eq!(both.core.source_prefixes(), [(prefix("2001:db8:a::/48"), both.id(0))]);
}

#[test]
fn flows_start_again_when_a_prefix_becomes_another_and_not_when_it_comes_back() {
    let mut world = world(with_mode(Ipv6Mode::Npt));
    let route = |net: &str| SourceRoute { index: index(0), prefix: prefix(net) };
    let renumbered = |world: &mut World| {
        let isp = world.id(0);
        let found = world.effects.contains(&Effect::Renumbered { isp });
        world.effects.clear();
        found
    };
    let mut follow = |net: Option<&str>| {
        world.network(|network| network.sources = net.map(route).into_iter().collect());
        renumbered(&mut world)
    };
    assert!(!follow(Some("2001:db8:a::/48")), "there was none");
    assert!(!follow(None), "it may come back");
    assert!(!follow(Some("2001:db8:a::/48")), "it came back");
    assert!(follow(Some("2001:db8:b::/48")));
    assert!(!follow(None));
    assert!(follow(Some("2001:db8:c::/48")));
}

#[test]
fn a_reload_that_turns_ipv6_off_moves_its_flows() {
    let mut world = world(probed(isp(0), &Family::ALL));
    world.reload(|config| config.isps[0].ipv6 = Ipv6Mode::Off);
    assert_eq!(world.deleted(), [(world.id(0), Family::V6)]);
    assert!(world.is_usable(0, Family::V4));
    let own: IpAddr = ip("2001:db8:0::2");
    let from = |rule: &crate::core::plan::Rule| rule.selector == Selector::From(IpNet::from(own));
    assert!(!world.plan().kernel.rules.iter().any(from));
}
