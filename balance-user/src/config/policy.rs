//! Policies and rules, as configured.

use std::ops::RangeInclusive;
use std::time::Duration;

use balance_common::{Flow, Sticky};
use ipnet::IpNet;

use super::Mode;

/// A named way to choose an ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Its name. That of an ISP, if it stands for that ISP alone.
    pub name: String,
    /// How its ISPs share the flows; none: as the config says for all.
    pub mode: Option<Mode>,
    /// Its ISPs; none: all, with their own weights and tiers.
    pub members: Vec<MemberConfig>,
    /// Which flows stay together.
    pub sticky: Sticky,
    /// What becomes of flows that no ISP can take.
    pub last_resort: LastResort,
    /// What becomes of flows when an ISP is back; none: as the config says for all.
    pub failback: Option<Failback>,
    /// What new flows make of ISPs that are degraded.
    pub degraded: Degraded,
    /// What the weights are; none: as the config says for all.
    pub weights: Option<Weights>,
}

/// How the config calls what stays together.
pub const STICKY: [(&str, Sticky); 4] = [
    ("flow", Sticky::Flow),
    ("source", Sticky::Source),
    ("source-destination", Sticky::SourceDestination),
    ("destination", Sticky::Destination),
];

/// How the config calls what becomes of flows that no ISP can take.
pub const LAST_RESORTS: [(&str, LastResort); 3] =
    [("main", LastResort::Main), ("unreachable", LastResort::Unreachable), ("drop", LastResort::Drop)];

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            name: Self::DEFAULT.to_owned(),
            mode: None,
            members: Vec::new(),
            sticky: Sticky::Flow,
            last_resort: LastResort::Main,
            failback: None,
            degraded: Degraded::Use,
            weights: None,
        }
    }
}

impl PolicyConfig {
    /// The name of the policy of flows that no rule is about.
    pub const DEFAULT: &str = "default";

    /// The policy that stands for an ISP.
    #[must_use]
    pub fn of_isp(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            members: vec![MemberConfig { isp: name.to_owned(), weight: None, tier: None }],
            ..Self::default()
        }
    }

    /// What the policy says of an ISP: its weight and its tier, if it takes part.
    #[must_use]
    pub fn member(&self, isp: &str, weight: u16, tier: u8) -> Option<(u16, u8)> {
        if self.members.is_empty() {
            return Some((weight, tier));
        }
        let member = self.members.iter().find(|member| member.isp == isp)?;
        Some((member.weight.unwrap_or(weight), member.tier.unwrap_or(tier)))
    }
}

/// An ISP of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// The ISP's name.
    pub isp: String,
    /// Its weight in this policy; none: the ISP's own.
    pub weight: Option<u16>,
    /// Its tier in this policy; none: the ISP's own.
    pub tier: Option<u8>,
}

/// What becomes of flows that no ISP can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastResort {
    /// They go where the main table and the weighted default route lead.
    #[default]
    Main,
    /// Their senders are told that there is no way (ICMP unreachable).
    Unreachable,
    /// Their packets are dropped.
    Drop,
}

/// What becomes of flows that have gone elsewhere, when the ISP that they would have otherwise is usable again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// They stay where they are.
    #[default]
    Keep,
    /// They move once they have been idle for so long.
    Idle(Duration),
    /// They move at once.
    Now,
}

/// What new flows make of ISPs that are degraded. Flows that exist stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Degraded {
    /// Nothing.
    #[default]
    Use,
    /// They use them for a quarter of their weight.
    Reduce,
    /// They use them only if no other one is usable.
    Avoid,
}

/// What the weights are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Those of the config.
    #[default]
    Fixed,
    /// Those, times what the ISP is worth by the latency and the loss that are measured.
    Quality,
}

/// What traffic uses which policy. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleConfig {
    /// Source prefixes.
    pub source: Vec<IpNet>,
    /// Destination prefixes.
    pub destination: Vec<IpNet>,
    /// Protocol numbers (IANA).
    pub protocols: Vec<u8>,
    /// Source ports.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Destination ports.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// LANs, by [`lan_number`]; [`balance_common::layout::LAN_SELF`] is this machine itself.
    pub lans: Vec<u8>,
    /// DSCPs (RFC 2474).
    pub dscps: Vec<u8>,
    /// Where it leads.
    pub to: RuleTarget,
    /// The line of the config on which it begins, from 1; 0 if it is of none.
    pub line: usize,
}

/// Where a rule leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleTarget {
    /// To the policy at this place in [`super::Config::policies`].
    Policy(usize),
    /// Past all policies: the flow is not steered.
    #[default]
    Bypass,
}

/// The number by which rules and maps know a LAN, from its place in [`super::Config::lans`].
#[must_use]
pub fn lan_number(place: usize) -> u8 {
    u8::try_from(place + 1).unwrap_or(u8::MAX)
}

impl RuleConfig {
    /// Is the rule about this flow, which comes from that LAN, with that DSCP?
    #[must_use]
    pub fn is_about(&self, flow: &Flow, lan: u8, dscp: u8) -> bool {
        fn asks<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(fits)
        }
        asks(&self.source, |prefix| contains(*prefix, flow, flow.source))
            && asks(&self.destination, |prefix| contains(*prefix, flow, flow.destination))
            && asks(&self.protocols, |&protocol| protocol == flow.protocol)
            && asks(&self.source_ports, |range| range.contains(&flow.source_port))
            && asks(&self.destination_ports, |range| range.contains(&flow.destination_port))
            && asks(&self.lans, |&one| one == lan)
            && asks(&self.dscps, |&one| one == dscp)
    }
}

/// Is this address of the flow in the prefix?
pub(crate) fn contains(prefix: IpNet, flow: &Flow, address: balance_common::Address) -> bool {
    use std::net::{IpAddr, Ipv6Addr};
    let v6 = Ipv6Addr::from(address.octets());
    let address = match flow.family {
        balance_common::Family::V4 => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        balance_common::Family::V6 => IpAddr::V6(v6),
    };
    prefix.contains(&address)
}
