//! Reading a counter of nft without running `nft`, which takes as long as a hundred packets.

use std::io::{self, Read, Write};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;

// Of `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.
const NETFILTER: i32 = 12;
const GET_OBJECT: u16 = 0x0a13;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const INET: u8 = 1;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;
/// Bytes before the attributes: the header of netlink, and that of netfilter.
const HEADERS: usize = 16 + 4;

/// A named counter of a host.
pub struct Counter {
    socket: Socket,
    request: Vec<u8>,
}

impl Counter {
    /// The counter of this name in a table of family inet. It may be made later.
    ///
    /// # Errors
    /// Without a socket.
    pub fn open(host: &Host, table: &str, name: &str) -> io::Result<Self> {
        let kind = Type::RAW.cloexec();
        let socket =
            host.run(|| Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(NETFILTER))))?;
        Ok(Self { socket, request: request(table, name) })
    }

    /// How many packets it has counted.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn packets(&self) -> anyhow::Result<u64> {
        let mut socket = &self.socket;
        socket.write_all(&self.request)?;
        let mut answer = vec![0; 4096];
        let length = socket.read(&mut answer)?;
        answer.truncate(length);
        packets_in(&answer).context("no such counter")
    }
}

fn request(table: &str, name: &str) -> Vec<u8> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
    let attributes =
        [text(OBJECT_TABLE, table), text(OBJECT_NAME, name), attribute(OBJECT_TYPE, &COUNTER.to_be_bytes())];
    let attributes = attributes.concat();
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    [
        &length.to_ne_bytes()[..],
        &GET_OBJECT.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        &[0; 8],
        &[INET, 0, 0, 0],
        &attributes,
    ]
    .concat()
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + data.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn packets_in(answer: &[u8]) -> Option<u64> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if kind == ERROR {
        return None;
    }
    let counter = find(answer.get(HEADERS..)?, OBJECT_DATA)?;
    Some(u64::from_be_bytes(*find(counter, COUNTER_PACKETS)?.first_chunk()?))
}

/// What the attribute of this kind has in it.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    const NESTED: u16 = 1 << 15;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) & !NESTED;
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_as_nft_shows_it() {
        if !crate::ready() {
            return;
        }
        let host = Host::new("counting").unwrap();
        let counter = Counter::open(&host, "seen", "slow").unwrap();
        counter.packets().unwrap_err();
        let table = "table inet seen {\ncounter other { packets 9 bytes 9\n}\ncounter slow { packets 70000 bytes 7\n}\n}\n";
        host.feed("nft", &["-f", "-"], table).unwrap();
        assert_eq!(counter.packets().unwrap(), 70_000);
    }
}
