//! Flows that have lost their ISP.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use balance_common::{Family, IspId};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::conntrack::{self, ConntrackError, Cut, IspMark};

/// When the ends of lost connections are made to speak, after the one before: a packet may get lost, and a host may not
/// answer more than so often.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1)];
/// How much later the entries go of those that do not answer.
const PATIENCE: Duration = Duration::from_secs(9);

/// Cuts flows loose, and sees to it that the ends of TCP connections hear of it.
pub(super) struct Resets {
    mask: u32,
    wanted: bool,
    /// There are connections that have not been told yet.
    untold: bool,
    teller: Teller,
}

/// Tells the ends of lost connections, in the background.
#[derive(Clone)]
pub(super) struct Teller {
    lost: Option<IspMark>,
    work: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Resets {
    /// For marks of this mask; with or without resets.
    pub(super) fn new(mask: u32, wanted: bool) -> Self {
        let teller = Teller { lost: IspMark::lost(mask), work: Arc::default() };
        Self { mask, wanted, untold: false, teller }
    }

    /// For who else loses connections.
    pub(super) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// The mark of connections that are to be reset, if any are.
    pub(super) fn lost(&self) -> Option<IspMark> {
        IspMark::lost(self.mask).filter(|_| self.wanted)
    }

    /// From now on with or without resets.
    pub(super) const fn set_wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Deletes what an earlier daemon has not come to delete.
    pub(super) async fn clean_up(&self) {
        if let Some(lost) = self.lost() {
            delete(lost).await;
        }
    }

    /// Cuts an ISP's flows of a family loose, and returns how many there were. TCP connections are told by [`Resets::tell`], unless
    /// they may go on without `reset`.
    pub(super) async fn cut_loose(&mut self, isp: IspId, family: Family, reset: bool) -> Cut {
        let Some(mark) = IspMark::new(isp, self.mask) else { return Cut::default() };
        let Some(lost) = self.lost().filter(|_| reset) else {
            return report(isp, blocking(move || conntrack::cut_by_mark(mark, family)).await);
        };
        let cut = match blocking(move || conntrack::lose(mark, family, lost)).await {
            Ok(cut @ Cut { connections: 0, .. }) => return cut,
            Ok(cut) => {
                let connections = cut.connections;
                tracing::info!(isp = isp.get(), connections, "TCP connections of a dead ISP are reset");
                cut
            }
            Err(error) => {
                tracing::warn!(%error, isp = isp.get(), "not all TCP connections of a dead ISP are reset");
                report(isp, blocking(move || conntrack::cut_by_mark(mark, family)).await)
            }
        };
        self.untold = true;
        cut
    }

    /// Has the ends of connections that were cut loose get their reset, in the background. To be done when there are routes
    /// for those that connect again at once: programs of this machine, for which no mark says the way.
    pub(super) fn tell(&mut self) {
        if mem::take(&mut self.untold) {
            self.teller.tell();
        }
    }
}

impl Teller {
    /// Tells those that are lost now.
    pub(super) fn tell(&self) {
        let Some(lost) = self.lost else { return };
        let mut present = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = present.replace(tokio::spawn(reset(lost))) {
            // Begun anew, for those that have come to it.
            work.abort();
        }
    }
}

async fn reset(lost: IspMark) {
    for pause in ROUNDS {
        sleep(pause).await;
        match blocking(move || conntrack::provoke(lost)).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "lost connections are reset when they send something");
                break;
            }
        }
    }
    sleep(PATIENCE).await;
    delete(lost).await;
}

async fn delete(lost: IspMark) {
    for family in Family::ALL {
        if let Err(error) = blocking(move || conntrack::delete_by_mark(lost, family)).await {
            tracing::warn!(%error, "lost connections stay until they time out");
        }
    }
}

fn report(isp: IspId, deleted: Result<Cut, ConntrackError>) -> Cut {
    deleted.unwrap_or_else(|error| {
        tracing::error!(%error, isp = isp.get(), "flows of a dead ISP keep trying it");
        Cut::default()
    })
}

/// Without its thread, which only a panic ends, there is nothing to tell.
async fn blocking<T: Default + Send + 'static>(
    work: impl FnOnce() -> Result<T, ConntrackError> + Send + 'static,
) -> Result<T, ConntrackError> {
    spawn_blocking(work).await.unwrap_or_else(|_| Ok(T::default()))
}
