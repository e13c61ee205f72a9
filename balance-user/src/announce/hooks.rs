//! Hooks: programs of the administrator that are run when an ISP changes its state, all at the same time.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::event::Event;
use crate::config::ScriptsConfig;
use crate::scripts::{Call, Scripts};

/// The hooks of so many events may be running. More cannot be expected to come to their ends.
const EVENTS: usize = 64;

/// Runs hooks.
pub(super) struct Hooks {
    scripts: Scripts,
    room: Arc<Semaphore>,
}

impl Hooks {
    /// Those that fail are noted in `scripts`.
    pub(super) fn new(scripts: Scripts) -> Self {
        Self { scripts, room: Arc::new(Semaphore::new(EVENTS)) }
    }

    /// Starts the hooks of an event.
    pub(super) fn run(
        &self,
        tasks: &mut JoinSet<()>,
        config: &ScriptsConfig,
        event: &Event,
        warn_email: Option<&str>,
    ) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            tracing::warn!("too many hooks are running: none is told that {}", event.summary());
            return;
        };
        let environment = event.environment().into_iter().map(|(name, value)| (name.to_owned(), value));
        let call = Call {
            folder: config.folder.clone(),
            timeout: config.timeout,
            environment: environment.collect(),
        };
        let (scripts, folders, arguments) =
            (self.scripts.clone(), event.folders(), event.arguments(warn_email));
        tasks.spawn(async move {
            scripts.run_together(&call, &folders, &arguments).await;
            drop(permit);
        });
    }
}
