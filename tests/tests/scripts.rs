//! The administrator's scripts are run at the right moments, and whatever they do, balancing goes on.
#![cfg(test)]

use std::time::Duration;

use balance_lab::{Daemon, Family, Flow, Lab, Transport, ready, wait_until};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(10);
/// The router's own, as all of its `/run`.
const FOLDER: &str = "/run/scripts";
const STAGES: [&str; 5] = ["pre-run.d", "routes.d", "firewall.d", "post-run.d", "post-stop.d"];

fn add(lab: &Lab, name: &str, text: &str) {
    lab.router().script(&format!("{FOLDER}/{name}"), text).unwrap();
}

/// What the scripts have written to their log, a line each.
fn log(lab: &Lab) -> Vec<String> {
    let text = lab.router().run(|| std::fs::read_to_string("/run/log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for_lines(lab: &Lab, count: usize) -> Vec<String> {
    wait_until(SOON, &format!("{count} lines"), || log(lab).len() >= count)
        .unwrap_or_else(|error| panic!("{error:#}: {:#?}", log(lab)));
    log(lab)
}

fn configure(lab: &Lab, timeout: &str) {
    let scripts = format!("[scripts]\nfolder = \"{FOLDER}\"\ntimeout = \"{timeout}\"\n");
    lab.write_config(&format!("{}\n{scripts}", lab.config())).unwrap();
}

fn reload(daemon: &Daemon) {
    daemon.signal(Signal::SIGHUP).unwrap();
}

fn failed_scripts(lab: &Lab) -> Vec<String> {
    let status = lab.status().unwrap();
    let lines = status["failed_scripts"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn scripts_are_run_at_start_reload_and_stop_and_find_the_kernel_as_they_expect() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    for stage in STAGES {
        let look = "nft list table inet balance >/dev/null 2>&1 && table=there || table=missing";
        add(
            &lab,
            &format!("{stage}/10-look"),
            &format!(
                "{look}\necho $BALANCE_EVENT {stage} $table $BALANCE_INSTANCE $BALANCE_ISPS $BALANCE_ISP_DEVICES \
                 $BALANCE_LANS $BALANCE_LAN_DEVICES $BALANCE_CONFIG >> /run/log"
            ),
        );
    }
    configure(&lab, "10s");
    let daemon = lab.start_up().unwrap();
    let rest = "main CABLE DSL cable0 dsl0 LAN lan0 /run/balance.toml";
    let line = |event: &str, stage: &str, table: &str| format!("{event} {stage} {table} {rest}");
    let mut expected = vec![line("start", "pre-run.d", "missing")];
    expected.extend(STAGES[1..4].iter().map(|stage| line("start", stage, "there")));
    assert_eq!(wait_for_lines(&lab, 4), expected);

    reload(&daemon);
    expected.extend(STAGES[1..4].iter().map(|stage| line("reload", stage, "there")));
    assert_eq!(wait_for_lines(&lab, 7), expected);

    // The next daemon takes over, and waits for nothing.
    daemon.kill9().unwrap();
    let _daemon = lab.start_up().unwrap();
    expected.extend(STAGES[..4].iter().map(|stage| line("start", stage, "there")));
    assert_eq!(wait_for_lines(&lab, 11), expected);

    lab.balance_ok(&["stop"]).unwrap();
    expected.push(line("stop", "post-stop.d", "missing"));
    assert_eq!(log(&lab), expected);
    assert_eq!(failed_scripts_of(&lab), None, "the instance is gone");
}

fn failed_scripts_of(lab: &Lab) -> Option<Vec<String>> {
    lab.status().is_ok().then(|| failed_scripts(lab))
}

#[test]
fn failures_are_shown_in_the_log_and_in_status_until_the_script_works() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    add(&lab, "routes.d/10-fails", "echo the words of a script; exit 7");
    add(&lab, "routes.d/20-works", "echo works >> /run/log");
    configure(&lab, "10s");
    let daemon = lab.start_up().unwrap();
    wait_for_lines(&lab, 1);
    let failure = "/run/scripts/routes.d/10-fails failed: exit status: 7";
    wait_until(SOON, "status", || failed_scripts(&lab) == [failure]).unwrap();
    assert!(lab.balance_ok(&["status"]).unwrap().contains(&format!("script {failure}\n")));
    assert!(daemon.stderr().contains(failure), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("the words of a script"), "{}", daemon.stderr());

    add(&lab, "routes.d/10-fails", "true");
    reload(&daemon);
    wait_for_lines(&lab, 2);
    wait_until(SOON, "status", || failed_scripts(&lab).is_empty()).unwrap();
}

#[test]
fn a_script_that_hangs_does_not_hold_up_a_failover_and_is_killed() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    add(&lab, "firewall.d/10-hangs", "echo $$ >> /run/log; sleep 600");
    add(&lab, "post-run.d/10-next", "echo next >> /run/log");
    configure(&lab, "6s");
    let _daemon = lab.start_up().unwrap();
    wait_for_lines(&lab, 1);
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    let mut flow = Flow::open(lab.lan(), Transport::Tcp, Family::V4, SOON).unwrap();
    assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));
    assert_eq!(log(&lab).len(), 1, "it hangs still");
    assert_eq!(wait_for_lines(&lab, 2)[1], "next");
    let group = log(&lab)[0].clone();
    wait_until(SOON, "its end", || lab.router().sh(&format!("! kill -0 -{group} 2>/dev/null")).is_ok())
        .unwrap();
    assert_eq!(failed_scripts(&lab), ["/run/scripts/firewall.d/10-hangs killed after 6s"]);
}

#[test]
fn a_script_that_runs_when_the_daemon_ends_is_killed() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    add(&lab, "post-run.d/10-hangs", "echo $$ >> /run/log; sleep 600");
    configure(&lab, "10m");
    let daemon = lab.start_up().unwrap();
    let group = wait_for_lines(&lab, 1)[0].clone();
    daemon.terminate().unwrap();
    wait_until(SOON, "its end", || lab.router().sh(&format!("! kill -0 -{group} 2>/dev/null")).is_ok())
        .unwrap();
}
