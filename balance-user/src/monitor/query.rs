//! One question to one name server (RFC 1035), for the addresses of a name.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use balance_common::Family;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::Failure;
use super::way::Way;

/// What a name server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The addresses; none if the name has none of that family.
    pub(super) addresses: Vec<IpAddr>,
    /// How long that is true.
    pub(super) ttl: Duration,
}

/// Asks a name server for the addresses of a name in a family, and says how long that took. Waits for ever.
pub(super) async fn ask(
    way: &Way,
    (server, port): (IpAddr, u16),
    name: &str,
    family: Family,
) -> Result<(Known, Duration), Failure> {
    let to = way.address(server, port);
    let connection = |source| Failure::Connection { to, source };
    let id = random_id();
    let question = question(id, name, family)
        .ok_or_else(|| Failure::Lookup { name: name.to_owned(), why: "it is no name".to_owned() })?;
    let socket = way.udp(to).await.map_err(connection)?;
    let start = Instant::now();
    socket.send(&question).await.map_err(connection)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(connection)?;
        let rtt = start.elapsed();
        let answer = buffer.get(..length).unwrap_or_default();
        match read(answer, id, name, family) {
            Some(Ok(known)) => return Ok((known, rtt)),
            Some(Err(code)) => return Err(Failure::Refused { server, name: name.to_owned(), code }),
            // Not an answer to this: somebody guesses.
            None => {}
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any 16 bits of it will do")]
fn random_id() -> u16 {
    RandomState::new().hash_one(0) as u16
}

fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let kind = match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    };
    let name = Name::new(name).ok()?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// What an answer says, or its response code if it says nothing. None if it is no answer to this question.
fn read(answer: &[u8], id: u16, name: &str, family: Family) -> Option<Result<Known, &'static str>> {
    let packet = Packet::parse(answer).ok()?;
    let name = Name::new(name).ok()?;
    let same = |question: &Question<'_>| question.qname.to_string().eq_ignore_ascii_case(&name.to_string());
    // Some servers that refuse do not repeat the question.
    let fits = packet.questions.iter().all(same);
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !fits {
        return None;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        code => return Some(Err(words(code))),
    }
    let records = packet.answers.iter().filter_map(|record| {
        let address: IpAddr = match (&record.rdata, family) {
            (RData::A(a), Family::V4) => std::net::Ipv4Addr::from(a.address).into(),
            (RData::AAAA(aaaa), Family::V6) => std::net::Ipv6Addr::from(aaaa.address).into(),
            _ => return None,
        };
        Some((address, record.ttl))
    });
    let records: Vec<_> = records.collect();
    // Aliases on the way have times of their own.
    let ttl = packet.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    let addresses = records.into_iter().map(|(address, _)| address).collect();
    Some(Ok(Known { addresses, ttl: Duration::from_secs(ttl.into()) }))
}

const fn words(code: RCODE) -> &'static str {
    match code {
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "that there is no such name (NXDOMAIN)",
        RCODE::Refused => "REFUSED",
        RCODE::FormatError => "FORMERR",
        RCODE::NotImplemented => "NOTIMP",
        _ => "an error",
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};

    use super::*;

    fn answer(id: u16, name: &str, records: Vec<(u32, RData<'_>)>, code: RCODE) -> Vec<u8> {
        let question = question(id, name, Family::V4).unwrap();
        let mut packet = Packet::parse(&question).unwrap().into_reply();
        *packet.rcode_mut() = code;
        for (ttl, data) in records {
            packet.answers.push(ResourceRecord::new(
                Name::new_unchecked("example.com"),
                CLASS::IN,
                ttl,
                data,
            ));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn a(last: u8) -> RData<'static> {
        RData::A(A::from(std::net::Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn addresses_of_the_family_are_read_and_kept_for_the_shortest_time() {
        let cname = RData::CNAME(CNAME(Name::new_unchecked("a.example.net")));
        let six = RData::AAAA(AAAA::from(std::net::Ipv6Addr::LOCALHOST));
        let bytes =
            answer(7, "example.com", vec![(9, cname), (300, a(1)), (60, six), (200, a(2))], RCODE::NoError);
        let known = read(&bytes, 7, "example.com", Family::V4).unwrap().unwrap();
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        assert_eq!(known, Known { addresses: addresses.to_vec(), ttl: Duration::from_secs(9) });
    }

    #[test]
    fn no_address_is_an_answer_and_an_error_is_none() {
        let none = answer(7, "example.com", vec![], RCODE::NoError);
        assert!(read(&none, 7, "example.com", Family::V4).unwrap().unwrap().addresses.is_empty());
        let failed = answer(7, "example.com", vec![], RCODE::ServerFailure);
        assert_eq!(read(&failed, 7, "example.com", Family::V4), Some(Err("SERVFAIL")));
    }

    #[test]
    fn what_answers_something_else_is_not_heard() {
        let bytes = answer(7, "example.com", vec![(1, a(1))], RCODE::NoError);
        assert!(read(&bytes, 7, "Example.COM", Family::V4).is_some());
        assert_eq!(read(&bytes, 8, "example.com", Family::V4), None);
        assert_eq!(read(&bytes, 7, "example.org", Family::V4), None);
        let question = question(7, "example.com", Family::V4).unwrap();
        assert_eq!(read(&question, 7, "example.com", Family::V4), None);
        for length in 0..bytes.len() {
            let _ = read(&bytes[..length], 7, "example.com", Family::V4);
        }
    }
}
