//! One packet of a conversation, as data.

use balance_lab::packet::{Mac, tcp_flag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The checksum of the IPv4 header.
    Network,
    /// The transport's checksum.
    Transport,
}

/// Who sends it, and what it is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    pub(crate) from: Side,
    /// Bytes of data in it.
    pub(crate) data: usize,
    pub(crate) flags: u8,
    pub(crate) tcp_options: &'static [u8],
    pub(crate) udp_checksum: bool,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u32,
    /// IPv4 options, or an IPv6 header of options for the destination.
    pub(crate) ip_options: bool,
    /// Sent in fragments of so many bytes of payload.
    pub(crate) fragments: Option<usize>,
    pub(crate) tags: &'static [(u16, u16)],
    /// Sent to this address instead of the router's.
    pub(crate) to: Option<Mac>,
    /// Sent to a group.
    pub(crate) is_multicast: bool,
    /// Bytes after the end of the packet.
    pub(crate) padding: usize,
    pub(crate) fault: Option<Fault>,
    /// Its checksum is left to the device.
    pub(crate) is_partial: bool,
    /// It stands for several, with so many bytes of data each.
    pub(crate) cut: Option<u16>,
    /// It is an ICMP error of this type and code about what the other side sent.
    pub(crate) error: Option<(u8, u8)>,
}

impl Shot {
    fn new(from: Side, data: usize) -> Self {
        Self {
            from,
            data,
            flags: tcp_flag::ACK,
            tcp_options: &[],
            udp_checksum: true,
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            flow_label: 0,
            ip_options: false,
            fragments: None,
            tags: &[],
            to: None,
            is_multicast: false,
            padding: 0,
            fault: None,
            is_partial: false,
            cut: None,
            error: None,
        }
    }
}

/// From the client.
pub(crate) fn forth(data: usize) -> Shot {
    Shot::new(Side::Client, data)
}

/// From the server.
pub(crate) fn back(data: usize) -> Shot {
    Shot::new(Side::Server, data)
}

/// Once from each side.
pub(crate) fn both(shot: Shot) -> [Shot; 2] {
    [Side::Client, Side::Server].map(|from| Shot { from, ..shot })
}
