//! What traffic of the lab says: a request is a number, the answer is that number and the source the server saw.

use balance_common::Family;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Length of a request in bytes: the number, big endian.
pub(crate) const REQUEST: usize = 8;
/// Length of an answer in bytes: the number, an IPv6 or v4-mapped address and a port, all big endian.
pub(crate) const ANSWER: usize = REQUEST + 16 + 2;

/// How a flow is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// A connected UDP socket.
    Udp,
}

/// Every transport in every family.
pub const KINDS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// Address and port that the server saw a request come from, with the request's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) source: SocketAddr,
}

impl Answer {
    pub(crate) fn encode(self) -> [u8; ANSWER] {
        let address = match self.source.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let bytes = self.number.to_be_bytes().into_iter();
        let bytes = bytes.chain(address.octets()).chain(self.source.port().to_be_bytes());
        let mut answer = [0; ANSWER];
        for (to, from) in answer.iter_mut().zip(bytes) {
            *to = from;
        }
        answer
    }

    /// Takes one answer off the front of `bytes`, if there is a whole one.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk::<16>()?;
        let (port, _) = rest.split_first_chunk()?;
        let address = Ipv6Addr::from(*address).to_canonical();
        let answer = Self {
            number: u64::from_be_bytes(*number),
            source: SocketAddr::new(address, u16::from_be_bytes(*port)),
        };
        bytes.drain(..ANSWER);
        Some(answer)
    }
}

/// The asking end of a flow: a socket that never blocks.
pub(crate) struct Asker {
    pub(crate) socket: Socket,
    transport: Transport,
    received: Vec<u8>,
}

impl Asker {
    /// Makes the socket and starts to connect it, in the calling thread's network namespace.
    pub(crate) fn connect(transport: Transport, to: SocketAddr) -> io::Result<Self> {
        Self::connect_from(transport, None, to)
    }

    /// The same from one of the addresses that the namespace has.
    pub(crate) fn connect_from(
        transport: Transport,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> io::Result<Self> {
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(Self { socket, transport, received: Vec::new() }),
        }
    }

    /// Whether the connection is there; it is an error when there will be none.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            peer => peer.map(|_| true),
        }
    }

    pub(crate) fn send(&self, number: u64) -> io::Result<()> {
        self.socket.send(&number.to_be_bytes()).map(drop)
    }

    /// A request by UDP with so many zeros behind it, of which nobody takes notice.
    pub(crate) fn send_long(&self, number: u64, more: usize) -> io::Result<()> {
        let mut request = number.to_be_bytes().to_vec();
        request.resize(request.len() + more, 0);
        self.socket.send(&request).map(drop)
    }

    /// The next answer, whichever request it is for; `None` when there is none yet.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Answer>> {
        loop {
            if let Some(answer) = Answer::take(&mut self.received) {
                return Ok(Some(answer));
            }
            let mut buffer = [0; 64];
            match io::Read::read(&mut &self.socket, &mut buffer) {
                Ok(0) if self.transport == Transport::Tcp => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend(buffer.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer to this request; older ones that come late are dropped.
    pub(crate) fn receive_number(&mut self, number: u64) -> io::Result<Option<Answer>> {
        while let Some(answer) = self.receive()? {
            if answer.number == number {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }
}

/// A length of time for `poll` and `epoll`, rounded up so that nobody wakes too early and spins.
pub(crate) fn milliseconds(time: Duration) -> u16 {
    u16::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u16::MAX)
}

/// Any address of a family.
pub(crate) fn any(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// A socket bound to an address of the calling thread's namespace, for that address's family only.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket bound to a port of all addresses of both families.
pub(crate) fn bind_udp(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.set_only_v6(false)?;
    socket.bind(&any(Family::V6, port).into())?;
    Ok(socket)
}

/// The local address of a socket.
pub(crate) fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The address of a peer, with IPv4 as IPv4 also where the socket serves both.
pub(crate) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_the_wire_in_pieces() {
        for source in ["100.64.1.2:4000", "[2001:db8:1::2]:65535"] {
            let answer = Answer { number: 0x0102_0304_0506_0708, source: source.parse().unwrap() };
            let wire = answer.encode();
            let mut bytes = wire[..20].to_vec();
            assert_eq!(Answer::take(&mut bytes), None);
            bytes.extend(&wire[20..]);
            bytes.push(7);
            assert_eq!(Answer::take(&mut bytes), Some(answer));
            assert_eq!(bytes, [7]);
        }
    }

    #[test]
    fn a_short_wait_is_rounded_up() {
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_hours(1)), u16::MAX);
    }
}
