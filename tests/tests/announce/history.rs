//! The history, and `events`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use balance_lab::{binary, ready, wait_until};

use crate::support::{SOON, Scene, states};

#[test]
fn events_outlive_the_daemon_and_are_not_told_twice() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new("");
    let nothing = scene.lab.balance(&["events"]).unwrap();
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{nothing:?}");
    assert_eq!(nothing.stderr, "nothing has happened so far\n");
    scene.start();
    scene.die("CABLE");
    let events = scene.wait_for_events(3);
    assert_eq!(states(&events)[2], "CABLE down");
    scene.daemon.take().unwrap().kill9().unwrap();
    assert_eq!(scene.events(), events, "without the daemon");

    scene.start_anyhow();
    scene.lab.wait_up("DSL").unwrap();
    assert_eq!(scene.events(), events, "what is as it was is no event");
    scene.revive("CABLE");
    let events = scene.wait_for_events(4);
    assert_eq!(states(&events)[2..], ["CABLE down", "CABLE up"]);

    let text = scene.lab.balance_ok(&["events", "-n", "2", "--isp", "cable"]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("  CABLE is down, was up: ") && lines[0].contains("no answer from "), "{text}");
    // The flows are those of its probes.
    assert!(lines[0].contains(" (6144 buckets moved away, "), "{text}");
    assert!(lines[1].contains("  CABLE is up, was down: "), "{text}");
    assert!(lines[1].ends_with(" (6144 buckets moved here)"), "{text}");
    assert!(scene.lab.balance_ok(&["stop"]).is_ok());
    assert_eq!(scene.events().len(), 4, "history is history");
}

#[test]
fn following_shows_what_happens_and_ends_with_its_reader() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new("");
    scene.start();
    scene.wait_for_events(2);
    let mut command = scene.lab.router().command(binary().unwrap());
    command.args(["events", "-f", "--json", "-n", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = scene.lab.router().spawn(command).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || states(&[serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()])[0].clone();
    assert!(next().ends_with(" up"), "the latest so far");
    scene.die("CABLE");
    assert_eq!(next(), "CABLE down");
    scene.revive("CABLE");
    assert_eq!(next(), "CABLE up");
    drop(lines);
    let mut status = None;
    wait_until(SOON, "its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .unwrap();
    assert!(status.unwrap().success());

    // In a shell, where nobody waits for more than a line.
    let program = binary().unwrap();
    for options in ["", "--json", "-f"] {
        let text =
            scene.lab.router().sh(&format!("{} events {options} | head -1", program.display())).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
