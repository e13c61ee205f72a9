//! Who gets new flows.

use super::*;

/// All buckets that changed hands, as (from, to).
fn moved(before: &[u8], after: &[u8]) -> Vec<(u8, u8)> {
    before.iter().copied().zip(after.iter().copied()).filter(|(before, after)| before != after).collect()
}

#[test]
fn shares_follow_the_weights() {
    let mut config = config(isps(3));
    for (isp, weight) in config.isps.iter_mut().zip([3, 2, 1]) {
        isp.weight = weight;
    }
    let mut world = World::new(config, Network::with_isps(3));
    for family in Family::ALL {
        assert_eq!(world.shares(family), [2048, 1365, 683]);
    }
    world.set_weight(0, 6);
    assert_eq!(world.shares(Family::V4), [2731, 910, 455]);
    assert_eq!((world.entry(0).weight, world.entry(0).configured_weight), (6, 3));
}

#[test]
fn a_weight_out_of_bounds_becomes_the_nearest_that_is_not() {
    let mut world = World::of(2);
    for (asked, weight) in [(0, 1), (1, 1), (1000, 1000), (1001, 1000), (u16::MAX, 1000)] {
        world.set_weight(0, asked);
        world.set_weight(1, asked);
        assert_eq!(world.entry(0).weight, weight);
        assert_eq!(world.shares(Family::V4), [2048, 2048]);
    }
}

#[test]
fn an_isp_that_goes_moves_only_its_buckets_and_gets_the_same_ones_back() {
    for gone in 0..4 {
        let mut world = World::of(4);
        let before = world.table(Family::V4);
        world.carrier(gone, false);
        let without = world.table(Family::V4);
        let id = world.id(gone).get();
        assert_eq!(moved(&before, &without).len(), 1024);
        assert!(moved(&before, &without).iter().all(|&(from, _)| from == id));
        assert_eq!(world.shares(Family::V4).iter().filter(|&&share| share.abs_diff(1365) <= 1).count(), 3);
        world.carrier(gone, true);
        assert_eq!(world.table(Family::V4), without, "not before its time");
        world.wait(A_WHILE);
        assert_eq!(world.table(Family::V4), before);
    }
}

#[test]
fn several_that_go_and_come_back_in_any_order_end_as_they_began() {
    let all = World::of(4).table(Family::V4);
    for returns in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::of(4);
        (0..3).for_each(|place| world.carrier(place, false));
        assert_eq!(world.shares(Family::V4), [0, 0, 0, 4096]);
        for place in returns {
            world.carrier(place, true);
            world.wait(A_WHILE);
        }
        assert_eq!(world.table(Family::V4), all, "{returns:?}");
    }
}

#[test]
fn no_isp_at_all_is_an_empty_table_and_no_default_route() {
    let mut world = World::of(2);
    world.carrier(0, false);
    world.carrier(1, false);
    assert_eq!(world.table(Family::V4), [0; 4096]);
    assert!(world.plan().kernel.routes.is_empty());
}

#[test]
fn the_last_one_out_comes_back_without_waiting() {
    let mut world = World::of(2);
    world.carrier(0, false);
    world.carrier(1, false);
    world.carrier(1, true);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.carrier(0, true);
    assert_eq!(world.shares(Family::V4), [0, 4096], "there is one, so this one can wait");
}

#[test]
fn a_higher_tier_is_used_only_when_the_lower_ones_have_nobody() {
    let mut config = config(isps(4));
    for (isp, tier) in config.isps.iter_mut().zip([1, 2, 2, 5]) {
        isp.tier = tier;
    }
    let mut world = World::new(config, Network::with_isps(4));
    assert_eq!(world.shares(Family::V4), [4096, 0, 0, 0]);
    world.carrier(0, false);
    assert_eq!(world.shares(Family::V4), [0, 2048, 2048, 0]);
    world.carrier(1, false);
    assert_eq!(world.shares(Family::V4), [0, 0, 4096, 0]);
    world.carrier(2, false);
    assert_eq!(world.shares(Family::V4), [0, 0, 0, 4096]);
    world.carrier(0, true);
    world.wait(A_WHILE);
    assert_eq!(world.shares(Family::V4), [4096, 0, 0, 0]);
    assert_eq!(world.shares(Family::V6), [4096, 0, 0, 0]);
}

