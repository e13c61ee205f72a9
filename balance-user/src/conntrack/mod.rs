//! The kernel's connection tracking: deleting, counting and adopting flows by the ISP in their mark, and TCP's
//! windows.
//!
//! Everything here blocks; callers in async code use `spawn_blocking`.

mod entry;
mod events;
mod failback;
mod find;
mod live;
mod lost;
mod mark;
mod segment;
mod socket;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use balance_common::{Family, IspId};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, ProtoInfo, ProtoInfoTCP};

use entry::{CTA_ID, CTA_TUPLE_ORIG, CTA_ZONE, Entry};
pub use events::{Events, Happened};
pub use failback::{Moved, Returning};
pub use find::{Tracked, find};
pub use live::{Ends, Live, each};
pub use lost::{Cut, lose, provoke};
pub use mark::IspMark;
use socket::{ConntrackSocket, mark_attributes};

/// How many entries are changed with one system call. The answers, one for each that is gone, must fit the socket.
const BATCH: usize = 64;

/// `IP_CT_TCP_FLAG_BE_LIBERAL` of `linux/netfilter/nf_conntrack_tcp.h`.
const TCP_BE_LIBERAL: u8 = 0x08;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

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
    let filter = mark_attributes(mark.value(), mark.mask());
    ConntrackSocket::open()?.request(netfilter_family(family), ConntrackMessage::Delete(filter.to_vec()))
}

/// The same, after counting them.
pub fn cut_by_mark(mark: IspMark, family: Family) -> Result<Cut, ConntrackError> {
    let wanted = netfilter_family(family);
    let mut flows = 0;
    ConntrackSocket::open()?.dump(mark_attributes(mark.value(), mark.mask()).to_vec(), |payload| {
        flows += usize::from(Entry::parse(payload).is_some_and(|entry| entry.family == wanted));
        Ok(())
    })?;
    delete_by_mark(mark, family)?;
    Ok(Cut { connections: 0, flows })
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
    let mut updates = Updates::open()?;
    ConntrackSocket::open()?.dump(mark_attributes(0, mask).to_vec(), |payload| {
        if let Some(entry) = Entry::parse(payload)
            && entry.mark & mask == 0
            && let Some(mark) = owner_of(&entry, &owners)
        {
            updates.push(&entry, mark_attributes(mark.value(), mark.mask()))?;
        }
        Ok(())
    })?;
    updates.finish()
}

/// Has conntrack take the packets of all TCP connections that there are for valid from now on, whatever windows it knows
/// of. Packets of the fast path have passed it by, and what it accepts beyond its windows because the sysctl says so does
/// not move them: without this, it would cut these connections as soon as the sysctl is put back. All TCP connections of the
/// network namespace, because it does not say which ones went fast: between LANs they have no mark. That does no harm, as
/// for each of them it was so until now, and new ones are judged as ever. Returns how many there were.
pub fn free_tcp_of_windows() -> Result<usize, ConntrackError> {
    let both_ways = [CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY];
    // The bit, and the mask of what to change.
    let flags = |kind| ProtoInfoTCP::Other(DefaultNla::new(kind, vec![TCP_BE_LIBERAL, TCP_BE_LIBERAL]));
    let change = ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(both_ways.map(flags).to_vec())]);
    let mut updates = Updates::open()?;
    ConntrackSocket::open()?.dump(Vec::new(), |payload| match Entry::parse(payload) {
        Some(entry) if entry.is_tcp => updates.push(&entry, [change.clone()]),
        _ => Ok(()),
    })?;
    updates.finish()
}

const fn netfilter_family(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    }
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

/// The entry is named the way the kernel named it to us.
fn name_of(entry: &Entry<'_>) -> Vec<ConntrackAttribute> {
    let mut attributes = vec![raw(CTA_TUPLE_ORIG | NLA_F_NESTED, entry.original)];
    attributes.extend(entry.zone.map(|zone| raw(CTA_ZONE, zone)));
    attributes
}

fn raw(kind: u16, value: &[u8]) -> ConntrackAttribute {
    ConntrackAttribute::Other(DefaultNla::new(kind, value.to_vec()))
}

/// Changes of entries on their way to the kernel.
struct Updates {
    socket: ConntrackSocket,
    waiting: Vec<(NetfilterProtoFamily, ConntrackMessage)>,
    done: usize,
}

impl Updates {
    fn open() -> Result<Self, ConntrackError> {
        Ok(Self { socket: ConntrackSocket::open()?, waiting: Vec::new(), done: 0 })
    }

    fn push(
        &mut self,
        entry: &Entry<'_>,
        change: impl IntoIterator<Item = ConntrackAttribute>,
    ) -> Result<(), ConntrackError> {
        let mut attributes = name_of(entry);
        attributes.extend(change);
        // `New` without NLM_F_CREATE changes an entry that exists, and never makes one.
        self.add(entry, ConntrackMessage::New(attributes))
    }

    /// Deletes this entry, and not another one that has taken its place. The kernel takes even an empty name for a bad one, and
    /// never for all entries.
    fn delete(&mut self, entry: &Entry<'_>) -> Result<(), ConntrackError> {
        let mut attributes = name_of(entry);
        attributes.push(raw(CTA_ID, &entry.id));
        self.add(entry, ConntrackMessage::Delete(attributes))
    }

    fn add(&mut self, entry: &Entry<'_>, message: ConntrackMessage) -> Result<(), ConntrackError> {
        self.waiting.push((entry.family, message));
        if self.waiting.len() < BATCH { Ok(()) } else { self.flush() }
    }

    /// Sends what is left. Returns how many entries were changed.
    fn finish(mut self) -> Result<usize, ConntrackError> {
        self.flush()?;
        Ok(self.done)
    }

    fn flush(&mut self) -> Result<(), ConntrackError> {
        self.done += self.socket.batch(self.waiting.drain(..))?;
        Ok(())
    }
}
