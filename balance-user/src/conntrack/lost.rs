//! Flows that have lost their ISP. They are cut loose, so that they go on by another one; a TCP connection cannot, so its
//! inside end is told by a reset, which the nft table makes ([`crate::nat::reset`]).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use balance_common::Family;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::entry::Entry;
use super::socket::{ConntrackSocket, mark_attributes};
use super::{ConntrackError, IspMark, Updates, delete_by_mark, netfilter_family};

/// So many segments are sent at once: fewer than a receiver queues that takes them in slowly.
const BURST: usize = 128;
/// The pause between bursts: with it, more than 100,000 segments a second.
const PAUSE: Duration = Duration::from_millis(1);

/// Flows that were cut loose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Open TCP connections, which are told.
    pub connections: usize,
    /// All others.
    pub flows: usize,
}

/// Cuts an ISP's flows of a family loose: open TCP connections get the mark `lost` instead, so that every packet that
/// they send to an ISP is answered with a reset; all other entries are deleted. Returns how many there were.
///
/// Those that nobody has answered yet are deleted as well: asked again, they are opened by another ISP.
pub fn lose(isp: IspMark, family: Family, lost: IspMark) -> Result<Cut, ConntrackError> {
    let wanted = netfilter_family(family);
    let mut updates = Updates::open()?;
    let mut flows = 0;
    ConntrackSocket::open()?.dump(mark_attributes(isp.value(), isp.mask()).to_vec(), |payload| {
        match Entry::parse(payload) {
            Some(entry) if entry.family == wanted && entry.is_open_tcp => {
                updates.push(&entry, mark_attributes(lost.value(), lost.mask()))
            }
            Some(entry) if entry.family == wanted => {
                flows += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    })?;
    let connections = updates.finish()?;
    delete_by_mark(isp, family)?;
    Ok(Cut { connections, flows })
}

/// Has the inside ends of lost connections send a packet, so that they get their reset now and not when they have something
/// to say: each end gets a segment that seems to come from the other one, and that nobody can but answer. The nft table
/// lets none out to an ISP. Returns how many connections were open still.
///
/// What cannot be sent is not: then their next packet has to do.
pub fn provoke(lost: IspMark) -> Result<usize, ConntrackError> {
    let provoker = Provoker::open(lost).map_err(ConntrackError::Refused)?;
    let mut connections = 0;
    ConntrackSocket::open()?.dump(mark_attributes(lost.value(), lost.mask()).to_vec(), |payload| {
        if let Some(entry) = Entry::parse(payload).filter(|entry| entry.is_open_tcp) {
            for (end, other) in entry.ends().into_iter().flatten() {
                provoker.send(other, end);
            }
            connections += 1;
            if connections % BURST == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    })?;
    Ok(connections)
}

/// Raw sockets of both families; none of IPv6 where the kernel has none.
struct Provoker {
    v4: Socket,
    v6: Option<Socket>,
}

impl Provoker {
    /// The sockets' mark lets the nft table know their packets.
    fn open(lost: IspMark) -> io::Result<Self> {
        let open = |domain| {
            // With this protocol the packets come with their IP headers.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            socket.set_mark(lost.value())?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6: open(Domain::IPV6).ok() })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr) {
        let socket = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let (Some(socket), Some(packet)) = (socket, super::segment::segment(from, to)) else { return };
        // One of the two ends is outside, so it is usual that one of the two is not let out.
        let _ = socket.send_to(&packet, &SockAddr::from(SocketAddr::new(to.ip(), 0)));
    }
}
