//! Which flow is on which ISP, and why: what conntrack knows of a flow and what the maps say in, words out. Pure; the command line
//! gathers the facts.

mod follow;
mod why;

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use balance_common::IspId;
use balance_common::fast::L4;
use balance_common::packet::protocol;
use serde::Serialize;

use crate::conntrack::{Ends, Live};
use crate::core::protocol_name;
use crate::datapath::Incoming;

pub use follow::{Change, Follower};
pub use why::{Chooser, Chosen, PolicyFacts, Rules, Why};

/// A flow. This is the JSON of `flows --json`, but for what has happened to it; null is what is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowTold {
    /// The protocol, in words or `protocol N`.
    pub protocol: String,
    /// Who began it.
    pub source: IpAddr,
    /// Its port, where there are any.
    pub source_port: Option<u16>,
    /// To whom.
    pub destination: IpAddr,
    /// Its port, where there are any.
    pub destination_port: Option<u16>,
    /// The ISP that it is on.
    pub isp: String,
    /// From where the other end sees it come, if that is another address.
    pub seen_as: Option<IpAddr>,
    /// Whether its packets go past the kernel now.
    pub fast: bool,
    /// Bytes in both directions, of a flow that is or was fast only those that went through the kernel.
    pub bytes: Option<u64>,
    /// Packets, likewise.
    pub packets: Option<u64>,
    /// How long ago it began, in seconds.
    pub age: Option<u64>,
    /// Why it is on this ISP.
    pub why: Why,
}

impl FlowTold {
    /// Source and destination, with their ports where there are any.
    #[must_use]
    pub fn ends(&self) -> [String; 2] {
        [(self.source, self.source_port), (self.destination, self.destination_port)].map(|(address, port)| {
            match port {
                None => address.to_string(),
                Some(port) => SocketAddr::new(address, port).to_string(),
            }
        })
    }
}

/// Puts together what is known of a flow. `look` tells whether such packets go fast.
#[must_use]
pub fn tell(
    live: &Live,
    (isp, name): (IspId, &str),
    chooser: &Chooser,
    rules: &impl Rules,
    now: SystemTime,
    look: impl FnOnce(&Incoming) -> bool,
) -> FlowTold {
    let why = chooser.why(isp, &live.flow, rules);
    let sum = |of: fn(&balance_common::layout::Count) -> u64| {
        live.counted.map(|ways| ways.iter().map(of).fold(0, u64::wrapping_add))
    };
    let seen_as = (live.reply.destination != live.original.source).then_some(live.reply.destination);
    let ports = live.original.ports;
    FlowTold {
        protocol: protocol_name(live.protocol),
        source: live.original.source,
        source_port: ports.map(|(source, _)| source),
        destination: live.original.destination,
        destination_port: ports.map(|(_, destination)| destination),
        isp: name.to_owned(),
        seen_as: seen_as.filter(|_| why != Why::CameIn),
        fast: incoming(live, &why).is_some_and(|incoming| look(&incoming)),
        bytes: sum(|count| count.bytes),
        packets: sum(|count| count.packets),
        age: live.begun.map(|begun| now.duration_since(begun).unwrap_or_default().as_secs()),
        why,
    }
}

/// The packets that a LAN host sends; none if they cannot go fast.
fn incoming(live: &Live, why: &Why) -> Option<Incoming> {
    // It is the answers that come from the LAN.
    let Ends { source, destination, ports } = if *why == Why::CameIn { live.reply } else { live.original };
    let echo =
        |kind: u8| (live.flow.source_port != 0).then_some((live.flow.source_port, u16::from(kind) << 8));
    let (l4, ports) = match live.protocol {
        protocol::TCP => (L4::Tcp, ports?),
        protocol::UDP => (L4::Udp, ports?),
        protocol::ICMP => (L4::Echo, echo(8)?),
        protocol::ICMPV6 => (L4::Echo, echo(128)?),
        _ => return None,
    };
    Some(Incoming { source, destination, l4, ports })
}
