//! Servers that tell whoever asks which address they saw.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};

use crate::Host;
use crate::background::{Background, PATIENCE};
use crate::wire::{Answer, REQUEST, bind_tcp, bind_udp, canonical, local_address, milliseconds};

/// Room for more packets than any test has on the way at once, so that a busy machine loses none here.
const RECEIVE_BUFFER: usize = 64 << 20;
/// The kernel caps it by `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 65_535;

/// A server that answers every request with the source it sees, until it is dropped.
pub struct Server {
    address: SocketAddr,
    _background: Background<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts a TCP server on `host`, of the address's family only; port 0 takes a free one. It can hold as many connections
/// as a process may have open files, but for a few.
///
/// # Errors
/// When the address is not the host's or the port is taken.
pub fn serve_tcp(host: &Host, address: SocketAddr) -> io::Result<Server> {
    let open = move || {
        let socket = bind_tcp(address)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = local_address(&socket)?;
        Ok((TcpListener::from(socket), address))
    };
    let (background, address) = Background::start(host, open, |listener, stop| answer_tcp(&listener, stop))?;
    Ok(Server { address, _background: background })
}

/// Starts a UDP server on every address of `host`; it answers from the address it was asked at.
///
/// # Errors
/// When the port is taken.
pub fn serve_udp(host: &Host, port: u16) -> io::Result<Server> {
    let open = move || {
        let (socket, address) = open_udp(port)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        Ok((socket, address))
    };
    let (background, address) = Background::start(host, open, |socket, stop| answer_udp(&socket, stop))?;
    Ok(Server { address, _background: background })
}

/// A UDP server that never answers and counts what comes, until it is dropped.
pub struct Sink {
    counts: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    _background: Background<()>,
}

impl Sink {
    /// Starts it on every address of `host`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn open(host: &Host, port: u16) -> io::Result<Self> {
        let counts = Arc::<Mutex<BTreeMap<IpAddr, u64>>>::default();
        let count = Arc::clone(&counts);
        let (background, _) = Background::start(
            host,
            move || open_udp(port),
            move |socket, stop| {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if let Some((_, source)) = unless_timeout(socket.recv_from(&mut buffer))? {
                        let mut counts = count.lock().unwrap_or_else(PoisonError::into_inner);
                        *counts.entry(source.ip().to_canonical()).or_default() += 1;
                    }
                }
                Ok(())
            },
        )?;
        Ok(Self { counts, _background: background })
    }

    /// How many packets came from which source address since it was opened.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<IpAddr, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn open_udp(port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = bind_udp(port)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let address = local_address(&socket)?;
    Ok((UdpSocket::from(socket), address))
}

fn answer_udp(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    while !stop.load(Ordering::Relaxed) {
        let mut request = [0; REQUEST];
        let mut parts = [IoSliceMut::new(&mut request)];
        let message =
            recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let Some(message) = unless_timeout(message.map_err(io::Error::from))? else { continue };
        let asked_at = message.cmsgs()?.find_map(|message| match message {
            // Without the device: the answer takes the way that the routes say.
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(libc::in6_pktinfo { ipi6_ifindex: 0, ..info }),
            _ => None,
        });
        let (Some(source), Some(asked_at)) = (message.address, asked_at) else { continue };
        let answer = Answer {
            number: u64::from_be_bytes(request),
            source: canonical(SocketAddr::new(source.ip().into(), source.port())),
        };
        let from = [ControlMessage::Ipv6PacketInfo(&asked_at)];
        // Where an answer cannot be sent the asker will find it missing.
        let _ = sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&answer.encode())],
            &from,
            MsgFlags::empty(),
            Some(&source),
        );
    }
    Ok(())
}

fn answer_tcp(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token(listener.as_raw_fd())))?;
    let mut connections = HashMap::<u64, Connection>::new();
    let mut events = [EpollEvent::empty(); 256];
    while !stop.load(Ordering::Relaxed) {
        let count = wait(&epoll, &mut events)?;
        for event in events.iter().take(count) {
            if event.data() == token(listener.as_raw_fd()) {
                // One that is reset before it is accepted, or is one too many, is not the others' trouble.
                let Ok((stream, peer)) = listener.accept() else { continue };
                stream.set_nonblocking(true)?;
                let token = token(stream.as_raw_fd());
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
                connections.insert(token, Connection { stream, peer: canonical(peer), received: Vec::new() });
            } else if let Some(connection) = connections.get_mut(&event.data())
                && connection.answer().is_err()
            {
                connections.remove(&event.data());
            }
        }
    }
    Ok(())
}

/// A TCP connection to the server.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    received: Vec<u8>,
}

impl Connection {
    /// Answers what has come. An error ends the connection: also one that asks and does not read.
    fn answer(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64];
        let length = self.stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend(buffer.iter().take(length));
        while let Some((request, _)) = self.received.split_first_chunk::<REQUEST>() {
            let answer = Answer { number: u64::from_be_bytes(*request), source: self.peer };
            self.stream.write_all(&answer.encode())?;
            self.received.drain(..REQUEST);
        }
        Ok(())
    }
}

pub(crate) fn wait(epoll: &Epoll, events: &mut [EpollEvent]) -> io::Result<usize> {
    match epoll.wait(events, milliseconds(PATIENCE)) {
        Err(nix::errno::Errno::EINTR) => Ok(0),
        result => Ok(result?),
    }
}

pub(crate) fn token(fd: RawFd) -> u64 {
    u64::from(fd.unsigned_abs())
}

pub(crate) fn unless_timeout<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}
