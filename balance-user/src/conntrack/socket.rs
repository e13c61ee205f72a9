//! Talking to the kernel's conntrack: requests out, answers in.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::ConntrackError;

const CTA_MARK_MASK: u16 = 21;

/// With version 0 the kernel takes a request to delete by mark for all families, whatever family it names
/// (`ctnetlink_del_conntrack`).
const VERSION: u8 = 1;

/// The kernel sends dumps in datagrams of at most 32 KiB, if the reader's buffer shows that it wants such.
const BUFFER_LEN: usize = 64 * 1024;

/// Attributes that select entries by mark, or say which bits of the mark to change to what.
pub(super) fn mark_attributes(value: u32, mask: u32) -> [ConntrackAttribute; 2] {
    let mask = DefaultNla::new(CTA_MARK_MASK, mask.to_be_bytes().to_vec());
    [ConntrackAttribute::CtaMark(value), ConntrackAttribute::Other(mask)]
}

/// A blocking conntrack socket. It belongs to the network namespace of the thread that opened it.
pub(super) struct ConntrackSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl ConntrackSocket {
    pub(super) fn open() -> Result<Self, ConntrackError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            // Connected: nobody but the kernel can send to it.
            socket.connect(&SocketAddr::new(0, 0))?;
            // Answers need not repeat the request.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(ConntrackError::from_io)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_LEN], sequence: 0 })
    }

    /// Sends one request and waits until it is done.
    pub(super) fn request(
        &mut self,
        family: NetfilterProtoFamily,
        message: ConntrackMessage,
    ) -> Result<(), ConntrackError> {
        let bytes = self.serialize(family, message, NLM_F_ACK);
        self.send(&bytes)?;
        let last = self.sequence;
        self.answers(|answer| match answer {
            Answer::Error { sequence, code } if sequence == last => Some(outcome(code)),
            _ => None,
        })
    }

    /// Sends requests, each with its family, at once. Returns how many the kernel carried out; entries that
    /// are gone (`ENOENT`) do not count and are no error.
    pub(super) fn batch(
        &mut self,
        requests: impl ExactSizeIterator<Item = (NetfilterProtoFamily, ConntrackMessage)>,
    ) -> Result<usize, ConntrackError> {
        let count = requests.len();
        if count == 0 {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        for (index, (family, message)) in requests.enumerate() {
            // Failures are always answered; success only where asked for, and the last one tells of all.
            let flags = if index + 1 == count { NLM_F_ACK } else { 0 };
            bytes.extend(self.serialize(family, message, flags));
        }
        self.send(&bytes)?;
        let last = self.sequence;
        let mut gone = 0;
        let mut failure = None;
        self.answers(|answer| {
            let Answer::Error { sequence, code } = answer else { return None };
            if code == -libc::ENOENT {
                gone += 1;
            } else if let Err(error) = outcome(code) {
                failure = Some(error);
            }
            (sequence == last).then_some(Ok(()))
        })?;
        failure.map_or(Ok(count - gone), Err)
    }

    /// Asks for all entries of both families that match the attributes, and calls `each` with the payload of every
    /// one. An error of `each` ends it.
    pub(super) fn dump(
        &mut self,
        filter: Vec<ConntrackAttribute>,
        each: impl FnMut(&[u8]) -> Result<(), ConntrackError>,
    ) -> Result<(), ConntrackError> {
        self.dump_for(filter, each)
    }

    /// The same for whoever has errors of his own.
    pub(super) fn dump_for<E: From<ConntrackError>>(
        &mut self,
        filter: Vec<ConntrackAttribute>,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.serialize(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(filter), NLM_F_DUMP);
        self.send(&bytes)?;
        self.answers(|answer| match answer {
            Answer::Payload(payload) => each(payload).err().map(Err),
            Answer::Error { code, .. } | Answer::Done { code } => Some(outcome(code).map_err(E::from)),
        })
    }

    /// Asks for the entry that the attributes name, and calls `look` with its payload if there is one.
    pub(super) fn get(
        &mut self,
        family: NetfilterProtoFamily,
        attributes: Vec<ConntrackAttribute>,
        mut look: impl FnMut(&[u8]),
    ) -> Result<(), ConntrackError> {
        let bytes = self.serialize(family, ConntrackMessage::Get(attributes), 0);
        self.send(&bytes)?;
        self.answers(|answer| match answer {
            Answer::Payload(payload) => {
                look(payload);
                Some(Ok(()))
            }
            Answer::Error { code, .. } if code == -libc::ENOENT => Some(Ok(())),
            Answer::Error { code, .. } | Answer::Done { code } => Some(outcome(code)),
        })
    }

    /// Hands every answer to `look` until that returns the result.
    fn answers<E: From<ConntrackError>>(
        &mut self,
        mut look: impl FnMut(Answer<'_>) -> Option<Result<(), E>>,
    ) -> Result<(), E> {
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ConntrackError::from_io(error).into()),
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            if let Some(result) = each_message(datagram, |message| look(Answer::of(&message))) {
                return result;
            }
        }
    }

    fn serialize(&mut self, family: NetfilterProtoFamily, message: ConntrackMessage, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let message = NetfilterMessage::new(NetfilterHeader::new(family, VERSION, 0), message);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn send(&self, bytes: &[u8]) -> Result<(), ConntrackError> {
        self.socket.send(bytes, 0).map(drop).map_err(ConntrackError::from_io)
    }
}

