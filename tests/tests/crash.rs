//! The daemon dies and another one takes over.
#![cfg(test)]

use std::time::{Duration, Instant};

use balance_lab::checks::{HOOKS, SOON, balancing, changes, field, programs, split};
use balance_lab::{Dump, Family, Flow, Lab, Stream, Transport, ready, status, wait_until};
use serde_json::{Value, json};

/// Waits while traffic goes on.
fn for_a_while(time: Duration) {
    let start = Instant::now();
    wait_until(2 * time, "time", || start.elapsed() >= time).unwrap();
}

fn lose_nothing_during_a_restart(top: &str) {
    let (lab, daemon) = balancing(top).unwrap();
    let streams = [Family::V4, Family::V6].map(|family| Stream::start(lab.lan(), 1_000, 40, family).unwrap());
    for_a_while(Duration::from_millis(700));
    daemon.kill9().unwrap();
    for_a_while(Duration::from_millis(700));
    let daemon = lab.start(&[]).unwrap();
    lab.wait_all_up().unwrap();
    for_a_while(Duration::from_millis(700));
    daemon.terminate().unwrap();
    for_a_while(Duration::from_millis(300));
    let _daemon = lab.start(&[]).unwrap();
    for_a_while(Duration::from_millis(700));
    for stream in streams {
        let report = stream.stop().unwrap();
        assert!(report.sent > 2_500 && report.lost == 0 && report.moved == 0, "{report:?}");
    }
    let forwarded = ["CABLE", "DSL"].map(|name| lab.isp(name).forwarded().unwrap());
    assert!(forwarded.iter().all(|isp| isp.to_internet > 500 && isp.foreign == 0), "{forwarded:?}");
}

#[test]
fn a_kill_and_a_restart_lose_no_packet_and_move_no_flow() {
    if ready() {
        lose_nothing_during_a_restart("");
    }
}

#[test]
fn a_kill_and_a_restart_lose_no_packet_and_move_no_flow_with_clsact() {
    if ready() {
        lose_nothing_during_a_restart("attach = \"clsact\"");
    }
}

