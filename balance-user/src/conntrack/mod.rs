//! The kernel's connection tracking: deleting, counting and adopting flows by the ISP in their mark.
//!
//! Everything here blocks; callers in async code use `spawn_blocking`.

mod entry;
mod mark;
mod socket;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use balance_common::{Family, IspId};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};

use entry::{CTA_TUPLE_ORIG, CTA_ZONE, Entry};
pub use mark::IspMark;
use socket::{ConntrackSocket, mark_attributes};

/// How many entries are adopted with one system call. The answers, one for each that is gone, must fit the socket.
const ADOPT_BATCH: usize = 64;

/// Why conntrack could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel does not know such requests.
    #[error(
        "the kernel has no conntrack netlink with marks (nf_conntrack_netlink, CONFIG_NF_CONNTRACK_MARK)"
    )]
    Unsupported(#[source] io::Error),
    /// The kernel refused.
    #[error("the kernel refused a conntrack request")]
    Refused(#[source] io::Error),
    /// The kernel's answer made no sense.
    #[error("the kernel sent a malformed conntrack message")]
    Malformed,
}

impl ConntrackError {
    /// An unknown netfilter subsystem is answered with `EINVAL`; our own requests give no other reason for it.
    fn from_io(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => Self::Unsupported(error),
            _ => Self::Refused(error),
        }
    }
}

/// Deletes the entries of one ISP in one family. No other entry is touched. What the kernel has handed to flow
/// offloading is not deleted.
pub fn delete_by_mark(mark: IspMark, family: Family) -> Result<(), ConntrackError> {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    let filter = mark_attributes(mark.value(), mark.mask());
    ConntrackSocket::open()?.request(family, ConntrackMessage::Delete(filter.to_vec()))
}

/// How many entries each ISP has, of both families; ISPs that have none are left out. Entries are counted as they
/// arrive, so memory does not grow with their number.
pub fn count_by_mark(mask: u32) -> Result<BTreeMap<IspId, u64>, ConntrackError> {
    let mut counts = BTreeMap::new();
    ConntrackSocket::open()?.dump(Vec::new(), |payload| {
        if let Some(isp) = Entry::parse(payload).and_then(|entry| mark::isp_of(entry.mark, mask)) {
            *counts.entry(isp).or_default() += 1;
        }
        Ok(())
    })?;
    Ok(counts)
}

/// Gives flows that were there before us the mark of the ISP they use: those without one that were opened from, or
/// hidden behind, or came in to, one of the ISP's addresses. Bits of the mark outside the mask are kept. An
/// address that several ISPs have says nothing. Returns how many flows were adopted.
pub fn adopt(mask: u32, isps: &[(IspMark, Vec<IpAddr>)]) -> Result<usize, ConntrackError> {
    let owners = owners(isps);
    let mut updates = Updates { socket: ConntrackSocket::open()?, waiting: Vec::new(), adopted: 0 };
    ConntrackSocket::open()?.dump(mark_attributes(0, mask).to_vec(), |payload| {
        if let Some(entry) = Entry::parse(payload)
            && entry.mark & mask == 0
            && let Some(mark) = owner_of(&entry, &owners)
        {
            updates.push(&entry, mark)?;
        }
        Ok(())
    })?;
    updates.flush()?;
    Ok(updates.adopted)
}

/// Which ISP an address belongs to; none if several have it.
type Owners = HashMap<IpAddr, Option<IspMark>>;

fn owners(isps: &[(IspMark, Vec<IpAddr>)]) -> Owners {
    let mut owners = Owners::new();
    for (mark, addresses) in isps {
        for address in addresses {
            owners
                .entry(*address)
                .and_modify(|owner| *owner = owner.filter(|owner| owner == mark))
                .or_insert(Some(*mark));
        }
    }
    owners
}

fn owner_of(entry: &Entry<'_>, owners: &Owners) -> Option<IspMark> {
    let owner = |address: Option<IpAddr>| owners.get(&address?).copied().flatten();
    owner(entry.reply_destination()).or_else(|| owner(entry.original_destination()))
}

/// Changes of marks on their way to the kernel.
struct Updates {
    socket: ConntrackSocket,
    waiting: Vec<(NetfilterProtoFamily, ConntrackMessage)>,
    adopted: usize,
}

impl Updates {
    fn push(&mut self, entry: &Entry<'_>, mark: IspMark) -> Result<(), ConntrackError> {
        let raw = |kind, value: &[u8]| ConntrackAttribute::Other(DefaultNla::new(kind, value.to_vec()));
        // The entry is named the way the kernel named it to us.
        let mut attributes = vec![raw(CTA_TUPLE_ORIG | NLA_F_NESTED, entry.original)];
        attributes.extend(entry.zone.map(|zone| raw(CTA_ZONE, zone)));
        attributes.extend(mark_attributes(mark.value(), mark.mask()));
        // `New` without NLM_F_CREATE changes an entry that exists, and never makes one.
        self.waiting.push((entry.family, ConntrackMessage::New(attributes)));
        if self.waiting.len() < ADOPT_BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), ConntrackError> {
        self.adopted += self.socket.batch(self.waiting.drain(..))?;
        Ok(())
    }
}
