//! What changes while a flow goes fast is followed within one lease.

use std::time::{Duration, Instant};

use balance_lab::addresses::SERVER_PORT;
use balance_lab::{Family, KINDS, Lab, Transport, serve_udp, wait_until};

use crate::support::{
    FAMILIES, LEASE, Live, SLACK, SOON, config, fast_packets, fast_ways, lab, reload, start, with_each,
};

/// Within which time the kernel's word counts again.
const LIMIT: Duration = LEASE.saturating_add(SLACK);
/// How long nothing more shall happen.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn a_firewall_rule_that_drops_is_obeyed() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for (transport, family) in KINDS {
            // Against the questions, and against the answers.
            for (way, direction) in ["dport", "sport"].into_iter().enumerate() {
                let mut live = Live::open(&lab, transport, family).hasty();
                live.goes_fast(&lab);
                let (protocol, nfproto) = live.names();
                let rule = format!(
                    "table inet firewall {{
                        chain forward {{
                            type filter hook forward priority 0;
                            meta nfproto {nfproto} {protocol} {direction} {SERVER_PORT} counter drop
                        }}
                    }}"
                );
                lab.router().feed("nft", &["-f", "-"], &rule).unwrap();
                let start = Instant::now();
                let mut last = Duration::ZERO;
                // A lost packet may come again by itself, as long as it can.
                while start.elapsed() < LEASE.max(last) + QUIET {
                    if live.flow.ask().is_ok() {
                        last = start.elapsed();
                        assert!(last < LIMIT, "{live} goes on");
                    }
                }
                let isp = live.isp(&lab);
                let fast = || fast_ways(&lab, isp)[way];
                let before = fast();
                assert_eq!(live.ask_for(QUIET), (0, None), "{live}");
                assert_eq!(fast(), before, "{live}");

                lab.router().sh("nft delete table inet firewall").unwrap();
                live.ask_until("answers again", SOON, |answer| answer.is_ok());
                live.stays();
                live.goes_fast(&lab);
            }
        }
    });
}

#[test]
fn a_mapping_that_conntrack_is_told_to_forget_is_made_anew() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for family in FAMILIES {
            let mut live = Live::open(&lab, Transport::Udp, family).hasty();
            live.goes_fast(&lab);
            let deleted = live.conntrack(&lab, "-D");
            assert_eq!(deleted.lines().count(), 1, "{deleted}");
            let start = Instant::now();
            // Its id says nothing: it is made of the entry's place in memory, which may be the same again.
            while live.conntrack(&lab, "-L").is_empty() {
                let _ = live.flow.ask();
                assert!(start.elapsed() < LIMIT, "no other mapping: {live}");
            }
            live.ask_until("answers", LIMIT, |answer| answer.is_ok());
            live.goes_fast(&lab);
            assert_eq!(live.flow.ask().unwrap(), live.source.ip(), "the same bucket, the same ISP");
        }
    });
}

#[test]
fn another_mac_of_the_gateway_or_the_lan_host_is_followed() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for (transport, family) in KINDS {
            let mut live = Live::open(&lab, transport, family).hasty();
            live.goes_fast(&lab);
            let isp = live.isp(&lab);
            for (host, device, routers) in
                [(isp.host(), "router", isp.device()), (lab.lan(), "eth0", "lan0".to_owned())]
            {
                // Whoever has a new one tells everybody, or the kernel itself would go on with the old one for long.
                host.sysctls(&[
                    (&format!("net.ipv4.conf.{device}.arp_notify"), "1"),
                    (&format!("net.ipv6.conf.{device}.ndisc_notify"), "1"),
                ])
                .unwrap();
                let [high, low] = live.flow.local_address().port().to_be_bytes();
                let mac = format!("02:00:00:00:{high:02x}:{low:02x}");
                host.sh(&format!("ip link set {device} address {mac}")).unwrap();
                let option = if family == Family::V4 { "-4" } else { "-6" };
                let list = format!("ip {option} neigh show dev {routers}");
                let known = || lab.router().sh(&list).unwrap().contains(&mac);
                wait_until(SOON, "the kernel knowing the new address", known).unwrap();
                live.ask_until("answers", LIMIT, |answer| answer.is_ok());
                live.goes_fast(&lab);
                live.stays();
            }
        }
    });
}

