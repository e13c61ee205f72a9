//! What it says while things change: live flows, ISPs that are down, daemons that are gone.

use balance_lab::addresses::lan_host;
use balance_lab::{Lab, ready};
use serde_json::json;

use crate::support::{KINDS, ask, explain, explain_flow, internet, open};

#[test]
fn live_flows_stay_where_they_are_whatever_their_bucket_says_now() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut flows = Vec::new();
    for (port, (transport, family)) in (30_000..).zip(KINDS.into_iter().cycle().take(24)) {
        let (from, to) = ((lan_host(0, family), port).into(), internet(1, family));
        let socket = open(lab.lan(), transport, from, to);
        let isp = lab.isp_of(ask(&socket)).unwrap().name();
        flows.push((transport, from, to, socket, isp));
    }
    lab.balance_ok(&["set-weight", "CABLE", "1"]).unwrap();
    lab.balance_ok(&["set-weight", "DSL", "1000"]).unwrap();
    let mut moved = 0;
    for (transport, from, to, socket, isp) in &flows {
        let told = explain_flow(&lab, *transport, *from, *to);
        assert_eq!((&told["isp"], &told["live"]["isp"]), (&json!(isp), &json!(isp)), "{told:#}");
        let conclusion = told["conclusion"].as_str().unwrap();
        assert!(conclusion.contains(&format!("it is a live flow of {isp}")), "{conclusion}");
        moved += usize::from(conclusion.ends_with("a new one would be steered to DSL"));
        let seen = ask(socket);
        assert_eq!(lab.isp_of(seen).unwrap().name(), *isp);
        assert!(told["live"]["seen_from"].as_str().unwrap().contains(&seen.to_string()), "{told:#}");
    }
    // Three of four were CABLE's.
    assert!(moved > 5, "{moved}");
}

#[test]
fn without_an_isp_it_says_whose_the_buckets_were_and_what_the_last_resort_does() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let policy = |last: u8, last_resort: &str| {
        format!(
            "[[policy]]\nname = \"P{last}\"\nisps = [\"DSL\"]\nlast_resort = \"{last_resort}\"\n\n\
             [[rule]]\ndestination = \"203.0.113.{last}\"\nto = \"P{last}\"\n\n"
        )
    };
    let policies = [policy(40, "main"), policy(41, "unreachable"), policy(42, "drop")].concat();
    lab.write_config(&format!("{}\n{policies}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    let mut moved = 0;
    for port in 30_000..30_024 {
        let told =
            explain(&lab, &format!("--from 192.168.1.10 --sport {port} --to 203.0.113.1 --dport 7000"));
        assert_eq!(told["isp"], "CABLE");
        assert_eq!((&told["isps"][1]["name"], &told["isps"][1]["state"]), (&json!("DSL"), &json!("down")));
        assert_eq!(told["policy"]["idle"], json!({ "DSL": "not usable" }));
        let conclusion = told["conclusion"].as_str().unwrap();
        let is_moved = told["bucket"]["home"] == "DSL";
        assert_eq!(conclusion.ends_with("is CABLE's while DSL is not usable"), is_moved, "{conclusion}");
        moved += usize::from(is_moved);
    }
    // One of four was DSL's.
    assert!((1..20).contains(&moved), "{moved}");
    for (last, verdict) in [(40, "goes by CABLE"), (41, "is refused (ICMP unreachable)"), (42, "is dropped")]
    {
        let told = explain(&lab, &format!("--from 192.168.1.10 --to 203.0.113.{last} --dport 7000"));
        let conclusion = told["conclusion"].as_str().unwrap();
        assert!(conclusion.starts_with(verdict), "{conclusion}");
        assert!(
            conclusion.contains(&format!("none of the ISPs of policy P{last} can take it")),
            "{conclusion}"
        );
    }
}

#[test]
fn without_a_daemon_all_is_told_but_what_only_the_daemon_knows() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let rule = "[[rule]]\nprotocol = \"udp\"\nto = \"DSL\"\n";
    lab.write_config(&format!("{}\n{rule}", lab.config())).unwrap();
    let daemon = lab.start_up().unwrap();
    let question = |transport, family| {
        let (from, to) = ((lan_host(0, family), 31_000).into(), internet(9, family));
        (from, to, explain_flow(&lab, transport, from, to))
    };
    let before = KINDS.map(|(transport, family)| question(transport, family).2);
    daemon.kill9().unwrap();
    for ((transport, family), before) in KINDS.into_iter().zip(before) {
        let (from, to, told) = question(transport, family);
        for same in ["isp", "mark", "verdict", "route"] {
            assert_eq!(told[same], before[same], "{same}");
        }
        assert_eq!(
            (&told["rule"]["number"], &told["rule"]["text"]),
            (&before["rule"]["number"], &json!(null))
        );
        assert_eq!(told["policy"]["shares"], before["policy"]["shares"]);
        assert!(told["notes"].to_string().contains("the daemon does not answer"), "{told:#}");
        let seen = ask(&open(lab.lan(), transport, from, to));
        assert_eq!(told["isp"], lab.isp_of(seen).unwrap().name());
    }
}
