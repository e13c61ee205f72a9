//! ICMP echo: pings.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;

/// Length of the header of an echo, in bytes.
const HEADER: usize = 8;

/// A flow of ICMP or ICMPv6 echo requests from a host.
pub struct Echo {
    socket: Socket,
    kind: u8,
    asked: u16,
}

impl Echo {
    /// Opens it; nothing was sent yet. Each question may take `timeout`.
    ///
    /// # Errors
    /// When there is no route.
    pub fn open(host: &Host, to: IpAddr, timeout: Duration) -> anyhow::Result<Self> {
        // Whoever runs the lab may ping; the kernel chooses identifiers then, and hands over what belongs to them.
        host.sysctls(&[("net.ipv4.ping_group_range", "0 2147483647")])?;
        let (kind, protocol) = match to {
            IpAddr::V4(_) => (8, Protocol::ICMPV4),
            IpAddr::V6(_) => (128, Protocol::ICMPV6),
        };
        let to = SocketAddr::new(to, 0);
        let socket = host.run(|| -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
            socket.connect(&to.into())?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(timeout))?;
        Ok(Self { socket, kind, asked: 0 })
    }

    /// Pings.
    ///
    /// # Errors
    /// As [`crate::Flow::ask`].
    pub fn ask(&mut self) -> io::Result<()> {
        self.say()?;
        let sequence = self.asked.to_be_bytes();
        let mut answer = [0; 64];
        loop {
            match (&self.socket).read(&mut answer) {
                Ok(length) if answer.get(HEADER - 2..length.min(HEADER)) == Some(&sequence) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                // Of a question before.
                _ => {}
            }
        }
    }

    /// Sends a request without waiting for the answer.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn say(&mut self) -> io::Result<()> {
        self.asked = self.asked.wrapping_add(1);
        let [high, low] = self.asked.to_be_bytes();
        // Checksum and identifier are the kernel's to fill in.
        self.socket.send(&[self.kind, 0, 0, 0, 0, 0, high, low, b'p', b'i', b'n', b'g']).map(drop)
    }
}
