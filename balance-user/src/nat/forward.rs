//! `[[forward]]`: ports of the ISPs' addresses that lead to hosts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::table::{devices_named, quoted};
use crate::config::{Config, ForwardConfig, Protocol};
use crate::core::is_link_local;
use crate::core::network::{Network, family_of};

/// The chains. From outside, whatever address of this machine a packet is for counts, so that a new address needs
/// nobody to tell; from the LANs the ISPs' addresses do, because a port of the LAN's own address is something else.
///
/// A server in the LAN of the one who asks would answer past this machine, with an address that was never asked, so there
/// the one who asks is masqueraded. From everywhere else the server sees who asks.
///
/// At priority -101, before the destination NAT of others (-100), as the rest of ours comes before theirs.
pub(super) fn chains(config: &Config, network: &Network) -> String {
    if config.forwards.is_empty() {
        return String::new();
    }
    let lans: Vec<String> = config.lans.iter().filter_map(|lan| quoted(&lan.device)).collect();
    let (mut inward, mut hairpin) = (String::new(), String::new());
    for forward in &config.forwards {
        for &protocol in &forward.protocols {
            rules(config, network, &lans, (forward, protocol), &mut inward, &mut hairpin);
        }
    }
    let mut text = format!(
        r#"	chain forwards {{
		comment "New flows to forwarded ports: on to their host."
		type nat hook prerouting priority -101; policy accept;
{inward}	}}
"#
    );
    if !hairpin.is_empty() {
        let same_lan: Vec<String> = lans.iter().map(|lan| format!("{lan} . {lan}")).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"	chain hairpin {{
		comment "New flows that a forward sends back into their own LAN: replies must come by this machine."
		type nat hook postrouting priority 99; policy accept;
		iifname . oifname {{ {} }} ct status dnat jump hairpin_hosts
	}}
	chain hairpin_hosts {{
{hairpin}	}}
"#,
            same_lan.join(", ")
        );
    }
    text
}

/// The rules of one forward for one protocol.
fn rules(
    config: &Config,
    network: &Network,
    lans: &[String],
    (forward, protocol): (&ForwardConfig, Protocol),
    inward: &mut String,
    hairpin: &mut String,
) {
    let ports: Vec<String> = forward.ports.iter().map(ToString::to_string).collect();
    let ports = ports.join(", ");
    let (nfproto, ip) = if forward.to.is_ipv4() { ("ipv4", "ip") } else { ("ipv6", "ip6") };
    let to = forward.to;
    let target = match (to, forward.to_port) {
        (_, None) => to.to_string(),
        (IpAddr::V4(_), Some(port)) => format!("{to}:{port}"),
        (IpAddr::V6(_), Some(port)) => format!("[{to}]:{port}"),
    };
    let isps = devices_named(config, &forward.isps);
    let _ = writeln!(
        inward,
        "\t\tiifname {{ {} }} fib daddr type local meta nfproto {nfproto} {protocol} dport {{ {ports} }} dnat {ip} to {target}",
        isps.join(", ")
    );
    let outside = outside(config, network, forward);
    if !forward.hairpin || lans.is_empty() || outside.is_empty() {
        return;
    }
    let outside: Vec<String> = outside.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        inward,
        "\t\tiifname {{ {} }} {ip} daddr {{ {} }} {protocol} dport {{ {ports} }} dnat {ip} to {target}",
        lans.join(", "),
        outside.join(", ")
    );
    let there = forward.to_port.map_or(ports, |port| port.to_string());
    let _ = writeln!(hairpin, "\t\t{ip} daddr {to} {protocol} dport {{ {there} }} masquerade");
}

/// The addresses of this machine at the forward's ISPs, in the family of its host.
pub(crate) fn outside(config: &Config, network: &Network, forward: &ForwardConfig) -> BTreeSet<IpAddr> {
    let isps = config.isps.iter().filter(|isp| forward.isps.contains(&isp.name));
    isps.filter_map(|isp| network.link_named(&isp.device))
        .flat_map(|link| network.addresses_of(link.index))
        .map(|address| address.net.addr())
        .filter(|&address| family_of(address) == family_of(forward.to) && !is_link_local(address))
        .collect()
}
