//! What the config in force says of flows, in words.

use std::fmt::Display;
use std::ops::RangeInclusive;

use balance_common::Family;
use balance_common::layout::LAN_SELF;
use balance_common::packet::protocol;
use ipnet::IpNet;

use super::isp::Isp;
use super::{Core, ipv6, select};
use crate::config::policy::{PolicyConfig, RuleConfig, RuleTarget, lan_number};
use crate::config::{Config, ForwardConfig, Mode, Protocol};
use crate::control::in_force::{ForwardInForce, InForce, MemberInForce, PolicyInForce, RuleInForce};
use crate::nat::forwarded_addresses;

pub(super) fn in_force(core: &Core) -> InForce {
    let config = &core.config;
    let rule = |rule: &RuleConfig| RuleInForce { line: rule.line, text: words(rule, config) };
    InForce {
        lans: config.lans.iter().map(|lan| (lan.device.clone(), lan.name.clone())).collect(),
        rules: config.rules.iter().map(rule).collect(),
        policies: core.policies.iter().map(|(_, one)| (one.name.clone(), policy(core, one))).collect(),
        ipv6: core.isps.values().map(|isp| (isp.config.name.clone(), ipv6::nat(core, isp))).collect(),
        forwards: config.forwards.iter().filter_map(|one| forward(core, one)).collect(),
        firewall: config.firewall.enabled,
    }
}

fn policy(core: &Core, policy: &PolicyConfig) -> PolicyInForce {
    let member = |isp: &Isp| {
        let (weight, tier) = policy.member(&isp.config.name, isp.weight, isp.config.tier)?;
        let carries_enough = isp.meter.reason(&isp.config.metered);
        Some(MemberInForce { isp: isp.config.name.clone(), weight, tier, carries_enough })
    };
    let takers = |family| {
        let takers = select::takers(core, policy, family).into_iter();
        takers.map(|member| (member.isp.get(), member.weight)).collect()
    };
    let mode = match policy.mode.unwrap_or(core.config.mode) {
        Mode::Balanced => "balanced",
        Mode::Failover => "failover",
    };
    PolicyInForce {
        mode: mode.to_owned(),
        members: core.isps.values().filter_map(member).collect(),
        takers: Family::ALL.map(takers),
    }
}

/// None if LAN hosts cannot use it.
fn forward(core: &Core, forward: &ForwardConfig) -> Option<ForwardInForce> {
    let number = |one: &Protocol| match one {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    };
    forward.hairpin.then(|| ForwardInForce {
        addresses: forwarded_addresses(&core.config, &core.network, forward),
        protocols: forward.protocols.iter().map(number).collect(),
        ports: forward.ports.iter().map(|ports| (ports.first, ports.last)).collect(),
        to: forward.to,
        to_port: forward.to_port,
    })
}

/// A rule in the words of the config.
fn words(rule: &RuleConfig, config: &Config) -> String {
    let lan =
        |&number: &u8| match config.lans.iter().enumerate().find(|(place, _)| lan_number(*place) == number) {
            Some((_, lan)) => lan.name.clone(),
            None if number == LAN_SELF => "local".to_owned(),
            None => number.to_string(),
        };
    let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let to = match rule.to {
        RuleTarget::Bypass => "bypass".to_owned(),
        RuleTarget::Policy(place) => {
            config.policies.get(place).map_or_else(String::new, |policy| policy.name.clone())
        }
    };
    let parts = [
        part("source", &rule.source, network),
        part("destination", &rule.destination, network),
        part("protocol", &rule.protocols, |&number| protocol_name(number)),
        part("source_port", &rule.source_ports, range),
        part("port", &rule.destination_ports, range),
        part("lan", &rule.lans, lan),
        part("dscp", &rule.dscps, ToString::to_string),
        Some(format!("to {to}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// A prefix; of a single host, the host.
fn network(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn part<T, D: Display>(key: &str, asked: &[T], word: impl Fn(&T) -> D) -> Option<String> {
    let words: Vec<String> = asked.iter().map(|one| word(one).to_string()).collect();
    (!words.is_empty()).then(|| format!("{key} {}", words.join(", ")))
}

/// What people call a protocol.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::GRE => "gre".to_owned(),
        protocol::ESP => "ipsec".to_owned(),
        number => format!("protocol {number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rules_are_told_in_the_words_of_the_config_with_their_lines() {
        let text = r#"
[[isp]]
name = "CABLE"
device = "eth0"

[[lan]]
name = "HOME"
device = "eth1"

[[rule]]
source = ["192.168.1.0/24", "fd00::7"]
protocol = "tcp"
port = [25, "465-587"]
lan = ["home", "local"]
dscp = "ef"
to = "cable"

[[rule]]
to = "bypass"
"#;
        let config = Config::parse(text, Path::new("balance.toml")).unwrap();
        let told: Vec<_> = config.rules.iter().map(|rule| (rule.line, words(rule, &config))).collect();
        let first = "source 192.168.1.0/24, fd00::7; protocol tcp; port 25, 465-587; lan HOME, local; dscp 46; to CABLE";
        assert_eq!(told, [(10, first.to_owned()), (18, "to bypass".to_owned())]);
    }
}