#[test]
fn tiers_are_chosen_in_each_family_by_itself() {
    let mut config = config(isps(2));
    config.isps[1].tier = 2;
    let mut network = Network::with_isps(2);
    network.without_addresses(0, Family::V6);
    let world = World::new(config, network);
    assert_eq!(world.shares(Family::V4), [4096, 0]);
    assert_eq!(world.shares(Family::V6), [0, 4096]);
}

#[test]
fn in_failover_mode_the_best_has_it_all() {
    let mut config = config(isps(4));
    config.mode = Mode::Failover;
    for (isp, (tier, weight)) in config.isps.iter_mut().zip([(2, 900), (1, 5), (1, 7), (1, 7)]) {
        (isp.tier, isp.weight) = (tier, weight);
    }
    let mut world = World::new(config, Network::with_isps(4));
    let expect = |world: &mut World, gone: Option<usize>, best: usize| {
        if let Some(gone) = gone {
            world.carrier(gone, false);
        }
        let mut shares = vec![0; 4];
        shares[best] = 4096;
        assert_eq!(world.shares(Family::V4), shares);
    };
    expect(&mut world, None, 2);
    expect(&mut world, Some(2), 3);
    expect(&mut world, Some(3), 1);
    expect(&mut world, Some(1), 0);
    world.carrier(1, true);
    world.wait(A_WHILE);
    expect(&mut world, None, 1);
}

#[test]
fn among_equals_in_failover_mode_the_first_in_the_file_wins_whatever_its_id() {
    let mut config = config(vec![isp(1)]);
    config.mode = Mode::Failover;
    let mut world = World::new(config, Network::with_isps(2));
    world.reload(|config| config.isps = vec![isp(0), isp(1)]);
    assert!(world.id(0) > world.id(1));
    assert_eq!(world.shares(Family::V4), [4096, 0]);
    world.set_weight(1, 2);
    assert_eq!(world.shares(Family::V4), [0, 4096], "the operator's weight counts");
}

#[test]
fn forced_down_is_not_used_and_forced_up_is_whatever_the_health() {
    let mut world = World::new(config(vec![probed(isp(0), &[Family::V4]), isp(1)]), Network::with_isps(2));
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
    let all = world.table(Family::V4);
    world.force(0, Forced::Down);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.force(0, Forced::No);
    assert_eq!(world.table(Family::V4), all, "at once: it works");
    world.kill(0, &Family::ALL);
    world.wait(A_WHILE);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.force(0, Forced::Up);
    assert_eq!(world.table(Family::V4), all);
    world.carrier(0, false);
    assert_eq!(world.shares(Family::V4), [0, 4096], "without a path there is nothing to force");
    assert_eq!(world.entry(0).forced, Forced::Up as u8);
}

#[test]
fn only_the_named_ones_are_used_when_some_are_named() {
    let mut world = World::of(3);
    world.core.force_only(&["DSL".to_owned()]);
    world.advance();
    assert_eq!(world.shares(Family::V4), [0, 4096, 0]);
}

#[test]
fn a_family_is_usable_by_itself() {
    let mut world = World::new(config(vec![probed(isp(0), &Family::ALL), isp(1)]), Network::with_isps(2));
    world.kill(0, &[Family::V6]);
    world.wait(A_WHILE);
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
    assert_eq!(world.shares(Family::V6), [0, 4096]);
    assert_eq!(world.entry(0).usable, [1, 0]);
    assert_eq!(world.core.isps[&world.id(0)].state_text(), "up");
    world.carrier(1, false);
    assert_eq!(world.shares(Family::V6), [0, 0]);
}

