//! What the watcher sees.

use balance_common::Family;
use balance_user::core::network::{DefaultRoute, Network};
use balance_user::netlink::watch::{Watcher, dump};

use crate::namespace::{in_namespace, index, ip, ip_batch, veth};

/// Waits until the network is as asked.
async fn until(watcher: &mut Watcher, mut network: Network, as_asked: impl Fn(&Network) -> bool) -> Network {
    while !as_asked(&network) {
        network = watcher.changed().await.expect("events").clone();
    }
    assert_settled(&network).await;
    network
}

/// What was pieced together from events is what a fresh look finds. (Operational states may be a step behind.)
async fn assert_settled(network: &Network) {
    let fresh = dump().await.expect("a dump");
    assert_eq!(network.defaults, fresh.defaults);
    assert_eq!(network.links.keys().collect::<Vec<_>>(), fresh.links.keys().collect::<Vec<_>>());
}

fn gateways(network: &Network) -> Vec<String> {
    network.defaults.iter().filter_map(|route| route.gateway).map(|gateway| gateway.to_string()).collect()
}

#[test]
fn gateways_are_found_in_every_table_and_with_their_metric() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        ip("route add default via 10.1.0.1 dev cable metric 100");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        assert_eq!(gateways(&network), ["10.1.0.1"]);

        ip("route add default via 10.1.0.9 dev cable table 7777");
        ip("-6 route add default via fe80::1 dev cable metric 5");
        let network = until(&mut watcher, network, |network| network.defaults.len() == 3).await;
        let route = |family, table, metric, gateway: &str| DefaultRoute {
            family,
            table,
            metric,
            index: cable,
            gateway: Some(gateway.parse().expect("an address")),
        };
        assert!(network.defaults.contains(&route(Family::V4, 254, 100, "10.1.0.1")));
        assert!(network.defaults.contains(&route(Family::V4, 7777, 0, "10.1.0.9")));
        assert!(network.defaults.contains(&route(Family::V6, 254, 5, "fe80::1")));

        ip("route del default table 7777");
        ip("-6 route del default dev cable");
        let network = until(&mut watcher, network, |network| network.defaults.len() == 1).await;
        assert_eq!(gateways(&network), ["10.1.0.1"]);
    });
}

#[test]
fn routes_of_ours_are_not_seen() {
    in_namespace(|| async {
        veth("cable", 1);
        ip("route add default via 10.1.0.1 dev cable table 1001 proto 201");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        assert!(network.defaults.is_empty());
        ip("route add default via 10.1.0.1 dev cable table 1000 proto 201");
        ip("route add default via 10.1.0.9 dev cable");
        let network = until(&mut watcher, network, |network| !network.defaults.is_empty()).await;
        assert_eq!(gateways(&network), ["10.1.0.9"]);
    });
}

#[test]
fn a_renewed_lease_with_another_gateway_is_followed() {
    in_namespace(|| async {
        veth("cable", 1);
        ip("route add default via 10.1.0.1 dev cable");
        ip("-6 route add default via 2001:db8:1::1 dev cable");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        ip("route replace default via 10.1.0.9 dev cable");
        ip("-6 route replace default via 2001:db8:1::9 dev cable");
        let replaced =
            |network: &Network| gateways(network) == ["10.1.0.9".to_owned(), "2001:db8:1::9".to_owned()];
        let network = until(&mut watcher, network, replaced).await;

        // As some clients do it: the address goes first, and the kernel drops the route without a word.
        ip("addr del 10.1.0.2/24 dev cable");
        let network = until(&mut watcher, network, |network| gateways(network) == ["2001:db8:1::9"]).await;
        ip("addr add 10.2.0.2/24 dev cable");
        ip("route add default via 10.2.0.1 dev cable");
        until(&mut watcher, network, |network| gateways(network).contains(&"10.2.0.1".to_owned())).await;
    });
}

#[test]
fn a_route_that_goes_with_its_source_address_is_noticed_to_be_gone() {
    in_namespace(|| async {
        veth("cable", 1);
        ip("addr add 10.3.0.2/24 dev cable");
        ip("route add default via 10.1.0.1 dev cable src 10.3.0.2");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        assert_eq!(network.defaults.len(), 1);
        ip("addr del 10.3.0.2/24 dev cable");
        until(&mut watcher, network, |network| network.defaults.is_empty()).await;
    });
}

#[test]
fn routes_that_go_with_a_device_are_noticed_to_be_gone() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        let dsl = veth("dsl", 2);
        ip("route add default via 10.1.0.1 dev cable");
        ip("route add default table 9 nexthop via 10.1.0.1 dev cable nexthop via 10.2.0.1 dev dsl");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        assert_eq!(network.defaults.len(), 3);
        ip("link set cable down");
        let down = |network: &Network| !network.links[&cable].up && network.defaults.len() == 2;
        let network = until(&mut watcher, network, down).await;
        // With a device that is deleted the kernel drops the next hops of the others, too.
        ip("link del cable");
        let network = until(&mut watcher, network, |network| network.defaults.is_empty()).await;
        assert!(network.links.contains_key(&dsl));
        assert!(!network.addresses.iter().any(|address| address.index == cable));
    });
}