#[test]
fn status_works_without_the_daemon() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    split(&lab, 400, Family::V4).unwrap();
    let before = lab.status().unwrap();
    assert_eq!(before["daemon"], json!({ "pid": daemon.pid(), "running": true }));
    assert!(field(&before, "rtt_ms").values().all(Value::is_number), "{before:#}");
    daemon.kill9().unwrap();

    let after = lab.status().unwrap();
    assert_eq!(after["instance"], "main");
    assert_eq!(after["daemon"], json!({ "pid": null, "running": false }));
    for known in ["name", "device", "state", "forced", "weight", "tier", "share", "gateway", "since"] {
        assert_eq!(field(&after, known), field(&before, known), "{known}");
    }
    for gone in ["rtt_ms", "jitter_ms", "loss_percent", "reason"] {
        assert!(field(&after, gone).values().all(Value::is_null), "{after:#}");
    }
    for counted in ["flows", "tx_packets", "tx_bytes", "rx_packets", "rx_bytes"] {
        assert!(field(&after, counted).values().all(|count| count.as_u64() > Some(0)), "{after:#}");
    }
    assert_eq!(status::isp(&after, "CABLE")["share"], 0.75);
    assert_eq!(lab.balance_ok(&["status", "-s"]).unwrap(), "CABLE up\nDSL up\n");
    let table = lab.balance_ok(&["status"]).unwrap();
    assert!(table.contains("CABLE") && table.contains("not running"), "{table}");

    // What needs the daemon says so.
    let output = lab.balance(&["down", "DSL"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("the daemon of instance main is not running"), "{}", output.stderr);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    let config = lab.write_config(&lab.config()).unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let output = lab.balance(&["run", "--config", config.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("error: instance main is running already (pid {})\n", daemon.pid());
    assert_eq!(output.stderr, expected);
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
    assert_eq!(lab.status().unwrap()["daemon"]["pid"], daemon.pid());
    split(&lab, 100, Family::V4).unwrap();
}

#[test]
fn forced_states_and_weights_survive() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    lab.balance_ok(&["set-weight", "dsl", "7"]).unwrap();
    status::wait(&lab, "CABLE", "share", &json!(0.0)).unwrap();
    daemon.kill9().unwrap();
    let check = |lab: &Lab| {
        let now = lab.status().unwrap();
        assert_eq!(
            field(&now, "forced"),
            field(
                &json!({ "isps": [
            { "name": "CABLE", "forced": "down" }, { "name": "DSL", "forced": null } ] }),
                "forced"
            )
        );
        assert_eq!(status::isp(&now, "DSL")["weight"], 7);
        assert_eq!(status::isp(&now, "DSL")["share"], 1.0);
        assert_eq!(split(lab, 100, Family::V4).unwrap(), [("DSL".to_owned(), 100)].into());
    };
    check(&lab);
    let _daemon = lab.start(&[]).unwrap();
    check(&lab);

    lab.balance_ok(&["auto", "CABLE"]).unwrap();
    // 3 to 7, of 4,096 buckets.
    status::wait(&lab, "CABLE", "share", &json!(0.3)).unwrap();
}

#[test]
fn a_restart_leaves_one_of_everything() {
    if !ready() {
        return;
    }
    let (lab, mut daemon) = balancing("").unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for _ in 0..3 {
        daemon.kill9().unwrap();
        daemon = lab.start(&[]).unwrap();
        lab.wait_all_up().unwrap();
    }
    for (device, side) in HOOKS {
        assert_eq!(programs(&lab, device, side).unwrap(), (1, 0), "{device} {side}");
    }
    // The programs have been replaced by new ones of the same name.
    let mut diff = changes(&lab, &before);
    diff.retain(|line| !line.contains(" tcx "));
    assert_eq!(diff, Vec::<String>::new());
}

#[test]
fn another_way_of_attaching_replaces_the_one_before() {
    if !ready() {
        return;
    }
    let (lab, mut daemon) = balancing("attach = \"tcx\"").unwrap();
    for (attach, expected) in [("clsact", (0, 1)), ("tcx", (1, 0))] {
        daemon.kill9().unwrap();
        lab.write_config(&format!("attach = \"{attach}\"\n{}", lab.config())).unwrap();
        daemon = lab.start(&[]).unwrap();
        for (device, side) in HOOKS {
            // The kernel detaches when it finds the time to.
            let what = format!("{attach} on {device} {side} alone");
            wait_until(SOON, &what, || programs(&lab, device, side).unwrap() == expected).unwrap();
        }
        split(&lab, 100, Family::V6).unwrap();
    }
}

#[test]
fn an_isp_that_dies_meanwhile_is_noticed_and_its_flows_move() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    let cable = lab.isp("CABLE").address(Family::V4);
    let mut flow = (0..100)
        .map(|_| Flow::open(lab.lan(), Transport::Udp, Family::V4, SOON).unwrap())
        .find_map(|mut flow| (flow.ask().unwrap() == cable).then_some(flow))
        .unwrap();
    daemon.kill9().unwrap();
    lab.isp("CABLE").die_silently().unwrap();
    let daemon = lab.start(&[]).unwrap();
    status::wait(&lab, "CABLE", "state", &json!("down")).unwrap();
    assert_eq!(split(&lab, 200, Family::V4).unwrap(), [("DSL".to_owned(), 200)].into());
    assert_eq!(split(&lab, 200, Family::V6).unwrap(), [("DSL".to_owned(), 200)].into());
    assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));

    // The other way round.
    daemon.kill9().unwrap();
    lab.isp("CABLE").revive().unwrap();
    let _daemon = lab.start(&[]).unwrap();
    assert_eq!(status::isp(&lab.status().unwrap(), "CABLE")["state"], "down");
    lab.wait_all_up().unwrap();
    assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));
}

#[test]
fn a_device_that_is_replaced_under_the_daemon_works_at_once() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing("").unwrap();
    lab.unplug("DSL").unwrap();
    lab.plug("DSL").unwrap();
    for (device, side) in HOOKS {
        let what = format!("a program on {device} {side}");
        wait_until(SOON, &what, || programs(&lab, device, side).unwrap() == (1, 0)).unwrap();
    }
    lab.wait_all_up().unwrap();
    for family in [Family::V4, Family::V6] {
        let split = split(&lab, 400, family).unwrap();
        assert!(split.get("DSL").is_some_and(|&flows| flows > 50), "{split:?}");
    }
}

#[test]
fn a_device_that_is_replaced_meanwhile_is_found() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    daemon.kill9().unwrap();
    lab.unplug("DSL").unwrap();
    lab.plug("DSL").unwrap();
    let _daemon = lab.start(&[]).unwrap();
    lab.wait_all_up().unwrap();
    for (device, side) in HOOKS {
        assert_eq!(programs(&lab, device, side).unwrap(), (1, 0), "{device} {side}");
    }
    let split = split(&lab, 400, Family::V4).unwrap();
    assert!(split.get("DSL").is_some_and(|&flows| flows > 50), "{split:?}");
}
