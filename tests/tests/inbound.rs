//! Connections from outside: replies leave by the ISP that the connection came in on, whatever is chosen for new
//! flows. Anything else would be dropped by the ISPs of the lab, as by real ones.
#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use balance_lab::addresses::{INTERNET_V4, INTERNET_V6, lan_host};
use balance_lab::{Family, Flow, Isp, KINDS, Lab, Server, Transport, ready, serve_tcp, serve_udp};

const SOON: Duration = Duration::from_secs(3);
/// Where a server of the router answers.
const ROUTER_PORT: u16 = 6000;
/// What the router forwards to `LAN_PORT` of the LAN host.
const FORWARDED_PORT: u16 = 6001;
const LAN_PORT: u16 = 6002;

/// A lab with servers on the router and, behind a port forward that somebody else has set up, in the LAN.
struct Scene {
    // First, before its machines.
    _servers: Vec<Server>,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let mut servers = Vec::new();
        for (host, port) in [(lab.router(), ROUTER_PORT), (lab.lan(), LAN_PORT)] {
            for any in ["0.0.0.0", "::"] {
                servers.push(serve_tcp(host, SocketAddr::new(any.parse().unwrap(), port)).unwrap());
            }
            servers.push(serve_udp(host, port).unwrap());
        }
        let [v4, v6] = [Family::V4, Family::V6].map(|family| SocketAddr::new(lan_host(0, family), LAN_PORT));
        let forward = format!(
            "table inet forward {{
                chain in {{
                    type nat hook prerouting priority dstnat; policy accept;
                    iifname {{ cable0, dsl0 }} meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip to {v4}
                    iifname {{ cable0, dsl0 }} meta nfproto ipv6 meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip6 to {v6}
                }}
            }}"
        );
        lab.router().feed("nft", &["-f", "-"], &forward).unwrap();
        Self { _servers: servers, lab }
    }

    /// A connection from the internet host to the router's address at an ISP.
    fn enter(&self, isp: &Isp, port: u16, transport: Transport, family: Family) -> std::io::Result<Flow> {
        Flow::open_to(self.lab.internet(), transport, SocketAddr::new(isp.address(family), port), SOON)
    }

    /// New connections of every kind come in by both ISPs and are answered.
    fn is_open(&self) {
        for isp in self.lab.isps() {
            for (transport, family) in KINDS {
                for port in [ROUTER_PORT, FORWARDED_PORT] {
                    // Several, since by chance a wrong choice would be right.
                    for _ in 0..6 {
                        let flow = self.enter(isp, port, transport, family);
                        answered(flow, family)
                            .with_context(|| {
                                format!("{transport:?} {family:?} to port {port} by {}", isp.name())
                            })
                            .unwrap();
                    }
                }
            }
        }
        for isp in self.lab.isps() {
            let forwarded = isp.forwarded().unwrap();
            assert_eq!(forwarded.foreign, 0, "{}: {forwarded:?}", isp.name());
        }
    }
}

fn answered(flow: std::io::Result<Flow>, family: Family) -> anyhow::Result<()> {
    let mut flow = flow.context("not opened")?;
    for _ in 0..2 {
        let seen = flow.ask()?;
        let expected: IpAddr = if family == Family::V4 { INTERNET_V4.into() } else { INTERNET_V6.into() };
        anyhow::ensure!(seen == expected, "the server saw {seen}");
    }
    Ok(())
}

#[test]
fn replies_leave_by_the_isp_they_came_in_on() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.lab.start_up().unwrap();
    scene.is_open();
}

#[test]
fn replies_leave_by_an_isp_of_tiny_weight() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.lab.start_up().unwrap();
    scene.lab.balance_ok(&["set-weight", "CABLE", "1000"]).unwrap();
    scene.is_open();
}

#[test]
fn replies_leave_by_an_isp_that_is_forced_down() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.lab.start_up().unwrap();
    scene.lab.balance_ok(&["down", "DSL"]).unwrap();
    scene.is_open();
}

#[test]
fn replies_leave_by_an_isp_on_standby_and_by_one_whose_probes_fail() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let config = scene.lab.config().replace("device = \"dsl0\"", "device = \"dsl0\"\ntier = 2");
    // Nobody answers at CABLE's targets, so all is DSL's, though CABLE's line works.
    let dead =
        config.replacen("203.0.113.1", "198.51.100.1", 1).replacen("2001:db8:ffff::1", "2001:db8::9", 1);
    scene.lab.write_config(&config).unwrap();
    let daemon = scene.lab.start_up().unwrap();
    assert_eq!(scene.lab.isp_status("DSL").unwrap()["share"].as_f64(), Some(0.0));
    scene.is_open();

    scene.lab.write_config(&dead).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    scene.lab.wait_state("CABLE", "down").unwrap();
    scene.is_open();
}

#[test]
fn connections_from_outside_stay_while_everything_about_their_isp_changes() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    let _daemon = lab.start_up().unwrap();
    let mut flows = Vec::new();
    for isp in lab.isps() {
        for (transport, family) in KINDS {
            for port in [ROUTER_PORT, FORWARDED_PORT] {
                flows.push(scene.enter(isp, port, transport, family).unwrap());
            }
        }
    }
    for command in [
        &["set-weight", "DSL", "1000"][..],
        &["set-weight", "CABLE", "1000"],
        &["down", "CABLE"],
        &["auto", "CABLE"],
        &["down", "DSL"],
        &["up", "DSL"],
    ] {
        lab.balance_ok(command).unwrap();
        for flow in &mut flows {
            flow.ask().with_context(|| format!("after {command:?}")).unwrap();
        }
    }
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    for flow in flows.iter_mut().skip(KINDS.len() * 2) {
        flow.ask().expect("DSL's connections do not notice that CABLE is dead");
    }
}
