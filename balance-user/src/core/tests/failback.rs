//! Whether an ISP is back, and by which ISP flows would go then.

use balance_common::Flow;

use super::*;
use crate::config::RouteConfig;
use crate::config::policy::{RuleConfig, RuleTarget};
use crate::core::Forecast;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// Which ISPs have come back since it was last asked.
fn returned(world: &mut World) -> Vec<(IspId, Family)> {
    let returned = |effect: Effect| match effect {
        Effect::Returned { isp, family } => Some((isp, family)),
        _ => None,
    };
    std::mem::take(&mut world.effects).into_iter().filter_map(returned).collect()
}

/// The ISP of this id, in both families.
fn both(number: u8) -> [(IspId, Family); 2] {
    Family::ALL.map(|family| (id(number), family))
}

#[test]
fn an_isp_comes_back_once_each_time_that_it_was_away() {
    let mut world = World::of(3);
    for _ in 0..3 {
        assert_eq!(returned(&mut world), []);
        world.carrier(1, false);
        world.wait(A_WHILE);
        assert_eq!(returned(&mut world), []);
        world.carrier(1, true);
        // Coming and going so often it is held.
        world.wait(Duration::from_mins(5));
        let mut found = returned(&mut world);
        found.sort_unstable();
        assert_eq!(found, both(2));
        world.wait(A_WHILE);
    }
}

#[test]
fn only_the_family_that_was_away_comes_back() {
    let mut world = World::new(config(vec![probed(isp(0), &Family::ALL), isp(1)]), Network::with_isps(2));
    world.kill(0, &[V6]);
    world.wait(A_WHILE);
    world.heal(0);
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), [(id(1), V6)]);
}

#[test]
fn an_isp_that_comes_up_at_a_start_has_not_been_away_but_one_that_was_found_down_has() {
    let mut network = Network::with_isps(3);
    network.link(1).carrier = false;
    let isps = vec![probed(isp(0), &Family::ALL), isp(1), probed(isp(2), &[V4])];
    let mut world = World::new(config(isps), network);
    world.wait(A_WHILE);
    assert!(world.is_usable(0, V4) && world.is_usable(2, V6));
    assert_eq!(returned(&mut world), []);
    world.carrier(1, true);
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), both(2));
}

#[test]
fn doubt_weights_and_reloads_bring_nobody_back() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4]), isp(1)]), Network::with_isps(4));
    world.kill(0, &[V4]);
    world.wait(ms(1210));
    assert_eq!(world.core.isps[&world.id(0)].state_text(), "suspect");
    world.heal(0);
    world.wait(A_WHILE);
    world.set_weight(1, 70);
    world.reload(|config| config.isps[0].weight = 9);
    world.reload(|config| config.isps[1].tier = 2);
    world.reload(|config| config.isps.extend([isp(2), probed(isp(3), &Family::ALL)]));
    world.wait(A_WHILE);
    world.reload(|config| drop(config.isps.remove(0)));
    world.reload(|config| config.failback = Failback::Now);
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), []);

    let mut world = World::new(config(vec![isp(0), isp(1)]), Network::with_isps(2));
    world.reload(|config| {
        config.isps.push(IspConfig { ipv6: Ipv6Mode::Off, ..isp(2) });
    });
    world.network(|network| network.plug_isp(2, 12));
    world.wait(A_WHILE);
    let _ = returned(&mut world);
    world.reload(|config| config.isps[2].ipv6 = Ipv6Mode::Masquerade);
    world.wait(A_WHILE);
    assert!(world.is_usable(2, V6));
    assert_eq!(returned(&mut world), [], "IPv6 that is switched on was not away");
}

#[test]
fn what_the_operator_has_taken_out_comes_back_when_the_operator_says_so() {
    for forced in [Forced::Up, Forced::No] {
        let mut world = World::of(2);
        world.force(0, Forced::Down);
        world.wait(A_WHILE);
        assert_eq!(returned(&mut world), []);
        world.force(0, forced);
        assert_eq!(returned(&mut world), both(1));
    }
    let mut world = World::of(2);
    world.force(0, Forced::Up);
    world.force(0, Forced::No);
    assert_eq!(returned(&mut world), []);
}

