//! The daemon was stopped, or the machine asleep; and the wall clock jumps.

use super::super::Traffic;
use super::*;

const NIGHT: Duration = Duration::from_hours(9);

#[test]
fn after_a_night_nothing_moves_though_traffic_and_probes_were_under_way() {
    let probed = |place| probed(isp(place), &Family::ALL);
    let mut world = World::new(config(vec![probed(0), probed(1)]), Network::with_isps(2));
    world.wait(ms(3000));
    let ids = [world.id(0), world.id(1)];
    let traffic = |tx, rx| Event::Traffic(ids.iter().map(|&id| (id, Traffic { tx, rx })).collect());
    world.event(traffic(1000, 1000));
    // All are in doubt, and what is asked is not answered before they are stopped.
    for place in [0, 1] {
        world.kill(place, &Family::ALL);
    }
    world.event(traffic(1020, 1000));
    world.wait(ms(350));
    world.event(traffic(1040, 1000));
    world.wait(ms(120));
    let (plan, _) = (world.plan(), world.announced());
    world.now += NIGHT;
    for place in [0, 1] {
        world.heal(place);
    }
    world.event(Event::HeldUp(NIGHT));
    world.event(traffic(9999, 1000));
    world.wait(ms(3000));
    assert_eq!(world.deleted(), []);
    assert_eq!(world.announced(), Vec::<String>::new());
    assert_eq!(world.plan().maps.tables, plan.maps.tables);
    assert!(world.is_usable(0, Family::V4) && world.is_usable(1, Family::V6));
}

#[test]
fn a_wall_clock_that_is_wrong_by_years_changes_what_is_told_and_nothing_else() {
    for epoch_ms in [0, EPOCH_MS - 3_600_000, EPOCH_MS + 3_600_000, u64::MAX] {
        let probed = |place| probed(isp(place), &[Family::V4]);
        let mut world = World::new(config(vec![probed(0), probed(1)]), Network::with_isps(2));
        world.wait(ms(3000));
        let before = world.plan();
        let clock = Clock { instant: world.now, epoch_ms };
        world.core =
            Core::new(world.core.config().clone(), &before.maps.isps, world.network.clone(), clock).unwrap();
        world.wait(ms(20_000));
        assert_eq!(world.plan(), before, "{epoch_ms}");
        world.core.set_clock(Clock { instant: world.now, epoch_ms: u64::MAX - epoch_ms });
        world.wait(ms(20_000));
        assert_eq!(world.plan(), before, "{epoch_ms}");
        let death = world.now;
        world.kill(0, &Family::ALL);
        while world.is_usable(0, Family::V4) {
            world.wait(ms(10));
        }
        assert!(world.now - death < ms(1700), "{epoch_ms}");
    }
}
