//! Sockets whose packets leave by one ISP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::time::Duration;

use balance_common::Family;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Failure;
use crate::core::plan::ProberPlan;

/// The priority of probes' packets, by which nft tells them from other sockets' with the same mark. It would mean a class of a queueing
/// discipline with the handle `6261:`; without such a one it is that of any packet.
pub(crate) const PROBE_PRIORITY: u32 = 0x6261_6c00;

/// How the probes of a path leave: by one device, and with a mark. Both are needed: with the mark alone the answer to a probe may
/// be that of another device, with the device alone the kernel may find no route.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) family: Family,
    pub(super) index: NonZeroU32,
    pub(super) mark: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) resolvers: Vec<IpAddr>,
}

impl Way {
    /// The one that is planned. Fails if the device's index is 0.
    pub(super) fn new(family: Family, plan: &ProberPlan) -> io::Result<Self> {
        let index = NonZeroU32::new(plan.index).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { family, index, mark: plan.mark, gateway: plan.gateway, resolvers: plan.resolvers.clone() })
    }

    /// A TCP connection. It leaves no trace when it is dropped: the far end gets a reset, and here no port stays taken.
    pub(super) async fn connect(&self, to: SocketAddr) -> Result<TcpStream, Failure> {
        let connection = |source| Failure::Connection { to, source };
        let socket = self.socket(Type::STREAM, Protocol::TCP).map_err(Failure::Send)?;
        socket.set_linger(Some(Duration::ZERO)).map_err(Failure::Send)?;
        socket.set_tcp_nodelay(true).map_err(Failure::Send)?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await.map_err(connection)
    }

    /// A UDP socket that talks to this host alone.
    pub(super) async fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(Type::DGRAM, Protocol::UDP)?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.connect(to).await?;
        // As a socket of this machine it was given a mark when it was made; if that happens to be ours, it was taken away again
        // since the socket has a device.
        socket2::SockRef::from(&socket).set_mark(self.mark)?;
        Ok(socket)
    }

    /// The address by which this machine is known to a neighbour.
    pub(super) async fn source(&self, to: IpAddr) -> io::Result<IpAddr> {
        const DISCARD: u16 = 9;
        Ok(self.udp(self.address(to, DISCARD)).await?.local_addr()?.ip())
    }

    /// The address of a port of a host. Those of the link are told apart by the device.
    pub(super) fn address(&self, host: IpAddr, port: u16) -> SocketAddr {
        match host {
            IpAddr::V6(host) if host.is_unicast_link_local() || host.is_multicast() => {
                SocketAddrV6::new(host, port, 0, self.index.get()).into()
            }
            host => SocketAddr::new(host, port),
        }
    }

    /// A socket of this way's family, not connected yet.
    pub(super) fn socket(&self, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let domain = match self.family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        match self.family {
            Family::V4 => socket.bind_device_by_index_v4(Some(self.index))?,
            Family::V6 => socket.bind_device_by_index_v6(Some(self.index))?,
        }
        socket.set_mark(self.mark)?;
        socket.set_priority(PROBE_PRIORITY)?;
        Ok(socket)
    }

    /// The hosts of its family.
    pub(super) fn of_family(&self, hosts: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        hosts.into_iter().filter(|host| host.is_ipv4() == (self.family == Family::V4)).collect()
    }
}

/// Well-known name servers, for when the system's are of no use.
pub(super) const PUBLIC_RESOLVERS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];
