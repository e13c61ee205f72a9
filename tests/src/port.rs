//! A port: whole Ethernet frames of one device, sent and received past the machine's own network stack.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use crate::Host;
use crate::packet::{Mac, ether_type};
use crate::wire::milliseconds;

mod frame;
mod raw;

pub use frame::{Cut, Frame, Partial};

/// Room for whatever a test has on the way at once.
const RECEIVE_BUFFER: usize = 16 << 20;

/// One device of a host. The host's own network stack goes on seeing what it receives; let the frames be for an
/// address that is not the device's, and it has nothing to say about them.
pub struct Port {
    socket: Socket,
    mac: Mac,
}

impl Port {
    /// Opens it; frames received from now on wait to be looked at.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(host: &Host, device: &str) -> anyhow::Result<Self> {
        host.run(|| -> anyhow::Result<Self> {
            // Without a protocol, so that nothing is received before the device is known.
            let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
            raw::force_receive_buffer(&socket, RECEIVE_BUFFER)?;
            raw::enable(&socket, libc::PACKET_VNET_HDR)?;
            raw::enable(&socket, libc::PACKET_AUXDATA)?;
            raw::enable(&socket, libc::PACKET_IGNORE_OUTGOING)?;
            let index = nix::net::if_::if_nametoindex(device)?;
            raw::bind(&socket, index)?;
            let mac = raw::mac(&socket)?;
            Ok(Self { socket, mac })
        })
        .with_context(|| format!("cannot open {device} of {} for frames", host.name()))
    }

    /// The device's own address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the kernel does not take it: it is too long for the device, or not consistent.
    pub fn send(&self, frame: &Frame) -> io::Result<()> {
        let bytes = [&frame.header()[..], &frame.bytes].concat();
        let sent = self.socket.send(&bytes)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next frame that has been received; `None` when there is none yet.
    ///
    /// # Errors
    /// When the device is gone, or the kernel says what cannot be.
    pub fn receive(&self) -> io::Result<Option<Frame>> {
        match raw::receive(&self.socket) {
            Ok((bytes, tag)) => {
                let mut frame = Frame::received(&bytes)?;
                if let Some((kind, tag)) = tag {
                    frame.put_tag_back(if kind == 0 { ether_type::VLAN } else { kind }, tag);
                }
                Ok(Some(frame))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a frame that is as wanted and drops those before it; `None` when it does not come in time.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn wait(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> io::Result<Option<Frame>> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(frame) = self.receive()? {
                if wanted(&frame) {
                    return Ok(Some(frame));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], milliseconds(left))?;
        }
    }
}