#[test]
fn a_route_by_another_isp_is_followed() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for family in FAMILIES {
            let mut live = Live::open(&lab, Transport::Udp, family).hasty();
            live.goes_fast(&lab);
            let other = live.other_isp(&lab);
            let route = match family {
                Family::V4 => format!("203.0.113.0/24 via {} dev {}", other.gateway_v4(), other.device()),
                Family::V6 => format!("2001:db8:ffff::/64 via {} dev {}", other.gateway_v6(), other.device()),
            };
            let there = other.address(family);
            lab.router().sh(&format!("ip route add {route}")).unwrap();
            live.ask_until("the other ISP", LIMIT, |answer| answer.is_ok_and(|seen| seen.ip() == there));
            live.goes_fast(&lab);

            // The mark of the new mapping is that ISP's: it stays there.
            lab.router().sh(&format!("ip route del {route}")).unwrap();
            let (answers, last) = live.ask_for(LIMIT);
            assert!(answers > 0 && last.is_some_and(|seen| seen.ip() == there), "{live}: {answers} {last:?}");
            live.goes_fast(&lab);
        }
    });
}

#[test]
fn a_route_into_the_lan_is_followed() {
    with_each(|acceleration| {
        let lab = Lab::builder().lan_hosts(2).build().unwrap();
        let _daemon = start(&lab, acceleration, "");
        let other = &lab.lan_hosts()[1];
        let _server = serve_udp(other, SERVER_PORT).unwrap();
        // It shall not learn the shorter way.
        lab.lan().sysctls(&[("net.ipv4.conf.all.accept_redirects", "0")]).unwrap();
        lab.lan().sysctls(&[("net.ipv4.conf.eth0.accept_redirects", "0")]).unwrap();
        lab.lan().sysctls(&[("net.ipv6.conf.eth0.accept_redirects", "0")]).unwrap();
        for (family, address, near) in [
            (Family::V4, "203.0.113.77/32", "192.168.1.11"),
            (Family::V6, "2001:db8:ffff::77/128", "fd00:1::11"),
        ] {
            let (ip, _) = address.split_once('/').unwrap();
            let to = (ip.parse::<std::net::IpAddr>().unwrap(), SERVER_PORT).into();
            let mut live = Live::open_to(&lab, Transport::Udp, to, family).hasty();
            live.goes_fast(&lab);
            other.sh(&format!("ip addr add {address} dev lo")).unwrap();
            lab.router().sh(&format!("ip route add {address} via {near} dev lan0")).unwrap();
            let own = live.flow.local_address();
            live.ask_until("the machine in the LAN", LIMIT, |answer| answer.is_ok_and(|seen| seen == own));
            let before = fast_packets(&lab);
            let (answers, last) = live.ask_for(QUIET);
            assert!(answers > 50 && last == Some(own), "{live}: {answers} {last:?}");
            assert_eq!(fast_packets(&lab), before, "no ISP has anything to do with it");
        }
    });
}

#[test]
fn a_reload_and_a_new_weight_move_nothing_and_leave_everything_fast() {
    with_each(|acceleration| {
        let (lab, daemon) = lab(acceleration);
        let mut flows: Vec<Live> = KINDS
            .into_iter()
            .flat_map(|(transport, family)| {
                lab.isps().iter().map(move |isp| (isp, transport, family)).collect::<Vec<_>>()
            })
            .map(|(isp, transport, family)| Live::open_by(&lab, isp, transport, family))
            .collect();
        let mut all_stay_fast = || {
            for live in &mut flows {
                live.stays();
                live.goes_fast(&lab);
            }
        };
        all_stay_fast();
        for weight in ["1", "900"] {
            lab.balance_ok(&["set-weight", "CABLE", weight]).unwrap();
            all_stay_fast();
        }
        let config = config(&lab, acceleration, "lease = \"300ms\"");
        reload(&lab, &daemon, &config.replace("weight = 3", "weight = 1\ntier = 2"));
        all_stay_fast();
        // A drained ISP works.
        lab.balance_ok(&["down", "DSL"]).unwrap();
        all_stay_fast();
    });
}

#[test]
fn acceleration_that_is_switched_off_ends_at_once_and_comes_back() {
    with_each(|acceleration| {
        let (lab, daemon) = lab(acceleration);
        let mut flows = KINDS.map(|(transport, family)| Live::open(&lab, transport, family));
        for live in &mut flows {
            live.goes_fast(&lab);
        }
        reload(&lab, &daemon, &config(&lab, "off", ""));
        let before = fast_packets(&lab);
        for live in &mut flows {
            let (answers, last) = live.ask_for(QUIET);
            assert!(answers > 50 && last == Some(live.source), "{live}: {answers} {last:?}");
        }
        assert_eq!(fast_packets(&lab), before);
        reload(&lab, &daemon, &config(&lab, acceleration, ""));
        for live in &mut flows {
            live.goes_fast(&lab);
            live.stays();
        }
    });
}
