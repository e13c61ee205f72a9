//! The daemon: the thin shell around the core.
//!
//! One loop waits for whatever happens first, hands it to the core, and carries out what comes back: first the
//! eBPF maps, which take new flows off a dead ISP; then the conntrack entries of flows that need another way; then
//! routing and the rest.

mod acceleration;
mod consequences;
mod failback;
mod instance;
mod kernel;
mod pace;
mod punctuality;
mod quotas;
mod reconciler;
mod requests;
mod resets;
mod scripts;
mod stop;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use crate::announce::Announcer;
use crate::config::Config;
use crate::control::{self, Asked, Response, Services};
use crate::core::{Clock, Core, Event};
use crate::monitor::{Failure, Outcome};
use crate::netlink::watch::Watcher;
use crate::scripts::Occasion;

pub use instance::{Instance, Lock, LockError};
use kernel::Kernel;
use pace::Pace;
use punctuality::{Late, Punctuality};
use quotas::Ledger;
use scripts::ScriptRunner;
pub use stop::stop;

/// How often what metered ISPs carry is counted.
const VOLUME_INTERVAL: Duration = Duration::from_millis(500);
/// How often everything is compared with the plan though nothing has happened that we know of.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(30);
/// After something failed, how soon to try again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the instance's daemon until a signal or the control socket ends it. What it has made in the kernel stays.
pub async fn run(instance: &Instance, path: &Path, config: Config, only: &[String]) -> anyhow::Result<()> {
    let _lock = instance.lock()?;
    // Kernels before 5.11 count maps as locked memory.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    // Many ISPs with many targets need more sockets than the usual 1024.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let mut signals = Signals::new().context("cannot catch signals")?;
    let (watcher, network) = Watcher::start().await.context("cannot watch the network")?;
    let (outcomes_sender, outcomes) = mpsc::channel(1024);
    let scripts = ScriptRunner::new(instance, path);
    let announcer = Announcer::new(instance.name(), scripts.scripts());
    let mut kernel = Kernel::open(instance, &config, outcomes_sender, announcer)?;
    let left = kernel.left()?;
    let mut core = Core::new(config, &left, network, clock())?;
    core.keep_policies(&kernel.left_policies()?);
    let mut ledger = Ledger::open(instance.name());
    core.restore_meters(ledger.records());
    // Before anything is attached: what is counted in maps that are new is all ours.
    count_volume(&mut core, &kernel, &mut ledger);
    let is_first = left.is_empty();
    if is_first && !scripts.before(&core, &mut signals).await {
        return Ok(());
    }
    if !only.is_empty() {
        core.force_only(only);
    }
    kernel.install_nft(&core).await?;
    kernel.adopt_flows(&core).await;
    kernel.apply(&core, Scope::Everything, Vec::new()).await;
    let (asked, services) =
        control::listen(instance, core.config()).context("cannot listen on the control socket")?;
    let mut daemon = Daemon {
        config_path: path.to_owned(),
        scripts,
        core,
        kernel,
        watcher,
        outcomes,
        asked,
        ledger,
        volume: ticker(VOLUME_INTERVAL),
        pace: Pace::new(),
        looked: Instant::now(),
        services,
        reconcile: ticker(RECONCILE_INTERVAL),
        watchdog: watchdog(),
        punctuality: Punctuality::start(),
        was_late: false,
    };
    let effects = daemon.core.advance(Instant::now());
    daemon.kernel.apply(&daemon.core, Scope::Changes, effects).await;
    sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).context("cannot notify systemd")?;
    tracing::info!(instance = instance.name(), "balancing");
    daemon.scripts.after(&daemon.core, Occasion::Start, is_first);
    daemon.serve(&mut signals).await;
    count_volume(&mut daemon.core, &daemon.kernel, &mut daemon.ledger);
    daemon.ledger.finish(&daemon.core).await;
    let Daemon { kernel, asked, services, .. } = daemon;
    // Nobody is answered any more.
    drop(asked);
    services.finish();
    kernel.finish().await;
    tracing::info!("ended; the kernel goes on balancing, `balance-user stop` puts everything back");
    Ok(())
}

