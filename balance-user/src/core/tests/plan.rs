//! What the kernel should look like.

use super::super::plan::{Attachment, ProberPlan, Role, Rule, Selector};
use super::*;
use crate::sysctl::FlowTimeouts;

/// The rules of a family as `ip rule` would show them.
fn rules(plan: &Plan, family: Family) -> Vec<String> {
    let selector = |rule: &Rule| match &rule.selector {
        Selector::All => "all".to_owned(),
        Selector::AllButDefault => "all but default".to_owned(),
        Selector::Mark { value, mask } => format!("mark {value:#x}/{mask:#x}"),
        Selector::From(prefix) => format!("from {prefix}"),
        Selector::OutputDevice(device) => format!("oif {device}"),
    };
    let of_family = plan.kernel.rules.iter().filter(|rule| rule.family == family);
    of_family.map(|rule| format!("{}: {} -> {}", rule.priority, selector(rule), rule.table)).collect()
}

/// The next hops of a table, as (gateway, weight).
fn hops(plan: &Plan, table: u32, family: Family) -> Vec<(String, u16)> {
    let hops = plan.kernel.routes.get(&(table, family)).map(|route| route.next_hops.clone());
    let hops = hops.unwrap_or_default().into_iter();
    hops.map(|hop| (hop.gateway.map_or_else(String::new, |gateway| gateway.to_string()), hop.weight))
        .collect()
}

#[test]
fn the_rules_are_those_of_the_design_in_its_order() {
    let mut network = Network::with_isps(2);
    network.address(10, "10.0.0.3/24").address(11, "10.1.0.9/32");
    let plan = World::new(config(isps(2)), network).plan();
    assert_eq!(
        rules(&plan, Family::V4),
        [
            "10000: all but default -> 254",
            "10101: mark 0x100/0x3f00 -> 1001",
            "10102: mark 0x200/0x3f00 -> 1002",
            "10201: from 10.0.0.2/32 -> 1001",
            "10201: from 10.0.0.3/32 -> 1001",
            "10202: from 10.1.0.2/32 -> 1002",
            "10202: from 10.1.0.9/32 -> 1002",
            "10301: oif isp0 -> 1001",
            "10302: oif isp1 -> 1002",
            "10900: all -> 1000",
        ]
    );
    assert_eq!(
        rules(&plan, Family::V6),
        [
            "10000: all but default -> 254",
            "10101: mark 0x100/0x3f00 -> 1001",
            "10102: mark 0x200/0x3f00 -> 1002",
            "10201: from 2001:db8::2/128 -> 1001",
            "10202: from 2001:db8:1::2/128 -> 1002",
            "10301: oif isp0 -> 1001",
            "10302: oif isp1 -> 1002",
            "10900: all -> 1000",
        ],
        "nothing from link-local addresses, which every device has"
    );
}

#[test]
fn the_highest_id_keeps_its_rules_and_its_table_in_our_ranges() {
    let mut all: Vec<IspConfig> = Vec::new();
    for number in 0..63 {
        all.push(IspConfig { name: format!("I{number}"), device: format!("dev{number}"), ..isp(0) });
    }
    let plan = World::new(config(all), Network::with_isps(0)).plan();
    assert_eq!(plan.kernel.rules.len(), 2 * (2 + 2 * 63));
    assert!(plan.kernel.rules.iter().all(|rule| (10_000..11_000).contains(&rule.priority)));
    let tables: BTreeSet<u32> = plan.kernel.rules.iter().map(|rule| rule.table).collect();
    assert!(tables.iter().all(|&table| table == MAIN || (1000..=1063).contains(&table)));
    assert_eq!(plan.kernel.table_names.len(), 64);
    assert_eq!(plan.kernel.table_names[&1063], "balance-I62");
}

#[test]
fn every_isp_has_its_table_and_those_in_use_share_the_balanced_default() {
    let mut config = config(isps(3));
    config.isps[1].weight = 3;
    config.isps[2].tier = 2;
    let mut world = World::new(config, Network::with_isps(3));
    let plan = world.plan();
    assert_eq!(hops(&plan, 1001, Family::V4), [("10.0.0.1".into(), 1)]);
    assert_eq!(hops(&plan, 1002, Family::V4), [("10.1.0.1".into(), 1)]);
    assert_eq!(hops(&plan, 1003, Family::V4), [("10.2.0.1".into(), 1)], "for what is bound to it");
    assert_eq!(hops(&plan, 1000, Family::V4), [("10.0.0.1".into(), 1), ("10.1.0.1".into(), 3)]);
    assert_eq!(hops(&plan, 1000, Family::V6), [("fe80::1".into(), 1), ("fe80::1".into(), 3)]);
    world.carrier(0, false);
    let plan = world.plan();
    assert_eq!(hops(&plan, 1001, Family::V4), []);
    assert_eq!(hops(&plan, 1000, Family::V4), [("10.1.0.1".into(), 1)]);
    world.carrier(1, false);
    assert_eq!(hops(&world.plan(), 1000, Family::V4), [("10.2.0.1".into(), 1)]);
}

