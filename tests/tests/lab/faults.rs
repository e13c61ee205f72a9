//! The ways in which ISPs fail.

use balance_lab::{Family, Flow, KINDS, Transport, open_flows, ready, send_one_way, wait_until};

use crate::support::{NEVER, SOON, asks, by_cable, by_dsl, gateway_lives, plain_lab};

#[test]
fn silent_death_stops_everything_but_carrier_until_revived() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let cable = lab.isp("CABLE");
    assert!(gateway_lives(&lab, Family::V4) && gateway_lives(&lab, Family::V6));
    let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, NEVER).unwrap();
    flow.ask().unwrap();

    cable.die_silently().unwrap();
    flow.ask().unwrap_err();
    assert!(!asks(&lab, by_cable(), NEVER));
    // The neighbours are found all the same.
    lab.router().sh("ip neigh flush dev cable0; ip -6 neigh flush dev cable0").unwrap();
    assert!(!gateway_lives(&lab, Family::V4) && !gateway_lives(&lab, Family::V6));
    for family in ["-4", "-6"] {
        let neighbours = lab.router().sh(&format!("ip {family} neigh show dev cable0")).unwrap();
        assert!(neighbours.contains("lladdr"), "{neighbours}");
    }
    assert!(lab.router().sh("ip link show cable0").unwrap().contains("LOWER_UP"));
    assert!(asks(&lab, by_dsl(), SOON));

    cable.revive().unwrap();
    flow.ask().unwrap();
    assert!(asks(&lab, by_cable(), SOON));
}

#[test]
fn death_behind_the_gateway_leaves_the_gateway() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    lab.isp("CABLE").die_behind_gateway().unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert!(gateway_lives(&lab, Family::V4) && gateway_lives(&lab, Family::V6));
    lab.isp("CABLE").revive().unwrap();
    assert!(asks(&lab, by_cable(), SOON));
}

#[test]
fn carrier_goes_and_comes_back_with_both_families() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let has_carrier = || lab.router().sh("ip link show cable0").unwrap().contains("LOWER_UP");
    lab.isp("CABLE").set_carrier(false).unwrap();
    wait_until(SOON, "loss of carrier", || !has_carrier()).unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert!(asks(&lab, by_dsl(), SOON));
    lab.isp("CABLE").set_carrier(true).unwrap();
    wait_until(SOON, "carrier", has_carrier).unwrap();
    for (transport, family) in KINDS {
        wait_until(SOON, "answers", || {
            Flow::open(lab.lan(), transport, family, NEVER).and_then(|mut flow| flow.ask()).is_ok()
        })
        .unwrap();
    }
}

#[test]
fn an_unplugged_device_comes_back_as_another() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let index = || lab.router().sh("ip -o link show dsl0").unwrap().split(':').next().unwrap().to_owned();
    let before = index();
    lab.unplug("DSL").unwrap();
    lab.router().sh("! ip link show dsl0").unwrap();
    lab.plug("DSL").unwrap();
    assert_ne!(index(), before);
    lab.router().ip(&["route add 203.0.113.2 via 100.64.2.1".to_owned()]).unwrap();
    assert!(asks(&lab, by_dsl(), SOON));
}

#[test]
fn loss_is_about_what_was_asked_for() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    lab.isp("CABLE").set_loss(20).unwrap();
    send_one_way(lab.lan(), 5_000, Family::V4).unwrap();
    let cable = lab.isp("CABLE").address(Family::V4);
    // All that arrive do so at once; one binomial deviation of 5,000 is 28 packets.
    let count = || lab.sink().counts().get(&cable).copied().unwrap_or_default();
    wait_until(SOON, "the packets", || count() > 3_800).unwrap();
    assert!(count() < 4_200, "{}", count());
    lab.isp("CABLE").set_loss(0).unwrap();
    let mut flows = open_flows(lab.lan(), 1_000, Transport::Udp, Family::V6).unwrap();
    assert!(flows.ask(SOON).iter().all(Result::is_ok));
}
