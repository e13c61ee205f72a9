//! Asking `explain`, and trying what it says.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::SERVER_PORT;
use balance_lab::{Family, Host, Lab, Transport};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const KINDS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// The internet host by another of its addresses.
pub(crate) fn internet(last: u8, family: Family) -> SocketAddr {
    let address = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::new(203, 0, 113, last)),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into()).into(),
    };
    (address, SERVER_PORT).into()
}

/// What `explain` with these words says, as JSON.
pub(crate) fn explain(lab: &Lab, words: &str) -> Value {
    let arguments: Vec<&str> = ["explain", "--json"].into_iter().chain(words.split_whitespace()).collect();
    serde_json::from_str(&lab.balance_ok(&arguments).unwrap()).unwrap()
}

/// What it says of a flow from the LAN.
pub(crate) fn explain_flow(lab: &Lab, transport: Transport, from: SocketAddr, to: SocketAddr) -> Value {
    let (source, sport, destination, dport) = (from.ip(), from.port(), to.ip(), to.port());
    let proto = if transport == Transport::Tcp { "tcp" } else { "udp" };
    explain(
        lab,
        &format!("--proto {proto} --from {source} --sport {sport} --to {destination} --dport {dport}"),
    )
}

/// Opens a flow between these ends.
pub(crate) fn open(host: &Host, transport: Transport, from: SocketAddr, to: SocketAddr) -> Socket {
    let kind = if transport == Transport::Tcp { Type::STREAM } else { Type::DGRAM };
    host.run(|| {
        let socket = Socket::new(Domain::for_address(from), kind, None).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&to.into(), SOON).unwrap();
        socket
    })
}

/// Asks the server which address it sees.
pub(crate) fn ask(mut socket: &Socket) -> IpAddr {
    socket.write_all(&1_u64.to_be_bytes()).unwrap();
    let mut answer = [0; 26];
    socket.read_exact(&mut answer).unwrap();
    let address: [u8; 16] = answer[8..24].try_into().unwrap();
    Ipv6Addr::from(address).to_canonical()
}

/// The source that the explanation says the other end sees.
pub(crate) fn seen_as(told: &Value) -> IpAddr {
    told["nat"]["seen_as"].as_str().unwrap().parse().unwrap()
}
