//! Traffic at a constant rate, in the background.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::Host;
use crate::addresses::{self, SERVER_PORT};
use crate::background::Background;
use balance_common::Family;

use crate::wire::{Asker, Transport, milliseconds};

/// How long the last packets may take before they count as lost.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// UDP questions and answers at a constant rate, over several flows in turn, until it is stopped.
pub struct Stream(Background<StreamReport>);

/// What became of a [`Stream`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Questions asked.
    pub sent: usize,
    /// Questions answered.
    pub received: usize,
    /// Questions that were not answered within a second after the end.
    pub lost: usize,
    /// Flows that the server saw coming from another address than at first.
    pub moved: usize,
}

impl Stream {
    /// Starts it from `host` to the internet host: `rate` questions a second over so many flows.
    ///
    /// # Errors
    /// When a flow has no route.
    pub fn start(host: &Host, rate: u32, flows: usize, family: Family) -> io::Result<Self> {
        Self::start_long(host, rate, flows, family, 0)
    }

    /// The same with so many bytes more in each question.
    ///
    /// # Errors
    /// When a flow has no route.
    pub fn start_long(host: &Host, rate: u32, flows: usize, family: Family, more: usize) -> io::Result<Self> {
        let to = addresses::internet(family, SERVER_PORT);
        let open = move || Ok((Traffic::open(to, flows)?, ()));
        let (background, ()) =
            Background::start(host, open, move |traffic, stop| traffic.run(rate, more, stop))?;
        Ok(Self(background))
    }

    /// Stops sending, waits up to a second for the last answers, and tells.
    ///
    /// # Errors
    /// When the thread failed.
    pub fn stop(self) -> io::Result<StreamReport> {
        self.0.stop()
    }
}

/// The flows and what was seen of them.
struct Traffic {
    epoll: Epoll,
    flows: Vec<StreamFlow>,
    /// By number of the question.
    answered: Vec<bool>,
    received: usize,
}

struct StreamFlow {
    asker: Asker,
    source: Option<IpAddr>,
    moved: bool,
}

impl Traffic {
    fn open(to: SocketAddr, count: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut flows = Vec::with_capacity(count);
        for index in 0..count {
            let asker = Asker::connect(Transport::Udp, to)?;
            epoll.add(&asker.socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            flows.push(StreamFlow { asker, source: None, moved: false });
        }
        Ok(Self { epoll, flows, answered: Vec::new(), received: 0 })
    }

    fn run(mut self, rate: u32, more: usize, stop: &AtomicBool) -> io::Result<StreamReport> {
        let start = Instant::now();
        let interval = Duration::from_secs(1) / rate.max(1);
        let mut next = start;
        while !stop.load(Ordering::Relaxed) {
            // All that are due: a thread that was kept waiting catches up.
            while next <= Instant::now() {
                self.send(more);
                next += interval;
            }
            self.receive_until(next)?;
        }
        let deadline = Instant::now() + STRAGGLERS;
        while self.received < self.answered.len() && Instant::now() < deadline {
            self.receive_until(deadline)?;
        }
        let sent = self.answered.len();
        Ok(StreamReport {
            sent,
            received: self.received,
            lost: sent - self.received,
            moved: self.flows.iter().filter(|flow| flow.moved).count(),
        })
    }

    fn send(&mut self, more: usize) {
        let number = self.answered.len();
        self.answered.push(false);
        let turn = number.checked_rem(self.flows.len()).unwrap_or_default();
        if let Some(flow) = self.flows.get(turn) {
            // A question that could not be sent, or that the error of an earlier one is told to, is lost.
            let _ = flow.asker.send_long(number as u64, more);
        }
    }

    /// Waits for answers once, until then at most, and takes those that are there.
    fn receive_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = match self.epoll.wait(&mut events, milliseconds(left)) {
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in events.iter().take(ready) {
            let Ok(index) = usize::try_from(event.data()) else { continue };
            let Some(flow) = self.flows.get_mut(index) else { continue };
            // An error is that of a question which stays without an answer.
            while let Ok(Some(answer)) = flow.asker.receive() {
                let source = answer.source.ip();
                flow.moved |= *flow.source.get_or_insert(source) != source;
                let asked =
                    usize::try_from(answer.number).ok().and_then(|number| self.answered.get_mut(number));
                if let Some(answered @ false) = asked {
                    *answered = true;
                    self.received += 1;
                }
            }
        }
        Ok(())
    }
}