/// A message that nobody has asked for.
pub(super) struct Message<'a> {
    /// Of the subsystem.
    pub(super) kind: u8,
    /// What it is about is new.
    pub(super) is_new: bool,
    pub(super) payload: &'a [u8],
}

/// A socket that hears of new, changed and ended entries.
pub(super) struct Multicast {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Multicast {
    /// With room for so many bytes of messages, as far as the kernel allows it.
    pub(super) fn open(room: usize) -> Result<Self, ConntrackError> {
        /// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE` and `_DESTROY`.
        const GROUPS: [u32; 3] = [1, 2, 3];
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            // More than the limit of the system only for root, without whom there is nothing to hear anyway.
            setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &room)?;
            GROUPS.into_iter().try_for_each(|group| socket.add_membership(group))?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(ConntrackError::from_io)?, buffer: vec![0; BUFFER_LEN] })
    }

    /// Waits for messages, so long at most, and shows those that come together. Returns whether some were lost.
    pub(super) fn receive<E: From<ConntrackError>>(
        &mut self,
        patience: Duration,
        mut look: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut sockets, patience) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(ConntrackError::from_io(error.into()).into()),
        }
        let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
            Err(error) => return Err(ConntrackError::from_io(error).into()),
        };
        each_message(self.buffer.get(..length).unwrap_or_default(), |message| {
            let [kind, _] = message.message_type().to_le_bytes();
            let is_new = message.flags() & NLM_F_CREATE != 0;
            let payload = message.payload();
            look(Message { kind, is_new, payload }).err().map(Err)
        })
        .unwrap_or(Ok(()))
        .map(|()| false)
    }
}

/// Shows the messages of a datagram, until `look` returns a result.
fn each_message<'a, E: From<ConntrackError>>(
    datagram: &'a [u8],
    mut look: impl FnMut(NetlinkBuffer<&'a [u8]>) -> Option<Result<(), E>>,
) -> Option<Result<(), E>> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else {
            return Some(Err(ConntrackError::Malformed.into()));
        };
        // Messages start at multiples of four.
        let next = (message.length() as usize).next_multiple_of(4);
        if let Some(result) = look(message) {
            return Some(result);
        }
        rest = rest.get(next..).unwrap_or_default();
    }
    None
}

enum Answer<'a> {
    Payload(&'a [u8]),
    /// The outcome of one request: 0 or a negative errno.
    Error {
        sequence: u32,
        code: i32,
    },
    /// The end of a dump.
    Done {
        code: i32,
    },
}

impl<'a> Answer<'a> {
    fn of(message: &NetlinkBuffer<&'a [u8]>) -> Self {
        let payload = message.payload();
        let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        match message.message_type() {
            NLMSG_ERROR => Self::Error { sequence: message.sequence_number(), code },
            NLMSG_DONE => Self::Done { code },
            _ => Self::Payload(payload),
        }
    }
}

fn outcome(code: i32) -> Result<(), ConntrackError> {
    if code >= 0 {
        return Ok(());
    }
    Err(ConntrackError::from_io(io::Error::from_raw_os_error(code.saturating_neg())))
}
