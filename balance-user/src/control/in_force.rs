//! What the config in force says, as far as it tells why flows go where they go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::nat::Ipv6Nat;

/// The config in force, and what follows from it and the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The LANs, by their devices.
    pub lans: BTreeMap<String, String>,
    /// The rules, in their order.
    pub rules: Vec<RuleInForce>,
    /// The policies, by name.
    pub policies: BTreeMap<String, PolicyInForce>,
    /// What becomes of the source addresses of IPv6 flows, by the ISPs' names.
    pub ipv6: BTreeMap<String, Ipv6Nat>,
    /// The ports that LAN hosts reach by the ISPs' addresses.
    pub forwards: Vec<ForwardInForce>,
    /// Whether the firewall drops anything.
    pub firewall: bool,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInForce {
    /// The line of the config on which it begins.
    pub line: usize,
    /// What it asks for and where it leads, in the words of the config.
    pub text: String,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// `balanced` or `failover`.
    pub mode: String,
    /// Its ISPs.
    pub members: Vec<MemberInForce>,
    /// By family, the ids and weights of those whose shares are dealt out now, if they are down as well.
    pub takers: [Vec<(u8, u16)>; 2],
}

/// An ISP of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInForce {
    /// Its name.
    pub isp: String,
    /// Its weight in the policy.
    pub weight: u16,
    /// Its tier in the policy.
    pub tier: u8,
    /// Why it waits behind all tiers, if it does.
    pub carries_enough: Option<String>,
}

/// Ports at addresses of this machine that lead LAN hosts to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardInForce {
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The protocols' numbers.
    pub protocols: Vec<u8>,
    /// The first and the last port of each range.
    pub ports: Vec<(u16, u16)>,
    /// The host.
    pub to: IpAddr,
    /// Its port; none: the same.
    pub to_port: Option<u16>,
}
