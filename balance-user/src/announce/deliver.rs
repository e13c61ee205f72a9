//! Bringing events to one receiver, in the background: whatever it does, nobody else waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::event::Event;
use super::outbox::Outbox;

/// Who takes messages.
pub(super) trait Carrier: Send + Sync {
    /// Who it is, for people: `mail to you@example.org`.
    fn name(&self) -> String;

    /// How long a message may take.
    fn patience(&self) -> Duration;

    /// Sends a message with these events; `dropped` are those that were given up before.
    fn carry(
        &self,
        events: Vec<Event>,
        dropped: u64,
    ) -> impl Future<Output = Result<(), CarrierError>> + Send;
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarrierError {
    /// It may be taken later.
    #[error("{0}")]
    NotNow(String),
    /// It will never be taken.
    #[error("{0}, so it is not tried again")]
    Never(String),
}

/// What is wrong with a receiver, for `status`; nothing once a message has been taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What is wrong.
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what is wrong, and logs it if that is news.
    fn set(&self, who: &str, wrong: Option<&CarrierError>) {
        let text = wrong.map(|error| format!("{who} failed: {error}"));
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *present == text {
            return;
        }
        if let Some(text) = &text {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{who} works again");
        }
        *present = text;
    }
}

/// Brings what comes to the receiver, until there are no more senders; then what is left is tried once more.
pub(super) async fn deliver(
    mut events: mpsc::Receiver<Event>,
    mut outbox: Outbox,
    carrier: impl Carrier,
    trouble: Trouble,
) {
    loop {
        let due = outbox.due();
        let never = Instant::now() + Duration::from_hours(1);
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => outbox.push(event, Instant::now()),
                None => break,
            },
            () = sleep_until(due.unwrap_or(never).into()), if due.is_some() => {
                attempt(&mut outbox, &carrier, &trouble).await;
            }
        }
    }
    while outbox.due().is_some() && attempt(&mut outbox, &carrier, &trouble).await {}
}

/// Sends one message. Whether the receiver is done with it.
async fn attempt(outbox: &mut Outbox, carrier: &impl Carrier, trouble: &Trouble) -> bool {
    let batch = outbox.batch();
    let count = batch.len();
    let result = timeout(carrier.patience(), carrier.carry(batch, outbox.dropped())).await;
    let result = result.unwrap_or_else(|_| {
        let patience = humantime::format_duration(carrier.patience());
        Err(CarrierError::NotNow(format!("no answer within {patience}")))
    });
    trouble.set(&carrier.name(), result.as_ref().err());
    match result {
        Ok(()) | Err(CarrierError::Never(_)) => {
            outbox.done(count, Instant::now());
            true
        }
        Err(CarrierError::NotNow(_)) => {
            outbox.failed(Instant::now());
            false
        }
    }
}
