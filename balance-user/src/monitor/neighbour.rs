//! Asks the gateway for its hardware address, by ARP (RFC 826) or neighbour discovery (RFC 4861): whether it is there at all.
//!
//! Not by the kernel's own table: that is for traffic, and a probe should neither depend on it nor change it.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use balance_common::Family;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Failure;
use super::ping::accept_only;
use super::way::Way;

type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Of <linux/if_ether.h> and <linux/if_arp.h>.
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IP: u16 = 0x0800;
const ARPHRD_ETHER: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// ICMPv6 types.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What is known of the gateway's hardware address. An IPv4 gateway that has answered is asked alone; all are asked when it has not.
#[derive(Debug, Default)]
pub(super) struct Neighbour(Mutex<Option<Mac>>);

impl Neighbour {
    /// Asks the gateway of a path; how long its answer took. Waits for ever.
    pub(super) async fn ask(&self, way: &Way) -> Result<Duration, Failure> {
        let nobody = |why: &str| Failure::Inapplicable(why.to_owned());
        let gateway = way.gateway.ok_or_else(|| nobody("there is no gateway to ask"))?;
        let socket = packets(way).map_err(Failure::Send)?;
        let own = hardware_address(&socket).map_err(Failure::Send)?;
        let own = own.ok_or_else(|| nobody("the device has no hardware addresses"))?;
        match (way.family, gateway) {
            (Family::V4, IpAddr::V4(gateway)) => self.arp(way, socket, own, gateway).await,
            (Family::V6, IpAddr::V6(gateway)) => discover(way, own, gateway).await.map_err(Failure::Send),
            (Family::V4, IpAddr::V6(_)) => Err(nobody("the gateway is one of IPv6")),
            (Family::V6, IpAddr::V4(_)) => Err(nobody("the gateway is one of IPv4")),
        }
    }

