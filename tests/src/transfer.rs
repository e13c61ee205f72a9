//! TCP transfers: each end sends bytes that the other one knows, and compares them as they come.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::mem;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;

use crate::Host;
use crate::background::Background;
use crate::server::{BACKLOG, token, unless_timeout, wait};
use crate::wire::{ANSWER, Answer, Asker, Transport, bind_tcp, canonical};

/// How much is read or written at once.
const CHUNK: usize = 1 << 14;
/// After so many bytes the pattern begins again: a prime, so that nothing else has this period.
const PERIOD: usize = 65_521;
/// What a client says first: where in the pattern it begins.
const SEED: usize = size_of::<u64>();

/// Transfers from a host, in the background.
pub struct Transfers(Background<Vec<io::Result<Transferred>>>);

/// A transfer that arrived intact, both ways, and was ended in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// The address that the server saw it come from.
    pub source: IpAddr,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
    /// Segments that had to be sent again to the server because they were lost.
    pub lost: u32,
}

/// What a server of transfers has seen of the connections from one address, of those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What arrived intact.
    pub intact: usize,
    /// What did not: reset, or with other bytes than were sent.
    pub broken: usize,
    /// Segments that had to be sent again from the server because they were lost.
    pub lost: u32,
}

/// A server of transfers, until it is dropped.
pub struct TransferServer {
    tallies: Arc<Mutex<BTreeMap<IpAddr, Tally>>>,
    _background: Background<()>,
}

impl Transfers {
    /// Starts a transfer to each of these servers, all at once. Each ends when `bytes` have gone both ways, or with
    /// [`Transfers::stop`]; what is not done after `timeout` is an error. Each sends so many bytes a second at most.
    ///
    /// # Errors
    /// When a connection cannot be tried.
    pub fn start(
        host: &Host,
        to: Vec<SocketAddr>,
        bytes: u64,
        rate: u32,
        timeout: Duration,
    ) -> io::Result<Self> {
        let open = move || {
            let mut pumps = Pumps::new()?;
            for (to, number) in to.into_iter().zip(0..) {
                let socket = Asker::connect(Transport::Tcp, to)?.socket;
                set_rate(&socket, rate)?;
                pumps.add(number, Pump::client(socket, number))?;
            }
            Ok((pumps, ()))
        };
        let work = move |pumps: Pumps, stop: &AtomicBool| pumps.run(bytes, Instant::now() + timeout, stop);
        let (background, ()) = Background::start(host, open, work)?;
        Ok(Self(background))
    }

    /// Waits for their ends, in the order of the servers.
    ///
    /// # Errors
    /// When their thread failed.
    pub fn wait(self) -> io::Result<Vec<io::Result<Transferred>>> {
        self.0.wait()
    }

    /// Has them end now, and waits for that.
    ///
    /// # Errors
    /// When their thread failed.
    pub fn stop(self) -> io::Result<Vec<io::Result<Transferred>>> {
        self.0.stop()
    }
}

impl TransferServer {
    /// Starts it on `host`. Each connection sends so many bytes a second at most.
    ///
    /// # Errors
    /// When the address is not the host's or the port is taken.
    pub fn start(host: &Host, address: SocketAddr, rate: u32) -> io::Result<Self> {
        let tallies = Arc::<Mutex<BTreeMap<IpAddr, Tally>>>::default();
        let shared = Arc::clone(&tallies);
        let open = move || {
            let socket = bind_tcp(address)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok((socket, ()))
        };
        let (background, ()) = Background::start(host, open, move |listener, stop| {
            serve(&listener, rate, stop, |source, lost| {
                let mut tallies = shared.lock().unwrap_or_else(PoisonError::into_inner);
                tallies.entry(source).or_default().add(lost);
            })
        })?;
        Ok(Self { tallies, _background: background })
    }

    /// What it has seen so far, by source address.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<IpAddr, Tally> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tally {
    fn add(&mut self, lost: Option<u32>) {
        self.lost += lost.unwrap_or_default();
        *(if lost.is_some() { &mut self.intact } else { &mut self.broken }) += 1;
    }
}

