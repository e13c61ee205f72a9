//! The way out: which gateway, and why there is none.

use super::*;

/// The next hop of the first ISP, as `index gateway [onlink]`, or why there is none.
fn way(world: &World, family: Family) -> String {
    match &world.core.isps[&world.id(0)].path(family).next_hop {
        Err(why) => why.0.clone(),
        Ok(hop) => {
            let gateway = hop.gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
            format!("{} {gateway}{}", hop.index, if hop.onlink { " onlink" } else { "" })
        }
    }
}

fn way_in(network: impl FnOnce(&mut Network), isp: impl FnOnce(&mut IspConfig)) -> [String; 2] {
    let mut config = config(isps(1));
    isp(&mut config.isps[0]);
    let mut all = Network::with_isps(1);
    network(&mut all);
    let world = World::new(config, all);
    Family::ALL.map(|family| way(&world, family))
}

#[test]
fn the_gateway_is_that_of_the_default_route() {
    assert_eq!(way_in(|_| {}, |_| {}), ["10 10.0.0.1", "10 fe80::1"]);
}

#[test]
fn the_gateway_of_the_config_comes_before_any_that_is_found() {
    let ways = way_in(
        |_| {},
        |isp| {
            isp.gateway_v4 = Some("10.0.0.254".parse().unwrap());
            isp.gateway_v6 = Some("2001:db8::fe".parse().unwrap());
        },
    );
    assert_eq!(ways, ["10 10.0.0.254", "10 2001:db8::fe"]);
}

#[test]
fn a_gateway_outside_of_all_prefixes_of_the_device_is_onlink() {
    let ways = way_in(
        |_| {},
        |isp| {
            isp.gateway_v4 = Some("172.31.1.1".parse().unwrap());
            isp.gateway_v6 = Some("2001:db8:ff::1".parse().unwrap());
        },
    );
    assert_eq!(ways, ["10 172.31.1.1 onlink", "10 2001:db8:ff::1 onlink"]);
}

#[test]
fn routes_of_main_come_before_those_of_other_tables_and_then_the_metric_decides() {
    type Routes = &'static [(u32, u32, &'static str)];
    let routes: [(Routes, &str); 5] = [
        (&[(100, 5, "10.0.0.5")], "10 10.0.0.5"),
        (&[(100, 5, "10.0.0.5"), (MAIN, 900, "10.0.0.9")], "10 10.0.0.9"),
        (&[(MAIN, 200, "10.0.0.2"), (MAIN, 100, "10.0.0.7")], "10 10.0.0.7"),
        (&[(300, 200, "10.0.0.2"), (400, 100, "10.0.0.7")], "10 10.0.0.7"),
        (&[(MAIN, 100, "10.0.0.9"), (MAIN, 100, "10.0.0.8")], "10 10.0.0.8"),
    ];
    for (routes, expected) in routes {
        let [v4, v6] = way_in(
            |network| {
                network.without_routes(0);
                for (table, metric, gateway) in routes {
                    network.route(10, *table, *metric, gateway);
                }
            },
            |_| {},
        );
        assert_eq!(v4, expected, "{routes:?}");
        assert_eq!(v6, "no IPv6 gateway on isp0");
    }
}

#[test]
fn routes_by_other_devices_and_without_gateway_lead_nowhere() {
    let [v4, _] = way_in(
        |network| {
            network.without_routes(0);
            network.route(2, MAIN, 1, "192.168.1.254");
            let family = Family::V4;
            network.defaults.insert(DefaultRoute {
                family,
                table: MAIN,
                metric: 0,
                index: 10,
                gateway: None,
            });
        },
        |_| {},
    );
    assert_eq!(v4, "no IPv4 gateway on isp0");
}

#[test]
fn a_point_to_point_device_needs_no_gateway_but_uses_one_that_is_given() {
    let ppp = |network: &mut Network| {
        network.without_routes(0);
        network.link(0).point_to_point = true;
    };
    assert_eq!(way_in(ppp, |_| {}), ["10 none", "10 none"]);
    let [v4, _] = way_in(ppp, |isp| isp.gateway_v4 = Some("10.0.0.9".parse().unwrap()));
    assert_eq!(v4, "10 10.0.0.9");
}

#[test]
fn the_peer_of_an_address_is_on_the_link_and_the_prefix_is_the_peers() {
    let with_peer = |gateway: &str| {
        let [v4, _] = way_in(
            |network| {
                network.without_routes(0);
                network.without_addresses(0, Family::V4);
                network.addresses.insert(Address {
                    index: 10,
                    net: net("100.64.0.2/24"),
                    peer: Some(ip("203.0.113.1")),
                });
                network.route(10, MAIN, 0, gateway);
            },
            |_| {},
        );
        v4
    };
    assert_eq!(with_peer("203.0.113.1"), "10 203.0.113.1");
    assert_eq!(with_peer("203.0.113.7"), "10 203.0.113.7");
    assert_eq!(with_peer("100.64.0.1"), "10 100.64.0.1 onlink");
}

