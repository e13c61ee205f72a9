//! Rules of the operator's own.

use std::net::SocketAddr;

use balance_lab::addresses::SERVER_PORT;
use balance_lab::checks::{SOON, split};
use balance_lab::{Family, Flow, Lab, Transport, ready, wait_until};

use crate::scene::{FAMILIES, NEVER, PORTS, Scene, is_dropped, is_open};

/// The folder of own rules on the router.
const OWN_RULES: &str = "/run/firewall.d";

/// Puts a file of own rules into the folder of the tests.
fn own_rules(lab: &Lab, file: &str, text: &str) {
    lab.router().run(|| {
        std::fs::create_dir_all(OWN_RULES).unwrap();
        std::fs::write(format!("{OWN_RULES}/{file}"), text).unwrap();
    });
}

#[test]
fn own_rules_come_first_and_hold_for_flows_that_exist_and_go_fast() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    own_rules(
        lab,
        "10-open.nft",
        &format!("chain own_input {{\n\tiifname cable0 tcp dport {} accept\n}}\n", PORTS[1]),
    );
    let config = format!("acceleration = \"tc\"\n{}", scene.config(&format!("rules = \"{OWN_RULES}\"")));
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();
    for family in FAMILIES {
        is_open(lab.internet(), lab.isp("CABLE").address(family), PORTS[1], Transport::Tcp);
        is_dropped(lab.internet(), lab.isp("DSL").address(family), PORTS[1], Transport::Tcp);
    }

    let banned = SocketAddr::new([203, 0, 113, 7].into(), SERVER_PORT);
    let mut flow = Flow::open_to(lab.lan(), Transport::Udp, banned, NEVER).unwrap();
    for _ in 0..50 {
        flow.ask().unwrap();
    }
    own_rules(
        lab,
        "20-banned.nft",
        "set banned {\n\ttype ipv4_addr\n\telements = { 203.0.113.7 }\n}\ncounter banned {\n}\n\
         chain own_forward {\n\tip daddr @banned counter name banned drop\n}\n",
    );
    scene.reload(&daemon, &config);
    wait_until(SOON, "the end of the lease", || flow.ask().is_err()).unwrap();
    is_dropped(lab.lan(), banned.ip(), SERVER_PORT, Transport::Tcp);
    assert!(scene.count("banned") > 0);
    split(lab, 20, Family::V4).unwrap();
}

#[test]
fn broken_own_rules_are_refused_with_their_place_and_change_nothing() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    own_rules(lab, "10-good.nft", "chain own_input {\n\ttcp dport 6001 accept\n}\n");
    let config = scene.config(&format!("rules = \"{OWN_RULES}\""));
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();
    let before = scene.table();
    let works = || {
        is_open(lab.internet(), lab.isp("DSL").address(Family::V4), PORTS[1], Transport::Tcp);
        is_dropped(lab.internet(), lab.isp("DSL").address(Family::V4), PORTS[1], Transport::Udp);
        split(lab, 20, Family::V4).unwrap();
    };
    works();

    own_rules(
        lab,
        "20-broken.nft",
        "chain own_input {\n\tudp dport 6001 accept\n\ttcp dport nonsense accept\n}\n",
    );
    scene.reload(&daemon, &config.replacen("weight = 3", "weight = 7", 1));
    let said = daemon.stderr();
    assert!(said.contains("the config is not reloaded"), "{said}");
    assert!(said.contains("/run/firewall.d/20-broken.nft:3:12-19: Error:"), "{said}");
    assert_eq!(lab.isp_status("CABLE").unwrap()["weight"], 3);
    assert_eq!(scene.table(), before);
    works();

    // The next daemon would have to do without, so there is none; what is in the kernel stays.
    daemon.kill9().unwrap();
    let error = lab.start(&[]).err().unwrap().to_string();
    assert!(error.contains("/run/firewall.d/20-broken.nft:3:12-19: Error:"), "{error}");
    assert_eq!(scene.table(), before);
    works();

    lab.router().sh("rm /run/firewall.d/20-broken.nft; mkdir /run/firewall.d/30-folder.nft").unwrap();
    let output = lab.balance(&["check", "/run/balance.toml"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with("error: /run/firewall.d/30-folder.nft: "), "{}", output.stderr);
    lab.router().sh("rmdir /run/firewall.d/30-folder.nft").unwrap();
    let _daemon = lab.start_up().unwrap();
    works();
}
