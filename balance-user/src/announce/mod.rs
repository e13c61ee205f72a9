//! Announcing: every change of an ISP's state goes to the history, the hooks, by mail and to the webhook.
//!
//! All of it happens in tasks of their own behind bounded queues. The daemon hands events over with [`Announcer::publish`], which
//! never waits: receivers that hang or fail delay nothing, neither a failover nor each other.

mod deliver;
pub mod event;
pub mod history;
mod hooks;
mod mail;
mod outbox;
mod webhook;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::config::{Config, MailConfig, ScriptsConfig, WebhookConfig};
use crate::scripts::Scripts;
use deliver::{Carrier, Trouble, deliver};
use event::Event;
use hooks::Hooks;
use outbox::Outbox;

/// So many events may be on their way to a task. It takes them at once, but for when it is sending.
const ROOM: usize = 256;
/// How long what is under way when the daemon ends may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Brings events to whoever wants to know.
pub struct Announcer {
    settings: Option<Settings>,
    history: mpsc::Sender<Event>,
    hooks: Hooks,
    mail: Option<Outlet>,
    webhook: Option<Outlet>,
    tasks: JoinSet<()>,
}

/// What the config says of it.
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    scripts: ScriptsConfig,
    mail: Option<MailConfig>,
    webhook: Option<WebhookConfig>,
}

/// The way to a receiver.
struct Outlet {
    events: mpsc::Sender<Event>,
    trouble: Trouble,
}

impl Announcer {
    /// For an instance; hooks that fail are noted in `scripts`. To be called in a runtime.
    #[must_use]
    pub fn new(instance: &str, scripts: Scripts) -> Self {
        let (history, events) = mpsc::channel(ROOM);
        let mut tasks = JoinSet::new();
        tasks.spawn(write_history(history::folders(instance).into(), events));
        Self { settings: None, history, hooks: Hooks::new(scripts), mail: None, webhook: None, tasks }
    }

    /// Goes by this config from now on. What waits for a receiver that is not wanted any more is tried once more.
    pub fn follow(&mut self, config: &Config) {
        let Config { scripts, mail, webhook, .. } = config;
        let old = self.settings.as_ref();
        if old.is_some_and(|old| (&old.scripts, &old.mail, &old.webhook) == (scripts, mail, webhook)) {
            return;
        }
        let now = Instant::now();
        if old.is_none_or(|old| old.mail != *mail) {
            self.mail = mail.clone().map(|mail| {
                let outbox = Outbox::new(usize::MAX, mail.digest, now);
                Outlet::open(&mut self.tasks, outbox, mail::Mail(mail))
            });
        }
        if old.is_none_or(|old| old.webhook != *webhook) {
            self.webhook = webhook.clone().map(|config| {
                let outbox = Outbox::new(1, Duration::ZERO, now);
                Outlet::open(&mut self.tasks, outbox, webhook::Webhook::new(config))
            });
        }
        self.settings =
            Some(Settings { scripts: scripts.clone(), mail: mail.clone(), webhook: webhook.clone() });
    }

    /// Announces an event, in the background.
    pub fn publish(&mut self, event: &Event) {
        while self.tasks.try_join_next().is_some() {}
        if self.history.try_send(event.clone()).is_err() {
            tracing::warn!("the history cannot keep up: it misses that {}", event.summary());
        }
        for outlet in [&self.mail, &self.webhook].into_iter().flatten() {
            if outlet.events.try_send(event.clone()).is_err() {
                tracing::warn!("a receiver hangs and is not told that {}", event.summary());
            }
        }
        if let Some(settings) = &self.settings {
            let warn_email = settings.mail.as_ref().and_then(|mail| mail.to.first());
            let warn_email = warn_email.map(|mailbox| mailbox.email.to_string());
            self.hooks.run(&mut self.tasks, &settings.scripts, event, warn_email.as_deref());
        }
    }

    /// Which receivers do not take what they are told, a line each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        [&self.mail, &self.webhook].into_iter().flatten().filter_map(|outlet| outlet.trouble.get()).collect()
    }

    /// Gives what is under way a moment. Hooks that still run then are killed.
    pub async fn finish(self) {
        let Self { history, mail, webhook, mut tasks, .. } = self;
        // Those who listen come to their end when nobody can speak any more.
        drop((history, mail, webhook));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(LAST_WORDS, all).await.is_err() {
            tracing::warn!("not everybody has been told of everything");
        }
    }
}

impl Outlet {
    fn open(tasks: &mut JoinSet<()>, outbox: Outbox, carrier: impl Carrier + 'static) -> Self {
        let (events, receiver) = mpsc::channel(ROOM);
        let trouble = Trouble::default();
        tasks.spawn(deliver(receiver, outbox, carrier, trouble.clone()));
        Self { events, trouble }
    }
}

/// Writes what comes, with a thread of its own for what a slow disk makes slow.
async fn write_history(folders: Vec<PathBuf>, mut events: mpsc::Receiver<Event>) {
    let mut failed = false;
    while let Some(event) = events.recv().await {
        let folders = folders.clone();
        let written = spawn_blocking(move || history::add(&folders, &event)).await;
        if let Ok(Err(error)) = &written
            && !failed
        {
            tracing::warn!(%error, "the history of events cannot be written");
        }
        failed = matches!(written, Ok(Err(_)));
    }
}
