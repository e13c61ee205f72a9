//! All of them on one router, and what happens beside them.

use balance_lab::checks::{SOON, changes};
use balance_lab::{Dump, Flow, KINDS, Lab, open_new_flows};

use crate::docker::Docker;
use crate::rules;
use crate::vpn::Vpn;

const BOTH: [&str; 2] = ["CABLE", "DSL"];

/// A router with containers, a VPN and rules, none of which is ours.
pub(crate) struct Scene {
    // First, before its machines.
    docker: Docker,
    vpn: Vpn,
    lab: Lab,
    config: String,
    firewall: bool,
}

impl Scene {
    pub(crate) fn new(acceleration: &str, firewall: bool) -> Self {
        let lab = Lab::new().unwrap();
        let docker = Docker::start(&lab);
        let vpn = Vpn::start(&lab);
        rules::add(&lab);
        let config =
            format!("acceleration = \"{acceleration}\"\n{}[firewall]\nenabled = {firewall}\n", lab.config());
        Self { docker, vpn, lab, config, firewall }
    }

    /// We start, are reloaded, die, start again and stop.
    pub(crate) fn comes_and_goes(self) {
        let lab = &self.lab;
        let (before, theirs) = (Dump::take(lab.router()).unwrap(), theirs(lab));
        assert!(theirs.len() > 500, "{} lines", theirs.len());
        self.without_us();
        let holds = |flows: &mut Vec<Flow>, when: &str| {
            are_same(&self::theirs(lab), &theirs, when);
            for flow in flows.iter_mut() {
                let answer = flow.ask();
                assert!(answer.is_ok(), "{when}: {:?} got {answer:?}", flow.local_address());
            }
            flows.extend(self.beside_us());
            are_same(&self::theirs(lab), &theirs, when);
        };

        let mut flows = Vec::new();
        lab.write_config(&self.config).unwrap();
        let daemon = lab.start_up().unwrap();
        holds(&mut flows, "after the start");
        let weight = self.config.replacen("weight = 3", "weight = 2", 1);
        let rule = format!("{weight}\n[[rule]]\ndestination = \"203.0.113.9\"\nto = \"DSL\"\n");
        let firewall = if self.firewall {
            rule.replace("[firewall]\n", "[firewall]\nallow = [\"tcp/6000\"]\n")
        } else {
            rule.replace("[firewall]\n", "[firewall]\nclamp_mss = \"on\"\n")
        };
        for (config, when) in
            [(&weight, "another weight"), (&rule, "another rule"), (&firewall, "another firewall")]
        {
            assert_ne!(lab.read_config().unwrap(), *config);
            daemon.reload(lab, config).unwrap();
            holds(&mut flows, when);
        }
        daemon.kill9().unwrap();
        holds(&mut flows, "without the daemon");
        let _daemon = lab.start_up().unwrap();
        holds(&mut flows, "after a restart");
        assert!(lab.isps().iter().all(|isp| isp.forwarded().unwrap().foreign == 0));

        drop(flows);
        lab.balance_ok(&["stop"]).unwrap();
        assert_eq!(changes(lab, &before), Vec::<String>::new());
        self.without_us();
    }

    /// What works while nothing of ours is there.
    fn without_us(&self) {
        self.docker.connections(&self.lab, &["CABLE"]);
        self.vpn.connections(&self.lab);
        rules::all_hold(&self.lab, false);
        rules::connections(&self.lab, self.docker.container(), u32::MAX);
    }

    /// What works while we balance: the same, and the LAN's flows.
    fn beside_us(&self) -> Vec<Flow> {
        let lab = &self.lab;
        let mut flows = self.docker.connections(lab, &BOTH);
        flows.extend(self.vpn.connections(lab));
        rules::all_hold(lab, true);
        flows.extend(rules::connections(lab, self.docker.container(), 10_900));
        flows.extend(rules::connections(lab, lab.lan(), 10_000));
        for (transport, family) in KINDS {
            let answers = open_new_flows(lab.lan(), 40, transport, family).unwrap().ask(SOON);
            let used = lab.isps_of(&answers);
            assert!(BOTH.iter().all(|isp| used.contains(&Some(isp))), "{transport:?} {family:?}: {used:?}");
            assert!(used.iter().all(Option::is_some), "{transport:?} {family:?}: {answers:?}");
        }
        flows
    }
}

fn are_same(now: &[String], before: &[String], when: &str) {
    let missing = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).cloned().collect()
    };
    assert!(now == before, "{when}: {:#?} instead of {:#?}", missing(now, before), missing(before, now));
}

/// The rules in their order, the routes but for the kernel's own, and the nft tables, without what is ours.
fn theirs(lab: &Lab) -> Vec<String> {
    let show = |what: &str| -> Vec<String> {
        let text = lab.router().sh(what).unwrap();
        let lines = text.lines().filter(|line| !line.contains("proto 201") && !line.contains("table 255"));
        lines.map(|line| line.trim_end().to_owned()).collect()
    };
    let mut routes = show("ip -o -N -4 route show table all; ip -o -N -6 route show table all");
    routes.sort();
    let nft = lab.router().sh("nft -s list ruleset").unwrap();
    let tables = nft.split_inclusive("\n}\n").filter(|table| !table.starts_with("table inet balance "));
    let tables = tables.flat_map(str::lines).map(str::to_owned);
    [show("ip -N -4 rule; ip -N -6 rule"), routes, tables.collect()].concat()
}
