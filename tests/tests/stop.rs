//! `stop` leaves everything as it was found.
#![cfg(test)]

use std::time::Duration;

use balance_lab::checks::{SOON, changes, split};
use balance_lab::{Daemon, Dump, Family, Lab, Transport, by_source, open_flows, ready, wait_until};

const STOPPED: &str = "stopped; everything is as it was\n";
const NOTHING: &str = "nothing to stop\n";

fn start(lab: &Lab, top: &str) -> Daemon {
    lab.write_config(&format!("{top}\n{}", lab.config())).unwrap();
    let daemon = lab.start(&[]).unwrap();
    lab.wait_all_up().unwrap();
    daemon
}

fn stop(lab: &Lab, before: &Dump) {
    assert_eq!(lab.balance_ok(&["stop"]).unwrap(), STOPPED);
    assert_eq!(changes(lab, before), Vec::<String>::new());
}

fn gone(daemon: &Daemon) -> bool {
    // A process that nobody has waited for yet is a zombie.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

/// Starts, balances, ends the daemon as `end` says, stops, and compares.
fn comes_and_goes(attach: &str, prepare: &str, end: fn(Daemon) -> Option<Daemon>) {
    let lab = Lab::new().unwrap();
    lab.router().sh(prepare).unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let daemon = start(&lab, &format!("attach = \"{attach}\""));
    split(&lab, 200, Family::V4).unwrap();
    split(&lab, 200, Family::V6).unwrap();
    let daemon = end(daemon);
    stop(&lab, &before);
    if let Some(daemon) = daemon {
        wait_until(SOON, "the daemon's end", || gone(&daemon)).unwrap();
    }
    assert_eq!(lab.balance_ok(&["stop"]).unwrap(), NOTHING);
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
}

#[test]
fn a_running_daemon_is_ended_and_all_is_as_before() {
    if ready() {
        comes_and_goes("tcx", "true", Some);
    }
}

#[test]
fn a_running_daemon_is_ended_and_all_is_as_before_with_clsact() {
    if ready() {
        comes_and_goes("clsact", "true", Some);
    }
}

#[test]
fn what_a_killed_daemon_left_is_put_back() {
    if ready() {
        comes_and_goes("tcx", "true", |daemon| {
            daemon.kill9().unwrap();
            None
        });
    }
}

#[test]
fn what_a_killed_daemon_left_is_put_back_with_clsact() {
    if ready() {
        comes_and_goes("clsact", "true", |daemon| {
            daemon.kill9().unwrap();
            None
        });
    }
}

#[test]
fn what_a_terminated_daemon_left_is_put_back() {
    if ready() {
        comes_and_goes("auto", "true", |daemon| {
            assert!(daemon.terminate().unwrap().status.success());
            None
        });
    }
}

/// Qdiscs and filters of somebody else, on both sides of one device and without a filter on another.
const FOREIGN: &str = "tc qdisc add dev lan0 clsact
    tc filter add dev lan0 ingress protocol all prio 49 u32 match u32 0 0 flowid 1:1
    tc filter add dev lan0 egress protocol all prio 49 u32 match u32 0 0 flowid 1:1
    tc qdisc add dev dsl0 clsact";

#[test]
fn clsact_qdiscs_and_filters_of_others_stay() {
    if ready() {
        comes_and_goes("clsact", FOREIGN, Some);
    }
}

#[test]
fn clsact_qdiscs_and_filters_of_others_stay_with_tcx() {
    if ready() {
        comes_and_goes("tcx", FOREIGN, Some);
    }
}

#[test]
fn a_filter_that_somebody_adds_meanwhile_keeps_its_qdisc() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, "attach = \"clsact\"");
    let theirs = "tc filter add dev lan0 egress protocol all prio 49 u32 match u32 0 0 flowid 1:1";
    lab.router().sh(theirs).unwrap();
    daemon.kill9().unwrap();
    assert_eq!(lab.balance_ok(&["stop"]).unwrap(), STOPPED);
    assert!(lab.router().sh("tc filter show dev lan0 egress").unwrap().contains("u32"));
    assert_eq!(lab.router().sh("tc filter show dev lan0 ingress").unwrap(), "");
    assert!(!lab.router().sh("tc qdisc show dev cable0").unwrap().contains("clsact"));
}

