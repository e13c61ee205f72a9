//! `[[forward]]`: from outside by every ISP, and from the LANs by the same addresses.
#![cfg(test)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use balance_lab::addresses::{INTERNET_V4, INTERNET_V6, ROUTER_V4, ROUTER_V6, lan_host};
use balance_lab::checks::{SOON, changes};
use balance_lab::{
    Daemon, Dump, Family, Flow, Host, Isp, KINDS, Lab, Office, Server, Transport, ready, serve_tcp,
    serve_udp, wait_until,
};
use nix::sys::signal::Signal;

/// How long to wait for an answer that must not come.
const NEVER: Duration = Duration::from_millis(300);
/// Forwarded to `SERVER` of the first LAN host.
const MOVED: u16 = 6001;
/// Where the LAN host answers.
const SERVER: u16 = 6002;
/// A range that is forwarded as it is; the LAN host answers at the two ends and at a port that is not in it.
const RANGE: (u16, u16) = (6100, 6110);
/// Forwarded at CABLE only.
const CABLE_ONLY: u16 = 6201;
/// Forwarded, but not for the LANs.
const NO_HAIRPIN: u16 = 6202;

/// A lab with two hosts in its LAN, the first of which has servers, and one in another.
struct Scene {
    // First, before its machines.
    _servers: Vec<Server>,
    office: Office,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::builder().lan_hosts(2).build().unwrap();
        let office = Office::join(&lab).unwrap();
        let mut servers = Vec::new();
        for port in [SERVER, RANGE.0, RANGE.1, RANGE.1 + 1] {
            for any in ["0.0.0.0", "::"] {
                servers.push(serve_tcp(server(&lab), SocketAddr::new(any.parse().unwrap(), port)).unwrap());
            }
            servers.push(serve_udp(server(&lab), port).unwrap());
        }
        Self { _servers: servers, office, lab }
    }

    /// The config, with these lines at the top.
    fn config(&self, top: &str) -> String {
        let forwards = [Family::V4, Family::V6].map(|family| {
            let both = format!("protocol = [\"tcp\", \"udp\"]\nto = \"{}\"", lan_host(0, family));
            let moved = format!("{both}\nto_port = {SERVER}");
            format!(
                "[[forward]]\nport = {MOVED}\n{moved}\n\
                 [[forward]]\nport = [5999, \"{}-{}\"]\n{both}\n\
                 [[forward]]\nport = {CABLE_ONLY}\n{moved}\nisps = [\"cable\"]\n\
                 [[forward]]\nport = {NO_HAIRPIN}\n{moved}\nhairpin = false\n",
                RANGE.0, RANGE.1
            )
        });
        format!("{top}\n{}{}{}", self.lab.config(), Office::CONFIG, forwards.concat())
    }

    fn start(&self, top: &str) -> Daemon {
        self.lab.write_config(&self.config(top)).unwrap();
        self.lab.start_up().unwrap()
    }

    fn enter(&self, isp: &Isp, port: u16, (transport, family): (Transport, Family)) -> io::Result<Flow> {
        open(self.lab.internet(), isp.address(family), port, transport, SOON)
    }

    /// New connections of every kind come in by both ISPs, and the server sees who asks.
    fn is_open(&self) {
        for isp in self.lab.isps() {
            for kind in KINDS {
                // Several, since by chance a wrong way back would be right.
                for port in [MOVED, MOVED, MOVED, RANGE.0, RANGE.1] {
                    let what = || format!("{kind:?} to {port} by {}", isp.name());
                    let mut flow = self.enter(isp, port, kind).with_context(what).unwrap();
                    for _ in 0..2 {
                        let seen = flow.ask().with_context(what).unwrap();
                        assert_eq!(seen, internet(kind.1), "{}", what());
                    }
                }
            }
        }
        for isp in self.lab.isps() {
            assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
        }
    }
}

fn server(lab: &Lab) -> &Host {
    lab.lan()
}

fn internet(family: Family) -> IpAddr {
    if family == Family::V4 { INTERNET_V4.into() } else { INTERNET_V6.into() }
}

fn router(family: Family) -> IpAddr {
    if family == Family::V4 { ROUTER_V4.into() } else { ROUTER_V6.into() }
}

fn open(from: &Host, to: IpAddr, port: u16, transport: Transport, timeout: Duration) -> io::Result<Flow> {
    Flow::open_to(from, transport, SocketAddr::new(to, port), timeout)
}

fn is_closed(from: &Host, to: IpAddr, port: u16, transport: Transport) {
    let answer = open(from, to, port, transport, NEVER).and_then(|mut flow| flow.ask());
    assert!(answer.is_err(), "{transport:?} to {to} port {port} is open: {answer:?}");
}

#[test]
fn forwarded_ports_are_open_by_every_isp_and_lead_back_by_the_same() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start("acceleration = \"off\"");
    scene.is_open();
    scene.lab.balance_ok(&["set-weight", "CABLE", "1000"]).unwrap();
    scene.lab.balance_ok(&["down", "DSL"]).unwrap();
    scene.is_open();
    drop(daemon);
}

#[test]
fn forwarded_ports_are_open_by_every_isp_in_failover_mode() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("mode = \"failover\"\nacceleration = \"tc\"");
    assert_eq!(scene.lab.isp_status("DSL").unwrap()["share"].as_f64(), Some(0.0));
    scene.is_open();
}

