//! What happens to flows, as it happens.

use std::time::{Duration, Instant};

use super::socket::{Message, Multicast};
use super::{ConntrackError, Live};

/// Room for news that have not been read yet, in bytes: tens of thousands of flows.
const RECEIVE_BUFFER: usize = 8 << 20;

/// `IPCTNL_MSG_CT_DELETE` of `linux/netfilter/nfnetlink_conntrack.h`; new and changed entries are both `IPCTNL_MSG_CT_NEW`.
const DELETED: u8 = 2;

/// What has happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It has begun.
    Begun,
    /// Something about it has changed, be it its mark.
    Changed,
    /// It has ended.
    Ended,
}

/// The kernel's news of flows, in the network namespace of the thread that opened it.
///
/// Unless `net.netfilter.nf_conntrack_events` is 1, the kernel tells only of flows that have begun since somebody listens.
pub struct Events {
    socket: Multicast,
}

impl Events {
    /// Listens from now on.
    pub fn open() -> Result<Self, ConntrackError> {
        Ok(Self { socket: Multicast::open(RECEIVE_BUFFER)? })
    }

    /// Shows what has happened until then, as it happens. Returns whether some of it was lost, because there was more than there is
    /// room for. An error of `look` ends it. Blocks.
    pub fn read<E: From<ConntrackError>>(
        &mut self,
        until: Instant,
        mut look: impl FnMut(Happened, &Live) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut lost = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(lost);
            }
            lost |= self.socket.receive(left, |Message { kind, is_new, payload }| {
                let happened = match kind {
                    DELETED => Happened::Ended,
                    _ if is_new => Happened::Begun,
                    _ => Happened::Changed,
                };
                match Live::parse(payload) {
                    Some(flow) => look(happened, &flow),
                    None => Ok(()),
                }
            })?;
        }
    }
}
