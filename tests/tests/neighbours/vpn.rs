//! A tun device whose packets go in UDP to the internet host, with the rules and routes that `wg-quick` makes.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use balance_lab::addresses::{INTERNET_V4, SERVER_PORT, lan_host};
use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, KINDS, Lab, Tunnel};

/// The mark of what carries the tunnel, and the number of the table.
const MARK: u32 = 0xca6c;
/// Far machines by it: by a route of the main table, and by one of the VPN's own table.
const BY_MAIN: [&str; 2] = ["10.99.0.1", "fd99::1"];
const BY_TABLE: [&str; 2] = ["198.51.100.1", "2001:db8:5151::1"];

pub(crate) struct Vpn(Tunnel);

impl Vpn {
    pub(crate) fn start(lab: &Lab) -> Self {
        let to = SocketAddr::new(INTERNET_V4.into(), 51820);
        let tunnel = Tunnel::by_udp(lab.router(), lab.internet(), to, MARK).unwrap();
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        lab.router()
            .ip(&lines(&format!(
                "link set tun0 mtu 1420 up
                 addr add 10.98.0.1/32 dev tun0
                 addr add fd98::1/128 dev tun0 nodad
                 route add 10.99.0.0/16 dev tun0
                 route add fd99::/64 dev tun0
                 route add 198.51.100.0/24 dev tun0 table {MARK}
                 route add 2001:db8:5151::/64 dev tun0 table {MARK}"
            )))
            .unwrap();
        for option in ["-4", "-6"] {
            lab.router()
                .sh(&format!(
                    "ip {option} rule add not from all fwmark {MARK:#x} lookup {MARK} pref 8999
                     ip {option} rule add lookup main suppress_prefixlength 0 pref 8998"
                ))
                .unwrap();
        }
        lab.router()
            .sysctls(&[
                ("net.ipv4.conf.all.src_valid_mark", "1"),
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
            ])
            .unwrap();
        let far = BY_MAIN.iter().chain(&BY_TABLE).map(|address| format!("addr add {address} dev tun0"));
        let far = lines("link set tun0 mtu 1420 up").into_iter().chain(far).chain(lines(
            "route add 10.98.0.1 dev tun0
             route add fd98::1 dev tun0
             route add 192.168.1.0/24 dev tun0
             route add fd00:1::/64 dev tun0",
        ));
        lab.internet().ip(&far.collect::<Vec<_>>()).unwrap();
        Self(tunnel)
    }

    /// Has everything go by it, as `wg-quick` does where `AllowedIPs` is everything.
    pub(crate) fn takes_default_route(lab: &Lab) {
        let all = ["0.0.0.0/0", "::/0"].map(|all| format!("route add {all} dev tun0 table {MARK}"));
        lab.router().ip(&all).unwrap();
    }

    /// How many packets the program has read from the device, or from what carries it.
    pub(crate) fn carried(&self) -> u64 {
        self.0.carried()
    }

    /// Connections from the LAN and the router to far machines. Their packets come to the program, untranslated.
    pub(crate) fn connections(&self, lab: &Lab) -> Vec<Flow> {
        let mut flows = Vec::new();
        for (transport, family) in KINDS {
            let own: IpAddr =
                if family == Family::V4 { [10, 98, 0, 1].into() } else { "fd98::1".parse().unwrap() };
            for to in [BY_MAIN, BY_TABLE].map(|to| to[family as usize]) {
                for (from, seen) in [(lab.lan(), lan_host(0, family)), (lab.router(), own)] {
                    let before = self.carried();
                    let to = SocketAddr::new(to.parse().unwrap(), SERVER_PORT);
                    let what = || format!("{transport:?} from {} to {to}", from.name());
                    let mut flow = Flow::open_to(from, transport, to, SOON).with_context(what).unwrap();
                    assert_eq!(flow.ask().with_context(what).unwrap(), seen, "{}", what());
                    assert!(self.carried() >= before + 4, "question and answer, at both ends");
                    flows.push(flow);
                }
            }
        }
        flows
    }
}