#[test]
fn an_isp_that_was_down_before_a_restart_comes_back_after_it_and_no_other() {
    let mut world = World::of(3);
    world.carrier(0, false);
    world.force(2, Forced::Down);
    world.effects.clear();
    world.core = world.restarted();
    world.advance();
    assert_eq!(returned(&mut world), []);
    world.carrier(0, true);
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), both(1));
    world.force(2, Forced::No);
    assert_eq!(returned(&mut world), both(3));
    world.core = world.restarted();
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), []);

    // In use by force, though it is dead.
    let mut dead = World::new(config(vec![probed(isp(0), &Family::ALL), isp(1)]), Network::with_isps(2));
    dead.force(0, Forced::Up);
    dead.kill(0, &Family::ALL);
    dead.wait(A_WHILE);
    dead.core = dead.restarted();
    dead.wait(A_WHILE);
    assert!(dead.is_usable(0, V4));
    assert_eq!(returned(&mut dead), []);

    // Back while no daemon ran.
    world.carrier(1, false);
    world.effects.clear();
    world.network.link(1).carrier = true;
    world.core = world.restarted();
    world.wait(A_WHILE);
    assert_eq!(returned(&mut world), both(2));
}

/// TCP from an address and port to an address and port.
fn flow(from: &str, to: &str) -> Flow {
    let [from, to]: [std::net::SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
    Flow {
        family: if from.is_ipv4() { V4 } else { V6 },
        source: from.ip().into(),
        destination: to.ip().into(),
        protocol: 6,
        source_port: from.port(),
        destination_port: to.port(),
    }
}

fn forecast(world: &World) -> Forecast {
    world.core.forecast(&world.plan().maps, 7)
}

/// The default policy is CABLE's; the others are those of an ISP each, in the order of the ISPs.
fn by_rules(rules: Vec<RuleConfig>) -> World {
    let mut config = config(isps(3));
    config.policies[0].members = PolicyConfig::of_isp(NAMES[0]).members;
    config.policies[0].failback = Some(Failback::Now);
    config.policies.extend((0..3).map(|place| PolicyConfig::of_isp(NAMES[place])));
    config.failback = Failback::Idle(ms(9000));
    config.rules = rules;
    config.lans.push(LanConfig { name: "GUESTS".to_owned(), device: "lan1".to_owned() });
    let mut network = Network::with_isps(3);
    network.plug("lan1", 3);
    network.address(3, "192.168.2.1/24").address(3, "192.168.0.1/16").address(3, "fd00:2::1/64");
    World::new(config, network)
}

fn to(place: usize) -> RuleConfig {
    RuleConfig { to: RuleTarget::Policy(place + 1), ..RuleConfig::default() }
}

#[test]
fn flows_from_the_lans_go_by_the_first_rule_about_them() {
    let idle = Failback::Idle(ms(9000));
    let world = by_rules(vec![
        RuleConfig { destination_ports: vec![443..=443], lans: vec![2], ..to(1) },
        RuleConfig { destination_ports: vec![443..=444], ..to(2) },
        RuleConfig { destination_ports: vec![80..=80], ..RuleConfig::default() },
    ]);
    let forecast = forecast(&world);
    for (from, port, expected) in [
        ("192.168.1.7:1", 443, Some((id(3), idle))),
        ("192.168.2.7:1", 443, Some((id(2), idle))),
        ("192.168.3.7:1", 443, Some((id(2), idle))),
        ("[fd00::7]:1", 443, Some((id(3), idle))),
        ("[fd00:2::7]:1", 443, Some((id(2), idle))),
        ("192.168.2.7:1", 444, Some((id(3), idle))),
        ("192.168.2.7:1", 445, Some((id(1), Failback::Now))),
        ("192.168.2.7:1", 80, None),
    ] {
        let far = if from.starts_with('[') { "[2001:db8:ffff::1]" } else { "203.0.113.1" };
        assert_eq!(forecast.isp_of(&flow(from, &format!("{far}:{port}"))), expected, "{from} {port}");
    }
}

#[test]
fn what_does_not_come_from_a_lan_or_stays_here_is_nobodys() {
    let mut world = by_rules(Vec::new());
    world.reload(|config| {
        let route = |to, device: &str, masquerade| RouteConfig {
            to: net(to),
            device: device.to_owned(),
            gateway: None,
            masquerade,
        };
        config.routes = vec![route("10.99.0.0/16", "lan0", false), route("10.98.0.0/16", "tun0", false)];
        config.local = vec![net("198.51.100.0/24")];
    });
    let forecast = forecast(&world);
    for (from, to, is_known) in [
        ("192.168.1.7:1", "203.0.113.1:1", true),
        ("10.99.1.1:1", "203.0.113.1:1", true),
        ("10.98.1.1:1", "203.0.113.1:1", false),
        ("203.0.113.1:1", "10.0.0.2:443", false),
        ("203.0.113.1:1", "203.0.113.2:443", false),
        ("192.168.1.1:1", "203.0.113.1:1", false),
        ("10.0.0.2:1", "203.0.113.1:1", false),
        ("192.168.1.7:1", "192.168.2.9:1", false),
        ("192.168.1.7:1", "10.1.0.2:1", false),
        ("192.168.1.7:1", "198.51.100.9:1", false),
        ("192.168.1.7:1", "10.98.1.1:1", false),
    ] {
        assert_eq!(forecast.isp_of(&flow(from, to)).is_some(), is_known, "{from} {to}");
    }
    // Two LANs with the same network.
    world.network(|network| _ = network.address(3, "192.168.1.250/24"));
    assert_eq!(self::forecast(&world).isp_of(&flow("192.168.1.7:1", "203.0.113.1:1")), None);
}

#[test]
fn where_a_dscp_might_decide_nothing_is_known() {
    let world = by_rules(vec![
        RuleConfig { destination_ports: vec![1..=1], ..to(1) },
        RuleConfig { destination_ports: vec![1..=2], dscps: vec![46], ..to(2) },
    ]);
    let forecast = forecast(&world);
    let isp =
        |port| forecast.isp_of(&flow("192.168.1.7:1", &format!("203.0.113.1:{port}"))).map(|(isp, _)| isp);
    assert_eq!([1, 2, 3].map(isp), [Some(id(2)), None, Some(id(1))]);
}

#[test]
fn sources_that_have_an_isp_of_their_own_and_flows_without_any_are_nobodys() {
    let source =
        IspConfig { ipv6: Ipv6Mode::Source, prefix: Some("2001:db8:a::/48".parse().unwrap()), ..isp(0) };
    let mut network = Network::with_isps(2);
    network.address(2, "2001:db8:a:1::1/64");
    let mut world = World::new(config(vec![source, isp(1)]), network);
    let known = |world: &World, from: &str| {
        let to = if from.starts_with('[') { "[2001:db8:ffff::1]:1" } else { "203.0.113.1:1" };
        forecast(world).isp_of(&flow(from, to)).is_some()
    };
    let from = ["[2001:db8:a:1::7]:1", "[fd00::7]:1", "192.168.1.7:1"];
    assert_eq!(from.map(|from| known(&world, from)), [false, true, true]);
    world.carrier(0, false);
    world.carrier(1, false);
    assert_eq!(from.map(|from| known(&world, from)), [false, false, false]);
}

#[test]
fn what_has_come_back_gets_what_it_had() {
    let mut world = World::of(3);
    let flows: Vec<Flow> =
        (1..=2000).map(|port| flow(&format!("192.168.1.7:{port}"), "203.0.113.1:1")).collect();
    let isps = |world: &World| -> Vec<IspId> {
        let forecast = forecast(world);
        flows.iter().map(|flow| forecast.isp_of(flow).unwrap().0).collect()
    };
    let before = isps(&world);
    world.carrier(1, false);
    for (before, now) in before.iter().zip(isps(&world)) {
        assert!(if *before == id(2) { now != id(2) } else { now == *before });
    }
    world.carrier(1, true);
    world.wait(A_WHILE);
    assert_eq!(isps(&world), before);
}