#[test]
fn an_isp_that_is_down_by_its_probes_keeps_its_table_for_them() {
    let mut world = World::new(config(vec![probed(isp(0), &[Family::V4]), isp(1)]), Network::with_isps(2));
    world.kill(0, &Family::ALL);
    world.wait(A_WHILE);
    let plan = world.plan();
    assert_eq!(hops(&plan, 1001, Family::V4).len(), 1);
    assert_eq!(hops(&plan, 1000, Family::V4), [("10.1.0.1".into(), 1)]);
    assert!(plan.probers.contains_key(&(id(1), Family::V4)));
}

#[test]
fn weights_of_next_hops_fit_a_byte_and_none_is_zero() {
    let cases: [(&[u16], &[u16]); 5] = [
        (&[256, 1], &[256, 1]),
        (&[1000, 1], &[256, 1]),
        (&[1000, 500], &[256, 128]),
        (&[257, 257], &[256, 256]),
        (&[1000], &[1]),
    ];
    for (weights, scaled) in cases {
        let mut config = config(isps(weights.len()));
        config.isps.iter_mut().zip(weights).for_each(|(isp, weight)| isp.weight = *weight);
        let plan = World::new(config, Network::with_isps(weights.len())).plan();
        let hops: Vec<u16> = hops(&plan, 1000, Family::V4).into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(hops, scaled, "{weights:?}");
    }
}

#[test]
fn in_failover_mode_the_default_is_the_best_alone() {
    let mut config = config(isps(2));
    config.mode = Mode::Failover;
    config.isps[1].weight = 2;
    let plan = World::new(config, Network::with_isps(2)).plan();
    assert_eq!(hops(&plan, 1000, Family::V4), [("10.1.0.1".into(), 1)]);
}

#[test]
fn a_kernel_without_ipv6_is_asked_for_none() {
    let world = World::of(2);
    let plan = world.core.plan("main", &SysctlFacts::default());
    assert!(plan.kernel.routes.keys().all(|(_, family)| *family == Family::V4));
    assert!(plan.kernel.rules.iter().all(|rule| rule.family == Family::V4));
    assert_eq!(plan.maps, world.plan().maps);
}

#[test]
fn conntrack_sees_flows_of_the_fast_path_well_before_it_forgets_them() {
    let ages = |lease, udp, echo| {
        let mut config = config(isps(2));
        config.fast_path.lease = Duration::from_secs(lease);
        let world = World::new(config, Network::with_isps(2));
        let flow_timeouts = FlowTimeouts { udp, echo };
        let settings = world.core.plan("main", &SysctlFacts { flow_timeouts, ..facts() }).maps.settings;
        let seconds = |time| Duration::from_nanos(time).as_secs();
        (seconds(settings.lease), settings.stretch.map(seconds))
    };
    assert_eq!(ages(1, Some(30), Some(30)), (1, [19; 3]));
    assert_eq!(ages(1, None, None), (1, [19; 3]), "that is the kernel's own");
    assert_eq!(ages(1, Some(120), Some(30)), (1, [79, 79, 19]), "each protocol has its own");
    assert_eq!(ages(60, Some(120), Some(30)), (20, [60, 60, 0]));
    assert_eq!(ages(1, Some(0), None), (0, [0, 0, 20]));
}

#[test]
fn local_are_our_networks_and_addresses_and_whatever_is_not_global_unicast() {
    let mut config = config(isps(2));
    config.local = vec![net("10.77.0.0/16")];
    let mut network = Network::with_isps(2);
    network.plug("wg0", 60);
    network.address(60, "10.99.0.1/32");
    network.plug("tun0", 61);
    let peer = Some(ip("10.88.0.2"));
    network.addresses.insert(Address { index: 61, net: net("10.87.0.1/24"), peer });
    network.addresses.insert(Address { index: 10, net: net("10.0.7.1/32"), peer: Some(ip("10.0.7.2")) });
    let local = World::new(config, network).plan().maps.local;
    let expected = [
        "0.0.0.0/8",
        "10.0.0.2/32",
        "10.0.7.1/32",
        "10.1.0.2/32",
        "10.77.0.0/16",
        "10.87.0.1/32",
        "10.88.0.0/24",
        "10.99.0.1/32",
        "127.0.0.0/8",
        "127.0.0.1/32",
        "169.254.0.0/16",
        "192.168.1.0/24",
        "192.168.1.1/32",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "2001:db8::2/128",
        "2001:db8:1::2/128",
        "fd00::/64",
        "fd00::1/128",
        "fe80::/10",
        "fe80::/64",
        "fe80::2/128",
        "ff00::/8",
    ];
    let expected: BTreeSet<IpNet> = expected.into_iter().map(net).collect();
    assert_eq!(local, expected);
}

