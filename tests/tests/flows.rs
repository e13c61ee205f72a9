//! `flows`: which flow is on which ISP, why, by which path, and what happens to flows.
#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use balance_lab::addresses::lan_host;
use balance_lab::figures::{fill, listing};
use balance_lab::{Family, Flow, KINDS, Lab, Transport, ready, serve_udp, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);
/// Where a server of the router answers.
const PORT: u16 = 6000;
/// How many flows are very many.
const COUNT: u32 = 20_000;
const RULE: &str = "\n[[rule]]\nprotocol = \"udp\"\nport = 7000\nsource = \"fd00:1::/64\"\nto = \"DSL\"\n";

/// What `flows` says, by the source ports.
fn flows(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["flows", "--json"], arguments].concat();
    lines(&lab.balance_ok(&arguments).unwrap())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn is_of(flow: &Value, address: SocketAddr) -> bool {
    flow["source"] == address.ip().to_string() && flow["source_port"] == address.port()
}

fn of(lab: &Lab, flow: &Flow) -> Value {
    let all = flows(lab, &[]);
    let found = all.iter().find(|told| is_of(told, flow.local_address()));
    found.unwrap_or_else(|| panic!("{} is not in {all:#?}", flow.local_address())).clone()
}

/// Flows of all kinds from the LAN, which have asked.
fn open(lab: &Lab) -> Vec<(Flow, IpAddr)> {
    let kinds = KINDS.into_iter().cycle().take(16);
    let open = |(transport, family)| {
        let mut flow = Flow::open(lab.lan(), transport, family, SOON).unwrap();
        let seen = flow.ask().unwrap();
        (flow, seen)
    };
    kinds.map(open).collect()
}

