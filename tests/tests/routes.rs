//! Networks behind devices: `[[route]]`.
#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, lan_host};
use balance_lab::{
    Daemon, Family, Flow, Host, Lab, Server, Transport, Tunnel, ready, serve_tcp, serve_udp, wait_until,
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];
const MODEM: [&str; 2] = ["192.168.100.1", "fd64::1"];
const BEHIND_TUN: [&str; 2] = ["10.99.0.1", "fd99::1"];

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn start(lab: &Lab, routes: &str) -> Daemon {
    lab.write_config(&format!("{}\n{routes}", lab.config())).unwrap();
    lab.start_up().unwrap()
}

fn reload(lab: &Lab, daemon: &Daemon, routes: &str) {
    lab.write_config(&format!("{}\n{routes}", lab.config())).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
}

/// Servers on a machine, of every kind.
fn serve(host: &Host) -> [Server; 3] {
    let tcp = |any: &str| serve_tcp(host, any.parse().unwrap()).unwrap();
    [
        tcp(&format!("0.0.0.0:{SERVER_PORT}")),
        tcp(&format!("[::]:{SERVER_PORT}")),
        serve_udp(host, SERVER_PORT).unwrap(),
    ]
}

/// Whether flows of every kind from a machine reach one of these addresses, and are seen as from these.
fn reaches(host: &Host, to: [&str; 2], seen: [IpAddr; 2]) {
    for transport in TRANSPORTS {
        for (to, seen) in to.into_iter().zip(seen) {
            // By chance a wrong choice might be right.
            for _ in 0..6 {
                let to = SocketAddr::new(to.parse().unwrap(), SERVER_PORT);
                let mut flow = Flow::open_to(host, transport, to, SOON).unwrap();
                assert_eq!(flow.ask().unwrap(), seen, "{transport:?} to {to}");
            }
        }
    }
}

/// The routes of the main table that are ours.
fn ours(lab: &Lab) -> String {
    lab.router().sh("ip -4 route show proto 201; ip -6 route show proto 201").unwrap()
}

/// CABLE's modem has a page at addresses of its own, on the wire of CABLE's device.
fn modem(lab: &Lab) -> [Server; 3] {
    let modem = lab.isp("CABLE").host();
    modem.ip(&lines("addr add 192.168.100.1/24 dev router\naddr add fd64::1/64 dev router nodad")).unwrap();
    serve(modem)
}

const TO_MODEM: &str = "
[[route]]
to = \"192.168.100.0/24\"
device = \"cable0\"
masquerade = true
[[route]]
to = \"fd64::/64\"
device = \"cable0\"
masquerade = true
";

#[test]
fn the_page_of_a_modem_is_reached_from_the_lan_and_the_router_and_never_balanced() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _page = modem(&lab);
    let daemon = start(&lab, TO_MODEM);
    let seen = FAMILIES.map(|family| lab.isp("CABLE").address(family));
    reaches(lab.lan(), MODEM, seen);
    reaches(lab.router(), MODEM, seen);
    // Without new flows for CABLE as well.
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    reaches(lab.lan(), MODEM, seen);

    lab.router().sh("ip route del 192.168.100.0/24; ip -6 route del fd64::/64").unwrap();
    wait_until(SOON, "the routes being put back", || ours(&lab).lines().count() == 2).unwrap();
    reaches(lab.lan(), MODEM, seen);

    reload(&lab, &daemon, "");
    wait_until(SOON, "the routes going", || ours(&lab).is_empty()).unwrap();
    reload(&lab, &daemon, TO_MODEM);
    wait_until(SOON, "the routes coming back", || ours(&lab).lines().count() == 2).unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(ours(&lab), "");
}

#[test]
fn routes_of_somebody_else_to_the_same_network_stay_and_win() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let theirs = "ip route show 192.168.100.0/24 proto 4; ip -6 route show fd64::/64 proto 4";
    for metric in ["", "metric 10000"] {
        lab.router()
            .sh(&format!(
                "ip route add 192.168.100.0/24 dev dsl0 proto 4 {metric}
                 ip -6 route add fd64::/64 dev dsl0 proto 4 {metric}"
            ))
            .unwrap();
        let before = lab.router().sh(theirs).unwrap();
        assert_eq!(before.lines().count(), 2);
        let daemon = start(&lab, TO_MODEM);
        assert_eq!(lab.router().sh(theirs).unwrap(), before);
        for to in MODEM {
            let way = lab.router().sh(&format!("ip route get {to}")).unwrap();
            assert!(way.contains("dev dsl0"), "{way}");
        }
        assert!(!daemon.stderr().contains("will try again"), "{}", daemon.stderr());
        reload(&lab, &daemon, "");
        wait_until(SOON, "ours going", || ours(&lab).is_empty()).unwrap();
        lab.balance_ok(&["stop"]).unwrap();
        assert_eq!(lab.router().sh(theirs).unwrap(), before);
        lab.router().sh("ip route del 192.168.100.0/24; ip -6 route del fd64::/64").unwrap();
    }
}

#[test]
fn a_network_behind_a_tun_device_that_comes_later_is_reached_unmasqueraded_and_through_a_gateway() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let routes = "
[[route]]
to = \"10.99.0.0/16\"
device = \"tun0\"
[[route]]
to = \"fd99::/64\"
device = \"tun0\"
gateway = \"fd98::2\"
";
    let _daemon = start(&lab, routes);
    assert_eq!(ours(&lab), "", "there is no tun0");
    let far = Host::new("far").unwrap();
    let _tunnel = Tunnel::between(lab.router(), &far).unwrap();
    let _servers = serve(&far);
    lab.router()
        .ip(&lines("link set tun0 up\naddr add 10.98.0.1/30 dev tun0\naddr add fd98::1/64 dev tun0 nodad"))
        .unwrap();
    far.ip(&lines(
        "link set tun0 up
         addr add 10.98.0.2/30 dev tun0
         addr add fd98::2/64 dev tun0 nodad
         addr add 10.99.0.1/32 dev lo
         addr add fd99::1/128 dev lo nodad
         route add default dev tun0
         route add ::/0 dev tun0",
    ))
    .unwrap();
    wait_until(SOON, "the routes", || ours(&lab).lines().count() == 2).unwrap();
    reaches(lab.lan(), BEHIND_TUN, FAMILIES.map(|family| lan_host(0, family)));
    // A network that has gone and come back with its device is reached again.
    lab.router().ip(&lines("link set tun0 down")).unwrap();
    assert_eq!(lab.router().sh("ip -4 route show proto 201").unwrap(), "");
    lab.router().ip(&lines("link set tun0 up\naddr add fd98::1/64 dev tun0 nodad")).unwrap();
    wait_until(SOON, "the routes being back", || ours(&lab).lines().count() == 2).unwrap();
    reaches(lab.lan(), BEHIND_TUN, FAMILIES.map(|family| lan_host(0, family)));
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(ours(&lab), "");
    assert_eq!(lab.router().sysctl("net.ipv4.conf.tun0.forwarding").unwrap(), "0");
}
