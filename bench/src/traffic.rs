//! What is sent.

use balance_lab::Family;

/// Frames of the shortest IPv4 packets on Ethernet, in bytes, without the frame check sequence.
const SHORT: usize = 60;
/// Frames of IP packets of 1,500 bytes.
const LONG: usize = 1514;
/// Flows of everything that does not say otherwise.
const FLOWS: u32 = 1024;
/// So many flows that none comes again before the kernel has forgotten it.
const ENDLESS: u32 = 1 << 22;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// How it is chosen on the command line.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What it asks of the cases.
    pub group: Group,
    /// IPv4 or IPv6.
    pub family: Family,
    /// ISPs of the cases that balance.
    pub isps: u8,
    /// What is sent.
    pub load: Load,
}

/// What is measured in turn, with labs that stay for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The sizes of packets and new connections.
    Packets,
    /// Growth with the number of flows.
    Flows,
    /// Growth with the number of ISPs: only for cases that balance.
    Isps,
    /// Bulk transfers by TCP.
    Bulk,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// UDP packets that nobody answers, in frames of `length` bytes, of `flows` flows in turn.
    Udp {
        /// Bytes of a frame.
        length: usize,
        /// Flows.
        flows: u32,
    },
    /// UDP packets each of which opens a flow of its own.
    NewFlows,
    /// One TCP connection that sends as much as it can.
    Tcp,
}

impl Load {
    /// Length of a frame in bytes, and number of flows, of what the harness sends.
    #[must_use]
    pub fn frames(self) -> Option<(usize, u32)> {
        match self {
            Self::Udp { length, flows } => Some((length, flows)),
            Self::NewFlows => Some((SHORT, ENDLESS)),
            Self::Tcp => None,
        }
    }

    /// What its figures are of.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Udp { .. } => "ns/packet",
            Self::NewFlows => "ns/connection",
            Self::Tcp => "ns/kB",
        }
    }
}

/// Every kind, in the order in which they are shown.
pub const ALL: [Traffic; 15] = [
    packets("v4-60", "IPv4 UDP, 60 bytes", Family::V4, SHORT),
    packets("v4-1500", "IPv4 UDP, 1,500 bytes", Family::V4, LONG),
    packets("v6-60", "IPv6 UDP, 62 bytes, the shortest", Family::V6, SHORT),
    packets("v6-1500", "IPv6 UDP, 1,500 bytes", Family::V6, LONG),
    Traffic { load: Load::NewFlows, ..packets("new-v4", "IPv4, new connections", Family::V4, SHORT) },
    Traffic { load: Load::NewFlows, ..packets("new-v6", "IPv6, new connections", Family::V6, SHORT) },
    flows("flows-1k", "1,000 flows", 1_000),
    flows("flows-10k", "10,000 flows", 10_000),
    flows("flows-100k", "100,000 flows", 100_000),
    flows("flows-1m", "1,000,000 flows", 1_000_000),
    isps("isps-2", "2 ISPs", 2),
    isps("isps-8", "8 ISPs", 8),
    isps("isps-32", "32 ISPs", 32),
    bulk("tcp-v4", "IPv4 TCP, bulk", Family::V4),
    bulk("tcp-v6", "IPv6 TCP, bulk", Family::V6),
];

const fn packets(name: &'static str, title: &'static str, family: Family, length: usize) -> Traffic {
    Traffic { name, title, group: Group::Packets, family, isps: 2, load: Load::Udp { length, flows: FLOWS } }
}

const fn flows(name: &'static str, title: &'static str, flows: u32) -> Traffic {
    let load = Load::Udp { length: SHORT, flows };
    Traffic { group: Group::Flows, load, ..packets(name, title, Family::V4, SHORT) }
}

const fn isps(name: &'static str, title: &'static str, isps: u8) -> Traffic {
    Traffic { group: Group::Isps, isps, ..packets(name, title, Family::V4, SHORT) }
}

const fn bulk(name: &'static str, title: &'static str, family: Family) -> Traffic {
    Traffic { group: Group::Bulk, load: Load::Tcp, ..packets(name, title, family, LONG) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ALL.iter().map(|traffic| traffic.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