#[test]
fn each_flow_is_told_with_its_isp_the_reason_and_the_path() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&(lab.config() + RULE)).unwrap();
    lab.router()
        .sysctls(&[("net.netfilter.nf_conntrack_acct", "1"), ("net.netfilter.nf_conntrack_timestamp", "1")])
        .unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut open = open(&lab);
    let all = flows(&lab, &[]);
    for (flow, seen) in &open {
        let told = all.iter().find(|told| is_of(told, flow.local_address())).unwrap();
        let isp = lab.isp_of(*seen).unwrap();
        assert_eq!(told["isp"], isp.name(), "{told:#}");
        assert_eq!(told["seen_as"], seen.to_string(), "{told:#}");
        assert_eq!(told["why"]["kind"], "bucket", "{told:#}");
        assert_eq!(told["why"]["bucket_isp"], isp.name(), "{told:#}");
        let is_ruled = told["protocol"] == "udp" && flow.local_address().is_ipv6();
        let ruling = if is_ruled { (json!(1), json!("DSL")) } else { (json!(null), json!("default")) };
        assert_eq!((&told["why"]["rule"], &told["why"]["policy"]), (&ruling.0, &ruling.1), "{told:#}");
        assert!(told["bytes"].as_u64().unwrap() > 0 && told["age"].as_u64().is_some(), "{told:#}");
    }
    // Of each kind one goes on until it is fast.
    for (flow, _) in open.iter_mut().take(KINDS.len()) {
        wait_until(SOON, "a fast flow", || {
            flow.ask().unwrap();
            of(&lab, flow)["fast"] == true
        })
        .unwrap();
    }
    // Somebody outside, and this machine.
    let _server = serve_udp(lab.router(), PORT).unwrap();
    let cable = lab.isp("CABLE");
    let to = SocketAddr::new(cable.address(Family::V4), PORT);
    let mut inbound = Flow::open_to(lab.internet(), Transport::Udp, to, SOON).unwrap();
    inbound.ask().unwrap();
    let told = of(&lab, &inbound);
    assert_eq!((&told["why"]["kind"], &told["isp"]), (&json!("came_in"), &json!("CABLE")), "{told:#}");
    let mut own = Flow::open(lab.router(), Transport::Tcp, Family::V4, SOON).unwrap();
    let seen = own.ask().unwrap();
    let told = of(&lab, &own);
    assert_eq!(told["why"]["kind"], "own", "{told:#}");
    assert_eq!(told["isp"], lab.isp_of(seen).unwrap().name());
    // Some only.
    for isp in ["CABLE", "DSL"] {
        let of_isp = flows(&lab, &["--isp", isp]);
        let expected = flows(&lab, &[]).iter().filter(|told| told["isp"] == isp).count();
        assert!(of_isp.iter().all(|told| told["isp"] == isp) && of_isp.len().abs_diff(expected) < 3);
    }
    let source = lan_host(0, Family::V6).to_string();
    let of_source = flows(&lab, &["--source", &source]);
    assert_eq!(of_source.len(), 8);
    assert!(of_source.iter().all(|told| told["source"] == source));
    let refused = lab.balance(&["flows", "--isp", "LTE"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(refused.stderr, "error: there is no ISP LTE; there are CABLE, DSL\n");
    // They stay, and the reason is another one.
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    for (flow, seen) in &mut open {
        assert_eq!(flow.ask().unwrap(), *seen);
        let told = of(&lab, flow);
        let stays = lab.isp_of(*seen).unwrap().name() == "CABLE";
        assert_eq!(told["why"]["kind"], if stays { "inherited" } else { "bucket" }, "{told:#}");
        assert_eq!(told["why"]["bucket_isp"], "DSL");
    }
    let text = lab.balance_ok(&["flows", "--source", "192.168.1.0/24"]).unwrap();
    assert!(text.contains("stays; now bucket ") && text.contains(" is DSL's"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn flows_that_begin_move_and_end_are_told_as_it_happens() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut command = lab.router().command(balance_lab::binary().unwrap());
    let told = "/run/flows.jsonl";
    let file = lab.router().run(|| std::fs::File::create(told).unwrap());
    command.args(["flows", "--follow", "--json"]).stdin(Stdio::null()).stdout(file);
    let _following = lab.router().spawn(command).unwrap();
    let seen = || lines(&lab.router().run(|| std::fs::read_to_string(told).unwrap()));
    let wait = |event: &str, address: SocketAddr| {
        let mut found = Value::Null;
        wait_until(SOON, event, || {
            let all = seen();
            let mut of_flow = all.iter().filter(|told| is_of(told, address) && told["event"] == event);
            found = of_flow.next_back().cloned().unwrap_or_default();
            !found.is_null()
        })
        .unwrap_or_else(|error| panic!("{error}: {:#?}", seen()));
        found
    };
    // It listens.
    wait_until(SOON, "a first flow", || {
        let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, SOON).unwrap();
        flow.ask().unwrap();
        seen().iter().any(|told| is_of(told, flow.local_address()))
    })
    .unwrap();
    let mut on_cable = loop {
        let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, SOON).unwrap();
        let seen = flow.ask().unwrap();
        if lab.isp_of(seen).unwrap().name() == "CABLE" {
            break flow;
        }
    };
    let address = on_cable.local_address();
    let new = wait("new", address);
    assert_eq!((&new["isp"], &new["why"]["kind"]), (&json!("CABLE"), &json!("bucket")), "{new:#}");
    lab.unplug("CABLE").unwrap();
    wait_until(SOON, "another way", || on_cable.ask().is_ok()).unwrap();
    wait("ended", address);
    let moved = wait("moved", address);
    assert_eq!((&moved["from"], &moved["isp"]), (&json!("CABLE"), &json!("DSL")), "{moved:#}");
}

#[test]
fn very_many_flows_are_shown_as_they_come_and_whoever_has_seen_enough_may_go() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    fill(&lab, COUNT).unwrap();
    let listing = listing(&lab).unwrap();
    assert!(listing.lines > u64::from(COUNT), "{listing:?}");
    assert!(listing.memory < 100 << 20, "{listing:?}");
    assert!(listing.first_screen < Duration::from_secs(1), "{listing:?}");
    let binary = balance_lab::binary().unwrap();
    let binary = binary.display();
    for arguments in [
        "flows",
        "flows --json",
        "status",
        "status --json",
        "status --color always",
        "events",
        "explain --from 192.168.1.10 --to 203.0.113.1 --dport 443",
        "doctor --config /run/balance.toml",
        "doctor --json",
        "run --config /run/balance.toml --dry-run",
        "--help",
    ] {
        let script = format!("{binary} {arguments} | head -n 1; echo ${{PIPESTATUS[0]}}");
        let output = lab.router().command("bash").args(["-c", &script]).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // That of `doctor` is whether this machine has a problem.
        let is_code = |code: &str| code == "0" || (arguments.starts_with("doctor") && code == "1");
        assert!(stdout.lines().last().is_some_and(is_code), "{arguments}: {stdout}{stderr}");
        assert!(stderr.is_empty() || stderr == "nothing has happened so far\n", "{arguments}: {stderr}");
    }
}
