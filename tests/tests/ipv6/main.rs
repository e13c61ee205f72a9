//! IPv6 by two ISPs, each in a mode of its own: what the internet sees of flows from the LAN, what reaches the LAN from
//! there, and what becomes of both when an ISP dies or delegates another prefix.
#![cfg(test)]

mod support;

use std::collections::BTreeSet;

use balance_lab::{Family, Flow, Transport, ready, wait_until};

use support::{
    CABLE, CABLE_HOST, CABLE_LOCAL, CABLE_ROUTER, DSL, DSL_HOST, DSL_LOCAL, DSL_ROUTER, HASTE, KINDS, LOCAL,
    NPT_CABLE, NPT_DSL, SOON, SOURCE_CABLE, SOURCE_DSL, Scene, TIMEOUT, ip, ips, is_reached, servers,
    with_each,
};

#[test]
fn with_nothing_said_flows_are_masqueraded_whatever_address_they_come_from() {
    with_each(|acceleration| {
        let scene = Scene::multihomed(acceleration, "", "");
        for from in [LOCAL, CABLE_HOST, DSL_HOST] {
            scene.wait_seen(from, &[CABLE_ROUTER, DSL_ROUTER]);
        }
        scene.nothing_foreign();
    });
}

#[test]
fn npt_exchanges_prefixes_and_keeps_hosts() {
    with_each(|acceleration| {
        let scene = Scene::new(acceleration, NPT_CABLE, NPT_DSL);
        // An ISP is up when one family is.
        scene.wait_seen(LOCAL, &[CABLE_LOCAL, DSL_LOCAL]);
        for transport in KINDS {
            scene.goes_fast(&mut scene.flow(transport, LOCAL, CABLE_LOCAL));
        }
        // A second prefix in the LAN, with the same bits behind the first 48, gets another subnet.
        scene.lab.router().ip(&["addr add fd00:2::1/64 dev lan0 nodad".to_owned()]).unwrap();
        scene.lab.lan().ip(&["addr add fd00:2::77/64 dev eth0 nodad".to_owned()]).unwrap();
        scene.wait_seen("fd00:2::77", &["2001:db8:a:1::77", "2001:db8:b:1::77"]);
        assert_eq!(scene.seen(LOCAL), ips(&[CABLE_LOCAL, DSL_LOCAL]));
        scene.nothing_foreign();
    });
}

#[test]
fn npt_leaves_addresses_of_the_isps_own_prefix_alone() {
    with_each(|acceleration| {
        let scene = Scene::multihomed(acceleration, NPT_CABLE, NPT_DSL);
        // Subnet 1 of either prefix is in use as it is, and subnet 0 has the LAN's own.
        scene.wait_seen(CABLE_HOST, &[CABLE_HOST, "2001:db8:b:2::10"]);
        scene.wait_seen(DSL_HOST, &["2001:db8:a:2::10", DSL_HOST]);
        scene.nothing_foreign();
    });
}

#[test]
fn npt_lets_the_internet_reach_hosts_by_either_prefix() {
    with_each(|acceleration| {
        let scene = Scene::new(acceleration, NPT_CABLE, NPT_DSL);
        let _servers = servers(&scene.lab);
        for address in [CABLE_LOCAL, DSL_LOCAL, CABLE_ROUTER, DSL_ROUTER] {
            let mut flows = is_reached(&scene.lab, address);
            if address == CABLE_LOCAL {
                for flow in &mut flows {
                    scene.goes_fast(flow);
                }
            }
        }
        scene.nothing_foreign();
    });
}

#[test]
fn the_source_prefix_decides_the_isp_and_nothing_is_translated() {
    with_each(|acceleration| {
        let scene = Scene::multihomed(acceleration, SOURCE_CABLE, SOURCE_DSL);
        assert_eq!(scene.seen(CABLE_HOST), ips(&[CABLE_HOST]));
        assert_eq!(scene.seen(DSL_HOST), ips(&[DSL_HOST]));
        // What has no address that the internet knows is shared and masqueraded, as ever.
        assert_eq!(scene.seen(LOCAL), ips(&[CABLE_ROUTER, DSL_ROUTER]));
        for transport in KINDS {
            scene.goes_fast(&mut scene.flow(transport, CABLE_HOST, CABLE_HOST));
        }
        // The router's own address in the LAN is one of that prefix, too.
        for (from, transport) in ["2001:db8:a:1::1", "2001:db8:b:1::1"].into_iter().zip(KINDS) {
            let flow = Flow::open_from(scene.lab.router(), transport, ip(from), SOON);
            assert_eq!(flow.unwrap().ask().unwrap(), ip(from));
        }
        let _servers = servers(&scene.lab);
        for address in [CABLE_HOST, DSL_HOST, CABLE_ROUTER, DSL_ROUTER] {
            is_reached(&scene.lab, address);
        }
        scene.nothing_foreign();
    });
}

