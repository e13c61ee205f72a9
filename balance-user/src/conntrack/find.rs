//! Looking one flow up.

use std::net::SocketAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, IPTuple, ProtoTuple, Protocol, Tuple};

use super::ConntrackError;
use super::entry::Entry;
use super::socket::ConntrackSocket;

/// What the kernel's connection tracking knows of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The whole mark, bits of others included, in host byte order.
    pub mark: u32,
    /// The packets that were asked about are the answers: the other end has opened it.
    pub is_answer: bool,
    /// From where the other end sees these packets come.
    pub seen_from: SocketAddr,
    /// Whom they reach.
    pub sent_to: SocketAddr,
}

/// The flow whose packets go from here to there, before any NAT; none if there is none. The protocol must be one that has ports.
pub fn find(protocol: u8, from: SocketAddr, to: SocketAddr) -> Result<Option<Tracked>, ConntrackError> {
    let family = if from.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    let addresses = vec![IPTuple::SourceAddress(from.ip()), IPTuple::DestinationAddress(to.ip())];
    let transport = vec![
        ProtoTuple::Protocol(Protocol::from(protocol)),
        ProtoTuple::SourcePort(from.port()),
        ProtoTuple::DestinationPort(to.port()),
    ];
    let tuple = ConntrackAttribute::CtaTupleOrig(vec![Tuple::Ip(addresses), Tuple::Proto(transport)]);
    let mut found = None;
    ConntrackSocket::open()?.get(family, vec![tuple], |payload| {
        found = Entry::parse(payload).and_then(|entry| tracked(entry.mark, entry.ends()?, (from, to)));
    })?;
    Ok(found)
}

/// `ends` as [`Entry::ends`] tells them; `asked` are source and destination of either direction.
fn tracked(
    mark: u32,
    [original, reply]: [(SocketAddr, SocketAddr); 2],
    asked: (SocketAddr, SocketAddr),
) -> Option<Tracked> {
    let (is_answer, (sent_to, seen_from)) = if asked == original {
        (false, reply)
    } else if asked == reply {
        (true, original)
    } else {
        return None;
    };
    Some(Tracked { mark, is_answer, seen_from, sent_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nat_is_what_the_other_direction_says() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let [inside, outside, far] = ["192.168.1.10:4000", "203.0.113.7:5000", "198.51.100.1:443"].map(at);
        let opened = [(inside, far), (far, outside)];
        let expected = Tracked { mark: 0x100, is_answer: false, seen_from: outside, sent_to: far };
        assert_eq!(tracked(0x100, opened, (inside, far)), Some(expected));
        // Forwarded to a host inside, which answers.
        let forwarded = [(far, outside), (inside, far)];
        let expected = Tracked { mark: 0x100, is_answer: true, seen_from: outside, sent_to: far };
        assert_eq!(tracked(0x100, forwarded, (inside, far)), Some(expected));
        assert_eq!(tracked(0x100, opened, (far, inside)), None);
    }
}