#[test]
fn programs_go_where_the_devices_are() {
    let mut network = Network::with_isps(2);
    network.unplug(11);
    network.link(0).ethernet = false;
    network.plug("eth9", 70);
    let mut world = World::new(config(isps(2)), network);
    let attachment =
        |index, device: &str, role, ethernet| Attachment { index, device: device.to_owned(), role, ethernet };
    let (lan, first) = (attachment(2, "lan0", Role::Lan, true), attachment(10, "isp0", Role::Isp, false));
    assert_eq!(world.plan().attachments, BTreeSet::from([lan.clone(), first.clone()]));
    let devices: Vec<_> = world
        .plan()
        .maps
        .devices
        .iter()
        .map(|(&index, device)| (index, device.isp, device.ethernet))
        .collect();
    assert_eq!(devices, [(2, 0, 1), (10, 1, 0)]);
    world.network(|network| network.plug_isp(1, 12));
    let second = attachment(12, "isp1", Role::Isp, true);
    assert_eq!(world.plan().attachments, BTreeSet::from([lan, first, second]));
    assert_eq!(world.plan().maps.devices[&12].isp, 2);
}

#[test]
fn paths_with_targets_are_probed_by_their_device_and_mark() {
    let all = vec![probed(isp(0), &Family::ALL), probed(isp(1), &[Family::V6]), isp(2)];
    let mut world = World::new(config(all), Network::with_isps(3));
    let prober = |index, mark, gateway| {
        let gateway = Some(ip(gateway));
        ProberPlan { index, mark, gateway, resolvers: Vec::new() }
    };
    assert_eq!(
        world.plan().probers,
        BTreeMap::from([
            ((id(1), Family::V4), prober(10, 0x100, "10.0.0.1")),
            ((id(1), Family::V6), prober(10, 0x100, "fe80::1")),
            ((id(2), Family::V6), prober(11, 0x200, "fe80::1")),
        ])
    );
    world.network(|network| network.without_addresses(0, Family::V4));
    assert!(!world.plan().probers.contains_key(&(id(1), Family::V4)));
}

#[test]
fn entries_say_what_status_needs() {
    let mut world = World::new(config(vec![isp(0), probed(isp(1), &[Family::V4])]), Network::with_isps(2));
    world.kill(1, &Family::ALL);
    world.wait(A_WHILE);
    let entry = world.entry(1);
    assert_eq!((entry.name(), entry.device(), entry.index), ("DSL".into(), "isp1".into(), 11));
    assert_eq!((entry.gateway_v4, entry.gateway_v6[0]), ([10, 1, 0, 1], 0xfe));
    assert_eq!((entry.state, entry.usable, entry.tier), (3, [0, 0], 1));
    assert_eq!(entry.down_order, [1, 1]);
    assert_eq!(world.entry(0).down_order, [0, 0]);
    world.network(|network| network.unplug(11));
    let entry = world.entry(1);
    assert_eq!((entry.index, entry.gateway_v4, entry.gateway_v6), (0, [0; 4], [0; 16]));
}

#[test]
fn instances_have_nft_tables_of_their_own() {
    let world = World::of(1);
    let name = |instance: &str| world.core.plan(instance, &facts()).kernel.nft.name;
    assert_eq!((name("main"), name("lab")), ("balance".to_owned(), "balance-lab".to_owned()));
}

#[test]
fn the_order_in_the_config_changes_nothing_but_ids() {
    let mut world = World::of(4);
    let before = world.plan();
    world.reload(|config| config.isps.rotate_left(2));
    assert_eq!(world.plan(), before);
}

#[test]
fn addresses_of_isps_are_known_for_flows_that_are_older_than_us() {
    let mut world = World::of(2);
    world.network(|network| network.unplug(11));
    let addresses = world.core.addresses();
    let first: BTreeSet<IpAddr> = addresses[0].1.iter().copied().collect();
    assert_eq!(first, BTreeSet::from([ip("10.0.0.2"), ip("2001:db8::2"), ip("fe80::2")]));
    assert_eq!(addresses[1], (id(2), Vec::new()));
}
