//! Flows to the internet host, one by one and by the thousand.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::Host;
use crate::addresses::{self, SERVER_PORT, SINK_PORT};
use crate::background::Background;
use balance_common::Family;

use crate::wire::{Asker, Transport, local_address, milliseconds};

/// How many flows ask at once: fewer than the kernel queues for one CPU, so that nothing is lost there.
const BURST: usize = 256;
/// How long the next burst waits for answers to the last one. Those of an ISP that is dead never come.
const BURST_TIME: Duration = Duration::from_millis(10);
/// How long flows that are opened together may take to connect: two retransmissions of a SYN.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// One flow from a host to a server.
pub struct Flow {
    asker: Asker,
    local: SocketAddr,
    timeout: Duration,
    asked: u64,
}

impl Flow {
    /// Opens a flow from `host` to the internet host. For TCP it is connected then, for UDP nothing was sent yet.
    ///
    /// # Errors
    /// When there is no route, the connection is refused, or `timeout`, which is also that of each question, is over.
    pub fn open(host: &Host, transport: Transport, family: Family, timeout: Duration) -> io::Result<Self> {
        Self::open_to(host, transport, addresses::internet(family, SERVER_PORT), timeout)
    }

    /// Opens a flow to a server anywhere.
    ///
    /// # Errors
    /// As [`Flow::open`].
    pub fn open_to(host: &Host, transport: Transport, to: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::start(host, transport, None, to, timeout)
    }

    /// Opens a flow to the internet host from one of the host's addresses.
    ///
    /// # Errors
    /// As [`Flow::open`], and when the host does not have the address.
    pub fn open_from(host: &Host, transport: Transport, from: IpAddr, timeout: Duration) -> io::Result<Self> {
        let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
        Self::start(host, transport, Some(from), addresses::internet(family, SERVER_PORT), timeout)
    }

    fn start(
        host: &Host,
        transport: Transport,
        from: Option<IpAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let asker = host.run(|| Asker::connect_from(transport, from, to))?;
        while !asker.is_connected()? {
            wait(&asker, PollFlags::POLLOUT, deadline)?;
        }
        let local = local_address(&asker.socket)?;
        Ok(Self { asker, local, timeout, asked: 0 })
    }

    /// Asks the server which address it sees.
    ///
    /// # Errors
    /// `TimedOut` when no answer came in time, else what the network said, such as `ConnectionReset`.
    pub fn ask(&mut self) -> io::Result<IpAddr> {
        self.ask_socket().map(|source| source.ip())
    }

    /// Asks the server which address and port it sees.
    ///
    /// # Errors
    /// As [`Flow::ask`].
    pub fn ask_socket(&mut self) -> io::Result<SocketAddr> {
        let deadline = Instant::now() + self.timeout;
        self.asked += 1;
        self.asker.send(self.asked)?;
        loop {
            if let Some(answer) = self.asker.receive_number(self.asked)? {
                return Ok(answer.source);
            }
            wait(&self.asker, PollFlags::POLLIN, deadline)?;
        }
    }

    /// Sends a question and waits for nothing, so that data is on the way.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self) -> io::Result<()> {
        self.asked += 1;
        self.asker.send(self.asked)
    }

    /// Waits, without saying anything, until somebody else ends it, and returns with which error: `UnexpectedEof` if there
    /// was none. Answers that come meanwhile are thrown away.
    ///
    /// # Errors
    /// `TimedOut` when nobody does.
    pub fn end(&mut self) -> io::Result<io::ErrorKind> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.asker.receive() {
                Ok(Some(_)) => {}
                Ok(None) => wait(&self.asker, PollFlags::POLLIN, deadline)?,
                Err(error) => return Ok(error.kind()),
            }
        }
    }

    /// From now on, each question may take so long.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Its own end, before any NAT.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }
}

/// Many flows from one host, with file descriptors of their own: tens of thousands do not run into the limit.
pub struct Flows {
    // Dropped first: it ends the thread.
    questions: mpsc::Sender<Question>,
    background: Background<()>,
    len: usize,
}

