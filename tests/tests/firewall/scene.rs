//! A lab with a firewall, and who can reach whom there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use balance_lab::addresses::lan_host;
use balance_lab::checks::SOON;
use balance_lab::{Daemon, Family, Flow, Host, Lab, Office, Server, Transport, serve_tcp, serve_udp};

/// How long to wait for an answer that must not come.
pub(crate) const NEVER: Duration = Duration::from_millis(300);
/// Where the router and the LAN hosts answer; the first one is allowed.
pub(crate) const PORTS: [u16; 2] = [6000, 6001];
/// Forwarded to the first LAN host.
pub(crate) const FORWARDED: u16 = 6002;

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A lab with servers on the router and in both of its LANs.
pub(crate) struct Scene {
    // First, before its machines.
    _servers: Vec<Server>,
    pub(crate) office: Office,
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let office = Office::join(&lab).unwrap();
        let mut servers = Vec::new();
        for host in [lab.router(), lab.lan(), office.host()] {
            for port in PORTS {
                for any in ["0.0.0.0", "::"] {
                    servers.push(serve_tcp(host, SocketAddr::new(any.parse().unwrap(), port)).unwrap());
                }
                servers.push(serve_udp(host, port).unwrap());
            }
        }
        // The ISPs, or their other customers, know the way to our LANs.
        for isp in lab.isps() {
            let lines = FAMILIES.map(|family| {
                let lans = if family == Family::V4 { "192.168.0.0/16" } else { "fd00::/16" };
                format!("route add {lans} via {}", isp.address(family))
            });
            isp.host().ip(&lines).unwrap();
        }
        let isp = lab.isp("CABLE").host();
        let far = isp.sh("ip -o -4 addr show internet; ip -o -6 addr show internet scope global").unwrap();
        let far: Vec<&str> = far.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
        let via = |index: usize| far[index].split('/').next().unwrap();
        lab.internet()
            .ip(&[
                format!("route add 192.168.0.0/16 via {}", via(0)),
                format!("route add fd00::/16 via {}", via(1)),
            ])
            .unwrap();
        Self { _servers: servers, office, lab }
    }

    /// The config of a firewall with these lines.
    pub(crate) fn config(&self, firewall: &str) -> String {
        let forward = |family| {
            let to = lan_host(0, family);
            format!(
                "[[forward]]\nport = {FORWARDED}\nprotocol = [\"tcp\", \"udp\"]\nto = \"{to}\"\nto_port = {}\n",
                PORTS[0]
            )
        };
        format!(
            "{}{}{}{}[firewall]\nenabled = true\n{firewall}\n",
            self.lab.config(),
            Office::CONFIG,
            forward(Family::V4),
            forward(Family::V6)
        )
    }

    pub(crate) fn start(&self, firewall: &str) -> Daemon {
        self.lab.write_config(&self.config(firewall)).unwrap();
        self.lab.start_up().unwrap()
    }

    pub(crate) fn reload(&self, daemon: &Daemon, config: &str) {
        daemon.reload(&self.lab, config).unwrap();
    }

    /// How many packets a counter of our table has seen.
    pub(crate) fn count(&self, counter: &str) -> u64 {
        let text = self.lab.router().sh(&format!("nft list counter inet balance {counter}")).unwrap();
        let (_, rest) = text.split_once("packets ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn table(&self) -> String {
        self.lab.router().sh("nft -s list table inet balance").unwrap()
    }
}

fn ask(from: &Host, to: IpAddr, port: u16, transport: Transport, timeout: Duration) -> io::Result<IpAddr> {
    Flow::open_to(from, transport, SocketAddr::new(to, port), timeout)?.ask()
}

pub(crate) fn is_open(from: &Host, to: IpAddr, port: u16, transport: Transport) {
    let answer = ask(from, to, port, transport, SOON);
    answer.with_context(|| format!("{transport:?} from {} to {to} port {port}", from.name())).unwrap();
}

/// Nothing comes back at all, not even a refusal.
pub(crate) fn is_dropped(from: &Host, to: IpAddr, port: u16, transport: Transport) {
    let error = ask(from, to, port, transport, NEVER).expect_err("it is open");
    assert_eq!(
        error.kind(),
        io::ErrorKind::TimedOut,
        "{transport:?} from {} to {to} port {port}",
        from.name()
    );
}

pub(crate) fn router_in_lan(family: Family) -> IpAddr {
    if family == Family::V4 { [192, 168, 1, 1].into() } else { "fd00:1::1".parse().unwrap() }
}
