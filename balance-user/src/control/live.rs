//! What `status` says, every second, to all who want to see it: gathered once for all of them, and not at all when there is
//! nobody.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use super::answer::Body;
use super::observer::Observer;

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows how it stands.
pub(super) struct Live {
    observer: Arc<Observer>,
    /// The latest event; empty before the first one.
    latest: watch::Sender<Bytes>,
    /// Whether somebody gathers.
    gathers: Mutex<bool>,
}

impl Live {
    pub(super) fn new(observer: Arc<Observer>) -> Self {
        Self { observer, latest: watch::Sender::default(), gathers: Mutex::new(false) }
    }

    /// Server-sent events. Whoever reads slowly misses some.
    pub(super) async fn body(self: &Arc<Self>) -> Body {
        let mut gathers = self.gathers.lock().await;
        let receiver = self.latest.subscribe();
        if !*gathers {
            *gathers = true;
            tokio::spawn(Arc::clone(self).gather());
        }
        let events = unfold(receiver, async |mut receiver| {
            receiver.changed().await.ok()?;
            let event = receiver.borrow_and_update().clone();
            Some((Ok(Frame::data(event)), receiver))
        });
        StreamBody::new(events).boxed_unsync()
    }

    async fn gather(self: Arc<Self>) {
        loop {
            let event = match self.observer.report().await {
                Ok(report) => event("status", &serde_json::to_string(&*report).unwrap_or_default()),
                // It goes on as soon as it can be seen again.
                Err(error) => event("trouble", &serde_json::Value::from(format!("{error:#}")).to_string()),
            };
            self.latest.send_replace(event);
            sleep(INTERVAL).await;
            let mut gathers = self.gathers.lock().await;
            if self.latest.is_closed() {
                *gathers = false;
                return;
            }
        }
    }
}

/// An event of this name with a line of JSON.
fn event(name: &str, json: &str) -> Bytes {
    format!("event: {name}\ndata: {json}\n\n").into()
}
