//! Floods and scans: one packet each of very many flows.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Host, Transport};

/// Sends one packet to each of these from an address of `host`: a datagram, or a SYN that nothing will follow, for which a
/// reset comes back to whoever answers it. Returns how many were sent.
///
/// # Errors
/// When one cannot be sent.
pub fn flood(
    host: &Host,
    transport: Transport,
    from: IpAddr,
    to: impl Iterator<Item = SocketAddr> + Send,
) -> io::Result<u64> {
    host.run(|| {
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::RAW, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let from = SocketAddr::new(from, 0);
        let socket = Socket::new(Domain::for_address(from), kind, Some(protocol))?;
        // What comes back is nobody's.
        socket.set_recv_buffer_size(1)?;
        socket.bind(&from.into())?;
        let mut sent = 0;
        for to in to {
            match transport {
                Transport::Udp => socket.send_to(b"anyone", &to.into())?,
                // In IPv6, the port of a raw socket would be the protocol.
                Transport::Tcp => socket.send_to(&syn(from.ip(), to), &SocketAddr::new(to.ip(), 0).into())?,
            };
            sent += 1;
        }
        Ok(sent)
    })
}

/// The TCP header of a SYN, with its checksum.
fn syn(from: IpAddr, to: SocketAddr) -> Vec<u8> {
    const SOURCE_PORT: u16 = 4_444;
    const LENGTH: u16 = 20;
    const PROTOCOL: u16 = 6;
    const HEADER_AND_FLAGS: u16 = 0x5002;
    const WINDOW: u16 = 0xffff;
    let header = [SOURCE_PORT, to.port(), 0, 1, 0, 0, HEADER_AND_FLAGS, WINDOW, 0, 0];
    let pseudo_header = [PROTOCOL, LENGTH].into_iter().chain(words(from)).chain(words(to.ip()));
    let sum: u32 = header.into_iter().chain(pseudo_header).map(u32::from).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!((sum & 0xffff) + (sum >> 16))).to_be_bytes();
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u16::to_be_bytes).collect();
    bytes.splice(16..18, [high, low]);
    bytes
}

fn words(address: IpAddr) -> Vec<u16> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ready, serve_tcp, wait_until};
    use std::time::Duration;

    #[test]
    fn a_syn_is_right_and_gets_answered() {
        if !ready() {
            return;
        }
        let host = Host::new("flooded").unwrap();
        for any in ["127.0.0.1:7000", "[::1]:7000"] {
            let to: SocketAddr = any.parse().unwrap();
            let _server = serve_tcp(&host, to).unwrap();
            let resets = || host.sh("nstat -asz TcpOutRsts | awk '/TcpOutRsts/ { print $2 }'").unwrap();
            let before = resets();
            assert_eq!(flood(&host, Transport::Tcp, to.ip(), [to].into_iter()).unwrap(), 1);
            // The server's SYN-ACK is for nobody.
            wait_until(Duration::from_secs(3), "a reset", || resets() != before).unwrap();
        }
    }
}
