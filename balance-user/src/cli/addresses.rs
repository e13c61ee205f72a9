//! The addresses of this machine.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;

/// The addresses with their prefix lengths, host bits kept, and the devices' names. Unlike [`crate::netlink::watch`] this looks at no
/// routes, of which there may be a million.
pub(super) fn addresses() -> Vec<(String, IpNet)> {
    getifaddrs().into_iter().flatten().filter_map(read).collect()
}

fn read(one: InterfaceAddress) -> Option<(String, IpNet)> {
    let address = ip(one.address.as_ref()?)?;
    let ones = match one.netmask.as_ref().and_then(ip) {
        Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
        Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
        None => u32::from(IpNet::from(address).prefix_len()),
    };
    let net = IpNet::new(address, u8::try_from(ones).ok()?).ok()?;
    Some((one.interface_name, net))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
}
