//! While everything works, all kinds of targets say so, through each ISP.

use std::time::Duration;

use balance_lab::{Family, ready, wait_until};

use crate::scene::{HTTP, HTTPS, Scene, TCP, WWW, servers, text};

const SOON: Duration = Duration::from_secs(10);

/// Every kind of target, in both families.
fn every_kind() -> Vec<String> {
    let mut targets = vec!["\"gateway\"".to_owned(), "\"https://www.test/named\"".to_owned()];
    for (tcp, http) in servers(TCP).iter().zip(servers(HTTP)) {
        targets.push(format!("\"tcp://{tcp}\""));
        targets.push(format!("\"http://{http}/generate_204\""));
        targets.push(format!("{{ url = \"http://{http}/body\", status = 200, body = \"is ok\" }}"));
    }
    for https in servers(HTTPS) {
        targets.push(format!("\"https://{https}/secure\""));
    }
    for address in WWW {
        targets.push(format!("\"dns://{address}/www.test\""));
        targets.push(format!(
            "{{ dns = \"{address}\", name = \"www.test\", answer = \"{address}\", weight = 2 }}"
        ));
    }
    targets
}

#[test]
fn every_kind_of_target_answers_through_every_isp_and_nothing_leaves_by_another_one() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    scene.watch_marks();
    let targets = every_kind();
    // Each family has all but the other's addresses: two that both have, and six of its own, one of weight two.
    scene.configure(&targets.join(", "), 9);
    let _daemon = scene.start();
    lab.wait_all_up().unwrap();
    for isp in lab.isps() {
        for family in Family::ALL {
            for what in ["/named", "/generate_204", "/body", "/secure", "www.test"] {
                let asked = || scene.asked(isp.address(family), what) > 0;
                wait_until(SOON, what, asked).unwrap();
            }
        }
    }
    let (right, wrong) = scene.marks();
    assert!(right > 100 && wrong == 0, "{right} {wrong}");
    for isp in lab.isps() {
        assert_eq!(isp.forwarded().unwrap().foreign, 0);
    }
}

#[test]
fn probes_leave_no_open_files_and_no_connections_behind() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure(&every_kind().join(", "), 9);
    let daemon = scene.start();
    scene.lab.wait_all_up().unwrap();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let few = files();
    let customer = scene.lab.isps()[0].address(Family::V4);
    let before = scene.asked(customer, "/body");
    wait_until(SOON, "rounds", || scene.asked(customer, "/body") >= before + 20).unwrap();
    wait_until(SOON, "as few files as before", || files() <= few).unwrap();
    let waiting = scene.lab.router().sh("ss -Htan state time-wait").unwrap();
    assert_eq!(waiting, "");
}

#[test]
fn a_name_without_an_address_of_a_family_does_not_count_there() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"http://v4.test/generate_204\"", 1);
    let _daemon = scene.start();
    scene
        .lab
        .wait_isp("CABLE", |isp| {
            isp["state"] == "up"
                && text(isp, "reason")
                    == "IPv6: http://v4.test/generate_204 does not count, as v4.test has no IPv6 address"
        })
        .unwrap();
}

#[test]
fn a_name_is_looked_up_through_each_isp_and_kept() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"http://www.test/generate_204\"", 1);
    let _daemon = scene.start();
    scene.lab.wait_all_up().unwrap();
    for isp in scene.lab.isps() {
        for family in Family::ALL {
            let customer = isp.address(family);
            let enough = || scene.asked(customer, "/generate_204") >= 20;
            wait_until(SOON, "rounds", enough).unwrap();
            let looked_up = scene.asked(customer, "www.test");
            assert!((1..=4).contains(&looked_up), "{looked_up} times for 20 pages");
        }
    }
}
