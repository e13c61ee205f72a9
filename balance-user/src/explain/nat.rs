//! What becomes of a flow's addresses; as in `nat/table.rs`, `nat/npt.rs` and `nat/forward.rs`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::Ipv6Net;
use serde::Serialize;

use super::{Facts, IspFacts, Way};
use crate::nat::Ipv6Nat;

/// What becomes of a flow's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Nat {
    /// Nothing, by us.
    None,
    /// It is hidden behind an address.
    Masquerade {
        /// Which; none if the device has none.
        seen_as: Option<IpAddr>,
    },
    /// The prefix of its source is exchanged.
    Prefix {
        /// The source after that.
        seen_as: IpAddr,
    },
    /// It exists, and stays as it is.
    Live {
        /// From where the other end sees it come.
        seen_as: SocketAddr,
        /// Whom it reaches.
        sent_to: SocketAddr,
    },
    /// It is forwarded to a host.
    Forward {
        /// The host and its port.
        sent_to: SocketAddr,
    },
    /// Only the daemon knows, and does not answer.
    Unknown,
}

impl Nat {
    /// The source that the other end sees, if it is another one.
    pub(super) const fn seen_as(&self) -> Option<IpAddr> {
        match *self {
            Self::Masquerade { seen_as } => seen_as,
            Self::Prefix { seen_as } => Some(seen_as),
            Self::Live { seen_as, .. } => Some(seen_as.ip()),
            Self::None | Self::Forward { .. } | Self::Unknown => None,
        }
    }
}

pub(super) fn nat(facts: &Facts) -> Nat {
    let question = &facts.question;
    if let Some(live) = facts.tracked() {
        let is_same = Some(live.seen_from.ip()) == question.from && live.sent_to.ip() == question.to;
        return if is_same {
            Nat::None
        } else {
            Nat::Live { seen_as: live.seen_from, sent_to: live.sent_to }
        };
    }
    if let Some(sent_to) = forward(facts) {
        return Nat::Forward { sent_to };
    }
    match (facts.way_out(), question.from) {
        (Some((way, isp)), Some(from)) if !way.addresses.contains(&from) => leaving(facts, way, isp, from),
        _ => Nat::None,
    }
}

/// Of a flow that leaves by an ISP, from an address that the ISP's device does not have.
fn leaving(facts: &Facts, way: &Way, isp: &IspFacts, from: IpAddr) -> Nat {
    let masquerade = Nat::Masquerade { seen_as: way.hides_behind };
    let IpAddr::V6(from) = from else { return masquerade };
    let Some(in_force) = &facts.in_force else { return Nat::Unknown };
    match in_force.ipv6.get(&isp.name) {
        Some(Ipv6Nat::Off) => Nat::None,
        Some(Ipv6Nat::Source { own, .. } | Ipv6Nat::Npt { own, .. }) if own.contains(&from) => Nat::None,
        Some(Ipv6Nat::Npt { mapping, .. }) => {
            let exchanged = mapping.iter().find(|(inside, _)| inside.contains(&from));
            exchanged
                .map_or(masquerade, |(_, outside)| Nat::Prefix { seen_as: exchange(from, *outside).into() })
        }
        Some(Ipv6Nat::Masquerade | Ipv6Nat::Source { .. }) => masquerade,
        None => Nat::Unknown,
    }
}

/// The address with another prefix.
fn exchange(address: Ipv6Addr, prefix: Ipv6Net) -> Ipv6Addr {
    let host = address.to_bits() & prefix.hostmask().to_bits();
    Ipv6Addr::from_bits(prefix.network().to_bits() | host)
}

/// The host that a flow from a LAN to an ISP's address of this machine is forwarded to.
fn forward(facts: &Facts) -> Option<SocketAddr> {
    let question = &facts.question;
    question.lan.as_ref()?;
    let forwards = &facts.in_force.as_ref()?.forwards;
    let forward = forwards.iter().find(|forward| {
        forward.addresses.contains(&question.to)
            && forward.protocols.contains(&question.protocol)
            && forward.ports.iter().any(|&(first, last)| (first..=last).contains(&question.port))
    })?;
    Some(SocketAddr::new(forward.to, forward.to_port.unwrap_or(question.port)))
}
