//! `doctor` on a machine that somebody has broken.

use balance_lab::{Dump, Lab, ready_with};
use serde_json::Value;

use crate::support::{SIZES, ended};

#[test]
fn what_others_have_broken_is_found_with_the_remedy_and_nothing_is_changed() {
    if !ready_with(&["tmux"]) {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&lab.config()).unwrap();
    let found = || -> Vec<String> {
        let output = lab.balance(&["doctor", "--json", "--config", "/run/balance.toml"]).unwrap();
        let findings: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
        let is_bad = findings.iter().any(|finding| finding["severity"] == "problem");
        assert_eq!(output.status.code(), Some(i32::from(is_bad)), "{output:?}");
        let text =
            |finding: &Value| format!("{}: {} -> {}", finding["severity"], finding["what"], finding["fix"]);
        findings.iter().map(text).collect()
    };
    // Whatever this machine has by itself, before and while it balances.
    let before = found();
    let daemon = lab.start_up().unwrap();
    let sound = found();
    assert!(sound.iter().all(|finding| before.contains(finding)), "{sound:#?}\nbefore: {before:#?}");

    // It would repair what it can.
    daemon.kill9().unwrap();
    let router = lab.router();
    router
        .sysctls(&[
            ("net.ipv4.conf.lan0.forwarding", "0"),
            ("net.netfilter.nf_conntrack_tcp_timeout_established", "433000"),
        ])
        .unwrap();
    let lines = [
        "rule add fwmark 0x100/0xff00 lookup 77 priority 50",
        "rule add from 10.9.9.9 lookup main priority 10500",
        "route add 10.8.8.0/24 dev lan0 table 1001",
        "link set cable0 mtu 1200",
    ];
    router.ip(&lines.map(str::to_owned)).unwrap();
    let table = "table ip others {
        chain c { type filter hook prerouting priority -140; meta mark set 0x5; meta mark set meta mark and 0xff0000 or 0x40; }
        chain n { type nat hook postrouting priority 50; oifname \"cable0\" masquerade; }
    }";
    router.feed("nft", &["-f", "-"], table).unwrap();
    let dump = Dump::take(router).unwrap();
    let broken = found();
    for part in [
        "no daemon watches the ISPs",
        "packets from lan0 are not forwarded",
        "idle connections of the fast path are forgotten early",
        "the rule of priority 50 takes packets with a mark of ours (0x100/0xff00)",
        "priority 10500, which is among ours",
        "table 1001 is ours and has a route of somebody else (protocol 3): 10.8.8.0/24",
        "cable0 has an MTU of 1200",
        "ip others c (handle 3) changes all bits of the mark",
        "changes bits 0x3f00 of the mark",
        "translates sources before us",
    ] {
        assert!(broken.iter().any(|finding| finding.contains(part)), "{part}: {broken:#?}");
    }
    for size in SIZES {
        let screen = ended(&lab, size, "doctor --config /run/balance.toml | tail -n 20");
        assert!(
            screen.contains(" problems, ") && screen.contains(" warnings") && screen.contains("-> "),
            "{screen}"
        );
    }
    assert_eq!(dump, Dump::take(router).unwrap(), "it only looks");
}