    async fn arp(&self, way: &Way, socket: Socket, own: Mac, gateway: Ipv4Addr) -> Result<Duration, Failure> {
        let IpAddr::V4(source) = way.source(gateway.into()).await.map_err(Failure::Send)? else {
            return Err(Failure::NoAnswer);
        };
        // Forgotten until it answers again: it may be another machine by then.
        let known = self.known().take();
        let request = arp_request(own, source, gateway);
        let to = link_address(way, known.unwrap_or(BROADCAST));
        let reply = |packet: &[u8]| arp_reply(packet, gateway);
        let (rtt, mac) = converse(socket, &request, &to, reply).await.map_err(Failure::Send)?;
        *self.known() = Some(mac);
        Ok(rtt)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Mac>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn discover(way: &Way, own: Mac, gateway: Ipv6Addr) -> io::Result<Duration> {
    let socket = way.socket(Type::RAW, Protocol::ICMPV6)?;
    accept_only(socket.as_fd(), Family::V6, &[ADVERTISEMENT])?;
    // Whoever gets it must be able to tell that no router was in between.
    socket.set_multicast_hops_v6(255)?;
    let to = way.address(solicited_node(gateway).into(), 0).into();
    let advertised = |packet: &[u8]| is_advertisement(packet, gateway).then_some(());
    let (rtt, ()) = converse(socket, &solicitation(own, gateway), &to, advertised).await?;
    Ok(rtt)
}

/// Sends a packet and waits for what `read` takes for the answer.
async fn converse<T>(
    socket: Socket,
    packet: &[u8],
    to: &SockAddr,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<(Duration, T)> {
    // SAFETY: the descriptor is that of the socket, which is moved in and closed with it.
    let socket =
        unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
    let start = Instant::now();
    socket.get_ref().send_to(packet, to)?;
    let mut buffer = [0; 1500];
    loop {
        let receive = |socket: &Socket| io::Read::read(&mut &*socket, &mut buffer);
        let length = socket.async_io(Interest::READABLE, receive).await?;
        if let Some(answer) = read(buffer.get(..length).unwrap_or_default()) {
            return Ok((start.elapsed(), answer));
        }
    }
}

/// A socket for the ARP packets of the path's device.
fn packets(way: &Way) -> io::Result<Socket> {
    // Without a protocol, or it would get those of all devices until it is bound.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_mark(way.mark)?;
    socket.bind(&link_address(way, BROADCAST))?;
    Ok(socket)
}

/// A hardware address at the path's device.
fn link_address(way: &Way, mac: Mac) -> SockAddr {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut link: libc::sockaddr_ll = unsafe { zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "17")]
    let family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_family = family;
    link.sll_protocol = ETH_P_ARP.to_be();
    link.sll_ifindex = way.index.get().cast_signed();
    link.sll_halen = 6;
    link.sll_addr.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is an address of a socket, as which the storage can be viewed.
    *unsafe { storage.view_as() } = link;
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: family and length are those of the address that is in there.
    unsafe { SockAddr::new(storage, length) }
}

/// The hardware address of the device that a socket is bound to; none if it is not Ethernet.
fn hardware_address(socket: &Socket) -> io::Result<Option<Mac>> {
    let address = socket.local_addr()?;
    if i32::from(address.family()) != libc::AF_PACKET {
        return Ok(None);
    }
    let mut storage = address.as_storage();
    // SAFETY: the family says that it is such an address.
    let link: &libc::sockaddr_ll = unsafe { storage.view_as() };
    let is_ethernet = link.sll_hatype == ARPHRD_ETHER && link.sll_halen == 6;
    Ok(link.sll_addr.first_chunk().copied().filter(|_| is_ethernet))
}

/// Who has this address? Tell that one.
fn arp_request(own: Mac, source: Ipv4Addr, gateway: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(28);
    packet.extend(ARPHRD_ETHER.to_be_bytes());
    packet.extend(ETH_P_IP.to_be_bytes());
    packet.extend([6, 4]);
    packet.extend(REQUEST.to_be_bytes());
    packet.extend(own);
    packet.extend(source.octets());
    packet.extend([0; 6]);
    packet.extend(gateway.octets());
    packet
}

/// The hardware address, if it is the gateway that tells it.
fn arp_reply(packet: &[u8], gateway: Ipv4Addr) -> Option<Mac> {
    let head: &[u8; 8] = packet.first_chunk()?;
    let wanted = [ARPHRD_ETHER.to_be_bytes(), ETH_P_IP.to_be_bytes(), [6, 4], REPLY.to_be_bytes()].concat();
    let mac: &Mac = packet.get(8..14)?.try_into().ok()?;
    let sender: &[u8; 4] = packet.get(14..18)?.try_into().ok()?;
    (head[..] == wanted[..] && *sender == gateway.octets()).then_some(*mac)
}

/// A neighbour solicitation; the kernel fills in the checksum.
fn solicitation(own: Mac, gateway: Ipv6Addr) -> Vec<u8> {
    const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
    let mut packet = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(gateway.octets());
    packet.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
    packet.extend(own);
    packet
}

/// The group that all are in whose address ends like this (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

fn is_advertisement(packet: &[u8], gateway: Ipv6Addr) -> bool {
    packet.first() == Some(&ADVERTISEMENT) && packet.get(8..24) == Some(&gateway.octets()[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 9];
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn reply() -> Vec<u8> {
        let mut packet = arp_request(THEIRS, GATEWAY, Ipv4Addr::new(192, 0, 2, 2));
        packet[7] = 2;
        packet
    }

    #[test]
    fn only_the_gateway_s_reply_is_one() {
        let mut padded = reply();
        padded.extend([0; 18]);
        assert_eq!(arp_reply(&padded, GATEWAY), Some(THEIRS));
        assert_eq!(arp_reply(&padded, Ipv4Addr::new(192, 0, 2, 3)), None);
        assert_eq!(arp_reply(&arp_request(OWN, GATEWAY, GATEWAY), GATEWAY), None);
        for length in 0..18 {
            assert_eq!(arp_reply(&reply()[..length], GATEWAY), None);
        }
    }

    #[test]
    fn only_the_gateway_s_advertisement_is_one() {
        let gateway: Ipv6Addr = "fe80::1:2:3".parse().unwrap();
        let mut packet = solicitation(OWN, gateway);
        assert!(!is_advertisement(&packet, gateway));
        packet[0] = ADVERTISEMENT;
        assert!(is_advertisement(&packet, gateway));
        assert!(!is_advertisement(&packet, "fe80::9".parse().unwrap()));
        assert!(!is_advertisement(&packet[..23], gateway));
        assert_eq!(solicited_node(gateway), "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
    }
}