/// How much to compare with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// What is planned otherwise than before.
    Changes,
    /// That, and routing, since the network has changed.
    Routing,
    /// All of it.
    Everything,
}

struct Daemon {
    config_path: PathBuf,
    scripts: ScriptRunner,
    core: Core,
    kernel: Kernel,
    watcher: Watcher,
    outcomes: mpsc::Receiver<Outcome>,
    asked: mpsc::Receiver<Asked>,
    ledger: Ledger,
    volume: Interval,
    pace: Pace,
    /// When the traffic of the ISPs was looked at.
    looked: Instant,
    services: Services,
    reconcile: Interval,
    watchdog: Option<Interval>,
    punctuality: Punctuality,
    /// There may be answers that have come and could not be read yet.
    was_late: bool,
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What the loop does next.
enum Next {
    Apply(Scope),
    /// The same for what the ISPs carry, and save that.
    Keep,
    /// Whoever has asked for a change is to see it when he is answered.
    Answer(Response, oneshot::Sender<Response>),
    Reload,
    Quit,
}

impl Daemon {
    async fn serve(&mut self, signals: &mut Signals) {
        loop {
            match self.next(signals).await {
                Next::Apply(scope) => self.advance(scope).await,
                Next::Keep => {
                    self.advance(Scope::Changes).await;
                    self.ledger.keep(&self.core).await;
                }
                Next::Answer(response, asked) => {
                    self.advance(Scope::Changes).await;
                    // Whoever asked may have gone.
                    let _ = asked.send(response);
                }
                Next::Reload => self.reload().await,
                Next::Quit => return,
            }
        }
    }