#[test]
fn forwarded_connections_survive_a_killed_daemon_and_the_next_one_takes_them_over() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start("mode = \"failover\"");
    let mut flows = Vec::new();
    for isp in scene.lab.isps() {
        for kind in KINDS {
            let mut flow = scene.enter(isp, MOVED, kind).unwrap();
            flow.ask().unwrap();
            flows.push(flow);
        }
    }
    let go_on = |flows: &mut Vec<Flow>| {
        for flow in flows {
            flow.ask().unwrap();
        }
        scene.is_open();
    };
    daemon.kill9().unwrap();
    go_on(&mut flows);
    let _daemon = scene.lab.start_up().unwrap();
    go_on(&mut flows);
}

#[test]
fn only_what_is_forwarded_is_open() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("");
    for (transport, family) in KINDS {
        let [cable, dsl] = ["CABLE", "DSL"].map(|name| scene.lab.isp(name).address(family));
        is_closed(scene.lab.internet(), cable, RANGE.1 + 1, transport);
        is_closed(scene.lab.internet(), cable, SERVER, transport);
        is_closed(scene.lab.internet(), dsl, CABLE_ONLY, transport);
        let mut flow = open(scene.lab.internet(), cable, CABLE_ONLY, transport, SOON).unwrap();
        assert_eq!(flow.ask().unwrap(), internet(family));
    }
}

#[test]
fn lan_hosts_reach_forwarded_ports_by_every_address_of_the_isps() {
    if !ready() {
        return;
    }
    for acceleration in ["off", "tc"] {
        let scene = Scene::new();
        let _daemon = scene.start(&format!("acceleration = \"{acceleration}\""));
        let [same, other] = [0, 1].map(|index| &scene.lab.lan_hosts()[index]);
        for (transport, family) in KINDS {
            for isp in scene.lab.isps() {
                let outside = isp.address(family);
                // In the server's own LAN the router stands in for who asks; the server itself is such a one.
                for (from, seen) in [
                    (same, router(family)),
                    (other, router(family)),
                    (scene.office.host(), Office::address(family)),
                ] {
                    for port in [MOVED, RANGE.0] {
                        let what = || format!("{transport:?} {outside} {port} from {}", from.name());
                        let mut flow = open(from, outside, port, transport, SOON).with_context(what).unwrap();
                        for _ in 0..40 {
                            assert_eq!(flow.ask().with_context(what).unwrap(), seen, "{}", what());
                        }
                    }
                }
                is_closed(other, outside, NO_HAIRPIN, transport);
            }
            is_closed(other, scene.lab.isp("DSL").address(family), CABLE_ONLY, transport);
            // The same port of the router's own address is the router's.
            is_closed(other, router(family), MOVED, transport);
            // Without a detour nothing is translated.
            let mut flow = open(scene.office.host(), lan_host(0, family), SERVER, transport, SOON).unwrap();
            assert_eq!(flow.ask().unwrap(), Office::address(family));
        }
    }
}

#[test]
fn lan_hosts_reach_forwarded_ports_by_an_address_that_is_new() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("");
    scene.lab.router().ip(&["addr add 100.64.2.77/24 dev dsl0".to_owned()]).unwrap();
    let ask = |timeout| {
        let mut flow = open(scene.office.host(), [100, 64, 2, 77].into(), MOVED, Transport::Tcp, timeout)?;
        flow.ask()
    };
    wait_until(SOON, "the new address", || ask(NEVER).is_ok()).unwrap();
}

#[test]
fn forwarded_connections_go_fast() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("acceleration = \"tc\"");
    let fast = |isp: &str| scene.lab.isp_status(isp).unwrap()["fast_packets"].as_u64().unwrap();
    for isp in scene.lab.isps() {
        for kind in KINDS {
            let mut flow = scene.enter(isp, MOVED, kind).unwrap();
            let is_fast = || {
                let before = fast(isp.name());
                for _ in 0..20 {
                    assert_eq!(flow.ask().unwrap(), internet(kind.1));
                }
                fast(isp.name()) - before >= 30
            };
            wait_until(SOON, "fast packets", is_fast).with_context(|| format!("{kind:?}")).unwrap();
        }
    }
}

#[test]
fn a_reload_changes_where_ports_lead_and_leaves_connections_alone_and_stop_takes_all_away() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let before = Dump::take(scene.lab.router()).unwrap();
    let daemon = scene.start("");
    let dsl = scene.lab.isp("DSL");
    let mut old = scene.enter(dsl, MOVED, KINDS[0]).unwrap();
    old.ask().unwrap();
    scene.lab.write_config(&scene.config("").replace(&format!("port = {MOVED}\n"), "port = 6009\n")).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    let answered = |port| {
        open(scene.lab.internet(), dsl.address(Family::V4), port, Transport::Tcp, NEVER)
            .is_ok_and(|mut flow| flow.ask().is_ok())
    };
    wait_until(SOON, "the reload", || answered(6009)).unwrap();
    assert!(!answered(MOVED));
    old.ask().expect("a connection that exists stays");
    scene.lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(changes(&scene.lab, &before), Vec::<String>::new());
}