#[test]
fn the_reasons_say_what_is_missing() {
    type Change = fn(&mut Network);
    let reasons: [(&str, Change); 6] = [
        ("no device isp0", |network| network.unplug(10)),
        ("isp0 is switched off", |network| network.link(0).up = false),
        ("no carrier on isp0", |network| network.link(0).carrier = false),
        ("isp0 is switched off", |network| {
            network.link(0).up = false;
            network.link(0).carrier = false;
        }),
        ("no IPv4 address on isp0", |network| {
            network.without_addresses(0, Family::V4);
            network.without_addresses(0, Family::V6);
        }),
        ("no IPv4 gateway on isp0", |network| network.without_routes(0)),
    ];
    for (reason, change) in reasons {
        let mut network = Network::with_isps(1);
        change(&mut network);
        let world = World::new(config(isps(1)), network);
        assert_eq!(world.reason(0), reason);
        assert_eq!(way(&world, Family::V4), reason);
        assert_eq!(world.core.pathless(Family::V4).collect::<Vec<_>>(), [("CABLE", reason)]);
        assert!(world.plan().kernel.routes.is_empty());
    }
}

#[test]
fn an_isp_without_ipv6_is_nothing_to_wonder_about() {
    let mut network = Network::with_isps(1);
    network.without_addresses(0, Family::V6);
    network.address(10, "fe80::2/64");
    let world = World::new(config(isps(1)), network);
    assert_eq!(way(&world, Family::V6), "no IPv6 address on isp0", "link-local is no address");
    assert_eq!(world.reason(0), "");
    assert!(world.is_usable(0, Family::V4));
    assert!(!world.is_usable(0, Family::V6));
}

#[test]
fn a_gateway_once_known_outlives_the_default_route() {
    let mut world = World::of(1);
    world.network(|network| network.without_routes(0));
    assert_eq!(way(&world, Family::V4), "10 10.0.0.1");
    assert_eq!(way(&world, Family::V6), "10 fe80::1");
    world.carrier(0, false);
    world.carrier(0, true);
    assert_eq!(way(&world, Family::V4), "10 10.0.0.1");
    world.network(|network| _ = network.route(10, 77, 0, "10.0.0.3"));
    assert_eq!(way(&world, Family::V4), "10 10.0.0.3", "a newer one takes over");
}

#[test]
fn a_known_gateway_is_forgotten_when_the_device_is_another_one() {
    let mut world = World::of(1);
    world.network(|network| {
        network.unplug(10);
        network.plug_isp(0, 33);
        network.without_routes(0);
    });
    assert_eq!(way(&world, Family::V4), "no IPv4 gateway on isp0");
    world.network(|network| _ = network.route(33, MAIN, 0, "10.0.0.1"));
    assert_eq!(way(&world, Family::V4), "33 10.0.0.1");
}

#[test]
fn a_known_gateway_is_forgotten_when_the_device_is_in_another_network() {
    let mut world = World::of(1);
    world.network(|network| {
        network.without_routes(0);
        network.without_addresses(0, Family::V4);
        // What a DHCP client falls back to when nobody answers.
        network.address(10, "169.254.7.7/16");
    });
    assert_eq!(way(&world, Family::V4), "no IPv4 gateway on isp0");
}

#[test]
fn a_known_gateway_that_never_was_in_a_prefix_need_not_be_later() {
    let mut network = Network::with_isps(1);
    network.without_routes(0);
    network.route(10, MAIN, 0, "172.31.1.1");
    let mut world = World::new(config(isps(1)), network);
    world.network(|network| network.without_routes(0));
    assert_eq!(way(&world, Family::V4), "10 172.31.1.1 onlink");
}

#[test]
fn a_known_gateway_is_forgotten_when_the_config_names_another_device_or_gateway() {
    let mut network = Network::with_isps(1);
    network.plug("other", 50);
    network.address(50, "10.0.0.3/24");
    let mut world = World::new(config(isps(1)), network);
    world.reload(|config| config.isps[0].device = "other".to_owned());
    assert_eq!(way(&world, Family::V4), "no IPv4 gateway on other");

    let mut world = World::of(1);
    world.network(|network| network.without_routes(0));
    world.reload(|config| config.isps[0].gateway_v4 = Some("10.0.0.66".parse().unwrap()));
    assert_eq!(way(&world, Family::V4), "10 10.0.0.66");
    world.reload(|config| config.isps[0].gateway_v4 = None);
    assert_eq!(way(&world, Family::V4), "no IPv4 gateway on isp0");
}

#[test]
fn a_redialled_device_is_followed_to_its_new_index() {
    let mut world = World::of(2);
    world.network(|network| network.unplug(10));
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.network(|network| network.plug_isp(0, 99));
    world.wait(A_WHILE);
    assert_eq!(way(&world, Family::V4), "99 10.0.0.1");
    assert_eq!(world.entry(0).index, 99);
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
}

#[test]
fn what_is_remembered_of_gateways_and_ids_is_in_the_fingerprint() {
    let mut worlds = [World::of(2), World::of(2)];
    let [one, other] = &mut worlds;
    assert_eq!(one.core.fingerprint(), other.core.fingerprint());
    one.network(|network| _ = network.route(10, MAIN, 1, "10.0.0.9"));
    for world in [&mut *one, &mut *other] {
        world.network(|network| network.without_routes(0));
    }
    assert_eq!(one.network, other.network);
    assert!(one.plan() != other.plan());
    assert_ne!(one.core.fingerprint(), other.core.fingerprint());

    let mut one = World::new(config(vec![isp(1)]), Network::with_isps(1));
    one.reload(|config| config.isps = vec![isp(0)]);
    let other = World::of(1);
    assert_eq!(one.core.config(), other.core.config());
    assert!(one.plan() != other.plan());
    assert_ne!(one.core.fingerprint(), other.core.fingerprint());
}