/// Accepts connections and pumps, until it shall stop. `tell` gets how many segments each connection lost; none if it broke.
fn serve(
    listener: &Socket,
    rate: u32,
    stop: &AtomicBool,
    tell: impl Fn(IpAddr, Option<u32>),
) -> io::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let mut pumps = Pumps::new()?;
    pumps.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut sources = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    while !stop.load(Ordering::Relaxed) {
        let count = wait(&pumps.epoll, &mut events)?;
        for event in events.iter().take(count) {
            if event.data() != LISTENER {
                let ended = pumps.turn(*event, u64::MAX);
                if let (Some(ended), Some(source)) = (ended, sources.get(&event.data())) {
                    tell(*source, ended.ok().map(|pump| lost(&pump.socket)));
                }
            } else if let Ok((socket, peer)) = listener.accept()
                && let Some(peer) = peer.as_socket().map(canonical)
            {
                socket.set_nonblocking(true)?;
                set_rate(&socket, rate)?;
                let token = token(socket.as_raw_fd());
                sources.insert(token, peer.ip());
                pumps.add(token, Pump::server(socket, peer))?;
            }
        }
    }
    Ok(())
}

/// Many connections, by number.
struct Pumps {
    epoll: Epoll,
    pumps: HashMap<u64, Pump>,
}

impl Pumps {
    fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, pumps: HashMap::new() })
    }

    fn add(&mut self, number: u64, pump: Pump) -> io::Result<()> {
        self.epoll.add(&pump.socket, EpollEvent::new(pump.interest(u64::MAX), number))?;
        self.pumps.insert(number, pump);
        Ok(())
    }

    /// Pumps until all transfers have ended, which they do after so many bytes, or when they shall stop.
    fn run(
        mut self,
        bytes: u64,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> io::Result<Vec<io::Result<Transferred>>> {
        let count = self.pumps.len();
        let mut outcomes = BTreeMap::new();
        let mut events = [EpollEvent::empty(); 256];
        while !self.pumps.is_empty() && Instant::now() < deadline {
            let ready = wait(&self.epoll, &mut events)?;
            let bytes = if stop.load(Ordering::Relaxed) { 0 } else { bytes };
            for event in events.iter().take(ready) {
                if let Some(ended) = self.turn(*event, bytes) {
                    outcomes.insert(event.data(), ended.and_then(Pump::transferred));
                }
            }
        }
        let late = || Err(io::ErrorKind::TimedOut.into());
        Ok((0..count).map(|number| outcomes.remove(&(number as u64)).unwrap_or_else(late)).collect())
    }

    /// Reads and writes once where that is possible. What has ended is taken out.
    fn turn(&mut self, event: EpollEvent, bytes: u64) -> Option<io::Result<Pump>> {
        let pump = self.pumps.get_mut(&event.data())?;
        let before = pump.interest(bytes);
        match pump.turn(event.events(), bytes) {
            Ok(false) => {
                let now = pump.interest(bytes);
                if now != before {
                    let mut event = EpollEvent::new(now, event.data());
                    // It is registered, so this does not fail.
                    let _ = self.epoll.modify(&pump.socket, &mut event);
                }
                None
            }
            ended => {
                let pump = self.pumps.remove(&event.data())?;
                Some(ended.map(|_| pump))
            }
        }
    }
}

/// One end of a connection.
struct Pump {
    socket: Socket,
    /// What is left to be said before the pattern.
    greeting: Vec<u8>,
    /// What was said to us before it, and how long that is to be.
    greeted: Vec<u8>,
    greeted_length: usize,
    /// Where in the pattern we begin and where the other end does; a server learns that from its client.
    seed: Option<(u64, u64)>,
    sent: u64,
    received: u64,
    /// We send no more.
    finished: bool,
}

impl Pump {
    fn client(socket: Socket, number: u64) -> Self {
        // Far apart, so that no connection could take another one's bytes for its own.
        let seed = number * 61;
        Self { seed: Some(seeds(seed)), ..Self::new(socket, seed.to_be_bytes().to_vec(), ANSWER) }
    }

    fn server(socket: Socket, source: SocketAddr) -> Self {
        Self::new(socket, Answer { number: 0, source }.encode().to_vec(), SEED)
    }

