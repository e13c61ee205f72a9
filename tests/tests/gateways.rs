//! ISPs come, go and change: gateways, addresses, devices, tiers, and the config itself.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use balance_lab::{
    Daemon, Dump, Family, Flow, Flows, IspSpec, Lab, Transport, open_new_flows, ready, wait_until,
};

const SOON: Duration = Duration::from_secs(5);
const QUICK: &str = "\n[monitor]\nup_after = \"300ms\"\n";
const BOTH: [&str; 2] = ["CABLE", "DSL"];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The daemon with a config that takes ISPs back soon. All ISPs are up.
fn start(lab: &Lab, config: &str) -> Daemon {
    lab.write_config(&format!("{config}{QUICK}")).unwrap();
    lab.start_up().unwrap()
}

/// The ISPs that new flows of a family use: so many flows that each should have one, were its share a quarter.
fn used(lab: &Lab, family: Family) -> BTreeSet<&str> {
    let mut all = BTreeSet::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        let answers = open_new_flows(lab.lan(), 40, transport, family).unwrap().ask(SOON);
        for (isp, answer) in lab.isps_of(&answers).into_iter().zip(&answers) {
            all.insert(isp.unwrap_or_else(|| panic!("{transport:?} {family:?}: {answer:?}")));
        }
    }
    all
}

/// Checks that new flows of both families use these ISPs and no others.
fn new_flows_use(lab: &Lab, isps: &[&str]) {
    for family in FAMILIES {
        let used = used(lab, family);
        assert_eq!(used, isps.iter().copied().collect(), "{family:?}: {:#}", lab.status().unwrap());
    }
}

/// Live flows, half of them over each family, and the ISP of each.
struct Live<'a> {
    lab: &'a Lab,
    flows: [Flows; 4],
    isps: Vec<Option<&'a str>>,
}

impl<'a> Live<'a> {
    fn open(lab: &'a Lab) -> Self {
        let open = |transport, family| open_new_flows(lab.lan(), 30, transport, family).unwrap();
        let [udp, tcp] = [Transport::Udp, Transport::Tcp];
        let flows =
            [open(udp, Family::V4), open(udp, Family::V6), open(tcp, Family::V4), open(tcp, Family::V6)];
        let mut live = Self { lab, flows, isps: Vec::new() };
        live.isps = live.ask(SOON);
        assert!(live.isps.iter().all(Option::is_some));
        live
    }

    fn ask(&mut self, timeout: Duration) -> Vec<Option<&'a str>> {
        self.flows.iter_mut().flat_map(|flows| self.lab.isps_of(&flows.ask(timeout))).collect()
    }

    /// Checks that the flows of these ISPs are where they were.
    fn stay(&mut self, isps: &[&str]) {
        // Those of an ISP that is gone are not waited for.
        let timeout = if isps.len() == self.lab.isps().len() { SOON } else { Duration::from_millis(500) };
        for (now, before) in self.ask(timeout).into_iter().zip(&self.isps) {
            if isps.contains(&before.unwrap()) {
                assert_eq!(now, *before);
            }
        }
    }
}

/// Has the daemon read its config again and waits until it has.
fn reload(lab: &Lab, daemon: &Daemon, config: &str) {
    daemon.reload(lab, config).unwrap();
}

#[test]
fn a_renewed_lease_with_another_address_and_gateway_is_followed() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, &lab.config());
    let mut live = Live::open(&lab);
    lab.isp("CABLE")
        .host()
        .sh("ip -4 addr flush dev router; ip addr add 100.64.1.254/24 dev router")
        .unwrap();
    lab.router()
        .sh("ip -4 addr flush dev cable0; ip addr add 100.64.1.7/24 dev cable0; \
             ip route add default via 100.64.1.254 dev cable0 proto dhcp metric 100")
        .unwrap();
    lab.wait_isp("CABLE", |isp| isp["gateway"] == "100.64.1.254").unwrap();
    lab.wait_up("CABLE").unwrap();
    live.stay(&["DSL"]);
    new_flows_use(&lab, &BOTH);
    let sources = open_new_flows(lab.lan(), 40, Transport::Tcp, Family::V4).unwrap().ask(SOON);
    let sources: BTreeSet<String> = sources.into_iter().map(|source| source.unwrap().to_string()).collect();
    assert_eq!(sources, ["100.64.1.7", "100.64.2.2"].map(str::to_owned).into());
    assert!(!daemon.stderr().contains("WARN"), "{}", daemon.stderr());
}