#[test]
fn when_an_isp_dies_translated_flows_move_and_those_of_its_prefix_wait_for_it() {
    with_each(|acceleration| {
        let scene = Scene::multihomed(acceleration, SOURCE_CABLE, NPT_DSL);
        let lab = &scene.lab;
        scene.wait_seen(LOCAL, &[CABLE_ROUTER, DSL_LOCAL]);
        let mut bound = scene.flows(CABLE_HOST, CABLE_HOST);
        let mut shared = scene.flow(Transport::Udp, LOCAL, CABLE_ROUTER);
        let mut others = scene.flows(LOCAL, DSL_LOCAL);

        lab.isp("CABLE").die_silently().unwrap();
        lab.wait_state("CABLE", "down").unwrap();
        shared.set_timeout(HASTE);
        let moved = || shared.ask().is_ok_and(|source| source == ip(DSL_LOCAL));
        wait_until(TIMEOUT, "the shared flow to move", moved).unwrap();
        for flow in &mut others {
            assert_eq!(flow.ask().unwrap(), ip(DSL_LOCAL));
        }
        // They go nowhere else, where nobody would know them.
        for flow in &mut bound {
            flow.set_timeout(HASTE);
            assert!(flow.ask().is_err());
        }
        assert_eq!(lab.isp("DSL").forwarded().unwrap().foreign, 0);

        lab.isp("CABLE").revive().unwrap();
        for flow in &mut bound {
            flow.set_timeout(SOON);
            let same = || flow.ask().is_ok_and(|source| source == ip(CABLE_HOST));
            wait_until(TIMEOUT, "a flow of CABLE's prefix to go on", same).unwrap();
        }

        // The other way round: what was translated by DSL goes by CABLE.
        lab.wait_state("CABLE", "up").unwrap();
        let [_, udp] = others.as_mut_slice() else { panic!("two kinds") };
        lab.isp("DSL").die_silently().unwrap();
        udp.set_timeout(HASTE);
        let moved = || udp.ask().is_ok_and(|source| source == ip(CABLE_ROUTER));
        wait_until(TIMEOUT, "the translated flow to move", moved).unwrap();
        scene.nothing_foreign();
    });
}

#[test]
fn without_its_device_new_flows_of_its_prefix_are_masqueraded_by_another_isp_and_stay_there() {
    with_each(|acceleration| {
        let scene = Scene::multihomed(acceleration, SOURCE_CABLE, "");
        scene.wait_seen(CABLE_HOST, &[CABLE_HOST]);
        scene.lab.unplug("CABLE").unwrap();
        scene.wait_seen(CABLE_HOST, &[DSL_ROUTER]);
        let mut flows = scene.flows(CABLE_HOST, DSL_ROUTER);
        scene.lab.plug("CABLE").unwrap();
        // The new device has forgotten what went by it.
        let route = format!("route replace {CABLE} via {CABLE_ROUTER} dev router");
        scene.lab.isp("CABLE").host().ip(&[route]).unwrap();
        scene.lab.wait_state("CABLE", "up").unwrap();
        scene.wait_seen(CABLE_HOST, &[CABLE_HOST]);
        for flow in &mut flows {
            assert_eq!(flow.ask().unwrap(), ip(DSL_ROUTER));
        }
    });
}

#[test]
fn an_isp_with_ipv6_off_has_no_ipv6_flows_but_those_of_ipv4() {
    with_each(|acceleration| {
        let scene = Scene::new(acceleration, "ipv6 = \"off\"\n", NPT_DSL);
        assert_eq!(scene.seen(LOCAL), ips(&[DSL_LOCAL]));
        let v4 = (0..30).map(|_| {
            let flow = Flow::open(scene.lab.lan(), Transport::Udp, Family::V4, SOON);
            flow.unwrap().ask().unwrap()
        });
        assert_eq!(v4.collect::<BTreeSet<_>>(), ips(&["100.64.1.2", "100.64.2.2"]));
        let status = scene.lab.isp_status("CABLE").unwrap();
        assert_eq!(status["reason"], "IPv6 is off in the config", "{status:#}");
        let rules = scene.lab.router().sh("ip -6 rule; ip -6 route show table all proto 201").unwrap();
        assert!(!rules.contains("balance-CABLE") && !rules.contains("1001"), "{rules}");
        assert!(!rules.contains("cable0"), "{rules}");

        // It can be turned on again, and off, with flows there.
        let daemon = scene.daemon.as_ref().unwrap();
        scene.lab.write_config(&scene.config(NPT_CABLE, NPT_DSL)).unwrap();
        daemon.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
        scene.wait_seen(LOCAL, &[CABLE_LOCAL, DSL_LOCAL]);
        let mut flow = scene.flow(Transport::Udp, LOCAL, CABLE_LOCAL);
        scene.lab.write_config(&scene.config("ipv6 = \"off\"\n", NPT_DSL)).unwrap();
        daemon.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
        flow.set_timeout(HASTE);
        let moved = || flow.ask().is_ok_and(|source| source == ip(DSL_LOCAL));
        wait_until(TIMEOUT, "a flow of CABLE to move", moved).unwrap();
    });
}

