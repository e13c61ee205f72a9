//! What the daemon knows of the machine's network: devices, addresses and default routes, as netlink tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use balance_common::Family;
use ipnet::{IpNet, Ipv6Net};

/// A snapshot of the machine's network, kept current by the netlink watcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Devices by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses that are usable (not tentative, not failed duplicate detection).
    pub addresses: BTreeSet<Address>,
    /// Default routes of others (never those that carry this project's protocol number), of any table.
    pub defaults: BTreeSet<DefaultRoute>,
    /// The prefixes that IPv6 default routes of others are for.
    pub sources: BTreeSet<SourceRoute>,
    /// Destinations of unreachable IPv6 routes. DHCPv6 clients make one for a prefix that was delegated to them.
    pub unreachable: BTreeSet<Ipv6Net>,
}

/// A network device.
#[expect(clippy::struct_excessive_bools, reason = "four flags that the kernel reports one by one")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// It has carrier (`IFF_LOWER_UP` or an operational state of up or unknown).
    pub carrier: bool,
    /// Its packets start with an Ethernet header (`ARPHRD_ETHER`); those of ppp, tun and wg start with IP.
    pub ethernet: bool,
    /// It has just one neighbour, so routes need no gateway (`IFF_POINTOPOINT`, or neither ARP nor Ethernet).
    pub point_to_point: bool,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device's index.
    pub index: u32,
    /// The address with its prefix length, host bits kept. With a peer, that is the length of the peer's prefix.
    pub net: IpNet,
    /// The other end, on point-to-point devices.
    pub peer: Option<IpAddr>,
}

/// A default route that somebody else (a DHCP client, the kernel from a router advertisement, the
/// administrator) has installed; where gateways are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultRoute {
    /// Its family.
    pub family: Family,
    /// The routing table.
    pub table: u32,
    /// Its metric; lower is better.
    pub metric: u32,
    /// The device's index.
    pub index: u32,
    /// The gateway; none on a device-only route.
    pub gateway: Option<IpAddr>,
}

/// An IPv6 default route for packets from one prefix only (`default from PREFIX dev DEVICE`), which says that the prefix
/// is that of the device's ISP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRoute {
    /// The device's index.
    pub index: u32,
    /// The prefix.
    pub prefix: Ipv6Net,
}

impl Address {
    /// The network that it makes the device part of: with a peer, the prefix is the peer's.
    #[must_use]
    pub fn network(&self) -> IpNet {
        let inside = self.peer.unwrap_or(self.net.addr());
        IpNet::new(inside, self.net.prefix_len()).unwrap_or(self.net).trunc()
    }
}

impl Network {
    /// The device of that name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The addresses of a device.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.index == index)
    }
}

/// The family of an address.
#[must_use]
pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