impl Flows {
    /// Opens a flow to each of these, all at once. One that cannot be opened stays in the list and fails to answer.
    ///
    /// # Errors
    /// When the thread for them cannot be started.
    pub fn open_to(host: &Host, transport: Transport, to: Vec<SocketAddr>) -> io::Result<Self> {
        let len = to.len();
        let (questions, inbox) = mpsc::channel::<Question>();
        let (background, ()) = Background::start(
            host,
            move || Ok((Batch::open(transport, &to)?, ())),
            move |mut batch, _| {
                for question in inbox {
                    let _ = question.answers.send(batch.ask(question.timeout));
                }
                Ok(())
            },
        )?;
        Ok(Self { questions, background, len })
    }

    /// Asks with every flow and waits for the answers, in the order of the flows, each for `timeout` at most.
    pub fn ask(&mut self, timeout: Duration) -> Vec<io::Result<IpAddr>> {
        let (answers, inbox) = mpsc::channel();
        let _ = self.questions.send(Question { timeout, answers });
        let gone = |_| (0..self.len).map(|_| Err(io::ErrorKind::BrokenPipe.into())).collect();
        inbox.recv().unwrap_or_else(gone)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Closes them all.
    ///
    /// # Errors
    /// When their thread failed.
    pub fn close(self) -> io::Result<()> {
        drop(self.questions);
        self.background.stop()
    }
}

/// Opens `count` flows to the internet host, each from a port of its own.
///
/// # Errors
/// As [`Flows::open_to`].
pub fn open_flows(host: &Host, count: usize, transport: Transport, family: Family) -> io::Result<Flows> {
    Flows::open_to(host, transport, vec![addresses::internet(family, SERVER_PORT); count])
}

/// As [`open_flows`], but each call goes to another address of the internet host. So no flow gets the ports of one
/// that was closed lately: conntrack, which remembers it, would take them for the same and keep it on its ISP.
///
/// # Errors
/// As [`Flows::open_to`].
pub fn open_new_flows(host: &Host, count: usize, transport: Transport, family: Family) -> io::Result<Flows> {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    // From 2: the internet host's .1 is everybody's.
    let number = 2 + CALLS.fetch_add(1, Ordering::Relaxed) % 250;
    let mut to = addresses::internet(family, SERVER_PORT);
    to.set_ip(match family {
        Family::V4 => IpAddr::from([203, 0, 113, number]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(number)]),
    });
    Flows::open_to(host, transport, vec![to; count])
}

/// How many answers came from which address; those that did not come are left out.
#[must_use]
pub fn by_source(answers: &[io::Result<IpAddr>]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for source in answers.iter().flatten() {
        *counts.entry(*source).or_default() += 1;
    }
    counts
}

/// Asks a server once, over a new connection from `host`, and returns the address it saw.
///
/// # Errors
/// As [`Flow::open`] and [`Flow::ask`].
pub fn ask_tcp(host: &Host, to: SocketAddr, timeout: Duration) -> io::Result<IpAddr> {
    Flow::open_to(host, Transport::Tcp, to, timeout)?.ask()
}

/// Sends so many packets from one UDP socket to the internet host's sink, which never answers. Returns the socket's
/// own address.
///
/// # Errors
/// When one cannot be sent.
pub fn send_one_way(host: &Host, packets: u64, family: Family) -> io::Result<SocketAddr> {
    let asker = host.run(|| Asker::connect(Transport::Udp, addresses::internet(family, SINK_PORT)))?;
    for number in 0..packets {
        asker.send(number)?;
        if number % 64 == 63 {
            // Nothing will come: this paces, and finds out about errors.
            poll(&mut [PollFd::new(asker.socket.as_fd(), PollFlags::POLLIN)], 1_u8)?;
        }
    }
    local_address(&asker.socket)
}

/// What the thread of many flows is asked.
struct Question {
    timeout: Duration,
    answers: mpsc::Sender<Vec<io::Result<IpAddr>>>,
}

