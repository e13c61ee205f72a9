//! Policies, and the numbers that they have.

use balance_common::MarkMask;
use balance_common::layout::PolicyEntry;

use super::super::{last_resort_of, policies};
use super::*;
use crate::config::policy::{LastResort, MemberConfig, RuleConfig, RuleTarget};

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