#[test]
fn a_prefix_that_routes_tell_of_is_followed_without_a_restart() {
    with_each(|acceleration| {
        let scene = Scene::new(acceleration, "ipv6 = \"npt\"\n", "ipv6 = \"off\"\n");
        let lab = &scene.lab;
        lab.delegate("CABLE", "2001:db8:c::/56").unwrap();
        // Nothing tells what CABLE has delegated.
        assert_eq!(scene.seen(LOCAL), ips(&[CABLE_ROUTER]));
        let status = lab.isp_status("CABLE").unwrap();
        assert_eq!(status["reason"], "IPv6: no prefix for \"npt\", so masqueraded", "{status:#}");
        let mut masqueraded = scene.flows(LOCAL, CABLE_ROUTER);

        // As OpenWrt tells it.
        let route = |verb: &str, prefix: &str| {
            let gateway = lab.isp("CABLE").gateway_v6();
            let route = format!("route {verb} ::/0 from {prefix} via {gateway} dev cable0 metric 384");
            lab.router().ip(&[route]).unwrap();
        };
        route("add", CABLE);
        scene.wait_seen(LOCAL, &[CABLE_LOCAL]);
        for flow in &mut masqueraded {
            assert_eq!(flow.ask().unwrap(), ip(CABLE_ROUTER));
        }
        let mut flow = scene.flow(Transport::Udp, LOCAL, CABLE_LOCAL);
        scene.goes_fast(&mut flow);

        // Another one. A flow that never pauses starts again with it, rather than never.
        route("delete", CABLE);
        lab.withdraw("CABLE", CABLE).unwrap();
        route("add", "2001:db8:c::/56");
        flow.set_timeout(HASTE);
        let moved = || flow.ask().is_ok_and(|source| source == ip("2001:db8:c::10"));
        wait_until(TIMEOUT, "a flow to have the new prefix", moved).unwrap();
        scene.wait_seen(LOCAL, &["2001:db8:c::10"]);
        route("delete", "2001:db8:c::/56");
        scene.wait_seen(LOCAL, &[CABLE_ROUTER]);
    });
}

#[test]
fn a_reserved_prefix_is_that_of_the_device_with_an_address_of_it() {
    with_each(|acceleration| {
        let scene = Scene::new(acceleration, "ipv6 = \"source\"\n", "ipv6 = \"source\"\n");
        let lab = &scene.lab;
        for (subnet, host) in [("2001:db8:a:1::", CABLE_HOST), ("2001:db8:b:1::", DSL_HOST)] {
            lab.router().ip(&[format!("addr add {subnet}1/64 dev lan0 nodad")]).unwrap();
            lab.lan().ip(&[format!("addr add {host}/64 dev eth0 nodad")]).unwrap();
        }
        // As systemd-networkd tells it.
        lab.router()
            .ip(&[
                format!("route add unreachable {CABLE} proto dhcp metric 1024"),
                format!("route add unreachable {DSL} proto dhcp metric 1024"),
                "addr add 2001:db8:a:ff::1/64 dev cable0 nodad".to_owned(),
                "addr add 2001:db8:b:ff::1/64 dev dsl0 nodad".to_owned(),
            ])
            .unwrap();
        scene.wait_seen(CABLE_HOST, &[CABLE_HOST]);
        scene.wait_seen(DSL_HOST, &[DSL_HOST]);
        lab.router().ip(&[format!("route delete unreachable {CABLE}")]).unwrap();
        // Shared by both from now on, and masqueraded.
        let look = || scene.seen(CABLE_HOST).len() == 2;
        wait_until(TIMEOUT, "CABLE's prefix to be nobody's", look).unwrap();
        assert_eq!(scene.seen(DSL_HOST), ips(&[DSL_HOST]));
    });
}

#[test]
fn flows_go_on_without_the_daemon_and_stop_leaves_nothing() {
    if !ready() {
        return;
    }
    let mut scene = Scene::multihomed("off", SOURCE_CABLE, NPT_DSL);
    scene.wait_seen(CABLE_HOST, &[CABLE_HOST]);
    scene.daemon.take().unwrap().kill9().unwrap();
    // Nobody is there to see to it, and all goes on.
    assert_eq!(scene.seen(CABLE_HOST), ips(&[CABLE_HOST]));
    assert_eq!(scene.seen(LOCAL), ips(&[CABLE_ROUTER, DSL_LOCAL]));
    scene.lab.balance_ok(&["stop"]).unwrap();
    let left = scene.lab.router().sh("nft list tables; ip -6 rule").unwrap();
    assert!(!left.contains("balance") && !left.contains("1000"), "{left}");
}