#[test]
fn a_family_without_targets_goes_by_the_other() {
    for (own, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut world = World::new(config(vec![probed(isp(0), &[own]), isp(1)]), Network::with_isps(2));
        assert!(world.is_usable(0, other));
        world.kill(0, &[own]);
        world.wait(A_WHILE);
        assert!(!world.is_usable(0, own));
        assert!(!world.is_usable(0, other));
        assert_eq!(world.shares(other), [0, 4096]);
        world.heal(0);
        world.wait(A_WHILE);
        assert_eq!(world.shares(other), [2048, 2048]);
    }
}

#[test]
fn both_families_return_in_the_same_moment_when_one_goes_by_the_other() {
    for (own, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut world = World::new(config(vec![probed(isp(0), &[own]), isp(1)]), Network::with_isps(2));
        world.kill(0, &[own]);
        world.wait(A_WHILE);
        world.heal(0);
        world.wait(ms(1500));
        assert!(!world.is_usable(0, own), "its time has not come");
        // Nobody else is left, so it steps in.
        world.core.handle(
            Event::Network({
                world.network.link(1).carrier = false;
                world.network.clone()
            }),
            world.now,
        );
        let _ = world.core.advance(world.now);
        let plan = world.plan();
        let entry = plan.maps.isps[&world.id(0)];
        assert_eq!((entry.usable, entry.down_order), ([1, 1], [0, 0]), "{own:?}");
        assert_eq!(world.shares(own), [4096, 0]);
        assert_eq!(world.shares(other), [4096, 0]);
    }
}

#[test]
fn an_unknown_isp_is_not_used_until_it_has_answered() {
    let mut world = World::new(config(vec![isp(1)]), Network::with_isps(2));
    world.kill(0, &Family::ALL);
    world.reload(|config| config.isps.insert(0, probed(isp(0), &[Family::V4])));
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    assert_eq!(world.core.isps[&world.id(0)].state_text(), "unknown");
    assert_eq!(world.reason(0), "IPv4: waiting for a first answer from 1.1.1.1");
    world.heal(0);
    world.wait(ms(200));
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
}

#[test]
fn a_change_is_announced_once_and_a_doubt_never() {
    let probed = |place| probed(isp(place), &[Family::V4]);
    let mut world = World::new(config(vec![probed(0), probed(1)]), Network::with_isps(2));
    let first = world.announced();
    assert_eq!(&first[2..], ["CABLE up", "DSL up"], "{first:?}");
    let mut doubts = 0;
    for _ in 0..20 {
        // Too short to be a death, whatever the phase of the rounds.
        world.kill(0, &Family::ALL);
        world.wait(ms(500));
        doubts += u32::from(world.core.isps[&world.id(0)].state_text() == "suspect");
        world.heal(0);
        world.wait(ms(3070));
    }
    assert!(doubts > 0);
    assert_eq!(world.announced(), Vec::<String>::new());
    world.carrier(1, false);
    world.carrier(1, true);
    world.wait(A_WHILE);
    assert_eq!(world.announced(), ["DSL down no carrier on isp1", "DSL up"]);
    world.force(0, Forced::Down);
    world.force(0, Forced::Down);
    world.force(0, Forced::No);
    assert_eq!(world.announced(), ["CABLE up (forced down)", "CABLE up"]);
    world.set_weight(0, 9);
    assert_eq!(world.announced(), Vec::<String>::new());
}

#[test]
fn since_is_when_the_state_was_announced() {
    let mut world = World::of(2);
    assert_eq!(world.entry(0).since, EPOCH_MS);
    world.wait(ms(1234));
    world.carrier(0, false);
    assert_eq!(world.entry(0).since, EPOCH_MS + 1234);
    assert_eq!(world.entry(1).since, EPOCH_MS);
}
