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

/// To which Ethernet device, and who is meant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// The router, for the other side.
    Router,
    /// This device, for the other side.
    Device(Mac),
    /// A multicast group.
    Group,
}

/// As what the packet is handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    /// In fragments of so many bytes of payload.
    Fragments(usize),
    /// Its checksum is left to the device.
    Unsummed,
    /// It stands for several, with so many bytes of data each.
    Super(u16),
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
    pub(crate) form: Form,
    pub(crate) tags: &'static [(u16, u16)],
    pub(crate) to: To,
    /// Bytes after the end of the packet.
    pub(crate) padding: usize,
    pub(crate) fault: Option<Fault>,
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
            form: Form::Whole,
            tags: &[],
            to: To::Router,
            padding: 0,
            fault: None,
            error: None,
        }
    }

    /// A packet at least as long that has nothing special to it.
    pub(crate) fn ordinary(&self) -> Self {
        let data = if self.ip_options || self.error.is_some() { self.data + 80 } else { self.data };
        let form = if let Form::Fragments(_) = self.form { Form::Whole } else { self.form };
        Self { tcp_options: self.tcp_options, padding: self.padding, form, ..Self::new(self.from, data) }
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
