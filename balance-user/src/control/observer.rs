//! What can be seen of the instance: gathered when somebody asks, once for all who ask at the same time.

use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::biggest::{Biggest, biggest};
use super::{Asked, Request, Response};
use crate::cli::report::Report;
use crate::cli::status::{Flows, assemble};
use crate::datapath::{Maps, Pins};
use crate::metrics::{self, Counters};

/// How old what is told may be.
const FRESH: Duration = Duration::from_millis(200);
/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Counting flows may take this part of the time at most: of a million it takes a second.
const COUNTING: u32 = 20;

/// Sees how it stands.
pub(super) struct Observer {
    instance: String,
    requests: mpsc::Sender<Asked>,
    latest: Mutex<Option<(Instant, Arc<Report>)>>,
    flows: Costly<Flows>,
    biggest: Costly<Biggest>,
}

/// What takes long where there are many flows: it is done again when twenty times as long has passed.
struct Costly<T>(Arc<BlockingMutex<Option<Found<T>>>>);

/// What was found, and until when it is good enough.
struct Found<T> {
    good_until: Instant,
    value: Arc<T>,
}

impl<T> Costly<T> {
    /// What was found lately, or is found now. Blocks.
    fn get(&self, find: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Arc<T>> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Instant::now();
        if let Some(found) = &*found
            && before < found.good_until
        {
            return Ok(Arc::clone(&found.value));
        }
        let value = Arc::new(find()?);
        let good_until = Instant::now() + before.elapsed() * COUNTING;
        *found = Some(Found { good_until, value: Arc::clone(&value) });
        Ok(value)
    }
}

impl<T> Default for Costly<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Costly<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Observer {
    pub(super) fn new(instance: &str, requests: mpsc::Sender<Asked>) -> Self {
        Self {
            instance: instance.to_owned(),
            requests,
            latest: Mutex::default(),
            flows: Costly::default(),
            biggest: Costly::default(),
        }
    }

    /// The instance.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// The daemon's answer. What was seen before is not what it says now if it was asked to change something.
    pub(super) async fn ask(&self, request: Request) -> anyhow::Result<Response> {
        let (sender, receiver) = oneshot::channel();
        let answer = async {
            self.requests.send((request, sender)).await.ok()?;
            receiver.await.ok()
        };
        let answer = timeout(PATIENCE, answer).await.context("the daemon is too busy to answer")?;
        answer.context("the daemon ends")
    }

    /// Forgets what was seen.
    pub(super) async fn look_again(&self) {
        *self.latest.lock().await = None;
    }

    /// How it stands, no longer ago than a moment.
    pub(super) async fn report(&self) -> anyhow::Result<Arc<Report>> {
        let mut latest = self.latest.lock().await;
        if let Some((at, report)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(report));
        }
        let told = self.ask(Request::Quality).await?;
        let (instance, flows) = (self.instance.clone(), self.flows.clone());
        let report = spawn_blocking(move || gather(&instance, told, &flows)).await??;
        let report = Arc::new(report);
        *latest = Some((Instant::now(), Arc::clone(&report)));
        Ok(report)
    }

    /// The flows that have carried most.
    pub(super) async fn biggest_flows(&self) -> anyhow::Result<Arc<Biggest>> {
        let (instance, flows) = (self.instance.clone(), self.biggest.clone());
        let find = move || {
            let maps = Maps::open(&Pins::of(&instance))?;
            Ok(biggest(maps.settings()?.mark_mask, &maps.isps()?)?)
        };
        spawn_blocking(move || flows.get(find)).await?
    }

    /// The metrics, in the text format of Prometheus.
    pub(super) async fn metrics(&self) -> anyhow::Result<String> {
        let report = self.report().await?;
        let Response::Tallies(tallies) = self.ask(Request::Tallies).await? else {
            bail!("the daemon answers another question");
        };
        let instance = self.instance.clone();
        let render = move || -> anyhow::Result<String> {
            let counters = Counters::read(&Maps::open(&Pins::of(&instance))?)?;
            Ok(metrics::render(&report, &counters, &tallies))
        };
        spawn_blocking(render).await?
    }
}

fn gather(instance: &str, told: Response, flows: &Costly<Flows>) -> anyhow::Result<Report> {
    let maps = Maps::open(&Pins::of(instance))?;
    let flows = flows.get(|| Flows::count(&maps))?;
    assemble(instance, &maps, Some(std::process::id()), Some(told), &flows)
}
