//! One netlink socket: requests, dumps that stream, and multicast events.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::{NetlinkError, Refusal};

/// The kernel fills at most 32 KiB at a time.
const BUFFER_LENGTH: usize = 64 * 1024;

/// `NLMSGERR_ATTR_MSG`: the kernel's own words about an error.
const EXTENDED_ACK_MESSAGE: u16 = 1;

/// A netlink socket; for rtnetlink, if nothing else is said.
pub(super) struct Socket {
    inner: TokioSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// What a dump found besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dumped {
    /// A consistent picture.
    Whole,
    /// Things changed in between; some may be missing.
    Interrupted,
}

impl Socket {
    /// A socket for requests. The kernel checks dump requests strictly, and filters by what they say.
    pub(super) fn open() -> io::Result<Self> {
        Self::open_for(NETLINK_ROUTE)
    }

    /// The same for another netlink protocol than rtnetlink.
    pub(super) fn open_for(protocol: isize) -> io::Result<Self> {
        let mut inner = TokioSocket::new(protocol)?;
        let socket = inner.socket_mut();
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.bind_auto()?;
        Ok(Self { inner, buffer: Vec::with_capacity(BUFFER_LENGTH), sequence: 0 })
    }

    /// A socket that hears these multicast groups (`RTMGRP_*` bits) from now on, with a receive buffer of that
    /// many bytes, or as near to it as the kernel allows.
    pub(super) fn subscribe(groups: u32, receive_buffer: usize) -> io::Result<Self> {
        let mut inner = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = inner.socket_mut();
        if setsockopt(socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &receive_buffer)?;
        }
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self { inner, buffer: Vec::with_capacity(BUFFER_LENGTH), sequence: 0 })
    }

    /// Waits for the next datagram; [`Socket::frames`] are then its messages.
    pub(super) async fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let from = self.inner.recv_from(&mut self.buffer).await?;
            if is_kernel(&from) {
                return Ok(());
            }
        }
    }

    /// The next datagram if there is one already; false if not.
    pub(super) fn receive_queued(&mut self) -> io::Result<bool> {
        loop {
            self.buffer.clear();
            match self.inner.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok((_, from)) if is_kernel(&from) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// The messages of the datagram received last.
    pub(super) fn frames(&self) -> Frames<'_> {
        Frames { rest: &self.buffer }
    }

    /// Asks for everything of a kind and hands each answer to `each` as it comes, so that large tables need no
    /// memory.
    pub(super) async fn dump(
        &mut self,
        request: impl NetlinkSerializable,
        action: &str,
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<Dumped, NetlinkError> {
        let sequence = self.send(request, NLM_F_REQUEST | NLM_F_DUMP).await?;
        let mut dumped = Dumped::Whole;
        loop {
            self.receive().await?;
            for frame in self.frames().filter(|frame| frame.sequence == sequence) {
                if frame.flags & NLM_F_DUMP_INTR != 0 {
                    dumped = Dumped::Interrupted;
                }
                if matches!(frame.kind, NLMSG_DONE | NLMSG_ERROR) {
                    return frame.answer(action).map(|()| dumped);
                }
                each(&frame);
            }
        }
    }

    /// Asks for one thing and hands the answer to `look`.
    pub(super) async fn get(
        &mut self,
        request: impl NetlinkSerializable,
        action: &str,
        mut look: impl FnMut(&Frame<'_>),
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(request, NLM_F_REQUEST).await?;
        loop {
            // The kernel has answered such a request by the time it is sent.
            if !self.receive_queued()? {
                self.receive().await?;
            }
            if let Some(frame) = self.frames().find(|frame| frame.sequence == sequence) {
                if frame.kind == NLMSG_ERROR {
                    return frame.answer(action);
                }
                look(&frame);
                return Ok(());
            }
        }
    }

    /// Has the kernel do something and waits until it is done. `action` says what, for the error.
    pub(super) async fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        action: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags).await?;
        loop {
            self.receive().await?;
            let answer = self.frames().find(|frame| frame.sequence == sequence && frame.kind == NLMSG_ERROR);
            if let Some(frame) = answer {
                return frame.answer(&action());
            }
        }
    }

    async fn send(&mut self, request: impl NetlinkSerializable, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.inner.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
        Ok(self.sequence)
    }
}

/// The messages of a datagram.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let buffer = NetlinkBuffer::new_checked(self.rest).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        let frame = Frame {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload: buffer.payload(),
        };
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    }
}

/// One netlink message, not parsed yet.
pub(super) struct Frame<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub(super) kind: u16,
    /// `NLM_F_*`.
    pub(super) flags: u16,
    sequence: u32,
    /// What follows the netlink header.
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// The message, if it is one we can read.
    pub(super) fn parse(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        match RouteNetlinkMessage::deserialize(&header, self.payload) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::warn!(kind = self.kind, %error, "ignoring a netlink message that cannot be read");
                None
            }
        }
    }

    /// What an `NLMSG_ERROR` or `NLMSG_DONE` says: both start with an error number, 0 or negative.
    fn answer(&self, action: &str) -> Result<(), NetlinkError> {
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Ok(());
        }
        // After the number an error carries the request's header, and then what more there is to say.
        let skip = if self.kind == NLMSG_ERROR { 4 + 16 } else { 4 };
        let detail = NlasIterator::new(self.payload.get(skip..).unwrap_or_default())
            .filter_map(Result::ok)
            .find(|attribute| attribute.kind() == EXTENDED_ACK_MESSAGE)
            .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
        let refusal = Refusal { errno: code.saturating_abs(), detail };
        Err(NetlinkError::Refused { action: action.to_owned(), refusal })
    }
}

fn is_kernel(from: &SocketAddr) -> bool {
    from.port_number() == 0
}