    /// Waits for something to happen and hands it to the core.
    async fn next(&mut self, signals: &mut Signals) -> Next {
        let retry = self.kernel.retry_at().unwrap_or_else(far_off);
        let look = self.next_look();
        let deadline = self.core.next_deadline().unwrap_or_else(far_off).min(retry);
        tokio::select! {
            biased;
            // Before all else: a loop that is only busy is not one that hangs.
            () = tick(self.watchdog.as_mut()) => {
                let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
                Next::Apply(Scope::Changes)
            }
            changed = self.watcher.changed() => match changed {
                Ok(network) => {
                    let network = network.clone();
                    self.core.handle(Event::Network(network), Instant::now());
                    Next::Apply(Scope::Routing)
                }
                Err(error) => {
                    tracing::error!(%error, "watching the network failed; starting again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Next::Apply(Scope::Routing)
                }
            },
            Some(outcome) = self.outcomes.recv() => {
                self.take_outcome(outcome);
                Next::Apply(Scope::Changes)
            }
            Some((request, answer)) = self.asked.recv() => self.answer(request, answer),
            () = sleep_until(look.into()) => {
                self.mind_the_gap();
                let ((traffic, attempts), now) = (self.kernel.traffic(), Instant::now());
                self.looked = now;
                self.pace.see(&traffic);
                self.core.handle(Event::Traffic(traffic), now);
                self.core.handle(Event::Attempts(attempts), now);
                self.look_at_carrier().await
            }
            _ = self.volume.tick(), if self.core.metered().next().is_some() => {
                count_volume(&mut self.core, &self.kernel, &mut self.ledger);
                Next::Keep
            }
            () = sleep_until(deadline.into()) => {
                let scope = if self.kernel.retry_at().is_some_and(|at| at <= Instant::now()) { Scope::Everything } else { Scope::Changes };
                Next::Apply(scope)
            }
            scope = self.kernel.changed() => Next::Apply(scope),
            _ = self.reconcile.tick() => {
                self.core.set_clock(clock());
                Next::Apply(Scope::Everything)
            }
            _ = signals.reload.recv() => Next::Reload,
            _ = signals.terminate.recv() => Next::Quit,
            _ = signals.interrupt.recv() => Next::Quit,
        }
    }

    /// When to look at the traffic of the ISPs, and at their carrier.
    fn next_look(&self) -> Instant {
        self.looked + if self.watcher.may_be_late() { pace::QUICK } else { self.pace.pause() }
    }

    /// Whether the ISPs' devices have carrier, in case the kernel takes its time to tell.
    async fn look_at_carrier(&mut self) -> Next {
        match self.watcher.look_at(&self.kernel.isp_devices()).await {
            Ok(Some(network)) => {
                let network = network.clone();
                self.core.handle(Event::Network(network), Instant::now());
                Next::Apply(Scope::Routing)
            }
            Ok(None) => Next::Apply(Scope::Changes),
            Err(error) => {
                tracing::debug!(%error, "cannot look at the devices");
                Next::Apply(Scope::Changes)
            }
        }
    }

    /// Answers that have arrived are taken in before time passes for the core: an answer must not count as late
    /// because we were.
    async fn advance(&mut self, scope: Scope) {
        self.mind_the_gap();
        if std::mem::take(&mut self.was_late) {
            // Those who wait for answers get to read them.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.take_outcome(outcome);
        }
        let effects = self.core.advance(Instant::now());
        self.kernel.apply(&self.core, scope, effects).await;
    }

    /// To be called before anything is handed to the core that may be late because we are.
    fn mind_the_gap(&mut self) {
        match self.punctuality.look() {
            Late::No => {}
            Late::Hiccup => self.was_late = true,
            Late::Gap(gap) => {
                self.was_late = true;
                let for_so_long = humantime::format_duration(Duration::from_millis(
                    u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
                ));
                tracing::info!("held up for {for_so_long}: probes of that time are not counted");
                self.core.set_clock(clock());
                self.core.handle(Event::HeldUp(gap), Instant::now());
            }
        }
    }

    fn take_outcome(&mut self, Outcome { isp, family, sequence, result }: Outcome) {
        self.mind_the_gap();
        let event = match result {
            Ok(rtt) => Event::Answered { isp, family, sequence, rtt },
            Err(Failure::Inapplicable(why)) => Event::Inapplicable { isp, family, sequence, why },
            Err(failure) => Event::Failed { isp, family, sequence, why: failure.to_string() },
        };
        self.core.handle(event, Instant::now());
    }

    async fn reload(&mut self) {
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Reloading]);
        match Config::load(&self.config_path) {
            Ok(config) if !self.can_follow(&config) => tracing::error!(
                "the config is not reloaded: [mark], [routing], `attach` and `flows` cannot change while we run; \
                 `balance-user stop`, then run again"
            ),
            Ok(config) if let Err(error) = self.kernel.would_take(&config).await => {
                tracing::error!("the config is not reloaded: {error}");
            }
            Ok(config) => {
                tracing::info!(config = %self.config_path.display(), "config reloaded");
                self.core.handle(Event::Reload(Box::new(config)), Instant::now());
                self.core.restore_meters(self.ledger.records());
                count_volume(&mut self.core, &self.kernel, &mut self.ledger);
                self.kernel.renamed();
                self.services.follow(self.core.config());
                self.advance(Scope::Everything).await;
                self.scripts.after(&self.core, Occasion::Reload, true);
            }
            Err(error) => tracing::error!("the config is not reloaded: {error}"),
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    }

    /// What live flows and attached programs hang on cannot change under them.
    fn can_follow(&self, config: &Config) -> bool {
        let present = self.core.config();
        (config.mark_mask, config.routing, config.attach, config.fast_path.flows)
            == (present.mark_mask, present.routing, present.attach, present.fast_path.flows)
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Now, by both clocks.
#[must_use]
pub fn clock() -> Clock {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock { instant: Instant::now(), epoch_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX) }
}

/// Counts what the metered ISPs carry.
fn count_volume(core: &mut Core, kernel: &Kernel, ledger: &mut Ledger) {
    let isps: Vec<_> = core.metered().map(|(isp, _)| isp).collect();
    let readings = isps.into_iter().filter_map(|isp| Some((isp, kernel.reading(isp).ok()?))).collect();
    core.handle(Event::Volume { readings, today: ledger.today() }, Instant::now());
}

fn far_off() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticker
}

/// Ticks twice as often as systemd wants to hear from us; none if it does not.
fn watchdog() -> Option<Interval> {
    let mut microseconds = 0;
    sd_notify::watchdog_enabled(false, &mut microseconds)
        .then(|| ticker(Duration::from_micros(microseconds / 2).max(Duration::from_millis(1))))
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
