//! A changed config is a diff: what it does not touch stays as it is.

use super::super::TooManyIsps;
use super::*;

fn ids(world: &World) -> Vec<u8> {
    world.core.config().isps.iter().map(|isp| world.core.isp_named(&isp.name).unwrap().get()).collect()
}

#[test]
fn the_same_config_again_changes_nothing() {
    let mut world = World::of(3);
    world.set_weight(1, 5);
    world.force(2, Forced::Down);
    let _ = world.announced();
    let before = world.plan();
    world.reload(|_| {});
    assert_eq!(world.plan(), before);
    assert_eq!(world.effects, []);
}

#[test]
fn ids_stay_with_names_whatever_their_order() {
    let mut world = World::of(4);
    assert_eq!(ids(&world), [1, 2, 3, 4]);
    let table = world.table(Family::V4);
    world.reload(|config| config.isps.reverse());
    assert_eq!(ids(&world), [4, 3, 2, 1]);
    assert_eq!(world.table(Family::V4), table);
}

#[test]
fn a_freed_id_is_not_given_away_while_there_are_others() {
    let mut world = World::of(3);
    world.reload(|config| config.isps[1] = isp(5));
    assert_eq!(ids(&world), [1, 4, 3]);
    world.reload(|config| config.isps[1] = isp(1));
    assert_eq!(ids(&world), [1, 2, 3], "its flows were deleted long ago");
}

#[test]
fn an_id_whose_flows_are_still_there_is_not_given_away_by_a_later_reload_either() {
    let mut world = World::of(2);
    world.carrier(0, false);
    world.carrier(1, false);
    let _ = world.deleted();
    world.reload(|config| drop(config.isps.pop()));
    world.reload(|config| config.isps.push(isp(2)));
    assert_eq!(ids(&world), [1, 3], "nobody could take over the flows of 2");
    world.carrier(0, true);
    assert_eq!(world.deleted(), [(id(2), Family::V4), (id(2), Family::V6)]);
    world.reload(|config| config.isps.push(isp(3)));
    assert_eq!(ids(&world), [1, 3, 2]);
}

#[test]
fn ids_fit_the_mask_even_if_a_freed_one_must_be_taken() {
    let mut config = config(isps(3));
    config.mark_mask = 0x30;
    let mut world = World::new(config, Network::with_isps(4));
    world.reload(|config| config.isps[0] = isp(3));
    assert_eq!(ids(&world), [1, 2, 3]);
    let plan = world.plan();
    assert_eq!(plan.maps.isps.len(), 3);
    assert!(plan.maps.isps.keys().all(|&id| world.core.mask().isp(world.core.mask().value(id)) == Some(id)));
    assert_eq!(world.deleted(), [], "what is left of the old one's flows belongs to the new one");
}

#[test]
fn no_isp_has_the_mark_of_lost_connections() {
    let with_resets = |config: &mut Config| config.reset = true;
    let mut config = config(isps(3));
    config.mark_mask = 0b11 << 4;
    let mut world = World::new(config, Network::with_isps(3));
    assert_eq!(ids(&world), [1, 2, 3]);
    world.reload(with_resets);
    assert_eq!(ids(&world), [1, 2, 3], "refused: there is no room for both");
    world.reload(|config| {
        config.isps.remove(0);
        with_resets(config);
    });
    assert_eq!(ids(&world), [2, 1]);
    assert!(world.plan().kernel.nft.body.contains("ct mark & 0x30 == 0x30"));
}

#[test]
fn more_isps_than_the_mask_has_room_for_are_refused() {
    let clock = Clock { instant: Instant::now(), epoch_ms: EPOCH_MS };
    let mut narrow = config(isps(4));
    narrow.mark_mask = 0x3;
    let refused = Core::new(narrow.clone(), &BTreeMap::new(), Network::default(), clock);
    assert!(matches!(refused, Err(TooManyIsps { .. })));
    let gaps = Config { mark_mask: 0x5, ..narrow.clone() };
    assert!(Core::new(gaps, &BTreeMap::new(), Network::default(), clock).is_err());

    let mut world = World::of(4);
    let before = world.plan();
    world.event(Event::Reload(Box::new(narrow)));
    assert_eq!(world.plan(), before, "the old config stays in force");
    assert_eq!(world.core.config().mark_mask, 0x3f00);
}

#[test]
fn a_weight_that_the_config_changes_wins_over_the_operators() {
    let mut world = World::of(2);
    world.set_weight(0, 3);
    world.reload(|config| config.isps[1].tier = 1);
    assert_eq!(world.entry(0).weight, 3, "the config says what it always said");
    world.reload(|config| config.isps[0].weight = 7);
    assert_eq!((world.entry(0).weight, world.entry(0).configured_weight), (7, 7));
}

#[test]
fn forced_stays() {
    let mut world = World::of(2);
    world.force(0, Forced::Down);
    world.reload(|config| config.isps[0].weight = 9);
    assert_eq!(world.entry(0).forced, Forced::Down as u8);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
}

#[test]
fn a_new_isp_of_a_name_that_was_there_before_starts_afresh() {
    let mut world = World::of(2);
    world.force(0, Forced::Down);
    world.set_weight(0, 9);
    world.reload(|config| drop(config.isps.remove(0)));
    world.reload(|config| config.isps.push(isp(0)));
    assert_eq!((world.entry(0).forced, world.entry(0).weight), (0, 1));
}

#[test]
fn an_isp_that_comes_or_goes_leaves_the_health_of_the_others_alone() {
    let mut world = World::new(config(vec![probed(isp(0), &[Family::V4]), isp(1)]), Network::with_isps(3));
    let since = world.entry(0).since;
    world.wait(A_WHILE);
    let _ = world.announced();
    world.kill(0, &Family::ALL);
    world.reload(|config| config.isps.push(isp(2)));
    assert!(world.is_usable(0, Family::V4));
    assert_eq!(world.entry(0).since, since);
    assert_eq!(world.announced(), ["LTE up"]);
}

#[test]
fn mode_and_tiers_take_effect_at_once() {
    let mut world = World::of(2);
    world.reload(|config| config.mode = Mode::Failover);
    assert_eq!(world.shares(Family::V4), [4096, 0]);
    world.reload(|config| config.isps[0].tier = 3);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.reload(|config| config.mode = Mode::Balanced);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.reload(|config| config.isps[0].tier = 1);
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
}

#[test]
fn mask_and_tables_of_the_new_config_are_used_everywhere() {
    let mut world = World::of(2);
    world.reload(|config| {
        config.mark_mask = 0xf000_0000;
        config.routing = RoutingConfig { table: 500, priority: 20_000 };
    });
    let plan = world.plan();
    assert_eq!(world.core.mask().bits(), 0xf000_0000);
    assert_eq!(plan.maps.settings.mark_mask, 0xf000_0000);
    assert_eq!((plan.maps.settings.table, plan.maps.settings.priority), (500, 20_000));
    let tables: BTreeSet<u32> = plan.kernel.routes.keys().map(|(table, _)| *table).collect();
    assert_eq!(tables, BTreeSet::from([500, 501, 502]));
    assert!(plan.kernel.rules.iter().all(|rule| (20_000..21_000).contains(&rule.priority)));
    assert!(plan.kernel.nft.body.contains("0xf0000000"));
    assert!(!plan.kernel.nft.body.contains("0x3f00"));
}

#[test]
fn names_are_found_whatever_their_case() {
    let world = World::of(2);
    assert_eq!(world.core.isp_named("dsl"), Some(id(2)));
    assert_eq!(world.core.isp_named("DSL2"), None);
}
