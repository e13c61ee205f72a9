//! `[firewall]`: what is dropped.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::own;
use super::table::{devices_named, quoted};
use crate::config::{Config, FirewallConfig, LanConfig};

/// The chains, if it is on.
///
/// Only what comes from an ISP's device, and what goes from a LAN to another or to an ISP, is ever dropped: devices of
/// VPNs, containers and other programs are not ours to judge. `accept` means that we have nothing against it; the base chains
/// of other tables have their own say.
///
/// Own rules come first and see every packet, those of flows that exist included, so that one more rule holds for these, too.
pub(super) fn chains(table: &str, config: &Config) -> String {
    let firewall = &config.firewall;
    let isps: Vec<String> = config.isps.iter().filter_map(|isp| quoted(&isp.device)).collect();
    if !firewall.enabled || isps.is_empty() {
        return String::new();
    }
    let isps = isps.join(", ");
    let mut text = anti_spoofing(config, &isps);
    text.push_str(&input(firewall, &isps));
    text.push_str(&forward(config, &isps));
    for (chain, what) in DROPS {
        drop_chain(table, chain, what, firewall.log, &mut text);
    }
    text.push_str(&own::inlined(&firewall.own_rules));
    text
}

/// What is dropped, by the names of the chains that do it and of their counters.
const DROPS: [(&str, &str); 5] = [
    ("spoofed", "From an ISP, with a source address of our own or of a LAN."),
    ("flood", "More pings from outside than are answered."),
    ("to_us", "From an ISP to this machine, and not allowed."),
    ("to_inside", "From an ISP to somewhere else, and not asked for."),
    ("to_others", "From a LAN to a LAN or an ISP that is not in its group."),
];

/// Before conntrack, so that a forged packet does not leave a trace. The routes say which addresses are inside.
/// Link-local addresses are everywhere the same.
fn anti_spoofing(config: &Config, isps: &str) -> String {
    let lans: Vec<String> = config.lans.iter().filter_map(|lan| quoted(&lan.device)).collect();
    let inside = if lans.is_empty() {
        String::new()
    } else {
        format!("\t\tfib saddr oifname {{ {} }} goto drop_spoofed\n", lans.join(", "))
    };
    format!(
        r#"	chain firewall_source {{
		comment "From an ISP: not with an address that is inside."
		type filter hook prerouting priority raw; policy accept;
		iifname {{ {isps} }} ip6 saddr != {{ fe80::/10, :: }} jump source_from_isps
		iifname {{ {isps} }} ip saddr != 0.0.0.0 jump source_from_isps
	}}
	chain source_from_isps {{
		fib saddr type local goto drop_spoofed
{inside}	}}
"#
    )
}

/// To this machine. TCP that claims to go on is let in also where conntrack does not know of it, since it cannot open
/// anything: so a login from before the firewall goes on.
fn input(firewall: &FirewallConfig, isps: &str) -> String {
    let ping = firewall
        .ping
        .map_or(String::new(), |rate| format!("\t\tlimit rate {rate} burst {} packets accept\n", rate.count));
    let services: Vec<String> = firewall
        .allow
        .iter()
        .map(|service| format!("\t\t{} dport {} accept\n", service.protocol, service.ports))
        .collect();
    format!(
        r#"	chain firewall_input {{
		comment "To this machine: own rules, then what comes from ISPs."
		type filter hook input priority filter; policy accept;
		jump own_input
		iifname {{ {isps} }} goto input_from_isps
	}}
	chain input_from_isps {{
		icmp type echo-request goto ping
		icmpv6 type echo-request goto ping
		ct state established,related accept
		tcp flags & (syn | ack) == ack accept
		ct status dnat accept
		icmp type {{ echo-reply, destination-unreachable, time-exceeded, parameter-problem }} accept
		jump needed_icmpv6
		icmpv6 type {{ echo-reply, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} accept
		icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }} ip6 hoplimit 255 accept
		udp sport 67 udp dport 68 accept comment "DHCP"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "DHCPv6"
{}		goto drop_to_us
	}}
	chain ping {{
{ping}		goto drop_flood
	}}
	chain needed_icmpv6 {{
		comment "Without these IPv6 does not work (RFC 4890)."
		icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept
	}}
"#,
        services.concat()
    )
}

/// Through this machine. Whatever has a new destination from NAT was meant to come in: our forwards, and those of others.
fn forward(config: &Config, isps: &str) -> String {
    let lans: Vec<(usize, &LanConfig, String)> = (1..)
        .zip(&config.lans)
        .filter_map(|(number, lan)| Some((number, lan, quoted(&lan.device)?)))
        .collect();
    let mut ways = vec![format!("\t\tiifname {{ {isps} }} goto forward_from_isps\n")];
    ways.extend(
        lans.iter()
            .map(|(number, _, device)| format!("\t\tiifname {device} goto forward_from_lan_{number}\n")),
    );
    let mut text = format!(
        r#"	chain firewall_forward {{
		comment "Through this machine: own rules, then what comes from ISPs and LANs."
		type filter hook forward priority filter; policy accept;
		jump own_forward
		ct state established,related accept
		ct status dnat accept
{}	}}
	chain forward_from_isps {{
		jump needed_icmpv6
		goto drop_to_inside
	}}
"#,
        ways.concat()
    );
    for (number, lan, device) in &lans {
        let reached = reached(config, lan);
        let others =
            config.lans.iter().map(|lan| &lan.device).chain(config.isps.iter().map(|isp| &isp.device));
        let denied: Vec<String> = others
            .filter_map(|other| quoted(other))
            .filter(|other| other != device && !reached.contains(other))
            .collect();
        let rule = if denied.is_empty() {
            String::new()
        } else {
            format!("\t\toifname {{ {} }} goto drop_to_others\n", denied.join(", "))
        };
        let _ = write!(
            text,
            "\tchain forward_from_lan_{number} {{\n\t\tcomment \"From {}: not to whom it shares no group with.\"\n{rule}\t}}\n",
            lan.name
        );
    }
    text
}

/// The devices that a LAN's hosts may open connections to, by its groups.
fn reached(config: &Config, lan: &LanConfig) -> BTreeSet<String> {
    let groups = config.firewall.groups.iter().filter(|group| group.lans.contains(&lan.name));
    groups.flat_map(|group| devices_named(config, group.lans.iter().chain(&group.isps))).collect()
}

/// Counts, logs some of it, drops.
fn drop_chain(table: &str, name: &str, what: &str, log: bool, text: &mut String) {
    let log = if log {
        format!("\t\tlimit rate 10/minute log prefix \"{table} {name}: \"\n")
    } else {
        String::new()
    };
    let _ = write!(
        text,
        r#"	counter {name} {{
	}}
	chain drop_{name} {{
		comment "{what}"
		counter name {name}
{log}		drop
	}}
"#
    );
}
