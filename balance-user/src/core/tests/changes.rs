//! What is announced of a change: from what to what, and the evidence.

use super::*;
use crate::announce::event::{Change, Probes};

/// The changes since this was asked last.
fn changes(world: &mut World) -> Vec<Change> {
    let changes = world.effects.iter().filter_map(|effect| match effect {
        Effect::Announce { change: Some(change), .. } => Some(Change::clone(change)),
        _ => None,
    });
    let changes = changes.collect();
    world.effects.clear();
    changes
}

/// ISP, state before, state now, evidence.
fn said(world: &mut World) -> Vec<String> {
    let say = |change: &Change| {
        let Change { isp, previous, state, evidence, .. } = change;
        format!("{isp} {previous} {state}: {evidence}")
    };
    changes(world).iter().map(say).collect()
}

fn two() -> World {
    let isps = [0, 1].map(|place| probed(isp(place), &[Family::V4]));
    World::new(config(isps.into()), Network::with_isps(2))
}

#[test]
fn the_first_word_is_no_change_but_coming_up_is_one() {
    let mut world = two();
    let expected = ["CABLE unknown up: a probe was answered", "DSL unknown up: a probe was answered"];
    assert_eq!(said(&mut world), expected);
    world.wait(A_WHILE);
    assert_eq!(said(&mut world), [""; 0]);
}

#[test]
fn death_and_return_have_their_evidence() {
    let mut world = two();
    world.wait(ms(5000));
    let _ = said(&mut world);
    world.kill(0, &Family::ALL);
    world.wait(ms(3000));
    let change = changes(&mut world).remove(0);
    assert_eq!((&*change.previous, &*change.state, &*change.health), ("up", "down", "down"));
    assert_eq!((&*change.device, change.forced), ("isp0", None));
    assert!(change.evidence.starts_with("IPv4: no answer from 1.1.1.1 for "), "{}", change.evidence);
    let Probes { target, source, replied, lost, lost_in_row, rtt_us, .. } = change.probes;
    assert_eq!((target.as_deref(), source.as_deref()), (Some("1.1.1.1"), Some("10.0.0.2")));
    assert_eq!((replied, rtt_us), (6, Some(20_000)));
    assert!(lost >= 3 && lost == lost_in_row, "{lost} {lost_in_row}");
    world.heal(0);
    world.wait(A_WHILE);
    let said = said(&mut world);
    assert!(
        said[0].starts_with("CABLE down up: ") && said[0].ends_with(" probes in a row were answered"),
        "{said:?}"
    );

    world.carrier(1, false);
    assert_eq!(self::said(&mut world), ["DSL up down: no carrier on isp1"]);
}

#[test]
fn commands_are_evidence_and_what_they_force_is_the_state() {
    let mut world = two();
    let _ = said(&mut world);
    world.force(0, Forced::Down);
    let change = changes(&mut world).remove(0);
    assert_eq!((&*change.state, &*change.health, change.forced.as_deref()), ("down", "up", Some("down")));
    assert_eq!(change.evidence, "forced down by command");
    world.force(0, Forced::Up);
    world.force(0, Forced::No);
    assert_eq!(
        said(&mut world),
        ["CABLE down up: forced up by command", "CABLE up up: not forced any more; a probe was answered"]
    );
    world.carrier(1, false);
    world.force(1, Forced::Up);
    let expected =
        ["DSL up down: no carrier on isp1", "DSL down down: forced up by command; no carrier on isp1"];
    assert_eq!(said(&mut world), expected);
}

#[test]
fn an_isp_without_targets_says_what_it_goes_by() {
    let mut world = World::of(1);
    assert_eq!(said(&mut world), ["CABLE unknown up: there is a way to its gateway, and it has no targets"]);
    world.carrier(0, false);
    let change = changes(&mut world).remove(0);
    assert_eq!(change.probes, Probes { source: Some("10.0.0.2".to_owned()), ..Probes::default() });
}

#[test]
fn a_new_daemon_knows_what_the_one_before_has_told() {
    let mut world = two();
    world.force(1, Forced::Down);
    world.core = world.restarted();
    let _ = said(&mut world);
    world.advance();
    assert_eq!(said(&mut world), [""; 0]);
    world.force(1, Forced::No);
    world.carrier(0, false);
    let said = said(&mut world);
    assert!(said[0].starts_with("DSL down up: not forced any more"), "{said:?}");
    assert_eq!(said[1], "CABLE up down: no carrier on isp0");
}

#[test]
fn an_isp_that_takes_the_place_of_a_removed_one_is_unknown() {
    let mut world = two();
    let _ = said(&mut world);
    world.reload(|config| drop(config.isps.remove(1)));
    world.reload(|config| config.isps.push(probed(isp(1), &[Family::V4])));
    assert_eq!(said(&mut world), ["DSL unknown up: a probe was answered"]);
}
