//! The flows that there are, one by one: there may be a million of them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use balance_common::Flow;
use balance_common::layout::Count;

use super::entry::Entry;
use super::socket::{ConntrackSocket, mark_attributes};
use super::{ConntrackError, IspMark};

/// A flow, as conntrack knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// A number that no two entries that exist have by more than chance.
    pub id: [u8; 4],
    /// The whole mark, bits of others included, in host byte order.
    pub mark: u32,
    /// The protocol's number (IANA).
    pub protocol: u8,
    /// The ends of the packets of whoever began it.
    pub original: Ends,
    /// The ends of the answers' packets. Where there is NAT these are others.
    pub reply: Ends,
    /// The flow by which its first packet was steered.
    pub flow: Flow,
    /// What went by conntrack, in the original and in the reply direction; none if it does not count.
    pub counted: Option<[Count; 2]>,
    /// When it began; none if conntrack does not note it.
    pub begun: Option<SystemTime>,
}

/// Where packets come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// Of source and destination, where the protocol has any.
    pub ports: Option<(u16, u16)>,
}

/// Shows the flows of this ISP, or all, as they arrive, so that memory does not grow with their number. An error of `look` ends
/// it. Blocks.
pub fn each<E: From<ConntrackError>>(
    of: Option<IspMark>,
    mut look: impl FnMut(&Live) -> Result<(), E>,
) -> Result<(), E> {
    let filter = of.map(|isp| mark_attributes(isp.value(), isp.mask()).to_vec()).unwrap_or_default();
    ConntrackSocket::open()?.dump_for(filter, |payload| match Live::parse(payload) {
        Some(flow) => look(&flow),
        None => Ok(()),
    })
}

impl Live {
    /// Reads the payload of a netlink message.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let entry = Entry::parse(payload)?;
        let [original, reply] = entry.both_ways()?;
        Some(Self {
            id: entry.id,
            mark: entry.mark,
            protocol: entry.protocol()?,
            original,
            reply,
            flow: entry.flow()?,
            counted: entry.counted(),
            begun: entry.begun().map(|since| UNIX_EPOCH + Duration::from_nanos(since)),
        })
    }
}
