//! What ISPs do to their customers at night: another lease with another address, another dial-in.
#![cfg(test)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use balance_lab::{
    Child, Daemon, Family, Flow, Flows, Isp, Lab, Transport, Tunnel, open_new_flows, ready, ready_with,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(5);
/// How long a DHCP client may take to find out that its lease is not valid any more and to get another one.
const RENEWAL: Duration = Duration::from_secs(20);
const UP_AFTER: Duration = Duration::from_secs(1);
/// Beside the time that it has to work before it is used: for the first probe, and its neighbours' addresses.
const SLACK: Duration = Duration::from_secs(3);

/// What a DHCP client runs when something has happened to its lease, as on many home routers.
const CLIENT_SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig) ip -4 addr flush dev "$interface" ;;
bound|renew)
    ip addr replace "$ip/$mask" dev "$interface"
    ip route replace default via "$router" dev "$interface" proto dhcp metric 100 ;;
esac
"#;

/// A DHCP server of an ISP: dnsmasq.
fn serve_leases(isp: &Isp, from: Ipv4Addr, to: Ipv4Addr, gateway: Ipv4Addr) -> Child {
    let mut command = isp.host().command("dnsmasq");
    command.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=router"]);
    command.args(["--leasefile-ro", "--dhcp-authoritative", "--no-ping"]);
    command.arg(format!("--dhcp-range={from},{to},255.255.255.0,2m"));
    command.arg(format!("--dhcp-option=option:router,{gateway}"));
    command.stderr(Stdio::null());
    isp.host().spawn(command).unwrap()
}

/// A DHCP client on the router: udhcpc.
fn ask_for_leases(lab: &Lab, isp: &Isp) -> Child {
    // Nobody but the router sees its /run.
    lab.router().feed("sh", &["-c", "cat > /run/dhcp && chmod 755 /run/dhcp"], CLIENT_SCRIPT).unwrap();
    let mut command = lab.router().command("udhcpc");
    command.args(["-f", "-i", &isp.device(), "-t", "20", "-T", "1", "-A", "1", "-s", "/run/dhcp"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    lab.router().spawn(command).unwrap()
}

/// The daemon, which takes ISPs back soon.
fn start(lab: &Lab) -> Daemon {
    let monitor = format!("\n[monitor]\nup_after = \"{}s\"\n", UP_AFTER.as_secs());
    lab.write_config(&format!("{}{monitor}", lab.config())).unwrap();
    lab.start_up().unwrap()
}

/// Flows of both transports and families, those that go by this ISP.
fn flows_by(lab: &Lab, isp: &str) -> Vec<Flow> {
    let mut flows = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for family in [Family::V4, Family::V6] {
            let opened = (0..16).map(|_| Flow::open(lab.lan(), transport, family, SOON).unwrap());
            let there = |flow: &mut Flow| lab.isp_of(flow.ask().unwrap()).is_some_and(|it| it.name() == isp);
            let mut by_it: Vec<Flow> =
                opened.filter_map(|mut flow| there(&mut flow).then_some(flow)).collect();
            assert!(!by_it.is_empty(), "{transport:?} {family:?}");
            flows.append(&mut by_it);
        }
    }
    flows
}

/// Waits until new IPv4 flows are seen as from this address.
fn is_used(lab: &Lab, address: Ipv4Addr, within: Duration) {
    let seen = || -> Vec<IpAddr> {
        let mut flows: Flows = open_new_flows(lab.lan(), 16, Transport::Udp, Family::V4).unwrap();
        flows.ask(Duration::from_millis(300)).into_iter().filter_map(Result::ok).collect()
    };
    wait_until(within, &format!("flows from {address}: {:#}", lab.status().unwrap()), || {
        seen().contains(&address.into())
    })
    .unwrap();
}

#[test]
fn another_lease_with_another_address_and_gateway_is_followed_and_flows_by_others_stay() {
    if !ready_with(&["dnsmasq", "udhcpc"]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let isp = lab.isp("CABLE");
    let [first, second] = [Ipv4Addr::new(100, 64, 1, 50), Ipv4Addr::new(100, 64, 1, 150)];
    let [old, new] = [isp.gateway_v4(), Ipv4Addr::new(100, 64, 1, 254)];
    isp.host().sh(&format!("ip addr add {new}/24 dev router")).unwrap();
    lab.router().sh("ip -4 addr flush dev cable0").unwrap();
    let server = serve_leases(isp, first, first, old);
    let client = ask_for_leases(&lab, isp);
    let has = |address: Ipv4Addr| {
        lab.router().sh("ip -4 addr show dev cable0").unwrap().contains(&format!("{address}/"))
    };
    wait_until(RENEWAL, "the first lease", || has(first)).unwrap();
    let daemon = start(&lab);
    is_used(&lab, first, SOON);
    let mut others = flows_by(&lab, "DSL");

    drop(server);
    let _server = serve_leases(isp, second, second, new);
    // Asks to keep what it has, is told that it cannot, and asks for another one.
    kill(Pid::from_raw(i32::try_from(client.id()).unwrap()), Signal::SIGUSR1).unwrap();
    wait_until(RENEWAL, "the second lease", || has(second)).unwrap();
    isp.host().sh(&format!("ip addr del {old}/24 dev router; ip addr replace {new}/24 dev router")).unwrap();
    is_used(&lab, second, UP_AFTER + SLACK);
    let gateway = new.to_string();
    lab.wait_isp("CABLE", |isp| isp["gateway"] == gateway.as_str()).unwrap();
    for flow in &mut others {
        assert_eq!(lab.isp_of(flow.ask().unwrap()).unwrap().name(), "DSL");
    }
    assert!(!daemon.stderr().contains("WARN"), "{}", daemon.stderr());
}

/// The point-to-point line of an ISP, with the router's address on it.
fn dial(lab: &Lab, isp: &Isp, address: Ipv4Addr) -> Tunnel {
    let (device, gateway) = (isp.device(), isp.gateway_v4());
    let tunnel = Tunnel::between((lab.router(), &device), (isp.host(), "router")).unwrap();
    isp.host()
        .sh(&format!("ip addr add {gateway} peer {address} dev router; ip link set router up"))
        .unwrap();
    lab.router()
        .sh(&format!("ip addr add {address} peer {gateway} dev {device}; ip link set {device} up"))
        .unwrap();
    tunnel
}

fn index(lab: &Lab, device: &str) -> u32 {
    lab.router().run(|| nix::net::if_::if_nametoindex(device)).unwrap()
}

#[test]
fn a_line_that_is_dialled_again_with_another_index_and_address_is_used_again_and_flows_by_others_stay() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let isp = lab.isp("DSL");
    let [first, second] = [Ipv4Addr::new(100, 64, 2, 50), Ipv4Addr::new(100, 64, 2, 150)];
    lab.unplug("DSL").unwrap();
    let line = dial(&lab, isp, first);
    let before = index(&lab, "dsl0");
    let daemon = start(&lab);
    is_used(&lab, first, SOON);
    let mut others = flows_by(&lab, "CABLE");

    drop(line);
    lab.wait_isp("DSL", |isp| isp["state"] == "down").unwrap();
    let _line = dial(&lab, isp, second);
    assert_ne!(index(&lab, "dsl0"), before);
    is_used(&lab, second, UP_AFTER + SLACK);
    for flow in &mut others {
        assert_eq!(lab.isp_of(flow.ask().unwrap()).unwrap().name(), "CABLE");
    }
    assert!(!daemon.stderr().contains("WARN"), "{}", daemon.stderr());
}
