//! Balancing with `attach = "clsact"`, as on kernels without tcx.
#![cfg(test)]

use balance_lab::checks::{HOOKS, SOON, balancing, field, programs, split};
use balance_lab::{Family, ready, wait_until};

const CLSACT: &str = "attach = \"clsact\"";

#[test]
fn flows_are_balanced_by_weight() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing(CLSACT).unwrap();
    for (device, side) in HOOKS {
        assert_eq!(programs(&lab, device, side).unwrap(), (0, 1), "{device} {side}");
    }
    for family in [Family::V4, Family::V6] {
        let split = split(&lab, 2_000, family).unwrap();
        // 1,500, and four binomial deviations of 19.
        assert!(split.get("CABLE").is_some_and(|flows| (1_424..=1_576).contains(flows)), "{split:?}");
    }
    let status = lab.status().unwrap();
    assert!(field(&status, "tx_packets").values().all(|packets| packets.as_u64() > Some(500)), "{status:#}");
    assert!(field(&status, "rx_packets").values().all(|packets| packets.as_u64() > Some(500)), "{status:#}");
}

#[test]
fn filters_of_others_run_after_ours() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing(CLSACT).unwrap();
    let router = lab.router();
    router
        .sh("ip link add copy0 type veth peer name copy1
            ip link set copy0 up
            ip link set copy1 up
            for side in ingress egress; do
                tc filter add dev lan0 $side protocol all prio 49 \
                    u32 match u32 0 0 action mirred egress mirror dev copy0
            done")
        .unwrap();
    assert_eq!(split(&lab, 400, Family::V4).unwrap().len(), 2);
    for side in ["ingress", "egress"] {
        let shown = router.sh(&format!("tc -s filter show dev lan0 {side}")).unwrap();
        let packets =
            shown.split_once(" bytes ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
        assert!(packets.parse::<u64>().is_ok_and(|packets| packets >= 400), "{side}:\n{shown}");
    }
}

#[test]
fn a_restart_leaves_one_filter() {
    if !ready() {
        return;
    }
    let (lab, mut daemon) = balancing(CLSACT).unwrap();
    for _ in 0..2 {
        daemon.kill9().unwrap();
        daemon = lab.start(&[]).unwrap();
    }
    lab.wait_all_up().unwrap();
    for (device, side) in HOOKS {
        assert_eq!(programs(&lab, device, side).unwrap(), (0, 1), "{device} {side}");
    }
    assert_eq!(split(&lab, 400, Family::V6).unwrap().len(), 2);
}

#[test]
fn a_device_that_comes_back_gets_its_filters() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing(CLSACT).unwrap();
    lab.unplug("DSL").unwrap();
    lab.plug("DSL").unwrap();
    for (device, side) in HOOKS {
        let what = format!("the filter on {device} {side}");
        wait_until(SOON, &what, || programs(&lab, device, side).unwrap() == (0, 1)).unwrap();
    }
    lab.wait_all_up().unwrap();
    assert_eq!(split(&lab, 400, Family::V4).unwrap().len(), 2);
}
