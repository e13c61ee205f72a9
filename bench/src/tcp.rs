//! Bulk transfers: real sockets on both sides of the router.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use balance_lab::addresses::internet;
use balance_lab::{Family, Lab, wait_until};

use crate::cases::lan_prefix;
use crate::core::{Core, thread_time};
use crate::harness::Sample;

/// Where the receivers listen: each ISP has one, at the internet host's address, so that nothing behind the router
/// forwards.
const PORT: u16 = 5201;
/// How long a connection sends before it is measured: its windows have grown, and the router knows it.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long it is measured.
const TIME: Duration = Duration::from_millis(400);
/// Bytes of one call.
const BLOCK: usize = 128 * 1024;
/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(5);

/// The receivers.
pub(crate) struct Bulk {
    listeners: Vec<TcpListener>,
    core: Core,
}

impl Bulk {
    /// Listens on every ISP's machine.
    pub(crate) fn open(lab: &Lab, core: Core) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        for isp in lab.isps() {
            isp.host().ip(&[
                format!("addr add {}/32 dev lo", internet(Family::V4, PORT).ip()),
                format!("addr add {}/128 dev lo nodad", internet(Family::V6, PORT).ip()),
                // Where there is no NAT it sees the LAN's addresses.
                format!("route add {} via {}", lan_prefix(Family::V4), isp.address(Family::V4)),
                format!("route add {} via {}", lan_prefix(Family::V6), isp.address(Family::V6)),
            ])?;
            for family in [Family::V4, Family::V6] {
                let listener = isp.host().run(|| TcpListener::bind(internet(family, PORT)))?;
                listener.set_nonblocking(true)?;
                listeners.push(listener);
            }
        }
        Ok(Self { listeners, core })
    }

    /// Sends by one connection, sender and receiver on one core, and measures what a thousand bytes cost that core.
    pub(crate) fn send(&self, lab: &Lab, family: Family) -> anyhow::Result<Sample> {
        let address = internet(family, PORT);
        let near = lab.lan().run(|| TcpStream::connect_timeout(&address, PATIENCE));
        let mut near = near.with_context(|| format!("no connection to {address}"))?;
        let mut far = self.accept()?;
        let start = Instant::now();
        // Each thread has its end to itself: when one is done, the other one's call ends too.
        let (sent, received) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.count(start, move |block| near.write(block)));
            let receiving = scope.spawn(|| self.count(start, move |block| far.read(block)));
            (sending.join(), receiving.join())
        });
        let died = |_| anyhow!("a thread died");
        let (sent, received) = (sent.map_err(died)??, received.map_err(died)??);
        ensure!(received.bytes > 0, "nothing arrived");
        let time = sent.own + received.own + received.softirqs;
        let nanoseconds = time.as_nanos() as f64 * 1000.0 / received.bytes as f64;
        Ok(Sample { nanoseconds, sent: received.bytes, arrived: received.bytes })
    }

    fn accept(&self) -> anyhow::Result<TcpStream> {
        let mut accepted = None;
        wait_until(PATIENCE, "a connection", || {
            accepted = self.listeners.iter().find_map(|listener| listener.accept().ok());
            accepted.is_some()
        })?;
        let (stream, _) = accepted.context("no connection")?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// Makes calls that move bytes, and counts while it is measured.
    fn count(
        &self,
        start: Instant,
        mut call: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> anyhow::Result<Count> {
        self.core.enter()?;
        let mut block = vec![0; BLOCK];
        let mut until = |end: Duration| {
            let mut bytes = 0;
            while start.elapsed() < end {
                match call(&mut block) {
                    Ok(0) => break,
                    Ok(more) => bytes += more as u64,
                    // The other side is done.
                    Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(bytes)
        };
        until(WARM_UP)?;
        let (own, softirqs) = (thread_time()?, self.core.softirq_time()?);
        let bytes = until(WARM_UP + TIME)?;
        Ok(Count {
            bytes,
            own: thread_time()?.saturating_sub(own),
            softirqs: self.core.softirq_time()?.saturating_sub(softirqs),
        })
    }
}

/// What one side did while it was measured.
struct Count {
    bytes: u64,
    /// CPU time of its thread.
    own: Duration,
    /// CPU time of the core's `ksoftirqd`.
    softirqs: Duration,
}
