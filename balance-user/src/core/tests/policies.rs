//! Policies, and the numbers that they have.

use balance_common::MarkMask;
use balance_common::layout::PolicyEntry;

use super::super::health::State;
use super::super::{last_resort_of, policies};
use super::*;
use crate::config::policy::{Degraded, LastResort, MemberConfig, RuleConfig, RuleTarget, Weights};
use crate::config::{Band, Limits};

fn policy(name: &str, isps: &[&str]) -> PolicyConfig {
    let member = |isp: &&str| MemberConfig { isp: (*isp).to_owned(), weight: None, tier: None };
    PolicyConfig {
        name: name.to_owned(),
        members: isps.iter().map(member).collect(),
        ..PolicyConfig::default()
    }
}

fn with(policies: &[PolicyConfig]) -> Config {
    let mut config = config(isps(3));
    config.policies.extend_from_slice(policies);
    config.rules = (1..config.policies.len())
        .map(|place| RuleConfig { to: RuleTarget::Policy(place), ..RuleConfig::default() })
        .collect();
    config
}

fn numbers(world: &World) -> Vec<(u8, String)> {
    world.plan().maps.policies.iter().map(|(id, entry)| (id.get(), entry.name())).collect()
}

fn named(numbers: &[(u8, &str)]) -> Vec<(u8, String)> {
    numbers.iter().map(|&(number, name)| (number, name.to_owned())).collect()
}

#[test]
fn a_policy_keeps_its_number_when_others_come_and_go() {
    let mut world =
        World::new(with(&[policy("A", &["CABLE"]), policy("B", &["DSL"])]), Network::with_isps(3));
    assert_eq!(numbers(&world), named(&[(0, "default"), (1, "A"), (2, "B")]));
    let swapped = with(&[policy("B", &["DSL"]), policy("C", &["LTE"])]);
    world.event(Event::Reload(Box::new(swapped)));
    assert_eq!(numbers(&world), named(&[(0, "default"), (1, "C"), (2, "B")]));
    let rules = &world.plan().maps.rules;
    assert_eq!(rules.fields.policies[..2], [2, 1], "rules lead to the numbers");
    // So it does over a restart.
    let left: BTreeMap<PolicyId, String> =
        world.plan().maps.policies.iter().map(|(&id, entry)| (id, entry.name())).collect();
    let mut world = World::new(with(&[policy("C", &["LTE"]), policy("B", &["DSL"])]), Network::with_isps(3));
    world.core.keep_policies(&left);
    assert_eq!(numbers(&world), named(&[(0, "default"), (1, "C"), (2, "B")]));
}

#[test]
fn each_policy_has_tables_of_its_own_isps_weights_and_tiers() {
    let mut backed = policy("BACKED", &["CABLE", "DSL"]);
    backed.members[0].tier = Some(2);
    backed.members[1].weight = Some(9);
    let mut both = policy("BOTH", &["CABLE", "DSL"]);
    both.members[0].weight = Some(3);
    let mut best = policy("BEST", &["CABLE", "LTE"]);
    best.mode = Some(Mode::Failover);
    let mut world = World::new(with(&[backed, both, best]), Network::with_isps(3));
    let shares = |world: &World, policy: u8| -> Vec<usize> {
        let table = world.plan().maps.tables[&(PolicyId::new(policy).unwrap(), Family::V4)];
        (1..=3).map(|isp| table.iter().filter(|&&owner| owner == isp).count()).collect()
    };
    assert_eq!(shares(&world, 1), [0, 4096, 0]);
    assert_eq!(shares(&world, 2), [3072, 1024, 0]);
    assert_eq!(shares(&world, 3), [4096, 0, 0]);
    world.network(|network| network.unplug(index(1)));
    assert_eq!(shares(&world, 1), [4096, 0, 0]);
    assert_eq!(shares(&world, 2), [4096, 0, 0]);
    world.network(|network| network.unplug(index(0)));
    assert_eq!(shares(&world, 1), [0, 0, 0]);
    assert_eq!(shares(&world, 3), [0, 0, 4096]);
}

#[test]
fn what_refuses_flows_has_marks_that_no_isp_has() {
    let mut refusing = policy("A", &["CABLE"]);
    refusing.last_resort = LastResort::Drop;
    let world = World::new(with(&[refusing.clone()]), Network::with_isps(3));
    let plan = world.plan();
    let entry = plan.maps.policies[&PolicyId::new(1).unwrap()];
    assert!(
        plan.kernel
            .nft
            .body
            .contains(&format!("meta mark & 0x3f00 == {:#x} drop", u32::from(entry.last_resort) << 8))
    );
    assert!(!plan.maps.isps.contains_key(&id(entry.last_resort)));
    // Two bits have room for three ISPs, but not for what is refused beside them.
    let narrow = |mark_mask| {
        let mut config = with(&[refusing.clone()]);
        config.mark_mask = mark_mask;
        let clock = Clock { instant: Instant::now(), epoch_ms: EPOCH_MS };
        Core::new(config, &BTreeMap::new(), Network::default(), clock)
    };
    assert!(narrow(0x700).is_ok());
    assert!(narrow(0x300).is_err());
}

