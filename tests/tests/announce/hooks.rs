//! Hooks.

use std::collections::BTreeMap;

use balance_lab::{Family, Flow, Transport, open_flows, ready};

use crate::support::{SCRIPTS, SOON, Scene};

fn scripts(timeout: &str) -> String {
    format!(
        "[mail]\nto = \"root@localhost\"\nserver = \"smtp://127.0.0.1:9\"\n[scripts]\nfolder = \"{SCRIPTS}\"\ntimeout = \"{timeout}\"\n"
    )
}

#[test]
fn hooks_are_told_of_death_and_return_with_all_arguments_and_variables() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new(&scripts("10s"));
    for folder in ["up.d", "down.d", "long_down.d", "event.d"] {
        // Together at once, as several run at the same time.
        scene.script(&format!("{folder}/10-note"), &format!("echo {folder} $# \"$@\" >> /run/log"));
    }
    scene.script(
        "down.d/20-environment",
        "env > /run/environment.new; mv /run/environment.new /run/environment",
    );
    scene.start();
    // Both come up: each is an event, and a new state.
    let first = scene.wait_for_lines("/run/log", 4);
    assert_eq!(first.iter().filter(|line| line.starts_with("up.d 16 up ")).count(), 2, "{first:#?}");
    assert_eq!(first.iter().filter(|line| line.starts_with("event.d 16 up ")).count(), 2, "{first:#?}");

    let mut flows = open_flows(scene.lab.lan(), 16, Transport::Tcp, Family::V4).unwrap();
    assert!(flows.ask(SOON).iter().all(Result::is_ok));
    scene.die("CABLE");
    let lines = scene.wait_for_lines("/run/log", 6);
    let down = lines.iter().find_map(|line| line.strip_prefix("down.d 16 ")).unwrap();
    assert!(lines.contains(&format!("event.d 16 {down}")), "{lines:#?}");
    let arguments: Vec<&str> = down.split(' ').collect();
    let [state, isp, target, device, mail, numbers @ .., source, previous, time] = &arguments[..] else {
        panic!("{down}")
    };
    assert_eq!((*state, *isp, *target, *device), ("down", "CABLE", "203.0.113.1", "cable0"));
    assert_eq!((*mail, *source, *previous), ("root@localhost", "100.64.1.2", "up"));
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    let [replied, waiting, timeout, late, received_row, waiting_row, missed_row, rtt] = numbers[..] else {
        panic!("{numbers:?}")
    };
    assert!(replied >= 1 && timeout >= 3 && missed_row >= 3 && rtt > 0, "{numbers:?}");
    assert!(
        missed_row <= timeout && waiting_row <= waiting && replied + waiting + timeout <= 100,
        "{numbers:?}"
    );
    assert_eq!((late, received_row), (0, 0), "{numbers:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 30..=now).contains(&time.parse().unwrap()), "{time}");

    scene.wait_for_lines("/run/environment", 1);
    let environment = scene.file("/run/environment");
    let variables: BTreeMap<&str, &str> =
        environment.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("BALANCE_EVENT", "state"),
        ("BALANCE_INSTANCE", "main"),
        ("BALANCE_ISP", "CABLE"),
        ("BALANCE_DEVICE", "cable0"),
        ("BALANCE_STATE", "down"),
        ("BALANCE_PREVIOUS", "up"),
        ("BALANCE_HEALTH", "down"),
        ("BALANCE_FORCED", ""),
        ("BALANCE_TARGET", "203.0.113.1"),
        ("BALANCE_SOURCE", "100.64.1.2"),
        // Three quarters of the flows of each family.
        ("BALANCE_BUCKETS_LOST", "6144"),
        ("BALANCE_BUCKETS_GAINED", "0"),
    ] {
        assert_eq!(variables.get(name), Some(&value), "{name} in {environment}");
    }
    assert!(variables["BALANCE_EVIDENCE"].contains("no answer from 203.0.113.1"), "{environment}");
    assert!(variables["BALANCE_CONSEQUENCE"].starts_with("6144 buckets moved away, "), "{environment}");
    let reset: u64 = variables["BALANCE_CONNECTIONS_RESET"].parse().unwrap();
    assert!((1..=16).contains(&reset), "{environment}");
    assert!(
        variables["BALANCE_TIME"].ends_with('Z') && variables.contains_key("BALANCE_RTT_US"),
        "{environment}"
    );

    scene.revive("CABLE");
    let lines = scene.wait_for_lines("/run/log", 8);
    let up = lines[6..].iter().find_map(|line| line.strip_prefix("up.d 16 ")).unwrap();
    assert!(up.starts_with("up CABLE 203.0.113.1 cable0 root@localhost "), "{up}");
    assert!(up.contains(" 100.64.1.2 down "), "{up}");
    assert!(lines.iter().all(|line| !line.starts_with("long_down.d")), "{lines:#?}");
}

