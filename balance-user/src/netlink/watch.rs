//! Keeps a [`Network`] current.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{Outcome, apply};
use super::socket::{Dumped, Frame, Socket};
use super::{NetlinkError, delegation};
use crate::core::network::Network;
use crate::core::plan::ROUTE_PROTOCOL;

/// `RTNLGRP_IPV6_RULE`, for which there is no `RTMGRP_` bit by name.
const IPV6_RULE: i32 = 1 << (19 - 1);

/// The events we hear of: links, and addresses, routes and rules of both families.
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_RULE
    | IPV6_RULE
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE) as u32;

/// Room for events that have not been read yet, in bytes: some 30,000 route changes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// So many datagrams are read before changes are reported, so that a flood of route changes cannot hold up the
/// one that matters.
const BATCH: usize = 1024;

/// For so long after an event of a device the kernel may hold back others; a little more than its second.
const LINKWATCH_PAUSE: Duration = Duration::from_millis(1200);

/// So often a dump is repeated that was interrupted by a change.
const DUMP_ATTEMPTS: usize = 3;

type Reading = Pin<Box<dyn Future<Output = Result<Network, NetlinkError>> + Send>>;

/// Follows the kernel's events.
///
/// It listens first and reads the state afterwards, so nothing falls in between. It reads all anew when
/// * events were lost (`ENOBUFS`); the queue is read empty before that, since until then the kernel goes on
///   dropping events without saying so again;
/// * an event says that more has changed than it tells ([`Outcome::Unclear`]);
/// * the socket broke.
///
/// Routes that are neither default routes nor ours are thrown away by a look at two bytes.
pub struct Watcher {
    socket: Socket,
    questions: Socket,
    /// When an event told of a device last.
    heard_of_links: Option<Instant>,
    network: Network,
    receive_buffer: usize,
    /// What we know may be wrong, and is being read anew. It is kept here so that it goes on where it was when
    /// a caller gave up waiting.
    reading: Option<Reading>,
    /// There are changes that [`Watcher::changed`] has not reported yet.
    unreported: bool,
}

impl Watcher {
    /// Starts watching the network namespace of this thread, and says how it is now.
    pub async fn start() -> Result<(Self, Network), NetlinkError> {
        Self::start_with_buffer(RECEIVE_BUFFER).await
    }

    /// The same with room for so many bytes of unread events.
    pub async fn start_with_buffer(receive_buffer: usize) -> Result<(Self, Network), NetlinkError> {
        let socket = Socket::subscribe(GROUPS, receive_buffer)?;
        let network = dump().await?;
        let watcher = Self {
            socket,
            questions: Socket::open()?,
            heard_of_links: Some(Instant::now()),
            network: network.clone(),
            receive_buffer,
            reading: None,
            unreported: false,
        };
        Ok((watcher, network))
    }

    /// Waits until something has changed and says how the network is now. Changes that are queued already are
    /// reported together; there is no waiting for more. May be cancelled: no change gets lost.
    ///
    /// After an error it may be called again, and starts anew; better after a pause.
    pub async fn changed(&mut self) -> Result<&Network, NetlinkError> {
        loop {
            self.finish_reading().await?;
            if self.unreported {
                self.unreported = false;
                return Ok(&self.network);
            }
            match self.socket.receive().await.and_then(|()| self.take_batch()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::info!("route events were lost, reading everything anew");
                    self.read_anew();
                    self.drain()?;
                }
                Err(error) => {
                    tracing::warn!(%error, "the netlink socket broke, opening another");
                    self.read_anew();
                    self.socket = Socket::subscribe(GROUPS, self.receive_buffer)?;
                }
            }
        }
    }

    /// The kernel tells of a lost carrier up to a second late, if it has told of another device less than a second ago
    /// (`linkwatch`); asked, it knows at once.
    #[must_use]
    pub fn may_be_late(&self) -> bool {
        self.heard_of_links.is_some_and(|heard| heard.elapsed() <= LINKWATCH_PAUSE)
    }

    /// Looks whether these devices still have carrier, and says how the network is now if one has lost it. Only while the
    /// kernel [may be late](Self::may_be_late) to tell.
    pub async fn look_at(&mut self, indices: &[u32]) -> Result<Option<&Network>, NetlinkError> {
        if !self.may_be_late() {
            return Ok(None);
        }
        let mut changed = false;
        for &index in indices {
            let network = &mut self.network;
            let look = |frame: &Frame<'_>| {
                let believed = network.links.get(&index).is_some_and(|link| link.carrier);
                if !believed || has_carrier(frame) {
                    return;
                }
                if let Some(message) = frame.parse() {
                    changed |= apply(network, &message, false) != Outcome::Unchanged;
                }
            };
            match self.questions.get(link_request(Some(index)), "look at a device", look).await {
                // It is gone, which an event tells of.
                Err(NetlinkError::Refused { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed.then_some(&self.network))
    }

    /// Takes in the datagram that is there and those that are queued behind it.
    fn take_batch(&mut self) -> io::Result<()> {
        let mut unclear = false;
        for _ in 0..BATCH {
            for frame in self.socket.frames().filter(is_relevant) {
                if frame.kind == libc::RTM_NEWLINK {
                    self.heard_of_links = Some(Instant::now());
                }
                let Some(message) = frame.parse() else { continue };
                match apply(&mut self.network, &message, frame.flags & NLM_F_REPLACE != 0) {
                    Outcome::Unchanged => {}
                    Outcome::Changed => self.unreported = true,
                    Outcome::Unclear => {
                        self.unreported = true;
                        unclear = true;
                    }
                }
            }
            // After an error everything is read anew anyway.
            if !self.socket.receive_queued()? {
                break;
            }
        }
        if unclear {
            self.read_anew();
        }
        Ok(())
    }

    /// Reads the queue empty, without looking.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.socket.receive_queued() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has everything read anew, which begins when it is next waited for.
    fn read_anew(&mut self) {
        self.reading = Some(Box::pin(dump()));
    }

    async fn finish_reading(&mut self) -> Result<(), NetlinkError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        match reading.await {
            Ok(network) => {
                self.reading = None;
                self.unreported |= network != self.network;
                self.network = network;
                Ok(())
            }
            Err(error) => {
                self.read_anew();
                Err(error)
            }
        }
    }
}

