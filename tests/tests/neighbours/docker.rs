//! A bridge with a container that has a published port, and the tables that Docker makes with `iptables-nft`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use balance_lab::addresses::{ROUTER_V4, ROUTER_V6, SERVER_PORT};
use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, Host, KINDS, Lab, Server, serve_tcp, serve_udp};

/// Leads to the container's server.
const PUBLISHED: u16 = 8080;

pub(crate) struct Docker {
    _servers: [Server; 3],
    container: Host,
}

impl Docker {
    pub(crate) fn start(lab: &Lab) -> Self {
        let container = Host::new("container").unwrap();
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let link = format!("link add veth1 type veth peer name eth0 netns {}", container.netns());
        lab.router()
            .ip(&lines(&format!(
                "link add docker0 type bridge
                 {link}
                 link set veth1 master docker0 up
                 addr add 172.17.0.1/16 dev docker0
                 addr add fd17::1/64 dev docker0 nodad
                 link set docker0 up"
            )))
            .unwrap();
        container
            .ip(&lines(
                "addr add 172.17.0.2/16 dev eth0
                 addr add fd17::2/64 dev eth0 nodad
                 link set eth0 up
                 route add default via 172.17.0.1
                 route add ::/0 via fd17::1",
            ))
            .unwrap();
        lab.router().sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")]).unwrap();
        let tables = Family::ALL.map(tables).concat();
        lab.router().feed("nft", &["-f", "-"], &tables).context(tables).unwrap();
        let tcp = |any: &str| serve_tcp(&container, SocketAddr::new(any.parse().unwrap(), SERVER_PORT));
        let servers =
            [tcp("0.0.0.0").unwrap(), tcp("::").unwrap(), serve_udp(&container, SERVER_PORT).unwrap()];
        Self { _servers: servers, container }
    }

    pub(crate) fn container(&self) -> &Host {
        &self.container
    }

    /// Connections to the published port, by these ISPs and from the LAN, and from the container to the internet host.
    pub(crate) fn connections(&self, lab: &Lab, isps: &[&str]) -> Vec<Flow> {
        let mut flows = Vec::new();
        for (transport, family) in KINDS {
            let inside: IpAddr = if family == Family::V4 { ROUTER_V4.into() } else { ROUTER_V6.into() };
            let by_isps = isps.iter().map(|isp| (lab.internet(), lab.isp(isp).address(family)));
            for (from, to) in by_isps.chain([(lab.lan(), inside)]) {
                let to = SocketAddr::new(to, PUBLISHED);
                let asked = |text| format!("{transport:?} from {} to {to}: {text}", from.name());
                let mut flow =
                    Flow::open_to(from, transport, to, SOON).with_context(|| asked("closed")).unwrap();
                // The container sees who it is: nobody has translated that.
                let source = flow.ask().with_context(|| asked("silent")).unwrap();
                assert!(!source.is_loopback() && lab.isp_of(source).is_none() && source != inside);
                flows.push(flow);
            }
            let mut flow = Flow::open(&self.container, transport, family, SOON).unwrap();
            let source = flow.ask().with_context(|| format!("{transport:?} from the container")).unwrap();
            assert!(lab.isp_of(source).is_some(), "{source}");
            flows.push(flow);
        }
        flows
    }
}

fn tables(family: Family) -> String {
    let (ip, net, container, to, local) = match family {
        Family::V4 => ("ip", "172.17.0.0/16", "172.17.0.2", "172.17.0.2", "127.0.0.0/8"),
        Family::V6 => ("ip6", "fd17::/64", "fd17::2", "[fd17::2]", "::1"),
    };
    format!(
        "table {ip} nat {{
            chain DOCKER {{
                iifname \"docker0\" counter return
                iifname != \"docker0\" tcp dport {PUBLISHED} counter dnat to {to}:{SERVER_PORT}
                iifname != \"docker0\" udp dport {PUBLISHED} counter dnat to {to}:{SERVER_PORT}
            }}
            chain PREROUTING {{
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local counter jump DOCKER
            }}
            chain OUTPUT {{
                type nat hook output priority -100; policy accept;
                {ip} daddr != {local} fib daddr type local counter jump DOCKER
            }}
            chain POSTROUTING {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname != \"docker0\" {ip} saddr {net} counter masquerade
                {ip} saddr {container} {ip} daddr {container} tcp dport {SERVER_PORT} counter masquerade
            }}
        }}
        table {ip} filter {{
            chain DOCKER {{
                iifname != \"docker0\" oifname \"docker0\" {ip} daddr {container} tcp dport {SERVER_PORT} counter accept
                iifname != \"docker0\" oifname \"docker0\" {ip} daddr {container} udp dport {SERVER_PORT} counter accept
            }}
            chain DOCKER-ISOLATION-STAGE-1 {{
                iifname \"docker0\" oifname != \"docker0\" counter jump DOCKER-ISOLATION-STAGE-2
                counter return
            }}
            chain DOCKER-ISOLATION-STAGE-2 {{
                oifname \"docker0\" counter drop
                counter return
            }}
            chain DOCKER-USER {{
                iifname {{ \"lan0\", \"tun0\" }} counter accept
                oifname {{ \"lan0\", \"tun0\" }} ct state related,established counter accept
                counter return
            }}
            chain FORWARD {{
                type filter hook forward priority filter; policy drop;
                counter jump DOCKER-USER
                counter jump DOCKER-ISOLATION-STAGE-1
                oifname \"docker0\" ct state related,established counter accept
                oifname \"docker0\" counter jump DOCKER
                iifname \"docker0\" oifname != \"docker0\" counter accept
                iifname \"docker0\" oifname \"docker0\" counter accept
            }}
        }}
        "
    )
}
