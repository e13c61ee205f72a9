//! What it says of rules, policies, prefixes, routes, sockets, and of questions that make no sense.

use balance_lab::addresses::SERVER_PORT;
use balance_lab::{Family, Flow, Lab, Transport, ready};
use serde_json::json;

use crate::support::{KINDS, SOON, explain, internet};

const RULES: &str = r#"
[[policy]]
name = "BACKED"
isps = ["DSL", { name = "CABLE", tier = 2 }]
sticky = "source"

[[rule]]
destination = ["203.0.113.10", "2001:db8:ffff::a"]
to = "DSL"

[[rule]]
destination = ["203.0.113.11", "2001:db8:ffff::b"]
port = 7000
dscp = "ef"
to = "BACKED"

[[rule]]
destination = ["203.0.113.12", "2001:db8:ffff::c"]
to = "bypass"

[[rule]]
lan = "local"
destination = ["203.0.113.13", "2001:db8:ffff::d"]
to = "DSL"

[[forward]]
port = 6001
to = "192.168.1.20"
to_port = 6002
"#;

fn lab_with_rules() -> Lab {
    let lab = Lab::new().unwrap();
    lab.write_config(&format!("{}\n{RULES}", lab.config())).unwrap();
    lab
}

#[test]
fn rule_policy_bucket_mark_route_and_nat_are_told_in_both_families() {
    if !ready() {
        return;
    }
    let lab = lab_with_rules();
    let _daemon = lab.start_up().unwrap();
    let line = |number| {
        1 + lab
            .read_config()
            .unwrap()
            .split("[[rule]]")
            .take(number)
            .collect::<Vec<_>>()
            .join("")
            .matches('\n')
            .count()
    };
    for (family, from) in [(Family::V4, "192.168.1.10"), (Family::V6, "fd00:1::10")] {
        let ask = |last, more: &str| {
            let to = internet(last, family).ip();
            explain(&lab, &format!("--from {from} --sport 30000 --to {to} --dport 7000 {more}"))
        };
        let dsl = lab.isp("DSL");
        let to_default = ask(20, "");
        assert_eq!(to_default["rule"], json!(null), "{to_default:#}");
        assert_eq!(to_default["policy"]["name"], "default");
        assert_eq!(to_default["policy"]["shares"], json!({ "CABLE": 0.75, "DSL": 0.25 }));
        assert_eq!(to_default["bucket"]["isp"], to_default["isp"]);
        assert_eq!(to_default["flow"]["lan"], "LAN");

        let to_isp = ask(10, "");
        assert_eq!((&to_isp["rule"]["number"], &to_isp["rule"]["line"]), (&json!(1), &json!(line(1))));
        let seen_as = dsl.address(family).to_string();
        assert_eq!(to_isp["nat"], json!({ "kind": "masquerade", "seen_as": seen_as }));
        assert_eq!((&to_isp["isp"], &to_isp["mark"]), (&json!("DSL"), &json!(0x200)));
        assert_eq!(
            (&to_isp["route"]["table"], &to_isp["route"]["device"]),
            (&json!(1002), &json!(dsl.device()))
        );
        let conclusion = to_isp["conclusion"].as_str().unwrap();
        assert!(conclusion.ends_with(", because rule 1 leads to DSL"), "{conclusion}");

        let to_policy = ask(11, "--dscp 46");
        assert_eq!((&to_policy["rule"]["number"], &to_policy["rule"]["line"]), (&json!(2), &json!(line(2))));
        assert_eq!((&to_policy["policy"]["name"], &to_policy["isp"]), (&json!("BACKED"), &json!("DSL")));
        assert_eq!(to_policy["policy"]["idle"], json!({ "CABLE": "waits in tier 2" }));
        assert_eq!(ask(11, "")["policy"]["name"], "default", "of another DSCP");

        let bypassed = ask(12, "");
        assert_eq!((&bypassed["verdict"], &bypassed["rule"]["number"]), (&json!("bypassed"), &json!(3)));
        assert_eq!((&bypassed["mark"], &bypassed["route"]["table"]), (&json!(0), &json!(1000)));

        let (neighbour, router, prefix) = match family {
            Family::V4 => ("192.168.1.77", "192.168.1.1", "192.168.1.0/24"),
            Family::V6 => ("fd00:1::77", "fd00:1::1", "fd00:1::/64"),
        };
        let local = explain(&lab, &format!("--from {from} --to {neighbour} --proto icmp"));
        assert_eq!((&local["verdict"], &local["nat"]["kind"]), (&json!("local"), &json!("none")));
        assert_eq!(local["conclusion"], format!("goes by lan0, because {prefix} is never balanced"));
        let here = explain(&lab, &format!("--from {from} --to {router} --dport 22"));
        assert!(here["conclusion"].as_str().unwrap().starts_with("is for this machine itself"), "{here:#}");
    }
    let forwarded = explain(&lab, "--from 192.168.1.10 --to 100.64.1.2 --dport 6001");
    assert_eq!(forwarded["nat"], json!({ "kind": "forward", "sent_to": "192.168.1.20:6002" }));
    // Routes of the system come first.
    lab.router().ip(&["route add 203.0.113.10/32 via 100.64.1.1".to_owned()]).unwrap();
    let routed = explain(&lab, "--from 192.168.1.10 --to 203.0.113.10 --dport 7000");
    assert_eq!((&routed["isp"], &routed["mark"]), (&json!("CABLE"), &json!(0x200)));
    let conclusion = routed["conclusion"].as_str().unwrap();
    assert!(conclusion.contains("a route of the system comes before all balancing"), "{conclusion}");
}

