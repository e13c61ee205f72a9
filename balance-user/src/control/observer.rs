//! What can be seen of the instance: gathered when somebody asks, once for all who ask at the same time.

use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

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
    flows: Arc<BlockingMutex<Option<Counted>>>,
}

/// Flows that have been counted.
struct Counted {
    flows: Flows,
    good_until: Instant,
}

impl Observer {
    pub(super) fn new(instance: &str, requests: mpsc::Sender<Asked>) -> Self {
        Self { instance: instance.to_owned(), requests, latest: Mutex::default(), flows: Arc::default() }
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
        let (instance, flows) = (self.instance.clone(), Arc::clone(&self.flows));
        let report = spawn_blocking(move || gather(&instance, told, &flows)).await??;
        let report = Arc::new(report);
        *latest = Some((Instant::now(), Arc::clone(&report)));
        Ok(report)
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

fn gather(
    instance: &str,
    told: Response,
    counted: &BlockingMutex<Option<Counted>>,
) -> anyhow::Result<Report> {
    let maps = Maps::open(&Pins::of(instance))?;
    let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
    if counted.as_ref().is_none_or(|counted| counted.good_until <= Instant::now()) {
        let before = Instant::now();
        let flows = Flows::count(&maps)?;
        let good_until = Instant::now() + before.elapsed() * COUNTING;
        *counted = Some(Counted { flows, good_until });
    }
    let counted = counted.as_ref().context("no flows were counted")?;
    assemble(instance, &maps, Some(std::process::id()), Some(told), &counted.flows)
}