#[test]
fn carrier_is_lost_and_found() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        let network = until(&mut watcher, network, |network| network.links[&cable].carrier).await;
        ip("link set cable-far down");
        let network = until(&mut watcher, network, |network| !network.links[&cable].carrier).await;
        assert!(network.links[&cable].up);
        ip("link set cable-far up");
        until(&mut watcher, network, |network| network.links[&cable].carrier).await;
    });
}

#[test]
fn a_device_that_comes_back_has_a_new_index_and_may_change_its_name() {
    in_namespace(|| async {
        let first = veth("ppp-like", 1);
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        ip("link del ppp-like");
        let network = until(&mut watcher, network, |network| network.link_named("ppp-like").is_none()).await;
        ip("link add ppp-like index 4711 type veth peer name other");
        let network = until(&mut watcher, network, |network| network.link_named("ppp-like").is_some()).await;
        assert_ne!(network.link_named("ppp-like").map(|link| link.index), Some(first));
        ip("link set ppp-like name renamed");
        let network = until(&mut watcher, network, |network| network.link_named("renamed").is_some()).await;
        assert_eq!(network.link_named("renamed").map(|link| link.index), Some(4711));
        assert_eq!(network.link_named("ppp-like"), None);
    });
}

#[test]
fn addresses_come_when_they_are_usable_and_with_their_peer() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        ip("tuntap add tun7 mode tun");
        let (mut watcher, network) = Watcher::start().await.expect("a watcher");
        ip("addr add 10.9.0.1 peer 10.9.0.2 dev tun7");
        ip("addr add 2001:db8:77::2/64 dev cable");
        let waited_for = "2001:db8:77::2/64".parse().expect("a prefix");
        let network = until(&mut watcher, network, |network| {
            network.addresses_of(cable).any(|address| address.net == waited_for)
        })
        .await;
        assert!(
            !ip("-o addr show dev cable to 2001:db8:77::2").contains("tentative"),
            "duplicate detection is over"
        );
        let tun = network.link_named("tun7").expect("the device");
        assert!(tun.point_to_point && !tun.ethernet);
        let address = network.addresses_of(index("tun7")).next().expect("an address");
        assert_eq!(address.peer, Some("10.9.0.2".parse().expect("an address")));
    });
}

#[test]
fn what_is_lost_in_an_overrun_is_read_anew() {
    in_namespace(|| async {
        veth("cable", 1);
        ip("route add default via 10.1.0.1 dev cable");
        let (mut watcher, network) = Watcher::start_with_buffer(4096).await.expect("a watcher");
        // Nobody reads while these are made, so all but the first are lost.
        let flood = |verb: &str| {
            let routes =
                (0..2000).map(|n| format!("route {verb} 172.16.{}.{}/32 dev cable\n", n / 250, n % 250));
            ip_batch(&routes.collect::<String>());
        };
        flood("add");
        ip("route replace default via 10.1.0.9 dev cable");
        let network = until(&mut watcher, network, |network| gateways(network) == ["10.1.0.9"]).await;
        // And it goes on listening afterwards, and after another one.
        ip("route replace default via 10.1.0.8 dev cable");
        let network = until(&mut watcher, network, |network| gateways(network) == ["10.1.0.8"]).await;
        flood("del");
        ip("route del default");
        until(&mut watcher, network, |network| network.defaults.is_empty()).await;
    });
}

#[test]
fn no_change_is_lost_when_waiting_for_it_is_given_up() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        ip("route add default via 10.1.0.1 dev cable");
        let (mut watcher, mut network) = Watcher::start().await.expect("a watcher");
        // Setting the device down has everything read anew, which takes several steps.
        ip("link set cable down");
        while network.links[&cable].up || !network.defaults.is_empty() {
            tokio::select! {
                biased;
                changed = watcher.changed() => network = changed.expect("events").clone(),
                () = tokio::task::yield_now() => {}
            }
        }
    });
}

#[test]
fn a_lost_carrier_is_seen_at_once_when_looked_for() {
    in_namespace(|| async {
        let index = veth("isp0", 1);
        let (mut watcher, mut network) = Watcher::start().await.unwrap();
        while !network.links[&index].carrier {
            network = watcher.changed().await.unwrap().clone();
        }
        assert!(watcher.look_at(&[index]).await.unwrap().is_none(), "it is as it was");
        ip("link set isp0-far down");
        let network = watcher.look_at(&[index]).await.unwrap().expect("it has changed");
        assert!(!network.links[&index].carrier);
        let again = watcher.look_at(&[index, 4711]).await.unwrap();
        assert!(again.is_none(), "once is enough, and a device that is gone is no error");
    });
}