#[test]
fn sockets_of_the_machine_itself_are_told_their_shares_or_the_isp_of_their_rule() {
    if !ready() {
        return;
    }
    let lab = lab_with_rules();
    let _daemon = lab.start_up().unwrap();
    for (transport, family) in KINDS {
        let proto = if transport == Transport::Tcp { "tcp" } else { "udp" };
        let ask = |last| {
            explain(
                &lab,
                &format!(
                    "--local --proto {proto} --to {} --dport {SERVER_PORT}",
                    internet(last, family).ip()
                ),
            )
        };
        let drawn = ask(20);
        assert_eq!((&drawn["verdict"], &drawn["isp"]), (&json!("drawn"), &json!(null)), "{drawn:#}");
        assert_eq!(drawn["policy"]["shares"], json!({ "CABLE": 0.75, "DSL": 0.25 }));
        let ruled = ask(13);
        assert_eq!((&ruled["verdict"], &ruled["isp"]), (&json!("steered"), &json!("DSL")), "{ruled:#}");
        assert_eq!(ruled["nat"]["kind"], "none");
        let mut flow = Flow::open_to(lab.router(), transport, internet(13, family), SOON).unwrap();
        assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(family));
        let source = lab.isp("CABLE").address(family);
        let bound = explain(
            &lab,
            &format!("--local --proto {proto} --from {source} --to {} --dport 1", internet(13, family).ip()),
        );
        assert_eq!((&bound["verdict"], &bound["isp"]), (&json!("left alone"), &json!("CABLE")), "{bound:#}");
    }
}

#[test]
fn questions_that_make_no_sense_are_one_clear_line() {
    if !ready() {
        return;
    }
    let lab = lab_with_rules();
    let said = |words: &str| {
        let arguments: Vec<&str> = ["explain"].into_iter().chain(words.split_whitespace()).collect();
        let output = lab.balance(&arguments).unwrap();
        assert_eq!(output.stdout, "");
        assert_eq!(output.stderr.matches('\n').count(), 1, "{}", output.stderr);
        (output.status.code(), output.stderr)
    };
    let from = "--from 192.168.1.10 --to 203.0.113.1";
    let (code, text) = said(&format!("{from} --dport 1"));
    assert_eq!(code, Some(1));
    assert!(text.starts_with("error: instance main does not balance here"), "{text}");
    let _daemon = lab.start_up().unwrap();
    for (words, fragment) in [
        (from.to_owned(), "--dport is missing"),
        (format!("{from} --dport 1 --lan OFFICE"), "there is no LAN OFFICE; there is LAN (lan0)"),
        ("--from 203.0.113.9 --to 192.168.1.10 --dport 1".to_owned(), "not reached by a LAN: say with --lan"),
        ("--from fd00:1::10 --to 203.0.113.1 --dport 1".to_owned(), "different families"),
    ] {
        let (code, text) = said(&words);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(fragment), "{text}");
    }
    let text = lab.balance_ok(&[
        "explain",
        "--lan",
        "lan0",
        "--from",
        "10.9.9.9",
        "--to",
        "203.0.113.10",
        "--dport",
        "1",
    ]);
    assert!(text.unwrap().ends_with(", because rule 1 leads to DSL\n"), "another network behind the LAN");
}
