//! A flow on the fast path lives as long in conntrack as it talks.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use balance_lab::addresses::{SINK_PORT, internet, lan_host};
use balance_lab::{Echo, Family, KINDS, Lab, wait_until};

use crate::support::{FAMILIES, Live, SLACK, SOON, fast_packets, packets, start, with_each};

/// After so much silence conntrack forgets, in seconds.
const TIMEOUT: u64 = 2;
const TIMEOUTS: [&str; 5] = [
    "nf_conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream",
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_icmp_timeout",
    "nf_conntrack_icmpv6_timeout",
];

/// The LAN host's entries of conntrack but for the times: protocol, addresses, ports of both sides, and id.
fn tracked(lab: &Lab) -> Vec<String> {
    let list = FAMILIES.map(|family| {
        let name = if family == Family::V4 { "ipv4" } else { "ipv6" };
        format!("conntrack -L -f {name} -s {} -o id 2>/dev/null;", lan_host(0, family))
    });
    let identity = |line: &str| {
        let words = line.split_whitespace();
        let told = words.filter(|word| word.contains('=') && !word.starts_with("use="));
        told.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<_> = lab.router().sh(&list.concat()).unwrap().lines().map(identity).collect();
    lines.sort();
    lines
}

#[test]
fn a_flow_that_is_fast_for_ten_times_its_timeout_keeps_its_mapping() {
    with_each(|acceleration| {
        let lab = Lab::new().unwrap();
        let _daemon = start(&lab, acceleration, "lease = \"500ms\"");
        let timeout = TIMEOUT.to_string();
        let settings = TIMEOUTS.map(|name| (format!("net.netfilter.{name}"), timeout.as_str()));
        let settings = settings.each_ref().map(|(name, value)| (name.as_str(), *value));
        lab.router().sysctls(&settings).unwrap();

        let mut flows = KINDS.map(|(transport, family)| Live::open(&lab, transport, family));
        let mut echoes =
            FAMILIES.map(|family| Echo::open(lab.lan(), internet(family, 0).ip(), SOON).unwrap());
        let silent = FAMILIES.map(|family| {
            let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = lab.lan().run(|| UdpSocket::bind(any).unwrap());
            socket.connect(internet(family, SINK_PORT)).unwrap();
            socket
        });
        let mut talk = || {
            for live in &mut flows {
                live.stays();
            }
            for echo in &mut echoes {
                echo.ask().unwrap();
            }
            for socket in &silent {
                socket.send(b"anyone").unwrap();
            }
        };
        for _ in 0..20 {
            talk();
        }
        let before = tracked(&lab);
        assert_eq!(before.len(), 8, "{before:#?}");
        let sources = lab.sink().counts().into_keys().collect::<Vec<IpAddr>>();
        let counts = || {
            let slow = lab.isps().iter().map(|isp| packets(&lab, isp.name(), "slow_packets")).sum::<u64>();
            (fast_packets(&lab), slow)
        };
        let (fast_before, slow_before) = counts();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10 * TIMEOUT) {
            talk();
        }
        let (fast, slow) = counts();
        let (fast, slow) = (fast - fast_before, slow - slow_before);
        assert!(fast > 10 * slow, "{fast} fast and {slow} slow packets");
        assert_eq!(tracked(&lab), before);
        assert_eq!(lab.sink().counts().into_keys().collect::<Vec<IpAddr>>(), sources);

        // It is their talking that keeps them.
        let limit = Duration::from_secs(TIMEOUT) + 2 * SLACK;
        wait_until(limit, "conntrack forgetting", || tracked(&lab).is_empty()).unwrap();
    });
}
