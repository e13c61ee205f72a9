//! `set-weight`, `up`, `down`, `auto` and `run NAME` move new flows and no live ones.
#![cfg(test)]

use std::time::Duration;

use balance_lab::{Family, Flow, Flows, KINDS, Lab, Transport, open_new_flows, ready, wait_until};

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(300);
const CONFIG: &str = "/run/balance.toml";

/// Some flows of each kind.
struct Crowd {
    flows: Vec<Flows>,
}

impl Crowd {
    fn open(lab: &Lab, count: usize) -> Self {
        let open = |(transport, family)| open_new_flows(lab.lan(), count, transport, family).unwrap();
        Self { flows: KINDS.into_iter().map(open).collect() }
    }

    fn ask<'a>(&mut self, lab: &'a Lab) -> Vec<&'a str> {
        let isps = self.flows.iter_mut().flat_map(|flows| lab.isps_of(&flows.ask(SOON)));
        isps.map(|isp| isp.expect("every flow is answered by way of an ISP")).collect()
    }
}

fn count(isps: &[&str], name: &str) -> usize {
    isps.iter().filter(|isp| **isp == name).count()
}

/// The share of new flows that go by an ISP.
fn share(lab: &Lab, name: &str) -> f64 {
    let isps = Crowd::open(lab, 250).ask(lab);
    count(&isps, name) as f64 / isps.len() as f64
}

#[test]
fn a_new_weight_changes_the_share_of_new_flows_and_moves_no_live_one() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut live = Crowd::open(&lab, 250);
    let before = live.ask(&lab);
    // One deviation of 1,000 flows is 1.4 %.
    for (weight, expected) in [("1", 0.5), ("9", 0.9), ("3", 0.75)] {
        lab.balance_ok(&["set-weight", "CABLE", weight]).unwrap();
        let share = share(&lab, "CABLE");
        assert!((share - expected).abs() < 0.06, "weight {weight}: {share}");
        let isp = lab.isp_status("CABLE").unwrap();
        assert_eq!(isp["weight"].to_string(), weight);
        assert!((isp["share"].as_f64().unwrap() - expected).abs() < 0.001, "{isp:#}");
        assert_eq!(live.ask(&lab), before, "weight {weight}");
    }
}

#[test]
fn a_saved_weight_is_in_the_file_beside_its_comments_and_survives_a_restart() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let config = lab.config().replace("weight = 3", "weight   = 3 # as the contract says");
    let config = format!("# The lines.\n\n{config}\n# The end.\n");
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();

    lab.balance_ok(&["set-weight", "CABLE", "5"]).unwrap();
    assert_eq!(lab.read_config().unwrap(), config);
    lab.balance_ok(&["set-weight", "cable", "7", "--save", "--config", CONFIG]).unwrap();
    assert_eq!(lab.read_config().unwrap(), config.replace("= 3 #", "= 7 #"));

    daemon.terminate().unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    let _daemon = lab.start_up().unwrap();
    assert_eq!(lab.isp_status("CABLE").unwrap()["weight"], 7);
    assert!((share(&lab, "CABLE") - 0.875).abs() < 0.05);
}

#[test]
fn an_isp_that_is_forced_down_keeps_its_live_flows_and_gets_no_new_ones() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut live = Crowd::open(&lab, 100);
    let before = live.ask(&lab);
    assert!(count(&before, "DSL") > 0);

    lab.balance_ok(&["down", "DSL"]).unwrap();
    let isp = lab.isp_status("DSL").unwrap();
    assert_eq!((&isp["forced"], isp["share"].as_f64()), (&"down".into(), Some(0.0)), "{isp:#}");
    let mut new = Crowd::open(&lab, 100);
    assert_eq!(count(&new.ask(&lab), "CABLE"), 400);
    assert_eq!(live.ask(&lab), before);

    lab.balance_ok(&["auto", "DSL"]).unwrap();
    assert!(lab.isp_status("DSL").unwrap()["forced"].is_null());
    assert!((share(&lab, "DSL") - 0.25).abs() < 0.06);
    assert_eq!(live.ask(&lab), before);
    assert_eq!(count(&new.ask(&lab), "CABLE"), 400);
}

#[test]
fn the_last_flows_of_an_isp_that_is_forced_down_are_cut_loose_when_it_dies() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, NEVER).unwrap();
    assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));
    lab.balance_ok(&["auto", "CABLE"]).unwrap();
    lab.balance_ok(&["down", "DSL"]).unwrap();
    assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    // What is asked before its entry is gone is lost.
    let cable = lab.isp("CABLE").address(Family::V4);
    wait_until(SOON, "the other way", || flow.ask().is_ok_and(|seen| seen == cable)).unwrap();
}

#[test]
fn an_isp_that_is_forced_up_is_used_though_its_probes_fail() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let config = lab.config().replacen("203.0.113.1", "198.51.100.1", 1).replacen(
        "2001:db8:ffff::1",
        "2001:db8::9",
        1,
    );
    lab.write_config(&config).unwrap();
    let _daemon = lab.start(&[]).unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    lab.wait_up("DSL").unwrap();
    assert_eq!(count(&Crowd::open(&lab, 50).ask(&lab), "DSL"), 200);
    lab.balance_ok(&["up", "CABLE"]).unwrap();
    assert!((share(&lab, "CABLE") - 0.75).abs() < 0.06);
    lab.balance_ok(&["auto", "CABLE"]).unwrap();
    assert_eq!(count(&Crowd::open(&lab, 50).ask(&lab), "DSL"), 200);
}

#[test]
fn run_with_names_uses_these_isps_and_no_others() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start(&["dsl"]).unwrap();
    assert_eq!(lab.isp_status("DSL").unwrap()["forced"], "up");
    assert_eq!(lab.isp_status("CABLE").unwrap()["forced"], "down");
    assert_eq!(count(&Crowd::open(&lab, 50).ask(&lab), "DSL"), 200);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&lab.config()).unwrap();
    let failed = lab.balance(&["set-weight", "CABLE", "5"]).unwrap();
    assert_eq!(failed.status.code(), Some(1), "without a daemon: {failed:?}");
    let refused = lab.balance(&["run", "--config", CONFIG, "CABEL"]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("CABEL") && refused.stderr.contains("CABLE"), "{refused:?}");

    let _daemon = lab.start_up().unwrap();
    for arguments in [
        &["set-weight", "CABEL", "5"][..],
        &["set-weight", "CABEL", "5", "--save", "--config", CONFIG],
        &["set-weight", "CABLE", "0"],
        &["set-weight", "CABLE", "1001"],
        &["set-weight", "CABLE", "-1"],
        &["up", "CABEL"],
        &["down", "CABEL"],
        &["auto", "CABEL"],
    ] {
        let refused = lab.balance(arguments).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {refused:?}");
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty(), "{arguments:?}: {refused:?}");
    }
    let isp = lab.isp_status("CABLE").unwrap();
    assert_eq!((&isp["weight"], &isp["forced"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!(lab.read_config().unwrap(), lab.config());
}
