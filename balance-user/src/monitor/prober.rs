//! Sends the probes of one path, an ISP in one family, as ICMP echo requests.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::mem::size_of_val;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use balance_common::{Family, IspId};
use socket2::{SockRef, Type};
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::sync::mpsc;

use crate::config::Ask;
use crate::core::health::Probe;

const ECHO_REPLY_V4: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

/// Not empty: some routers drop an echo request without data.
const PAYLOAD: [u8; 16] = *b"balance probe...";

/// What became of a probe.
#[derive(Debug)]
pub struct Outcome {
    /// The ISP that was probed.
    pub isp: IspId,
    /// In this family.
    pub family: Family,
    /// The probe's.
    pub sequence: u64,
    /// The time until its answer, or why there is none.
    pub result: Result<Duration, Failure>,
}

/// Why a probe has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be sent.
    #[error("cannot send: {0}")]
    Send(#[source] io::Error),
    /// A router, or this host when the gateway does not answer, says that it did not arrive.
    #[error("{from} says {}", describe(*.family, *.kind, *.code))]
    Rejected {
        /// Who says so.
        from: IpAddr,
        /// The family, which says how to read the next two.
        family: Family,
        /// The ICMP type.
        kind: u8,
        /// The ICMP code.
        code: u8,
    },
    /// Nothing came back within the probe's patience.
    #[error("no answer")]
    NoAnswer,
    /// The probe could not be made.
    #[error("{0}")]
    Other(#[source] SurgeError),
}

/// Sends probes by one device. Answers that come in on another device are not seen, so ISPs do not hear each
/// other's, though they have the same targets.
#[derive(Debug)]
pub struct Prober {
    isp: IspId,
    family: Family,
    client: ClientHandle,
    outcomes: mpsc::Sender<Outcome>,
    /// Where the numbers on the wire start: somewhere else each time, so that no answer to an earlier process or
    /// prober is taken for one of ours.
    first: u32,
}

/// A [`Client`] that can be printed.
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Prober {
    /// A prober for an ISP in one family, by the device with this index and with this mark on its packets (both are
    /// needed: with the mark alone the answer to a probe may be that of another device, with the device alone the
    /// kernel may find no route). Outcomes go to `outcomes`. When the device's index or the mark changes a new
    /// prober is needed.
    ///
    /// To be called in a tokio runtime. Needs `CAP_NET_RAW` and `CAP_NET_ADMIN`. Fails if the index is 0, or with
    /// the error of the socket.
    pub fn new(
        isp: IspId,
        family: Family,
        index: u32,
        mark: u32,
        outcomes: mpsc::Sender<Outcome>,
    ) -> io::Result<Self> {
        let index = NonZeroU32::new(index).ok_or(io::ErrorKind::InvalidInput)?;
        let kind = match family {
            Family::V4 => ICMP::V4,
            Family::V6 => ICMP::V6,
        };
        // Raw, as the kernel chooses the identifier on the other kind. It falls back to that by itself.
        let config = Config::builder().kind(kind).sock_type_hint(Type::RAW).interface_index(index).build();
        let client = Client::new(&config)?;
        let socket = client.get_socket();
        if socket.get_type() != Type::RAW {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no raw ICMP sockets (CAP_NET_RAW)"));
        }
        // SAFETY: `socket` keeps the descriptor open for longer than this borrow of it.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.get_native_sock()) };
        SockRef::from(&fd).set_mark(mark)?;
        accept_only_answers(fd, family)?;
        #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of it will do")]
        let first = RandomState::new().hash_one(mark) as u32;
        Ok(Self { isp, family, client: ClientHandle(client), outcomes, first })
    }

    /// Sends a probe, and reports its outcome within its patience, unless this prober is dropped before. To be
    /// called in a tokio runtime.
    pub fn send(&self, probe: &Probe) {
        let Ask::Ping(host) = *probe.target.ask();
        let (isp, family) = (self.isp, self.family);
        let (client, outcomes) = (self.client.0.clone(), self.outcomes.clone());
        let (sequence, patience) = (probe.sequence, probe.patience);
        let (identifier, number) = on_the_wire(self.first, sequence);
        tokio::spawn(async move {
            let mut pinger = client.pinger(host, identifier).await;
            // The task must not keep the client alive: when the prober is dropped this ping ends at once.
            drop(client);
            let result = match pinger.timeout(patience).ping(number, &PAYLOAD).await {
                Ok((packet, rtt)) => answer(&packet).map(|()| rtt),
                Err(SurgeError::ClientDestroyed) => return,
                Err(SurgeError::Timeout { .. }) => Err(Failure::NoAnswer),
                Err(SurgeError::IOError(error)) => Err(Failure::Send(error)),
                Err(error) => Err(Failure::Other(error)),
            };
            // Nobody there any more to hear it: then nobody needs it.
            let _ = outcomes.send(Outcome { isp, family, sequence, result }).await;
        });
    }
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

fn describe(family: Family, kind: u8, code: u8) -> String {
    let words = match (family, kind, code) {
        (Family::V4, 3, 0) | (Family::V6, 1, 0) => "network unreachable",
        (Family::V4, 3, 1) | (Family::V6, 1, 3) => "host unreachable",
        (Family::V4, 3, 9 | 10 | 13) | (Family::V6, 1, 1) => "prohibited",
        (Family::V4, 3, _) | (Family::V6, 1, _) => "unreachable",
        (Family::V4, 11, _) | (Family::V6, 3, _) => "time exceeded",
        _ => return format!("ICMP type {kind} code {code}"),
    };
    words.to_owned()
}

/// Lets the kernel pass on only answers and what ends the wait for one. Without this every ICMP packet that
/// arrives wakes the process, and a redirect that quotes a probe would be taken for the outcome, before the answer.
fn accept_only_answers(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    // Of <linux/icmp.h> and <linux/icmpv6.h>; both are 1. A bit that is set blocks the type.
    const FILTER: libc::c_int = 1;
    let (level, filter) = match family {
        Family::V4 => (libc::SOL_RAW, blocking_all_but(&[u32::from(ECHO_REPLY_V4), 3, 11, 12])),
        Family::V6 => (libc::SOL_ICMPV6, blocking_all_but(&[u32::from(ECHO_REPLY_V6), 1, 3, 4])),
    };
    // IPv4's filter knows types up to 31, in one word.
    let length = match family {
        Family::V4 => size_of_val(&filter) / filter.len(),
        Family::V6 => size_of_val(&filter),
    };
    let length = libc::socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to `length` readable bytes at least, for the time of the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, FILTER, filter.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A bit for each ICMP type, set for all but these.
fn blocking_all_but(types: &[u32]) -> [u32; 8] {
    let mut filter = [u32::MAX; 8];
    for &kind in types {
        if let Some(word) = filter.get_mut(kind as usize / 32) {
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

    #[test]
    fn rejections_are_told_in_words() {
        let from = "192.0.2.1".parse().unwrap();
        let rejected = |family, kind, code| Failure::Rejected { from, family, kind, code }.to_string();
        assert_eq!(rejected(Family::V4, 3, 1), "192.0.2.1 says host unreachable");
        assert_eq!(rejected(Family::V4, 3, 13), "192.0.2.1 says prohibited");
        assert_eq!(rejected(Family::V6, 1, 0), "192.0.2.1 says network unreachable");
        assert_eq!(rejected(Family::V6, 3, 0), "192.0.2.1 says time exceeded");
        assert_eq!(rejected(Family::V4, 12, 0), "192.0.2.1 says ICMP type 12 code 0");
    }
}