/// Many flows, in their thread.
struct Batch {
    epoll: Epoll,
    askers: Vec<Option<Asker>>,
    asked: u64,
}

impl Batch {
    fn open(transport: Transport, to: &[SocketAddr]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut batch = Self { epoll, askers: to.iter().map(|_| None).collect(), asked: 0 };
        let start = |batch: &mut Self, index: usize| {
            let (Some(to), Some(slot)) = (to.get(index), batch.askers.get_mut(index)) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let asker = slot.insert(Asker::connect(transport, *to)?);
            let ready = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            Ok(batch.epoll.add(&asker.socket, EpollEvent::new(ready, index as u64))?)
        };
        let finish = |asker: &mut Asker| Ok(asker.is_connected()?.then_some(()));
        let opened = batch.in_bursts(OPEN_TIMEOUT, start, finish)?;
        for (asker, outcome) in batch.askers.iter_mut().zip(opened) {
            if outcome.is_err() {
                *asker = None;
            }
        }
        Ok(batch)
    }

    fn ask(&mut self, timeout: Duration) -> Vec<io::Result<IpAddr>> {
        self.asked += 1;
        let number = self.asked;
        let start = |batch: &mut Self, index: usize| match batch.askers.get(index) {
            Some(Some(asker)) => asker.send(number),
            _ => Err(io::ErrorKind::NotConnected.into()),
        };
        let finish = |asker: &mut Asker| Ok(asker.receive_number(number)?.map(|answer| answer.source.ip()));
        match self.in_bursts(timeout, start, finish) {
            Ok(answers) => answers,
            Err(error) => self.askers.iter().map(|_| Err(error.kind().into())).collect(),
        }
    }

    /// Starts something on every flow, burst by burst, and waits until each has finished or its time is over.
    fn in_bursts<T>(
        &mut self,
        timeout: Duration,
        start: impl Fn(&mut Self, usize) -> io::Result<()>,
        finish: impl Fn(&mut Asker) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<io::Result<T>>> {
        let count = self.askers.len();
        let mut outcomes = Vec::with_capacity(count);
        for first in (0..count).step_by(BURST) {
            for index in first..count.min(first + BURST) {
                outcomes.push(start(self, index).err().map(Err));
            }
            self.collect(&mut outcomes, first, Instant::now() + BURST_TIME, &finish)?;
        }
        self.collect(&mut outcomes, 0, Instant::now() + timeout, &finish)?;
        let late = || Err(io::ErrorKind::TimedOut.into());
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(late)).collect())
    }

    /// Fills in outcomes as they come, until all from `first` on are there, or the deadline.
    fn collect<T>(
        &mut self,
        outcomes: &mut [Option<io::Result<T>>],
        first: usize,
        deadline: Instant,
        finish: &impl Fn(&mut Asker) -> io::Result<Option<T>>,
    ) -> io::Result<()> {
        let mut open = outcomes.iter().skip(first).filter(|outcome| outcome.is_none()).count();
        let mut events = [EpollEvent::empty(); BURST];
        while open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = match self.epoll.wait(&mut events, milliseconds(left)) {
                Err(Errno::EINTR) => continue,
                ready => ready?,
            };
            if ready == 0 && left.is_zero() {
                break;
            }
            for event in events.iter().take(ready) {
                let Ok(index) = usize::try_from(event.data()) else { continue };
                let (Some(outcome @ None), Some(Some(asker))) =
                    (outcomes.get_mut(index), self.askers.get_mut(index))
                else {
                    continue;
                };
                *outcome = finish(asker).transpose();
                if outcome.is_some() && index >= first {
                    open -= 1;
                }
            }
        }
        Ok(())
    }
}

/// Waits until the socket is ready.
fn wait(asker: &Asker, ready: PollFlags, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match poll(&mut [PollFd::new(asker.socket.as_fd(), ready)], milliseconds(left)) {
        Err(Errno::EINTR) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
