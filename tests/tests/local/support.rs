//! A host with two ISPs, and sockets on it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use balance_lab::addresses::{SERVER_PORT, internet};
use balance_lab::checks::SOON;
use balance_lab::{Daemon, Family, Flows, Host, Lab, Transport, open_flows};
use socket2::{Domain, Socket, Type};

/// A host with two ISPs and nobody behind it; the lines are the first of its config.
pub(crate) fn standalone(top: &str) -> Lab {
    let lab = Lab::builder().lan_hosts(0).build().unwrap();
    let config = lab.config();
    lab.write_config(&format!("{top}\n{}", config.split("[[lan]]").next().unwrap())).unwrap();
    lab
}

/// The same with a daemon that balances.
pub(crate) fn balancing() -> (Lab, Daemon) {
    let lab = standalone("");
    let daemon = lab.start_up().unwrap();
    (lab, daemon)
}

/// What `status` says of the traffic of the machine itself.
pub(crate) fn local_traffic(lab: &Lab) -> serde_json::Value {
    lab.status().unwrap()["local_traffic"].clone()
}

/// Opens flows from the router to the internet host.
pub(crate) fn open(lab: &Lab, count: usize, transport: Transport, family: Family) -> Flows {
    open_flows(lab.router(), count, transport, family).unwrap()
}

/// How many of these go by CABLE; all must have been answered, from the address of their ISP's device.
pub(crate) fn by_cable(lab: &Lab, answers: &[io::Result<IpAddr>], family: Family) -> usize {
    let names = lab.isps_of(answers);
    for (name, answer) in names.iter().zip(answers) {
        let name = name.unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(*answer.as_ref().unwrap(), lab.isp(name).address(family));
    }
    names.iter().filter(|name| **name == Some("CABLE")).count()
}

/// Makes a socket.
pub(crate) fn make(host: &Host, transport: Transport, family: Family) -> Socket {
    let kind = if transport == Transport::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = host.run(|| Socket::new(Domain::for_address(internet(family, 1)), kind, None)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Asks the internet host which address it sees, without connecting.
pub(crate) fn ask(socket: &Socket, family: Family) -> io::Result<IpAddr> {
    socket.send_to(&1_u64.to_be_bytes(), &internet(family, SERVER_PORT).into())?;
    answer(socket)
}

/// The same over a socket that is connected.
pub(crate) fn ask_connected(socket: &Socket) -> io::Result<IpAddr> {
    socket.send(&1_u64.to_be_bytes())?;
    answer(socket)
}

/// Takes the answer.
pub(crate) fn answer(socket: &Socket) -> io::Result<IpAddr> {
    let mut answer = [0; 26];
    io::Read::read_exact(&mut &*socket, &mut answer)?;
    let address: [u8; 16] = answer[8..24].try_into().unwrap();
    Ok(Ipv6Addr::from(address).to_canonical())
}

/// The mark of a new UDP socket.
pub(crate) fn new_mark(host: &Host) -> u32 {
    make(host, Transport::Udp, Family::V4).mark().unwrap()
}

/// Connects it to the internet host.
pub(crate) fn connect(socket: &Socket, family: Family) {
    socket.connect_timeout(&internet(family, SERVER_PORT).into(), SOON).unwrap();
}