    fn new(socket: Socket, greeting: Vec<u8>, greeted_length: usize) -> Self {
        let greeted = Vec::new();
        Self { socket, greeting, greeted, greeted_length, seed: None, sent: 0, received: 0, finished: false }
    }

    /// What to wait for until so many bytes have gone both ways.
    fn interest(&self, bytes: u64) -> EpollFlags {
        let wants_to_send = !self.greeting.is_empty() || (self.seed.is_some() && self.sent < bytes);
        let send = if wants_to_send && !self.finished { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        EpollFlags::EPOLLIN | send
    }

    /// Reads and writes once where that is possible. Whether the other end has ended the connection, in peace.
    fn turn(&mut self, ready: EpollFlags, bytes: u64) -> io::Result<bool> {
        let or_error = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        if ready.intersects(EpollFlags::EPOLLIN | or_error) && unless_timeout(self.receive())? == Some(0) {
            return Ok(true);
        }
        if ready.contains(EpollFlags::EPOLLOUT) && !self.finished {
            unless_timeout(self.send(bytes))?;
        }
        if !self.finished && self.greeting.is_empty() && self.sent.min(self.received) >= bytes {
            self.socket.shutdown(Shutdown::Write)?;
            self.finished = true;
        }
        Ok(false)
    }

    fn send(&mut self, bytes: u64) -> io::Result<usize> {
        if !self.greeting.is_empty() {
            let length = (&self.socket).write(&self.greeting)?;
            self.greeting.drain(..length);
            return Ok(length);
        }
        let Some((seed, _)) = self.seed else { return Ok(0) };
        let left = usize::try_from(bytes.saturating_sub(self.sent)).unwrap_or(CHUNK);
        let length = (&self.socket).write(pattern(seed + self.sent, left.min(CHUNK)))?;
        self.sent += length as u64;
        Ok(length)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; CHUNK];
        let missing = self.greeted_length - self.greeted.len();
        let room = if missing > 0 { missing } else { CHUNK };
        let length = (&self.socket).read(buffer.get_mut(..room).unwrap_or_default())?;
        let read = buffer.get(..length).unwrap_or_default();
        if missing > 0 {
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.greeted.extend(read);
            if let Some(seed) = self.greeted.first_chunk().filter(|_| self.greeted_length == SEED) {
                let (theirs, ours) = seeds(u64::from_be_bytes(*seed));
                self.seed = Some((ours, theirs));
            }
            return Ok(length);
        }
        let (_, theirs) = self.seed.unwrap_or_default();
        if read != pattern(theirs + self.received, length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("other bytes than were sent, after {}", self.received),
            ));
        }
        self.received += length as u64;
        Ok(length)
    }

    /// What a client has to tell.
    fn transferred(mut self) -> io::Result<Transferred> {
        let source = Answer::take(&mut self.greeted).ok_or(io::ErrorKind::UnexpectedEof)?.source.ip();
        if !self.finished {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Transferred { source, sent: self.sent, received: self.received, lost: lost(&self.socket) })
    }
}

/// Where in the pattern the client begins, and the server.
const fn seeds(seed: u64) -> (u64, u64) {
    (seed, seed + 30)
}

/// So many bytes of the pattern, up to a chunk.
fn pattern(from: u64, length: usize) -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        let mut pattern: Vec<u8> = (0..PERIOD).map(|_| random()).collect();
        pattern.extend_from_within(..CHUNK);
        pattern
    });
    let from = usize::try_from(from % PERIOD as u64).unwrap_or_default();
    pattern.get(from..from + length).unwrap_or_default()
}

/// How many segments were lost: sent again, and not told by the other end to have come twice.
fn lost(socket: &Socket) -> u32 {
    // SAFETY: all of it are numbers, for which zero is fine.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    let fd: RawFd = socket.as_raw_fd();
    // SAFETY: there is room for as much as said, and both outlive the call. On an error all stays zero.
    unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut length);
    }
    info.tcpi_total_retrans.saturating_sub(info.tcpi_dsack_dups)
}

/// Has the kernel send so many bytes a second at most.
fn set_rate(socket: &Socket, rate: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    let value = (&raw const rate).cast();
    // SAFETY: the value is as long as said, and outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