#[test]
fn the_last_resort_is_read_back_from_the_map() {
    for mask in [0x3f00, 0x0f, 0xff00_0000].map(|mask| MarkMask::new(mask).unwrap()) {
        for kind in [LastResort::Main, LastResort::Unreachable, LastResort::Drop] {
            let last_resort = policies::refusal(mask, kind).map_or(0, IspId::get);
            let entry = PolicyEntry { last_resort, ..PolicyEntry::default() };
            assert_eq!(last_resort_of(mask, &entry), kind, "{mask:?}");
        }
    }
}

/// Three ISPs with targets, of the weights 3, 1 and 1, and a policy of each attitude towards degraded ones.
fn attitudes() -> World {
    let of = |degraded| PolicyConfig { name: format!("{degraded:?}"), degraded, ..PolicyConfig::default() };
    let mut config = with(&[of(Degraded::Reduce), of(Degraded::Avoid)]);
    let mut tiered = of(Degraded::Avoid);
    tiered.name = "TIERED".to_owned();
    tiered.members = policy("", &["CABLE", "DSL"]).members;
    tiered.members[1].tier = Some(2);
    config.policies.push(tiered);
    config.isps = config.isps.into_iter().map(|isp| probed(isp, &[Family::V4])).collect();
    config.isps[0].weight = 3;
    for isp in &mut config.isps {
        let latency = Some(Band { enter: ms(400), leave: ms(200) });
        isp.monitor.limits = Limits { latency, ..isp.monitor.limits };
    }
    World::new(config, Network::with_isps(3))
}

fn shares(world: &World, policy: u8) -> [usize; 3] {
    let table = world.plan().maps.tables[&(PolicyId::new(policy).unwrap(), Family::V4)];
    [1, 2, 3].map(|isp| table.iter().filter(|&&owner| owner == isp).count())
}

/// Has the answers of an ISP take so long for two minutes.
fn slow(world: &mut World, place: usize, rtt: Duration) {
    let isp = world.id(place);
    let end = world.now + ms(120_000);
    while world.now < end {
        world.now = world.core.next_deadline().unwrap().max(world.now);
        for effect in world.core.advance(world.now) {
            if let Effect::Probe { isp: of, family, probe } = effect {
                let rtt = if of == isp { rtt } else { ms(20) };
                let answer = Event::Answered { isp: of, family, sequence: probe.sequence, rtt };
                world.core.handle(answer, world.now);
            } else {
                world.effects.push(effect);
            }
        }
    }
}

#[test]
fn degraded_isps_get_less_or_nothing_where_a_policy_says_so_and_keep_their_flows() {
    let mut world = attitudes();
    let healthy = [1, 2].map(|policy| shares(&world, policy));
    slow(&mut world, 0, ms(500));
    assert_eq!(world.core.isps[&world.id(0)].state(), State::Degraded);
    assert_eq!(world.reason(0), "IPv4: latency over 400ms");
    assert!(world.is_usable(0, Family::V4));
    assert_eq!(shares(&world, 0), healthy[0], "used as before");
    // 3 quarters against 1 and 1.
    assert_eq!(shares(&world, 1), [1117, 1490, 1489]);
    assert_eq!(shares(&world, 2), [0, 2048, 2048]);
    assert_eq!(shares(&world, 3), [0, 4096, 0], "the next tier is better");
    assert_eq!(world.deleted(), []);
    let restarted = world.restarted().plan("main", &facts());
    assert_eq!(restarted, world.plan(), "a new daemon knows it too");

    slow(&mut world, 1, ms(500));
    slow(&mut world, 2, ms(500));
    assert_eq!(shares(&world, 2), [3072, 1024, 0], "restored in the meantime");
    world.network(|network| network.unplug(index(0)));
    world.network(|network| network.unplug(index(1)));
    assert_eq!(shares(&world, 2), [0, 0, 4096], "a degraded one is better than none");
}

#[test]
fn weights_follow_what_is_measured_where_they_are_to() {
    let mut config = with(&[PolicyConfig {
        name: "BEST".to_owned(),
        weights: Some(Weights::Quality),
        ..PolicyConfig::default()
    }]);
    config.isps = config.isps.into_iter().map(|isp| probed(isp, &[Family::V4])).collect();
    let mut world = World::new(config, Network::with_isps(3));
    assert_eq!(shares(&world, 1), shares(&world, 0));
    slow(&mut world, 0, ms(300));
    // 16 against 53 and 53.
    assert_eq!(shares(&world, 1), [537, 1780, 1779]);
    assert_eq!(shares(&world, 0), [1366, 1365, 1365]);
    assert_eq!(world.restarted().plan("main", &facts()), world.plan());
    assert_eq!(world.deleted(), []);
}
