//! A new daemon goes on where the one before has left off, from what is in the map.

use super::*;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// The daemon is killed and another one starts; its core, settled, in the same world.
fn restart(world: &mut World) {
    let before = world.plan();
    world.core = world.restarted();
    assert_eq!(world.plan(), before, "nothing in the kernel is to be touched");
    world.advance();
    assert_eq!(world.plan(), before, "nor after the first conclusions");
}

#[test]
fn weights_force_ids_order_and_since_survive() {
    let mut world = World::of(5);
    world.wait(ms(500));
    world.set_weight(1, 30);
    world.force(2, Forced::Down);
    world.carrier(4, false);
    world.wait(ms(500));
    world.carrier(0, false);
    world.reload(|config| config.isps.reverse());
    restart(&mut world);
    assert_eq!(world.entry(1).weight, 30);
    assert_eq!(world.entry(2).forced, Forced::Down as u8);
    assert_eq!(world.entry(0).since, EPOCH_MS + 1000);
    assert_eq!([2, 4, 0].map(|place| world.entry(place).down_order[0]), [1, 2, 3]);
}

#[test]
fn isps_that_are_still_unknown_keep_their_place_in_the_order() {
    let probed = |place| probed(isp(place), &[V4]);
    let mut world = World::new(config(vec![isp(0), isp(3)]), Network::with_isps(4));
    world.kill(1, &Family::ALL);
    world.kill(2, &Family::ALL);
    world.reload(|config| config.isps.extend([probed(1), probed(2)]));
    // Unknown are DSL and LTE; CABLE goes down after them, though its id is lower.
    world.carrier(0, false);
    assert_eq!([0, 1, 2].map(|place| world.entry(place).down_order[0]), [3, 1, 2]);
    restart(&mut world);
}

#[test]
fn a_gateway_that_was_known_is_known_still() {
    let mut world = World::of(2);
    world.network(|network| network.without_routes(0));
    restart(&mut world);
    assert!(world.is_usable(0, V4) && world.is_usable(0, V6));
    assert_eq!(world.deleted(), []);
    assert_eq!(world.entry(0).gateway_v4, [10, 0, 0, 1]);
}

#[test]
fn a_gateway_of_another_device_is_of_no_use() {
    let world = World::of(1);
    let left = world.plan().maps.isps;
    let mut network = world.network.clone();
    network.unplug(10);
    network.plug_isp(0, 20);
    network.without_routes(0);
    let moved = World::adopting(config(isps(1)), &left, network);
    assert_eq!(moved.reason(0), "no IPv4 gateway on isp0");

    let mut other = config(isps(1));
    other.isps[0].device = "eth7".to_owned();
    let mut network = Network::default();
    network.plug("eth7", 10);
    network.address(10, "10.0.0.2/24");
    assert_eq!(World::adopting(other, &left, network).reason(0), "no IPv4 gateway on eth7");
}

#[test]
fn nothing_is_announced_that_the_operator_has_been_told() {
    let mut world = World::of(3);
    world.carrier(1, false);
    world.force(2, Forced::Down);
    world.effects.clear();
    restart(&mut world);
    assert_eq!(world.announced(), Vec::<String>::new());
}

#[test]
fn what_happened_while_no_daemon_ran_is_announced_dated_and_acted_upon() {
    let mut world = World::of(2);
    let left = world.plan().maps.isps;
    world.wait(ms(60_000));
    world.network.link(1).carrier = false;
    let clock = Clock { instant: world.now, epoch_ms: world.clock.epoch_ms(world.now) };
    world.core = Core::new(config(isps(2)), &left, world.network.clone(), clock).unwrap();
    world.effects.clear();
    world.advance();
    assert_eq!(world.announced(), ["DSL down no carrier on isp1"]);
    assert_eq!(world.entry(1).since, EPOCH_MS + 60_000);
    assert_eq!(world.entry(0).since, EPOCH_MS);
    assert_eq!(world.deleted(), [(id(2), V4), (id(2), V6)]);
}

#[test]
fn flows_that_could_not_be_cut_loose_before_the_daemon_died_are_later() {
    let mut world = World::of(2);
    world.carrier(0, false);
    let _ = world.deleted();
    world.carrier(1, false);
    assert_eq!(world.deleted(), []);
    restart(&mut world);
    assert_eq!(world.deleted(), []);
    world.carrier(0, true);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), [(id(2), V4), (id(2), V6)]);
    restart(&mut world);
    world.wait(A_WHILE);
    assert!(world.deleted().iter().all(|&(isp, _)| isp == id(2)), "the survivor's stay");
}

#[test]
fn a_forced_isp_keeps_its_flows_over_a_restart() {
    let mut world = World::new(config(vec![probed(isp(0), &[V4, V6]), isp(1)]), Network::with_isps(2));
    world.force(0, Forced::Up);
    world.kill(0, &Family::ALL);
    world.wait(A_WHILE);
    restart(&mut world);
    world.wait(A_WHILE);
    assert_eq!(world.deleted(), []);
}

#[test]
fn a_config_with_another_weight_wins_over_what_was_left() {
    let mut world = World::of(2);
    world.set_weight(0, 50);
    let left = world.plan().maps.isps;
    assert_eq!(World::adopting(config(isps(2)), &left, Network::with_isps(2)).entry(0).weight, 50);
    let mut changed = config(isps(2));
    changed.isps[0].weight = 4;
    assert_eq!(World::adopting(changed, &left, Network::with_isps(2)).entry(0).weight, 4);
}

#[test]
fn isps_that_are_gone_from_the_config_lose_their_flows_and_not_yet_their_ids() {
    let left = World::of(2).plan().maps.isps;
    let mut world = World::adopting(config(vec![isp(1), isp(2)]), &left, Network::with_isps(3));
    assert_eq!([1, 2].map(|place| world.id(place)), [id(2), id(3)]);
    assert_eq!(world.deleted(), [(id(1), V4), (id(1), V6)]);
}

#[test]
fn ids_that_a_narrower_mask_has_no_room_for_are_replaced() {
    let mut world = World::of(1);
    for place in 1..5 {
        world.reload(|config| config.isps.push(isp(place)));
    }
    let mut left = world.plan().maps.isps;
    left.retain(|id, _| id.get() >= 4);
    let mut narrow = config(vec![isp(3), isp(4)]);
    narrow.mark_mask = 0x3;
    let world = World::adopting(narrow, &left, Network::with_isps(5));
    assert_eq!([3, 4].map(|place| world.id(place)), [id(1), id(2)]);
}

#[test]
fn nonsense_in_the_map_does_no_harm() {
    let mut left = World::of(3).plan().maps.isps;
    for (number, entry) in (0_u8..).zip(left.values_mut()) {
        entry.weight = 0;
        entry.state = 200 + number;
        entry.states = [99, number];
        entry.forced = 77;
        entry.since = u64::MAX - u64::from(number);
        entry.down_order = [255, 0];
        entry.usable = [9, 9];
    }
    let mut world = World::adopting(config(isps(3)), &left, Network::with_isps(3));
    world.wait(A_WHILE);
    assert_eq!(world.shares(V4).iter().sum::<usize>(), 4096);
    for entry in left.values_mut() {
        entry.name = [0xff; 32];
    }
    let world = World::adopting(config(isps(3)), &left, Network::with_isps(3));
    assert_eq!([0, 1, 2].map(|place| world.id(place).get()), [4, 5, 6]);
}
