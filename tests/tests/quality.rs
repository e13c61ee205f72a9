//! ISPs that work badly, and ISPs that come and go.
#![cfg(test)]

use std::time::{Duration, Instant};

use balance_lab::{Daemon, Family, Lab, Stream, ready, wait_until};

/// The default config with these keys of `[monitor]`, and what comes behind.
fn configure(lab: &Lab, monitor: &str, more: &str) {
    lab.write_config(&format!("{}{more}\n[monitor]\n{monitor}", lab.config())).unwrap();
}

#[test]
fn an_isp_that_toggles_all_the_time_changes_its_state_four_times_at_most() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    // Everything to a tenth: toggling every 3 s for 5 minutes. It could be back within each of these times.
    configure(
        &lab,
        "interval = \"100ms\"\nsuspect_interval = \"20ms\"\ntimeout = \"100ms\"\nup_after = \"100ms\"\n\
         flap_half_life = \"6s\"\nup_after_max = \"30s\"\nlong_down_after = \"12s\"\n",
        "",
    );
    let daemon = lab.start_up().unwrap();
    let told = |daemon: &Daemon| daemon.stderr().lines().filter(|line| line.contains("CABLE is ")).count();
    let before = told(&daemon);
    let (start, mut dead) = (Instant::now(), false);
    while start.elapsed() < Duration::from_secs(30) {
        dead = !dead;
        if dead { lab.isp("CABLE").die_silently() } else { lab.isp("CABLE").revive() }.unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let changes = told(&daemon) - before;
    assert!((1..=4).contains(&changes), "{changes} changes:\n{}", daemon.stderr());
    assert_eq!(lab.isp_status("DSL").unwrap()["share"], 1.0);
    lab.isp("CABLE").revive().unwrap();
    let is_up = || lab.isp_status("CABLE").is_ok_and(|isp| isp["state"] == "up");
    wait_until(Duration::from_secs(40), "CABLE to be let go", is_up).unwrap();
}

#[test]
fn an_isp_that_loses_packets_is_degraded_and_avoided_but_keeps_its_flows() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    configure(
        &lab,
        "interval = \"50ms\"\nsuspect_interval = \"20ms\"\ndown_after = 30\ndegraded_after = \"300ms\"\n\
         restored_after = \"300ms\"\n",
        "\n[[policy]]\nname = \"default\"\ndegraded = \"avoid\"\n",
    );
    let daemon = lab.start_up().unwrap();
    let flows = Stream::start(lab.lan(), 64, 20, Family::V4).unwrap();
    lab.isp("CABLE").set_loss(25).unwrap();
    let is_avoided = |isp: &serde_json::Value| isp["share"] == 0.0 && isp["flows"].as_u64() > Some(0);
    lab.wait_isp("CABLE", is_avoided).unwrap();
    let said = daemon.stderr();
    assert!(said.contains("CABLE is degraded: ") && said.contains("loss over 20%"), "{said}");
    lab.isp("CABLE").set_loss(0).unwrap();
    lab.wait_isp("CABLE", |isp| isp["state"] == "up" && isp["share"].as_f64() > Some(0.5)).unwrap();
    assert_eq!(flows.stop().unwrap().moved, 0);
    let said = daemon.stderr();
    assert!(!said.contains("CABLE is down"), "{said}");
}
