//! When an ISP fails, the flows and conntrack entries of the others are left alone, and nothing moves back.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use balance_lab::{Daemon, Flows, KINDS, Lab, open_flows, ready, wait_until};

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(300);

/// The conntrack entries of TCP and UDP that carry the mark of an ISP, with the ids by which the kernel tells an
/// entry from another one of the same addresses and ports. Not the probes', which come and go.
fn entries(lab: &Lab, id: u8) -> BTreeSet<String> {
    let mark = format!("--mark {:#x}/0x3f00", u32::from(id) << 8);
    let list = format!("conntrack -L -f ipv4 {mark} -o id; conntrack -L -f ipv6 {mark} -o id");
    let list = lab.router().sh(&list).unwrap();
    let flows = list.lines().filter(|line| line.starts_with("tcp ") || line.starts_with("udp "));
    let lasting = ["src=", "dst=", "sport=", "dport=", "mark=", "id="];
    let identity = |line: &str| {
        let words = line.split_whitespace();
        let words = words.filter(|word| lasting.iter().any(|start| word.starts_with(start)));
        words.collect::<Vec<_>>().join(" ")
    };
    flows.map(identity).collect()
}

struct Scene {
    lab: Lab,
    _daemon: Daemon,
    flows: Vec<Flows>,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let quick = "[monitor]\nup_after = \"300ms\"\n";
        lab.write_config(&format!("{}\n{quick}", lab.config())).unwrap();
        let daemon = lab.start_up().unwrap();
        let open = |(transport, family)| open_flows(lab.lan(), 200, transport, family).unwrap();
        let flows = KINDS.into_iter().map(open).collect();
        Self { lab, _daemon: daemon, flows }
    }

    fn ask(&mut self, timeout: Duration) -> Vec<Option<&str>> {
        let lab = &self.lab;
        self.flows.iter_mut().flat_map(|flows| lab.isps_of(&flows.ask(timeout))).collect()
    }
}

/// The ISP of `id` fails and comes back, and `other_id` does not notice.
fn fails_alone(name: &str, id: u8, other: &str, other_id: u8, fail: impl Fn(&Lab), heal: impl Fn(&Lab)) {
    let mut scene = Scene::new();
    let before: Vec<bool> = scene.ask(SOON).into_iter().map(|isp| isp == Some(name)).collect();
    let others = before.iter().filter(|is_of_failing| !**is_of_failing).count();
    let entries_before = entries(&scene.lab, other_id);
    assert_eq!(entries_before.len(), others);
    assert_eq!(entries(&scene.lab, id).len(), 800 - others);

    fail(&scene.lab);
    scene.lab.wait_state(name, "down").unwrap();
    wait_until(SOON, "the end of its entries", || entries(&scene.lab, id).is_empty()).unwrap();
    assert_eq!(entries(&scene.lab, other_id), entries_before);

    let answers = scene.ask(NEVER);
    for ((isp, is_of_failing), number) in answers.iter().zip(&before).zip(0..) {
        // UDP of the failing ISP goes on by the other one; TCP cannot.
        let goes_on = !is_of_failing || number >= 400;
        assert_eq!(*isp, goes_on.then_some(other), "flow {number}");
    }
    let entries_after = entries(&scene.lab, other_id);
    assert!(entries_after.is_superset(&entries_before));

    heal(&scene.lab);
    scene.lab.wait_up(name).unwrap();
    let back = scene.ask(SOON);
    for ((isp, is_of_failing), number) in back.iter().zip(&before).zip(0..) {
        if !is_of_failing || number >= 400 {
            assert_eq!(*isp, Some(other), "flow {number} does not move back");
        }
    }
    assert!(entries(&scene.lab, other_id).is_superset(&entries_after));
}

#[test]
fn at_a_silent_death_flows_and_entries_of_the_other_isp_stay() {
    if !ready() {
        return;
    }
    let cable = |lab: &Lab| lab.isp("CABLE").die_silently().unwrap();
    fails_alone("CABLE", 1, "DSL", 2, cable, |lab| lab.isp("CABLE").revive().unwrap());
}

#[test]
fn at_a_loss_of_carrier_flows_and_entries_of_the_other_isp_stay() {
    if !ready() {
        return;
    }
    let carrier = |carrier| move |lab: &Lab| lab.isp("DSL").set_carrier(carrier).unwrap();
    fails_alone("DSL", 2, "CABLE", 1, carrier(false), carrier(true));
}

#[test]
fn when_all_isps_fail_flows_are_not_cut_loose_and_go_on_where_they_were() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let before: Vec<Option<String>> = scene.ask(SOON).into_iter().map(|isp| isp.map(str::to_owned)).collect();
    // The first one's flows may go to the other. That one's have nowhere to go then.
    let dsl_before = entries(&scene.lab, 2);
    for isp in ["CABLE", "DSL"] {
        scene.lab.isp(isp).die_silently().unwrap();
        scene.lab.wait_state(isp, "down").unwrap();
    }
    assert_eq!(entries(&scene.lab, 2), dsl_before, "nothing is cut loose");
    scene.lab.isp("DSL").revive().unwrap();
    // In both families.
    scene.lab.wait_isp("DSL", |isp| isp["state"] == "up" && isp["reason"].is_null()).unwrap();
    let after = scene.ask(SOON);
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        if before.as_deref() == Some("DSL") {
            assert_eq!(*after, Some("DSL"), "flow {number}");
        }
    }
}