#[test]
fn a_gateway_that_changes_alone_is_followed_and_nothing_moves() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, &lab.config());
    let mut live = Live::open(&lab);
    lab.isp("CABLE").host().sh("ip addr add 100.64.1.254/32 dev router").unwrap();
    lab.router()
        .sh("ip route replace default via 100.64.1.254 dev cable0 proto dhcp metric 100; \
             ip -6 route replace ::/0 via fe80::1 dev cable0 proto ra metric 100")
        .unwrap();
    lab.isp("CABLE").host().sh("ip addr add fe80::1/64 dev router nodad").unwrap();
    lab.wait_isp("CABLE", |isp| isp["gateway"] == "100.64.1.254").unwrap();
    let routes = || lab.router().sh("ip route show table 1001; ip -6 route show table 1001").unwrap();
    wait_until(SOON, "both routes", || routes().contains("100.64.1.254") && routes().contains("fe80::1"))
        .unwrap();
    lab.isp("CABLE")
        .host()
        .sh("ip addr del 100.64.1.1/24 dev router; ip route add 100.64.1.0/24 dev router")
        .unwrap();
    lab.isp("CABLE")
        .host()
        .sh("ip addr del 2001:db8:1::1/64 dev router; ip -6 route add 2001:db8:1::/64 dev router")
        .unwrap();
    lab.router().sh("ip neigh flush dev cable0; ip -6 neigh flush dev cable0").unwrap();
    live.stay(&BOTH);
    new_flows_use(&lab, &BOTH);
}

#[test]
fn a_device_that_is_unplugged_comes_back_with_another_index() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, &lab.config());
    let mut live = Live::open(&lab);
    lab.unplug("CABLE").unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    assert_eq!(lab.isp_status("CABLE").unwrap()["reason"], "no device cable0");
    new_flows_use(&lab, &["DSL"]);
    live.stay(&["DSL"]);
    lab.plug("CABLE").unwrap();
    lab.wait_up("CABLE").unwrap();
    new_flows_use(&lab, &BOTH);
    live.stay(&["DSL"]);
    assert!(!daemon.stderr().contains("ERROR"), "{}", daemon.stderr());
}

#[test]
fn a_gateway_is_found_in_any_table_or_taken_from_the_config() {
    if !ready() {
        return;
    }
    let lab = Lab::builder()
        .isp(IspSpec::new("CABLE"))
        .isp(IspSpec::new("DSL"))
        .default_routes(false)
        .build()
        .unwrap();
    let gateways = "device = \"dsl0\"\ngateway = [\"100.64.2.1\", \"2001:db8:2::1\"]";
    let config = lab.config().replace("device = \"dsl0\"", gateways);
    lab.write_config(&format!("{config}{QUICK}")).unwrap();
    let _daemon = lab.start(&[]).unwrap();
    lab.wait_up("DSL").unwrap();
    let cable = lab.isp_status("CABLE").unwrap();
    assert_eq!((&cable["state"], &cable["reason"]), (&"down".into(), &"no IPv4 gateway on cable0".into()));
    new_flows_use(&lab, &["DSL"]);
    lab.router()
        .ip(&[
            "route add default via 100.64.1.1 dev cable0 table 77".to_owned(),
            "route add ::/0 via 2001:db8:1::1 dev cable0 table 70000".to_owned(),
        ])
        .unwrap();
    lab.wait_up("CABLE").unwrap();
    // Up is said when one family is; both have to be.
    wait_until(SOON, "IPv6 by CABLE", || used(&lab, Family::V6).len() == 2).unwrap();
    new_flows_use(&lab, &BOTH);
}

#[test]
fn an_isp_without_ipv6_gets_no_ipv6_flows_and_the_other_all() {
    if !ready() {
        return;
    }
    let lab = Lab::builder()
        .isp(IspSpec::new("CABLE").weight(9).v4_only())
        .isp(IspSpec::new("DSL").weight(4))
        .build()
        .unwrap();
    let _daemon = start(&lab, &lab.config());
    assert_eq!(used(&lab, Family::V4), BOTH.into());
    assert_eq!(used(&lab, Family::V6), ["DSL"].into());
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    assert_eq!(used(&lab, Family::V4), ["CABLE"].into());
    lab.isp("DSL").revive().unwrap();
    lab.wait_up("DSL").unwrap();
    assert_eq!(used(&lab, Family::V6), ["DSL"].into());
}

/// CABLE dies and comes back: DSL takes the new flows meanwhile, and keeps those that it got.
fn dsl_steps_in(lab: &Lab) {
    new_flows_use(lab, &["CABLE"]);
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    new_flows_use(lab, &["DSL"]);
    let mut live = Live::open(lab);
    lab.isp("CABLE").revive().unwrap();
    lab.wait_up("CABLE").unwrap();
    new_flows_use(lab, &["CABLE"]);
    live.stay(&BOTH);
}

#[test]
fn a_higher_tier_is_used_only_while_the_lower_one_is_down() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let config = lab.config().replace("device = \"dsl0\"", "device = \"dsl0\"\ntier = 2");
    let _daemon = start(&lab, &config);
    dsl_steps_in(&lab);
}

#[test]
fn in_failover_mode_the_best_isp_has_all_flows() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, &format!("mode = \"failover\"\n{}", lab.config()));
    dsl_steps_in(&lab);
}

