//! Bringing flows back to an ISP that is usable again, as their policies want it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balance_common::{Family, Flow, IspId};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::config::policy::Failback;
use crate::config::{Acceleration, Config};
use crate::conntrack::{ConntrackError, IspMark, Moved, Returning};
use crate::core::plan::MapPlan;
use crate::core::{Core, Forecast, family_name};
use crate::datapath::Stretch;

use super::resets::Teller;

/// How often is looked whether flows are idle: so many times in the time for which they must be, within limits.
const LOOKS: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The work of bringing flows back.
pub(super) struct Failbacks {
    teller: Teller,
    stretch: Arc<Stretch>,
    /// None while all flows stay where they are.
    terms: watch::Sender<Option<Terms>>,
    work: BTreeMap<(IspId, Family), JoinHandle<()>>,
    left: (mpsc::UnboundedSender<IspId>, mpsc::UnboundedReceiver<IspId>),
}

/// By what flows are brought back.
struct Terms {
    forecast: Forecast,
    isps: BTreeMap<IspId, IspMark>,
    /// The mark of TCP connections that are to be reset, if they are.
    lost: Option<IspMark>,
    /// For how long conntrack may see nothing of a flow that goes on.
    unseen: Unseen,
}

/// For how long conntrack may see nothing of a flow that goes on.
enum Unseen {
    /// It sees all.
    Never,
    /// It sees nothing of those that go fast for this time, and for as much longer as leases are now.
    ForALease(Duration, Arc<Stretch>),
}

impl Failbacks {
    /// Whose connections are lost, that one tells.
    pub(super) fn new(teller: Teller, stretch: Stretch) -> Self {
        Self {
            teller,
            stretch: Arc::new(stretch),
            terms: watch::Sender::new(None),
            work: BTreeMap::new(),
            left: mpsc::unbounded_channel(),
        }
    }

    /// The maps are now as planned. Flows do not return to ISPs that are not usable any more.
    pub(super) fn follow(&mut self, core: &Core, maps: &MapPlan, seed: u64, lost: Option<IspMark>) {
        let is_wanted = |config: &Config| {
            let mut failbacks =
                config.policies.iter().map(|policy| policy.failback.unwrap_or(config.failback));
            failbacks.any(|failback| failback != Failback::Keep)
        };
        let terms = || {
            let mask = core.mask().bits();
            let isps = maps.isps.keys().filter_map(|&isp| Some((isp, IspMark::new(isp, mask)?))).collect();
            Terms {
                forecast: core.forecast(maps, seed),
                isps,
                lost,
                unseen: self.unseen(core.config(), maps),
            }
        };
        self.terms.send_replace(is_wanted(core.config()).then(terms));
        let is_usable = |isp: &IspId, family: Family| {
            maps.isps.get(isp).is_some_and(|entry| match (family, entry.usable) {
                (Family::V4, [usable, _]) | (Family::V6, [_, usable]) => usable != 0,
            })
        };
        self.work.retain(|(isp, family), work| {
            let goes_on = is_usable(isp, *family) && !work.is_finished();
            if !goes_on {
                work.abort();
            }
            goes_on
        });
    }

    /// An ISP is usable again, and new flows go there.
    pub(super) fn begin(&mut self, isp: IspId, family: Family) {
        if self.terms.borrow().is_none() {
            return;
        }
        let work = Work {
            isp,
            family,
            terms: self.terms.subscribe(),
            teller: self.teller.clone(),
            left: self.left.0.clone(),
        };
        if let Some(before) = self.work.insert((isp, family), tokio::spawn(work.run())) {
            before.abort();
        }
    }

    fn unseen(&self, config: &Config, maps: &MapPlan) -> Unseen {
        if config.acceleration == Acceleration::Off {
            Unseen::Never
        } else {
            Unseen::ForALease(Duration::from_nanos(maps.settings.lease), Arc::clone(&self.stretch))
        }
    }

    /// Returns when flows have left an ISP that the fast path may still send there: what it has learned of them does not hold.
    pub(super) async fn left(&mut self) -> Option<IspId> {
        self.left.1.recv().await
    }
}

impl Terms {
    /// For how long a flow must have been idle to return to this ISP; none if it is to stay.
    fn idle(&self, isp: IspId, flow: &Flow) -> Option<Duration> {
        match self.forecast.isp_of(flow)? {
            (its, Failback::Idle(time)) if its == isp => Some(time.max(self.unseen.now())),
            (its, Failback::Now) if its == isp => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// When to look again whether flows are idle.
    fn pause(&self) -> Duration {
        let unseen = self.unseen.now();
        let times = self.forecast.failbacks().filter_map(|failback| match failback {
            Failback::Idle(time) => Some(time.max(unseen)),
            Failback::Keep | Failback::Now => None,
        });
        let time = times.min().unwrap_or(LONGEST_PAUSE);
        (time / LOOKS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}

impl Unseen {
    fn now(&self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            // A map that cannot be read is that of programs that do not run.
            Self::ForALease(lease, stretch) => *lease + stretch.now().unwrap_or_default(),
        }
    }
}

/// Bringing flows back to one ISP in one family.
struct Work {
    isp: IspId,
    family: Family,
    terms: watch::Receiver<Option<Terms>>,
    teller: Teller,
    left: mpsc::UnboundedSender<IspId>,
}

impl Work {
    /// Until no flow waits.
    async fn run(self) {
        let mut returning = Returning::default();
        loop {
            let (isp, family, terms) = (self.isp, self.family, self.terms.clone());
            let look = move || {
                let outcome = look(&mut returning, isp, family, &terms);
                (returning, outcome)
            };
            // Without its thread, which only a panic ends, there is nothing to wait for.
            let Ok((after, outcome)) = spawn_blocking(look).await else { return };
            returning = after;
            match outcome {
                Ok(moved) => self.tell(&moved),
                Err(error) => {
                    tracing::warn!(%error, isp = isp.get(), "flows stay where they are though their ISP is back");
                    return;
                }
            }
            if returning.is_done() {
                return;
            }
            let Some(pause) = self.terms.borrow().as_ref().map(Terms::pause) else { return };
            sleep(pause).await;
        }
    }

    fn tell(&self, moved: &Moved) {
        let &Moved { flows, lost, ref abruptly } = moved;
        if flows > 0 {
            let family = family_name(self.family);
            tracing::info!(isp = self.isp.get(), family, flows, lost, "flows go back to their ISP");
        }
        for &isp in abruptly {
            // Without a daemon to hear it there is nothing to do.
            let _ = self.left.send(isp);
        }
        if lost > 0 {
            self.teller.tell();
        }
    }
}

fn look(
    returning: &mut Returning,
    isp: IspId,
    family: Family,
    terms: &watch::Receiver<Option<Terms>>,
) -> Result<Moved, ConntrackError> {
    let present = terms.borrow().as_ref().map(|terms| (terms.isps.clone(), terms.lost));
    let Some((mut others, lost)) = present else { return Ok(Moved::default()) };
    others.remove(&isp);
    // Asked for each flow: the ISP may be gone again meanwhile.
    returning.look(&others, family, lost, |flow| terms.borrow().as_ref()?.idle(isp, flow))
}
