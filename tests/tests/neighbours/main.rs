//! Containers, VPNs and rules of others, as they come together on real routers: all of it stays as it is and works, whatever we
//! do beside it.
#![cfg(test)]

mod docker;
mod rules;
mod scene;
mod vpn;

use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, KINDS, Lab, ready};

use crate::scene::Scene;
use crate::vpn::Vpn;

#[test]
fn containers_vpn_and_rules_stay_and_work() {
    if ready() {
        Scene::new("off", false).comes_and_goes();
    }
}

#[test]
fn containers_vpn_and_rules_stay_and_work_with_the_fast_path() {
    if ready() {
        Scene::new("tc", false).comes_and_goes();
    }
}

#[test]
fn containers_vpn_and_rules_stay_and_work_with_the_firewall() {
    if ready() {
        Scene::new("off", true).comes_and_goes();
    }
}

#[test]
fn containers_vpn_and_rules_stay_and_work_with_the_firewall_and_the_fast_path() {
    if ready() {
        Scene::new("tc", true).comes_and_goes();
    }
}

#[test]
fn a_vpn_that_takes_the_default_route_has_all_traffic_and_goes_by_whichever_isp_works() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = lab.start_up().unwrap();
    let vpn = Vpn::start(&lab);
    Vpn::takes_default_route(&lab);
    // It comes from inside the tunnel, so it is not translated.
    let all_by_vpn = || {
        for (transport, family) in KINDS {
            for _ in 0..8 {
                let before = vpn.carried();
                let mut flow = Flow::open(lab.lan(), transport, family, SOON).unwrap();
                assert_eq!(flow.ask().unwrap(), balance_lab::addresses::lan_host(0, family), "{transport:?}");
                assert!(vpn.carried() >= before + 4, "question and answer, at both ends");
            }
        }
    };
    all_by_vpn();
    for isp in ["CABLE", "DSL"] {
        lab.isp(isp).die_silently().unwrap();
        lab.wait_state(isp, "down").unwrap();
        all_by_vpn();
        lab.isp(isp).revive().unwrap();
        lab.wait_up(isp).unwrap();
        all_by_vpn();
    }
    assert!(lab.isps().iter().all(|isp| isp.forwarded().unwrap().foreign == 0));
    // Without the VPN all is balanced as ever.
    drop(vpn);
    let mut flow = Flow::open(lab.lan(), KINDS[0].0, Family::V4, SOON).unwrap();
    assert!(lab.isp_of(flow.ask().unwrap()).is_some());
    drop(daemon);
}
