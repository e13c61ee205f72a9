//! Who has which address in the lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Family;

/// Where the internet host's servers answer, TCP and UDP.
pub const SERVER_PORT: u16 = 7000;
/// Where the internet host's [`crate::Sink`] counts UDP packets.
pub const SINK_PORT: u16 = 7001;
/// The internet host. All of 203.0.113.0/24 is it.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The internet host. All of 2001:db8:ffff::/64 is it.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The router's address in the LAN, 192.168.1.0/24.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// The router's address in the LAN, fd00:1::/64.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);

/// A port of the internet host.
#[must_use]
pub fn internet(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (INTERNET_V4, port).into(),
        Family::V6 => (INTERNET_V6, port).into(),
    }
}

/// A LAN host's address; the first host is 0 and has .10 and ::10.
#[must_use]
pub fn lan_host(index: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 1, 10 + index).into(),
        // Written in decimal, as in IPv4: ::10, ::11.
        Family::V6 => format!("fd00:1::{}", 10 + u16::from(index)).parse().unwrap_or(ROUTER_V6.into()),
    }
}

/// The net between the router and an ISP, and the one between the ISP and the internet host. The first ISP has the
/// number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IspNet(pub(crate) u8);

impl IspNet {
    /// The router's address at this ISP: what the internet host sees.
    pub(crate) fn router_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.0, 2)
    }

    pub(crate) fn router_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0.into(), 0, 0, 0, 0, 2)
    }

    pub(crate) fn gateway_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.0, 1)
    }

    pub(crate) fn gateway_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0.into(), 0, 0, 0, 0, 1)
    }

    pub(crate) fn prefix_v4(self) -> String {
        format!("100.64.{}.0/24", self.0)
    }

    pub(crate) fn prefix_v6(self) -> String {
        format!("2001:db8:{:x}::/64", self.0)
    }

    /// The ISP's end of the net towards the internet host.
    pub(crate) fn far_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, self.0, 1)
    }

    pub(crate) fn far_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xff00, self.0.into(), 0, 0, 0, 1)
    }

    /// The internet host's end of it.
    pub(crate) fn internet_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, self.0, 2)
    }

    pub(crate) fn internet_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xff00, self.0.into(), 0, 0, 0, 2)
    }

    /// Whether an address is of the net between the router and this ISP.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets().starts_with(&[100, 64, self.0]),
            IpAddr::V6(address) => address.segments().starts_with(&[0x2001, 0xdb8, self.0.into(), 0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isp_knows_its_addresses() {
        let isp = IspNet(2);
        assert!(isp.contains(isp.router_v4().into()) && isp.contains(isp.gateway_v6().into()));
        assert!(!isp.contains(IspNet(1).router_v4().into()) && !isp.contains(INTERNET_V6.into()));
        assert_eq!(isp.prefix_v6(), "2001:db8:2::/64");
    }

    #[test]
    fn lan_hosts_count_from_ten() {
        assert_eq!(lan_host(0, Family::V4).to_string(), "192.168.1.10");
        assert_eq!(lan_host(1, Family::V6).to_string(), "fd00:1::11");
    }
}
