//! What comes in from outside, and what goes out.

use anyhow::Context;
use balance_lab::addresses::lan_host;
use balance_lab::checks::{SOON, split};
use balance_lab::{Echo, Family, KINDS, Office, Transport, open_new_flows, ready, wait_until};

use crate::scene::{FAMILIES, FORWARDED, NEVER, PORTS, Scene, is_dropped, is_open, router_in_lan};

#[test]
fn from_outside_only_what_is_allowed_or_forwarded_is_open_and_from_inside_everything() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    let _daemon = scene.start("allow = [\"tcp/6000\", \"udp/5999-6000\"]");
    for (transport, family) in KINDS {
        for isp in lab.isps() {
            let outside = isp.address(family);
            is_open(lab.internet(), outside, PORTS[0], transport);
            is_open(lab.internet(), outside, FORWARDED, transport);
            let before = scene.count("to_us");
            for port in [PORTS[1], 1, 22, 53, 65535] {
                is_dropped(lab.internet(), outside, port, transport);
            }
            assert!(scene.count("to_us") - before >= 5);
        }
        let before = scene.count("to_inside");
        for (host, port) in [(lan_host(0, family), PORTS[0]), (Office::address(family), PORTS[1])] {
            is_dropped(lab.internet(), host, port, transport);
        }
        assert!(scene.count("to_inside") - before >= 2);

        for lan in [lab.lan(), scene.office.host()] {
            let answers = open_new_flows(lan, 20, transport, family).unwrap().ask(SOON);
            assert!(lab.isps_of(&answers).iter().all(Option::is_some), "{answers:?}");
            is_open(lan, lab.isp("DSL").address(family), FORWARDED, transport);
        }
        is_open(lab.lan(), router_in_lan(family), PORTS[1], transport);
        is_open(lab.lan(), Office::address(family), PORTS[1], transport);
    }
    for counter in ["to_others", "spoofed", "flood"] {
        assert_eq!(scene.count(counter), 0, "{counter}");
    }
    for isp in lab.isps() {
        assert_eq!(lab.isp_status(isp.name()).unwrap()["state"], "up");
    }
}

#[test]
fn an_isp_that_dies_and_comes_back_is_noticed_behind_the_firewall() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("ping = \"off\"\n[monitor]\nup_after = \"300ms\"");
    scene.lab.isp("CABLE").die_silently().unwrap();
    scene.lab.wait_state("CABLE", "down").unwrap();
    split(&scene.lab, 20, Family::V4).unwrap();
    scene.lab.isp("CABLE").revive().unwrap();
    scene.lab.wait_up("CABLE").unwrap();
}

#[test]
fn pings_from_outside_are_answered_up_to_the_rate_and_those_from_inside_always() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start("ping = \"5/hour\"");
    for family in FAMILIES {
        // One limit for both.
        scene.reload(&daemon, &scene.config("ping = \"off\""));
        scene.reload(&daemon, &scene.config("ping = \"5/hour\""));
        let outside = scene.lab.isp("DSL").address(family);
        let mut echo = Echo::open(scene.lab.internet(), outside, NEVER).unwrap();
        let answers: Vec<bool> = (0..8).map(|_| echo.ask().is_ok()).collect();
        assert_eq!(answers, [true, true, true, true, true, false, false, false], "{family:?}");
        assert_eq!(scene.count("flood"), 3);
        let mut echo = Echo::open(scene.lab.lan(), router_in_lan(family), SOON).unwrap();
        for _ in 0..8 {
            echo.ask().unwrap();
        }
    }
    scene.reload(&daemon, &scene.config("ping = \"off\""));
    let mut echo =
        Echo::open(scene.lab.internet(), scene.lab.isp("CABLE").address(Family::V4), NEVER).unwrap();
    echo.ask().unwrap_err();
}

#[test]
fn addresses_that_are_inside_do_not_come_from_outside() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("allow = [\"udp/6000\"]");
    let isp = scene.lab.isp("DSL");
    // A LAN host, the router itself in the LAN, and the router at its other ISP.
    for (family, forged) in [
        (Family::V4, ["192.168.1.77", "192.168.1.1", "100.64.1.2"]),
        (Family::V6, ["fd00:1::77", "fd00:1::1", "2001:db8:1::2"]),
    ] {
        for address in forged {
            let before = scene.count("spoofed");
            let (length, nodad) = if family == Family::V4 { (32, "") } else { (128, "nodad") };
            isp.host().ip(&[format!("addr add {address}/{length} dev lo {nodad}")]).unwrap();
            isp.host().run(|| {
                let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
                socket.send_to(b"forged", (isp.address(family), PORTS[0])).unwrap();
                socket.send_to(b"forged", (lan_host(0, family), PORTS[0])).unwrap();
            });
            wait_until(SOON, "the counter", || scene.count("spoofed") == before + 2)
                .with_context(|| address)
                .unwrap();
        }
        // Its own address is none of ours.
        is_open(isp.host(), isp.address(family), PORTS[0], Transport::Udp);
    }
}
