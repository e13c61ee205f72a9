//! Configs of Net::ISP::Balance: `import` prints what they are here, and `run` and `check` take them as they are.
#![cfg(test)]

#[path = "../../balance-user/tests/import/malformed.rs"]
mod malformed;

use std::time::Duration;

use balance_lab::checks::changes;
use balance_lab::{Dump, Family, Lab, Output, Transport, binary, open_new_flows, ready, wait_until};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);
const PATH: &str = "/run/balance.toml";

/// The lab's ISPs and LAN, for Net::ISP::Balance.
const ROWS: &str = "\
##service  device  role  ping-ip      weight   gateway
CABLE      cable0  isp   203.0.113.1  3        100.64.1.1
DSL        dsl0    isp   203.0.113.1  default  default
LAN        lan0    lan
";

const OPTIONS: &str = "\
warn_email=root@localhost
interval_ms=500
max_packet_loss=15
max_successive_pkts_lost=7
min_successive_pkts_rcvd=2
";

/// How many of 400 new flows go by CABLE.
fn by_cable(lab: &Lab) -> usize {
    let mut flows = open_new_flows(lab.lan(), 400, Transport::Udp, Family::V4).unwrap();
    let answers = flows.ask(SOON);
    let isps = lab.isps_of(&answers);
    assert!(isps.iter().all(Option::is_some), "every flow is answered by way of an ISP");
    isps.iter().filter(|isp| **isp == Some("CABLE")).count()
}

#[test]
fn a_router_balances_by_its_file_for_net_isp_balance_and_takes_up_its_changes() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let path = lab.write_config(&format!("{ROWS}{OPTIONS}mode=balanced\n")).unwrap();
    assert!(lab.balance_ok(&["check", path.to_str().unwrap()]).unwrap().contains("CABLE, DSL; LANs: LAN"));
    let daemon = lab.start_up().unwrap();
    // Three quarters; one deviation is 9 flows.
    let cable = by_cable(&lab);
    assert!((250..=350).contains(&cable), "{cable}");

    lab.write_config(&format!("{ROWS}{OPTIONS}mode=failover\n")).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until(SOON, "failover", || lab.isp_status("DSL").is_ok_and(|dsl| dsl["share"] == 0.0)).unwrap();
    assert_eq!(by_cable(&lab), 400);

    // What is printed takes the file's place, and nothing changes.
    let toml = lab.balance_ok(&["import", PATH]).unwrap();
    let running = Dump::take(lab.router()).unwrap();
    lab.write_config(&toml).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until(SOON, "the reload", || daemon.stderr().matches("config reloaded").count() == 2).unwrap();
    assert_eq!(changes(&lab, &running), Vec::<String>::new());
    assert_eq!(by_cable(&lab), 400);
    lab.balance_ok(&["stop"]).unwrap();
    lab.router().sh(&format!("rm {PATH}")).unwrap();
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
}

#[test]
fn import_reads_a_file_or_standard_input_and_changes_nothing() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let nib = format!("{ROWS}{OPTIONS}");
    lab.write_config(&nib).unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let toml = lab.balance_ok(&["import", PATH]).unwrap();
    let program = binary().unwrap();
    let piped = lab.router().feed(program.to_str().unwrap(), &["import", "-"], &nib).unwrap();
    assert_eq!(piped, toml);
    assert!(toml.contains("\n[mail]\nto = [\"root@localhost\"]\n"), "{toml}");

    let by_file = lab.balance_ok(&["run", "-d", "--config", PATH]).unwrap();
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
    lab.write_config(&toml).unwrap();
    assert_eq!(lab.balance_ok(&["run", "-d", "--config", PATH]).unwrap(), by_file);
}

#[test]
fn a_wrong_config_of_net_isp_balance_is_refused_with_its_place() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.router().sh("printf 'CABLE eth0 isp # Z\\374rich\\n' > /run/latin1.conf").unwrap();
    let refused = |arguments: &[&str], fragments: &[&str]| {
        let Output { status, stdout, stderr } = lab.balance(arguments).unwrap();
        let good = status.code() == Some(2)
            && stdout.is_empty()
            && stderr.starts_with("error: ")
            && fragments.iter().all(|fragment| stderr.contains(fragment));
        (!good).then(|| format!("{arguments:?}: {status}, {stdout:?}, wants {fragments:?}:\n{stderr}"))
    };
    let mut failures = Vec::new();
    for (name, text, line, column, fragment) in malformed::CASES {
        lab.write_config(text).unwrap();
        let place = format!("{PATH}:{line}:{column}: ");
        let failure = refused(&["import", PATH], &[&place, fragment, "\n  |", "^"]);
        failures.extend(failure.map(|failure| format!("{name}: {failure}")));
    }
    for (text, fragments) in [
        ("CABLE eth0 isp\nDSL ppp0 wan\n", [PATH, ":2:10: role must be"]),
        ("mode=failover\nLAN eth1 lan\n", [PATH, ":1:1: there is no ISP"]),
    ] {
        lab.write_config(text).unwrap();
        failures.extend(refused(&["check", PATH], &fragments));
        failures.extend(refused(&["run", "--config", PATH], &fragments));
        failures.extend(refused(&["run", "-d", "--config", PATH], &fragments));
    }
    lab.write_config(ROWS).unwrap();
    let save = ["set-weight", "CABLE", "5", "--save", "--config", PATH];
    failures.extend(refused(&save, &[PATH, "balance-user import"]));
    failures.extend(refused(&["import", "/run/none.conf"], &["/run/none.conf: there is no such file"]));
    failures.extend(refused(&["import", "/run"], &["/run: cannot be read"]));
    failures.extend(refused(&["import", "/run/latin1.conf"], &[":1:19: ", "not UTF-8"]));
    failures.extend(refused(&["import", "-"], &["<stdin>:1:1: there is no ISP"]));
    failures.extend(refused(&["import", PATH, PATH], &["see balance-user --help"]));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(lab.read_config().unwrap(), ROWS);
}
