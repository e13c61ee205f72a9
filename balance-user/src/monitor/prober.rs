//! Asks the targets of one path, an ISP in one family.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balance_common::{Family, IspId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::names::Names;
use super::neighbour::Neighbour;
use super::ping::Ping;
use super::way::Way;
use super::{Failure, page, query};
use crate::config::{Ask, HostName, NameQuery, Target};
use crate::core::health::Probe;
use crate::core::plan::ProberPlan;

/// So many probes with sockets of their own can be under way by one path: with default times those of six targets, when a path that
/// never answered is tried. Far more could only be with times that leave each other no sense.
const MOST_UNDER_WAY: usize = 128;

/// What became of a probe.
#[derive(Debug)]
pub struct Outcome {
    /// The ISP that was probed.
    pub isp: IspId,
    /// In this family.
    pub family: Family,
    /// The probe's.
    pub sequence: u64,
    /// The time until its answer, or why there is none.
    pub result: Result<Duration, Failure>,
}

/// Sends probes by one device. Answers that come in on another device are not heard, so ISPs do not hear each
/// other's, though they have the same targets.
#[derive(Debug)]
pub struct Prober {
    isp: IspId,
    asker: Arc<Asker>,
    outcomes: mpsc::Sender<Outcome>,
    tasks: JoinSet<()>,
}

/// What probes of a path have in common.
#[derive(Debug)]
struct Asker {
    way: Way,
    ping: Ping,
    names: Names,
    neighbour: Neighbour,
    room: Semaphore,
}

impl Prober {
    /// A prober for an ISP in one family. Outcomes go to `outcomes`. When the plan changes a new prober is needed.
    ///
    /// To be called in a tokio runtime. Needs `CAP_NET_RAW` and `CAP_NET_ADMIN`. Fails if the device's index is 0, or with
    /// the error of the socket.
    pub fn new(
        isp: IspId,
        family: Family,
        plan: &ProberPlan,
        outcomes: mpsc::Sender<Outcome>,
    ) -> io::Result<Self> {
        let way = Way::new(family, plan)?;
        let asker = Asker {
            ping: Ping::new(&way)?,
            way,
            names: Names::default(),
            neighbour: Neighbour::default(),
            room: Semaphore::new(MOST_UNDER_WAY),
        };
        Ok(Self { isp, asker: Arc::new(asker), outcomes, tasks: JoinSet::new() })
    }

    /// Sends a probe, and reports its outcome within its patience, unless this prober is dropped before. To be
    /// called in a tokio runtime.
    pub fn send(&mut self, probe: Probe) {
        while self.tasks.try_join_next().is_some() {}
        let isp = self.isp;
        let (asker, outcomes) = (Arc::clone(&self.asker), self.outcomes.clone());
        self.tasks.spawn(async move {
            let Probe { target, sequence, patience } = probe;
            let family = asker.way.family;
            let answer = timeout(patience, asker.ask(&target, sequence, patience)).await;
            let result = answer.unwrap_or(Err(Failure::NoAnswer));
            // Nobody there any more to hear it: then nobody needs it.
            let _ = outcomes.send(Outcome { isp, family, sequence, result }).await;
            if let Some(name) = name_of(&target) {
                asker.names.refresh(&asker.way, name).await;
            }
        });
    }
}

impl Asker {
    async fn ask(&self, target: &Target, sequence: u64, patience: Duration) -> Result<Duration, Failure> {
        if let Ask::Ping(host) = target.ask() {
            return self.ping.ask(*host, sequence, patience).await;
        }
        let Ok(_room) = self.room.try_acquire() else { return Err(Failure::TooMany(MOST_UNDER_WAY)) };
        let way = &self.way;
        match target.ask() {
            Ask::Ping(_) => Err(Failure::NoAnswer),
            Ask::Gateway => self.neighbour.ask(way).await,
            Ask::Name(query) => ask_name(way, query).await,
            Ask::Tcp(to) => {
                let to = way.address(self.address(&to.host, patience).await?, to.port);
                let start = Instant::now();
                way.connect(to).await.map(|_connected| start.elapsed())
            }
            Ask::Page(page) => {
                let to = way.address(self.address(&page.from.host, patience).await?, page.from.port);
                page::ask(way, page, to).await
            }
        }
    }

    async fn address(&self, host: &HostName, patience: Duration) -> Result<std::net::IpAddr, Failure> {
        match host {
            HostName::Address(address) => Ok(*address),
            // Half of its patience is the latest by which a probe counts as lost: what is wrong should be known by then.
            HostName::Name(name) => self.names.find(&self.way, name, patience.mul_f64(0.45)).await,
        }
    }
}

async fn ask_name(way: &Way, asked: &NameQuery) -> Result<Duration, Failure> {
    let NameQuery { server, port, name, answer } = asked;
    let family = if answer.is_some_and(|answer| answer.is_ipv6()) { Family::V6 } else { Family::V4 };
    let (known, rtt) = query::ask(way, (*server, *port), name, family).await?;
    match answer {
        _ if known.addresses.is_empty() => {
            Err(Failure::NoAddress { server: *server, name: name.clone(), family })
        }
        Some(wanted) if !known.addresses.contains(wanted) => {
            Err(Failure::WrongAnswer { got: known.addresses, wanted: *wanted })
        }
        _ => Ok(rtt),
    }
}

/// The name that must be looked up to ask a target.
fn name_of(target: &Target) -> Option<&str> {
    match target.ask() {
        Ask::Tcp(to) => to.host.name(),
        Ask::Page(page) => page.from.host.name(),
        Ask::Ping(_) | Ask::Name(_) | Ask::Gateway => None,
    }
}