#[test]
fn without_anything_to_stop_it_says_so() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for _ in 0..2 {
        assert_eq!(lab.balance_ok(&["stop"]).unwrap(), NOTHING);
        assert_eq!(changes(&lab, &before), Vec::<String>::new());
    }
}

#[test]
fn another_instance_is_left_alone() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, "");
    let before = Dump::take(lab.router()).unwrap();
    assert_eq!(lab.balance_ok(&["--instance", "other", "stop"]).unwrap(), NOTHING);
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
    split(&lab, 100, Family::V4).unwrap();
}

fn a_device_goes(attach: &str, end: fn(Daemon) -> Option<Daemon>) {
    let lab = Lab::new().unwrap();
    lab.unplug("DSL").unwrap();
    let before = Dump::take(lab.router()).unwrap();
    lab.plug("DSL").unwrap();
    let daemon = start(&lab, &format!("attach = \"{attach}\""));
    let daemon = end(daemon);
    lab.unplug("DSL").unwrap();
    stop(&lab, &before);
    drop(daemon);
}

#[test]
fn a_device_that_has_gone_under_the_daemon_is_no_obstacle() {
    if ready() {
        for attach in ["tcx", "clsact"] {
            a_device_goes(attach, Some);
        }
    }
}

#[test]
fn a_device_that_has_gone_without_the_daemon_is_no_obstacle() {
    if ready() {
        for attach in ["tcx", "clsact"] {
            a_device_goes(attach, |daemon| {
                daemon.kill9().unwrap();
                None
            });
        }
    }
}

#[test]
fn a_sysctl_that_somebody_else_has_changed_since_stays() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let theirs = "net.ipv4.conf.cable0.rp_filter";
    lab.router().sysctls(&[(theirs, "1"), ("net.ipv4.conf.dsl0.rp_filter", "1")]).unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let daemon = start(&lab, "");
    assert_eq!(lab.router().sysctl(theirs).unwrap(), "2");
    daemon.kill9().unwrap();
    lab.router().sysctls(&[(theirs, "0")]).unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(
        changes(&lab, &before),
        [
            "- sysctls: /proc/sys/net/ipv4/conf/cable0/rp_filter = 1",
            "+ sysctls: /proc/sys/net/ipv4/conf/cable0/rp_filter = 0"
        ]
    );
}

#[test]
fn strict_reverse_path_filters_are_loosened_and_put_back() {
    if !ready() {
        return;
    }
    // The greater one of that of the device and that of all counts.
    for (all, cable, dsl) in [("0", "1", "1"), ("1", "0", "1")] {
        let lab = Lab::new().unwrap();
        lab.router()
            .sysctls(&[
                ("net.ipv4.conf.all.rp_filter", all),
                ("net.ipv4.conf.cable0.rp_filter", cable),
                ("net.ipv4.conf.dsl0.rp_filter", dsl),
            ])
            .unwrap();
        let before = Dump::take(lab.router()).unwrap();
        let _daemon = start(&lab, "");
        let split = split(&lab, 400, Family::V4).unwrap();
        assert!(split.values().all(|&flows| flows > 50) && split.len() == 2, "{split:?}");
        stop(&lab, &before);
    }
}

#[test]
fn after_stop_the_main_table_decides_and_a_new_start_balances_again() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for _ in 0..2 {
        let _daemon = start(&lab, "");
        assert_eq!(split(&lab, 400, Family::V4).unwrap().len(), 2);
        stop(&lab, &before);
        let mut own = open_flows(lab.router(), 20, Transport::Udp, Family::V4).unwrap();
        let sources = by_source(&own.ask(Duration::from_secs(1)));
        assert_eq!(sources, [(lab.isp("CABLE").address(Family::V4), 20)].into());
    }
}
