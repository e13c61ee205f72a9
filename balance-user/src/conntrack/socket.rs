//! Talking to the kernel's conntrack: requests out, answers in.

use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

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
        mut each: impl FnMut(&[u8]) -> Result<(), ConntrackError>,
    ) -> Result<(), ConntrackError> {
        let bytes = self.serialize(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(filter), NLM_F_DUMP);
        self.send(&bytes)?;
        self.answers(|answer| match answer {
            Answer::Payload(payload) => each(payload).err().map(Err),
            Answer::Error { code, .. } | Answer::Done { code } => Some(outcome(code)),
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
    fn answers(
        &mut self,
        mut look: impl FnMut(Answer<'_>) -> Option<Result<(), ConntrackError>>,
    ) -> Result<(), ConntrackError> {
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ConntrackError::from_io(error)),
            };
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| ConntrackError::Malformed)?;
                if let Some(result) = look(Answer::of(&message)) {
                    return result;
                }
                // Messages start at multiples of four.
                let next = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(next..).unwrap_or_default();
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
