//! The firewall comes, stays and goes, and others do not notice.

use std::net::SocketAddr;

use anyhow::Context;
use balance_lab::addresses::{INTERNET_V4, SERVER_PORT, internet, lan_host};
use balance_lab::checks::{SOON, changes};
use balance_lab::{Dump, Family, Flow, KINDS, Office, Transport, open_new_flows, ready};

use crate::scene::{FORWARDED, PORTS, Scene, is_dropped, is_open};

#[test]
fn connections_from_before_the_firewall_go_on_when_it_is_switched_on() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    // Nothing has asked for conntrack yet, so it does not know of this one.
    let inside = SocketAddr::new(lab.isp("CABLE").address(Family::V4), PORTS[1]);
    let mut unknown = Flow::open_to(lab.internet(), Transport::Tcp, inside, SOON).unwrap();
    unknown.ask().unwrap();
    let daemon = scene.start("");
    unknown.ask().expect("a login from before all of it goes on");

    scene.reload(&daemon, &scene.config("").replace("enabled = true", "enabled = false"));
    let mut flows = Vec::new();
    for (transport, family) in KINDS {
        for (from, to) in [
            (lab.internet(), SocketAddr::new(lab.isp("DSL").address(family), PORTS[1])),
            (lab.internet(), SocketAddr::new(lab.isp("CABLE").address(family), FORWARDED)),
            (lab.lan(), internet(family, SERVER_PORT)),
        ] {
            let mut flow = Flow::open_to(from, transport, to, SOON).unwrap();
            flow.ask().unwrap();
            flows.push((flow, to));
        }
    }
    scene.reload(&daemon, &scene.config(""));
    is_dropped(lab.internet(), inside.ip(), inside.port(), Transport::Tcp);
    for (flow, to) in &mut flows {
        flow.ask().with_context(|| format!("{:?} to {to}", flow.local_address())).unwrap();
    }
    unknown.ask().unwrap();
}

#[test]
fn the_firewall_outlives_a_killed_daemon_and_stop_takes_it_away() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    let before = Dump::take(lab.router()).unwrap();
    let holds = || {
        for (transport, family) in KINDS {
            for isp in lab.isps() {
                is_dropped(lab.internet(), isp.address(family), PORTS[0], transport);
                is_open(lab.internet(), isp.address(family), FORWARDED, transport);
            }
            let answers = open_new_flows(lab.lan(), 10, transport, family).unwrap().ask(SOON);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    };
    let daemon = scene.start("");
    holds();
    daemon.kill9().unwrap();
    holds();
    let _daemon = lab.start_up().unwrap();
    holds();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(changes(lab, &before), Vec::<String>::new());
    is_open(lab.internet(), lab.isp("CABLE").address(Family::V4), PORTS[0], Transport::Tcp);
}

#[test]
fn tables_and_devices_of_others_work_as_before() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    // The office's device is none of ours here: as that of containers, or of a VPN.
    let container = scene.office.host();
    lab.router().sysctls(&[("net.ipv4.conf.lan1.forwarding", "1")]).unwrap();
    let foreign = "table ip docker {
        map ports { type inet_service : ipv4_addr; elements = { 8080 : 192.168.2.10 }; }
        chain in {
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local tcp dport 8080 dnat to 192.168.2.10:6000
        }
        chain forward {
            type filter hook forward priority filter; policy drop;
            counter
            iifname { lan0, lan1 } accept
            ct status dnat accept
            ct state established,related accept
        }
    }";
    lab.router().feed("nft", &["-f", "-"], foreign).unwrap();
    let listing = || lab.router().sh("nft -s list table ip docker").unwrap();
    let (before, dump) = (listing(), Dump::take(lab.router()).unwrap());
    lab.write_config(&scene.config("groups = [[\"LAN\", \":isp\"]]").replace(Office::CONFIG, "")).unwrap();
    let daemon = lab.start_up().unwrap();
    for isp in lab.isps() {
        is_open(lab.internet(), isp.address(Family::V4), 8080, Transport::Tcp);
    }
    is_open(lab.lan(), Office::address(Family::V4), PORTS[0], Transport::Tcp);
    is_open(container, lan_host(0, Family::V4), PORTS[0], Transport::Tcp);
    is_open(container, INTERNET_V4.into(), SERVER_PORT, Transport::Tcp);
    is_dropped(lab.internet(), Office::address(Family::V4), PORTS[0], Transport::Tcp);
    scene.reload(&daemon, &scene.config("").replace(Office::CONFIG, ""));
    assert_eq!(listing(), before);
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(listing(), before);
    assert_eq!(changes(lab, &dump), Vec::<String>::new());
}