#[test]
fn an_isp_whose_device_does_not_exist_is_down_until_it_appears() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.unplug("DSL").unwrap();
    lab.write_config(&format!("{}{QUICK}", lab.config())).unwrap();
    let _daemon = lab.start(&[]).unwrap();
    lab.wait_up("CABLE").unwrap();
    let dsl = lab.isp_status("DSL").unwrap();
    assert_eq!((&dsl["state"], &dsl["reason"]), (&"down".into(), &"no device dsl0".into()));
    new_flows_use(&lab, &["CABLE"]);
    let mut live = Live::open(&lab);
    lab.plug("DSL").unwrap();
    lab.wait_up("DSL").unwrap();
    new_flows_use(&lab, &BOTH);
    live.stay(&["CABLE"]);
}

#[test]
fn a_lan_that_appears_later_is_balanced() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.router().ip(&["link set lan0 down".to_owned(), "link set lan0 name later".to_owned()]).unwrap();
    let _daemon = start(&lab, &lab.config());
    // The kernel has thrown away the IPv6 address with the device going down.
    lab.router()
        .ip(&[
            "link set later name lan0".to_owned(),
            "link set lan0 up".to_owned(),
            "addr replace fd00:1::1/64 dev lan0 nodad".to_owned(),
        ])
        .unwrap();
    let gets_out = || {
        FAMILIES.iter().all(|&family| {
            Flow::open(lab.lan(), Transport::Udp, family, Duration::from_millis(200))
                .and_then(|mut flow| flow.ask())
                .is_ok()
        })
    };
    wait_until(SOON, "the LAN", gets_out).unwrap();
    new_flows_use(&lab, &BOTH);
}

#[test]
fn a_reload_adds_and_removes_isps_and_moves_no_flow_of_the_others() {
    if !ready() {
        return;
    }
    let three = ["CABLE", "DSL", "LTE"];
    let lab = three.map(IspSpec::new).into_iter().fold(Lab::builder(), balance_lab::Builder::isp);
    let lab = lab.build().unwrap();
    let all = format!("{}{QUICK}", lab.config());
    let without = |name: &str| {
        let start = all.find(&format!("[[isp]]\nname = \"{name}\"")).unwrap();
        let length = all[start..].find("\n\n").unwrap() + 2;
        format!("{}{}", &all[..start], &all[start + length..])
    };
    lab.write_config(&without("LTE")).unwrap();
    let daemon = lab.start(&[]).unwrap();
    lab.wait_up("CABLE").unwrap();
    lab.wait_up("DSL").unwrap();
    let mut live = Live::open(&lab);
    assert!(!live.isps.contains(&Some("LTE")));

    reload(&lab, &daemon, &all);
    lab.wait_up("LTE").unwrap();
    new_flows_use(&lab, &three);
    live.stay(&BOTH);

    let mut live = Live::open(&lab);
    reload(&lab, &daemon, &without("DSL"));
    new_flows_use(&lab, &["CABLE", "LTE"]);
    live.stay(&["CABLE", "LTE"]);
    lab.isp_status("DSL").unwrap_err();
    // Its UDP flows, the first half, have gone to the others.
    let now = live.ask(Duration::from_millis(500));
    assert!(now.iter().take(60).all(|isp| isp.is_some_and(|isp| isp != "DSL")), "{now:?}");

    reload(&lab, &daemon, &all);
    lab.wait_up("DSL").unwrap();
    new_flows_use(&lab, &three);
    live.stay(&["CABLE", "LTE"]);
}

#[test]
fn a_reload_changes_weights_and_tiers() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, &lab.config());
    let mut live = Live::open(&lab);
    reload(&lab, &daemon, &lab.config().replace("device = \"cable0\"", "device = \"cable0\"\ntier = 9"));
    new_flows_use(&lab, &["DSL"]);
    reload(&lab, &daemon, &lab.config().replace("weight = 3", "weight = 1"));
    assert_eq!(lab.isp_status("CABLE").unwrap()["share"].as_f64(), Some(0.5));
    new_flows_use(&lab, &BOTH);
    live.stay(&BOTH);
}

#[test]
fn a_broken_config_is_told_of_and_changes_nothing() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, &lab.config());
    let mut live = Live::open(&lab);
    let before = Dump::take(lab.router()).unwrap();
    for (broken, told) in [
        (lab.config().replacen("weight = 3", "weight = 0", 1), "weight"),
        (lab.config().replace("dsl0", "cable0"), "cable0"),
        (format!("{}[[isp", lab.config()), "/run/balance.toml"),
        (String::new(), "isp"),
    ] {
        let said = daemon.stderr().len();
        reload(&lab, &daemon, &broken);
        wait_until(SOON, "the error", || daemon.stderr()[said..].contains("ERROR"))
            .context("it says nothing")
            .unwrap();
        assert!(daemon.stderr()[said..].contains(told), "{}", &daemon.stderr()[said..]);
        assert_eq!(before.diff(&Dump::take(lab.router()).unwrap()), Vec::<String>::new());
        live.stay(&BOTH);
    }
    new_flows_use(&lab, &BOTH);
    reload(&lab, &daemon, &lab.config().replace("weight = 3", "weight = 1"));
    assert_eq!(lab.isp_status("CABLE").unwrap()["weight"], 1);
}
