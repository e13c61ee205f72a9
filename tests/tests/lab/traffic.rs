//! Traffic through the lab, and what it tells.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use balance_lab::addresses::{INTERNET_V4, lan_host};
use balance_lab::{
    Family, Flow, KINDS, Lab, Stream, Transport, ask_tcp, by_source, open_flows, ready, send_one_way,
    serve_tcp, wait_until,
};

use crate::support::{NEVER, SOON, asks, by_cable, by_dsl, plain_lab};

#[test]
fn every_kind_of_flow_is_answered_with_the_address_of_its_isp() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    for (transport, family) in KINDS {
        let mut flow = Flow::open(lab.lan(), transport, family, SOON).unwrap();
        assert_eq!(flow.local_address().ip(), lan_host(0, family));
        for _ in 0..2 {
            assert_eq!(flow.ask().unwrap(), lab.isp("CABLE").address(family), "{transport:?} {family:?}");
        }
    }
    for transport in [Transport::Tcp, Transport::Udp] {
        let source = Flow::open_to(lab.lan(), transport, by_dsl(), SOON).unwrap().ask().unwrap();
        assert_eq!(lab.isp_of(source).unwrap().name(), "DSL");
    }
    let forwarded = lab.isp("DSL").forwarded().unwrap();
    assert!(
        forwarded.to_internet >= 5 && forwarded.to_router >= 3 && forwarded.foreign == 0,
        "{forwarded:?}"
    );
}

#[test]
fn the_router_starts_plain_and_untranslated_packets_go_nowhere() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let router = lab.router();
    assert_eq!(router.sysctl("net.ipv4.ip_forward").unwrap(), "0");
    assert_eq!(router.sysctl("net.ipv6.conf.all.forwarding").unwrap(), "0");
    assert_eq!(router.sh("nft list ruleset").unwrap(), "");
    assert_eq!(router.sh("ls /sys/fs/bpf/balance /run/balance 2>&1 || true").unwrap().lines().count(), 2);
    // The router itself has ways out, by the first ISP.
    let mut own = Flow::open(router, Transport::Udp, Family::V6, SOON).unwrap();
    assert_eq!(own.ask().unwrap(), lab.isp("CABLE").address(Family::V6));

    router.sysctls(&[("net.ipv4.ip_forward", "1")]).unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert_ne!(lab.isp("CABLE").forwarded().unwrap().foreign, 0);
}

#[test]
fn one_way_packets_are_counted_by_source() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    for family in [Family::V4, Family::V6] {
        send_one_way(lab.lan(), 500, family).unwrap();
    }
    let cable = lab.isp("CABLE");
    let expected = BTreeMap::from([(cable.address(Family::V4), 500), (cable.address(Family::V6), 500)]);
    wait_until(SOON, "1,000 packets", || lab.sink().counts() == expected).unwrap();
}

#[test]
fn a_stream_counts_what_is_lost_and_which_flows_moved() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let stream = Stream::start(lab.lan(), 1_000, 10, Family::V4).unwrap();
    let forwarded = || lab.isp("CABLE").forwarded().unwrap().to_internet;
    wait_until(SOON, "300 packets", || forwarded() > 300).unwrap();
    let report = stream.stop().unwrap();
    assert!(report.sent > 300 && report.lost == 0 && report.moved == 0, "{report:?}");

    let stream = Stream::start(lab.lan(), 1_000, 10, Family::V4).unwrap();
    let start = forwarded();
    wait_until(SOON, "100 packets", || forwarded() > start + 100).unwrap();
    lab.isp("CABLE").die_silently().unwrap();
    let dead = Instant::now();
    wait_until(SOON, "200 lost packets", || dead.elapsed() > Duration::from_millis(200)).unwrap();
    // The route by DSL moves them, and MASQUERADE gives a flow its new address after a packet.
    lab.router()
        .sh("ip route replace default via 100.64.2.1 metric 1; conntrack -D -p udp >&2 || true")
        .unwrap();
    let dsl = || lab.isp("DSL").forwarded().unwrap().to_router;
    wait_until(SOON, "100 packets by DSL", || dsl() > 100).unwrap();
    let report = stream.stop().unwrap();
    assert!(report.lost > 100 && report.received > 150 && report.moved == 10, "{report:?}");
    assert_eq!(report.sent, report.received + report.lost);
}

#[test]
fn connections_from_outside_reach_the_router_and_hosts_behind_it() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let dsl = lab.isp("DSL");
    let router = serve_tcp(lab.router(), "0.0.0.0:0".parse().unwrap()).unwrap();
    // Replies need the way back by the same ISP, which is the daemon's job.
    lab.router().ip(&["route add 203.0.113.0/24 via 100.64.2.1".to_owned()]).unwrap();
    let to = SocketAddr::new(dsl.address(Family::V4), router.address().port());
    assert_eq!(ask_tcp(lab.internet(), to, SOON).unwrap(), IpAddr::from(INTERNET_V4));

    let behind = serve_tcp(lab.lan(), SocketAddr::new(lan_host(0, Family::V4), 8080)).unwrap();
    let forward = format!(
        "table ip forward {{ chain in {{ type nat hook prerouting priority -100; tcp dport 80 dnat to {}; }}; }}",
        behind.address()
    );
    lab.router().feed("nft", &["-f", "-"], &forward).unwrap();
    let to = SocketAddr::new(dsl.address(Family::V4), 80);
    assert_eq!(ask_tcp(lab.internet(), to, SOON).unwrap(), IpAddr::from(INTERNET_V4));
}

#[test]
fn ten_thousand_flows_of_each_kind_stay_open_at_once() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let limit: usize = lab.router().sysctl("net.netfilter.nf_conntrack_max").unwrap().parse().unwrap();
    assert!(limit >= 50_000, "net.netfilter.nf_conntrack_max is {limit}");
    let start = Instant::now();
    let mut open = Vec::new();
    for (transport, family) in KINDS {
        open.push((family, open_flows(lab.lan(), 10_000, transport, family).unwrap()));
    }
    for (family, flows) in &mut open {
        let answers = flows.ask(SOON);
        assert_eq!(by_source(&answers), BTreeMap::from([(lab.isp("CABLE").address(*family), 10_000)]));
    }
    println!("40,000 flows opened and answered in {:?}", start.elapsed());
    for (_, flows) in open {
        flows.close().unwrap();
    }
}

#[test]
fn flows_of_a_dead_isp_fail_and_do_not_hold_up_the_others() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let to = (0..2_000).map(|index| if index % 2 == 0 { by_cable() } else { by_dsl() }).collect();
    let mut flows = balance_lab::Flows::open_to(lab.lan(), Transport::Udp, to).unwrap();
    assert_eq!(flows.len(), 2_000);
    lab.isp("CABLE").die_silently().unwrap();
    let start = Instant::now();
    let answers = flows.ask(NEVER);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(by_source(&answers), BTreeMap::from([(lab.isp("DSL").address(Family::V4), 1_000)]));
    lab.isp("CABLE").revive().unwrap();
    assert_eq!(flows.ask(SOON).iter().flatten().count(), 2_000);
}