#[test]
fn a_command_is_an_event_and_says_so() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new(&scripts("10s"));
    scene.script("event.d/10", "echo $BALANCE_ISP $1 $BALANCE_FORCED, $BALANCE_EVIDENCE >> /run/log");
    scene.start();
    scene.wait_for_lines("/run/log", 2);
    scene.lab.balance_ok(&["down", "DSL"]).unwrap();
    assert_eq!(scene.wait_for_lines("/run/log", 3)[2], "DSL down down, forced down by command");
    scene.lab.balance_ok(&["auto", "DSL"]).unwrap();
    let line = &scene.wait_for_lines("/run/log", 4)[3];
    assert!(line.starts_with("DSL up , not forced any more; "), "{line}");
}

#[test]
fn a_hook_that_hangs_is_killed_and_delays_neither_a_failover_nor_other_hooks() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new(&scripts("6s"));
    scene.script("down.d/10-hangs", "echo $$ >> /run/hanging; sleep 600");
    scene.script("down.d/20-next", "echo $2 >> /run/next");
    scene.script("down.d/30-fails", "echo the words of a hook; exit 7");
    scene.start();
    scene.die("CABLE");
    let group = scene.wait_for_lines("/run/hanging", 1)[0].clone();
    assert_eq!(scene.wait_for_lines("/run/next", 1), ["CABLE"]);
    scene.goes_by("DSL");
    // The next event, while the first one's hook hangs: its hooks wait for nothing either.
    scene.lab.balance_ok(&["down", "DSL"]).unwrap();
    assert_eq!(scene.wait_for_lines("/run/next", 2), ["CABLE", "DSL"]);
    let fails = format!("{SCRIPTS}/down.d/30-fails failed: exit status: 7");
    scene.wait_until("its failure", || scene.failed("failed_scripts").contains(&fails));
    let is_there = |group: &str| scene.lab.router().sh(&format!("kill -0 -{group} 2>/dev/null")).is_ok();
    assert!(is_there(&group), "it hangs still");
    scene.wait_until("its end", || !is_there(&group));
    let killed = format!("{SCRIPTS}/down.d/10-hangs killed after 6s");
    scene.wait_until("its failure", || scene.failed("failed_scripts").contains(&killed));
    assert!(scene.lab.balance_ok(&["status"]).unwrap().contains(&format!("script {killed}\n")));
    let log = scene.daemon().stderr();
    assert!(log.contains(&fails) && log.contains("the words of a hook"), "{log}");
}

#[test]
fn a_hook_that_is_not_roots_is_not_run_and_that_is_shown() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new(&scripts("10s"));
    scene.script("up.d/10-foreign", "echo bad >> /run/log");
    scene.script("up.d/20-good", "echo good >> /run/log");
    scene.lab.router().sh(&format!("chown 65534 {SCRIPTS}/up.d/10-foreign")).unwrap();
    scene.start();
    assert_eq!(scene.wait_for_lines("/run/log", 2), ["good", "good"]);
    let failed = scene.failed("failed_scripts");
    assert!(failed.iter().any(|line| line.contains("10-foreign not run: ")), "{failed:?}");
    let mut flow = Flow::open(scene.lab.lan(), Transport::Udp, Family::V4, SOON).unwrap();
    assert!(flow.ask().is_ok());
}
