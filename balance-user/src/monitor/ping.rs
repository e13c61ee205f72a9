//! Pings: ICMP echo requests.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::mem::size_of_val;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use balance_common::Family;
use socket2::{SockRef, Type};
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use super::Failure;
use super::way::Way;

const ECHO_REPLY_V4: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

/// Not empty: some routers drop an echo request without data.
const PAYLOAD: [u8; 16] = *b"balance probe...";

/// Sends pings by one device.
pub(super) struct Ping {
    client: Client,
    /// Where the numbers on the wire start: somewhere else each time, so that no answer to an earlier process or
    /// prober is taken for one of ours.
    first: u32,
}

impl Ping {
    pub(super) fn new(way: &Way) -> io::Result<Self> {
        let (kind, answers): (_, &[u8]) = match way.family {
            Family::V4 => (ICMP::V4, &[ECHO_REPLY_V4, 3, 11, 12]),
            Family::V6 => (ICMP::V6, &[ECHO_REPLY_V6, 1, 3, 4]),
        };
        // Raw, as the kernel chooses the identifier on the other kind. It falls back to that by itself.
        let config =
            Config::builder().kind(kind).sock_type_hint(Type::RAW).interface_index(way.index).build();
        let client = Client::new(&config)?;
        let socket = client.get_socket();
        if socket.get_type() != Type::RAW {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no raw ICMP sockets (CAP_NET_RAW)"));
        }
        // SAFETY: `socket` keeps the descriptor open for longer than this borrow of it.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
        SockRef::from(&fd).set_mark(way.mark)?;
        accept_only(fd, way.family, answers)?;
        #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of it will do")]
        let first = RandomState::new().hash_one(way.mark) as u32;
        Ok(Self { client, first })
    }

    /// Pings a host once. `sequence` must not be that of another ping under way.
    pub(super) async fn ask(
        &self,
        host: IpAddr,
        sequence: u64,
        patience: Duration,
    ) -> Result<Duration, Failure> {
        let (identifier, number) = on_the_wire(self.first, sequence);
        let mut pinger = self.client.pinger(host, identifier).await;
        match pinger.timeout(patience).ping(number, &PAYLOAD).await {
            Ok((packet, rtt)) => answer(&packet).map(|()| rtt),
            Err(SurgeError::Timeout { .. }) => Err(Failure::NoAnswer),
            Err(SurgeError::IOError(error)) => Err(Failure::Send(error)),
            Err(error) => Err(Failure::Ping(error)),
        }
    }
}

impl fmt::Debug for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ping").field("first", &self.first).finish_non_exhaustive()
    }
}

/// Lets the kernel pass on only these types of ICMP: answers, and what ends the wait for one. Without this every ICMP packet that
/// arrives wakes the process, and a redirect that quotes a probe would be taken for the outcome, before the answer.
pub(super) fn accept_only(socket: BorrowedFd<'_>, family: Family, types: &[u8]) -> io::Result<()> {
    // Of <linux/icmp.h> and <linux/icmpv6.h>; both are 1. A bit that is set blocks the type.
    const FILTER: libc::c_int = 1;
    let filter = blocking_all_but(types);
    // IPv4's filter knows types up to 31, in one word.
    let (level, length) = match family {
        Family::V4 => (libc::SOL_RAW, size_of_val(&filter) / filter.len()),
        Family::V6 => (libc::SOL_ICMPV6, size_of_val(&filter)),
    };
    let length = libc::socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to `length` readable bytes at least, for the time of the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, FILTER, filter.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The identifier and sequence number of a probe. The identifier stays the same for a long time, so that NAT on
/// the way keeps one entry for all the probes of a target.
#[expect(clippy::cast_possible_truncation, reason = "the numbers wrap around")]
fn on_the_wire(first: u32, sequence: u64) -> (PingIdentifier, PingSequence) {
    let number = first.wrapping_add(sequence as u32);
    (PingIdentifier((number >> 16) as u16), PingSequence(number as u16))
}

/// Whether this is an answer: errors that quote the probe arrive just as well.
fn answer(packet: &IcmpPacket) -> Result<(), Failure> {
    let (from, family, kind, code) = match packet {
        IcmpPacket::V4(packet) => {
            (IpAddr::V4(packet.get_source()), Family::V4, packet.get_icmp_type().0, packet.get_icmp_code().0)
        }
        IcmpPacket::V6(packet) => (
            IpAddr::V6(packet.get_source()),
            Family::V6,
            packet.get_icmpv6_type().0,
            packet.get_icmpv6_code().0,
        ),
    };
    let wanted = match family {
        Family::V4 => ECHO_REPLY_V4,
        Family::V6 => ECHO_REPLY_V6,
    };
    if kind == wanted { Ok(()) } else { Err(Failure::Rejected { from, family, kind, code }) }
}

/// A bit for each ICMP type, set for all but these.
fn blocking_all_but(types: &[u8]) -> [u32; 8] {
    let mut filter = [u32::MAX; 8];
    for &kind in types {
        if let Some(word) = filter.get_mut(usize::from(kind) / 32) {
            *word &= !(1 << (kind % 32));
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_under_way_never_share_their_numbers_and_keep_their_identifier() {
        let first = 0xffff_fff0;
        let numbers: std::collections::HashSet<_> = (0..1000).map(|s| on_the_wire(first, s)).collect();
        assert_eq!(numbers.len(), 1000);
        let identifiers: std::collections::HashSet<_> = numbers.iter().map(|(ident, _)| ident).collect();
        assert!(identifiers.len() <= 2);
    }

    #[test]
    fn the_filter_passes_the_given_types_only() {
        let filter = blocking_all_but(&[0, 3, 129]);
        let passes = |kind: usize| filter[kind / 32] & (1 << (kind % 32)) == 0;
        assert_eq!((0..256).filter(|&kind| passes(kind)).collect::<Vec<_>>(), [0, 3, 129]);
    }
}
