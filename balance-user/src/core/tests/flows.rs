//! Which flows are cut loose, and when.

use super::*;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

#[test]
fn flows_of_an_isp_that_dies_are_cut_loose_once_and_those_of_the_survivors_never() {
    let mut world = World::of(3);
    world.carrier(1, false);
    assert_eq!(world.deleted(), [(world.id(1), V4), (world.id(1), V6)]);
    world.wait(A_WHILE);
    world.set_weight(0, 7);
    world.network(|network| _ = network.address(2, "192.168.9.1/24"));
    assert_eq!(world.deleted(), []);
    world.carrier(1, true);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [], "coming back moves nobody");
    world.carrier(1, false);
    assert_eq!(world.deleted().len(), 2, "another death");
}

#[test]
fn only_the_family_that_died_is_cut_loose() {
    let mut world = World::new(config(vec![probed(isp(0), &Family::ALL), isp(1)]), Network::with_isps(2));
    world.kill(0, &[V6]);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [(world.id(0), V6)]);
    world.network(|network| network.without_addresses(1, V4));
    assert_eq!(world.deleted(), [(world.id(1), V4)]);
}

#[test]
fn a_family_that_goes_by_the_other_is_cut_loose_with_it() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4]), isp(1)]), Network::with_isps(2));
    world.kill(0, &[V4]);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [(world.id(0), V4), (world.id(0), V6)]);
}

#[test]
fn with_nowhere_to_go_flows_stay_until_there_is_another_isp_in_their_family() {
    let mut network = Network::with_isps(2);
    network.link(1).carrier = false;
    let mut world = World::new(config(isps(2)), network);
    world.carrier(0, false);
    assert_eq!(world.deleted(), []);
    world.network(|network| {
        network.link(1).carrier = true;
        network.without_addresses(1, V6);
    });
    assert_eq!(world.deleted(), [(world.id(0), V4)], "IPv6 has nowhere to go still");
    world.network(|network| _ = network.address(11, "2001:db8:1::2/64"));
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [(world.id(0), V6)]);
}

#[test]
fn flows_that_wait_stay_if_their_isp_recovers_first() {
    let mut world = World::of(1);
    world.carrier(0, false);
    world.carrier(0, true);
    world.wait(A_WHILE);
    world.reload(|config| config.isps.push(isp(1)));
    world.network(|network| network.plug_isp(1, 11));
    world.wait(A_WHILE);
    assert!(world.is_usable(0, V4) && world.is_usable(1, V4));
    assert_eq!(world.deleted(), []);
}

#[test]
fn doubt_cuts_nothing_loose() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4]), isp(1)]), Network::with_isps(2));
    world.kill(0, &[V4]);
    world.wait(ms(1210));
    assert_eq!(world.core.isps[&world.id(0)].state_text(), "suspect");
    world.heal(0);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), []);
}

#[test]
fn an_isp_that_is_forced_down_is_drained() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4, V6]), isp(1)]), Network::with_isps(2));
    world.force(0, Forced::Down);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [], "its flows may end where they are");
    world.kill(0, &[V4]);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [(world.id(0), V4)], "unless it dies");
    world.force(0, Forced::No);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), []);
}

#[test]
fn an_isp_that_is_forced_up_keeps_its_flows_though_its_targets_do_not_answer() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4, V6]), isp(1)]), Network::with_isps(2));
    world.force(0, Forced::Up);
    world.kill(0, &Family::ALL);
    world.wait(A_WHILE);
    assert!(world.is_usable(0, V4));
    assert_eq!(world.deleted(), []);
    world.force(0, Forced::No);
    assert_eq!(world.deleted(), [(world.id(0), V4), (world.id(0), V6)]);
}

#[test]
fn a_forced_isp_without_a_path_has_lost_its_flows() {
    let mut world = World::of(2);
    world.force(0, Forced::Up);
    world.carrier(0, false);
    assert_eq!(world.deleted(), [(world.id(0), V4), (world.id(0), V6)]);
}

#[test]
fn flows_do_not_move_to_an_isp_that_is_forced_down() {
    let mut world = World::of(2);
    world.force(1, Forced::Down);
    world.carrier(0, false);
    assert_eq!(world.deleted(), []);
    world.force(1, Forced::No);
    assert_eq!(world.deleted(), [(world.id(0), V4), (world.id(0), V6)]);
}

#[test]
fn flows_of_an_isp_that_is_taken_out_of_the_config_are_cut_loose_when_there_is_another() {
    let mut world = World::of(3);
    let gone = world.id(1);
    world.reload(|config| drop(config.isps.remove(1)));
    assert_eq!(world.deleted(), [(gone, V4), (gone, V6)]);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), []);

    let mut world = World::of(2);
    world.carrier(0, false);
    let _ = world.deleted();
    let gone = world.id(1);
    world.reload(|config| drop(config.isps.remove(1)));
    assert_eq!(world.deleted(), []);
    world.carrier(0, true);
    assert_eq!(world.deleted(), [(gone, V4), (gone, V6)]);
}

#[test]
fn flows_go_after_the_buckets_in_the_same_step() {
    let mut world = World::of(2);
    world.network.link(0).carrier = false;
    world.core.handle(Event::Network(world.network.clone()), world.now);
    let effects = world.core.advance(world.now);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::DeleteFlows { .. })));
    assert_eq!(world.shares(V4), [0, 4096]);
}