/// How the network of this thread's namespace is now.
///
/// The links come first: the kernel lists them under the lock that changes to the network are made under, so
/// that whatever an event has announced is complete by the time the routes are read. To find the default
/// routes of all tables all unicast routes must be listed, as the kernel has no narrower filter; others are
/// dropped unparsed, and nothing is stored of them.
pub async fn dump() -> Result<Network, NetlinkError> {
    let mut socket = Socket::open()?;
    let mut network = Network::default();
    for _ in 0..DUMP_ATTEMPTS {
        network = Network::default();
        let mut dumped = Dumped::Whole;
        for (request, action) in requests() {
            let each = |frame: &Frame<'_>| {
                if let Some(message) = is_relevant(frame).then(|| frame.parse()).flatten() {
                    apply(&mut network, &message, false);
                }
            };
            if socket.dump(request, action, each).await? == Dumped::Interrupted {
                dumped = Dumped::Interrupted;
            }
        }
        if dumped == Dumped::Whole {
            break;
        }
    }
    Ok(network)
}

/// Whether a link message says so. This is asked many times a second, so the message is not parsed for it: the flags
/// are the third word of its header (`struct ifinfomsg`).
fn has_carrier(frame: &Frame<'_>) -> bool {
    let flags =
        frame.payload.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    LinkFlags::from_bits_retain(flags).contains(LinkFlags::LowerUp)
}

/// Asks for one device, or for all.
pub(super) fn link_request(index: Option<u32>) -> RouteNetlinkMessage {
    let mut links = LinkMessage::default();
    links.header.index = index.unwrap_or_default();
    links.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(links)
}

fn requests() -> [(RouteNetlinkMessage, &'static str); 5] {
    let routes = |family, kind| {
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        routes.header.kind = kind;
        RouteNetlinkMessage::GetRoute(routes)
    };
    [
        (link_request(None), "list the devices"),
        (RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list the addresses"),
        (routes(AddressFamily::Inet, RouteType::Unicast), "list the IPv4 routes"),
        (routes(AddressFamily::Inet6, RouteType::Unicast), "list the IPv6 routes"),
        (routes(AddressFamily::Inet6, RouteType::Unreachable), "list the unreachable IPv6 routes"),
    ]
}

/// Whether a message may matter, by its kind, and for a route by the length of its destination's prefix (the
/// second byte), if it is gone by its protocol (the sixth), or if it reserves a prefix: so a million routes that are none of
/// these cost next to nothing.
fn is_relevant(frame: &Frame<'_>) -> bool {
    let is_default = frame.payload.get(1) == Some(&0);
    match frame.kind {
        libc::RTM_NEWROUTE => is_default || delegation::may_be_reserved(frame.payload),
        libc::RTM_DELROUTE => {
            is_default
                || delegation::may_be_reserved(frame.payload)
                || frame.payload.get(5) == Some(&ROUTE_PROTOCOL)
        }
        libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_DELRULE => {
            true
        }
        _ => false,
    }
}
