//! Sockets whose ISP somebody else has chosen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use balance_lab::addresses::{INTERNET_V4, INTERNET_V6, SERVER_PORT};
use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, Isp, KINDS, Lab, Transport, ready, serve_tcp, serve_udp};
use socket2::Socket;

use crate::support::{answer, ask, ask_connected, balancing, connect, make, new_mark};

/// How a socket says which ISP it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Address,
    Device,
    Mark,
}

impl By {
    fn choose(self, socket: &Socket, isp: &Isp, family: Family) {
        let chosen = match self {
            Self::Address => socket.bind(&SocketAddr::new(isp.address(family), 0).into()),
            Self::Device => socket.bind_device(Some(isp.device().as_bytes())),
            Self::Mark => socket.set_mark(if isp.name() == "CABLE" { 0x100 } else { 0x200 }),
        };
        chosen.unwrap();
    }
}

/// Sockets of every kind that have chosen an ISP use that.
fn stay(lab: &Lab, isp: &Isp, by: By) {
    for (transport, family) in KINDS {
        // Several, since by chance a wrong choice would be right.
        for _ in 0..8 {
            let socket = make(lab.router(), transport, family);
            by.choose(&socket, isp, family);
            if transport == Transport::Udp {
                assert_eq!(ask(&socket, family).unwrap(), isp.address(family), "{family:?} by {by:?}");
            }
            connect(&socket, family);
            let seen = ask_connected(&socket).unwrap();
            assert_eq!(seen, isp.address(family), "{transport:?} {family:?} by {by:?}");
        }
    }
}

#[test]
fn a_socket_that_is_bound_or_has_a_mark_of_its_own_stays_there() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    for weight in ["1", "1000"] {
        lab.balance_ok(&["set-weight", "DSL", weight]).unwrap();
        for isp in lab.isps() {
            for by in [By::Address, By::Device, By::Mark] {
                stay(&lab, isp, by);
            }
            assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
        }
    }
}

#[test]
fn what_is_bound_stays_by_an_isp_that_takes_no_new_flows() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    for by in [By::Address, By::Device] {
        stay(&lab, lab.isp("CABLE"), by);
    }
}

#[test]
fn a_source_address_that_is_given_with_a_datagram_decides_its_isp() {
    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
    use std::os::fd::AsRawFd;

    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    let to = SockaddrIn::new(203, 0, 113, 1, SERVER_PORT);
    for isp in lab.isps() {
        let IpAddr::V4(address) = isp.address(Family::V4) else { panic!("an IPv4 address") };
        let source = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
        for _ in 0..8 {
            let socket = make(lab.router(), Transport::Udp, Family::V4);
            let request = 1_u64.to_be_bytes();
            let parts = [io::IoSlice::new(&request)];
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to)).unwrap();
            assert_eq!(answer(&socket).unwrap(), isp.address(Family::V4));
        }
    }
}

#[test]
fn what_comes_in_is_answered_by_the_isp_it_came_in_on() {
    const PORT: u16 = 6000;
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    // After the daemon, so that their sockets have marks.
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let _tcp = any.map(|any| serve_tcp(lab.router(), SocketAddr::new(any, PORT)).unwrap());
    let _udp = serve_udp(lab.router(), PORT).unwrap();
    for isp in lab.isps() {
        for (transport, family) in KINDS {
            for _ in 0..8 {
                let at = SocketAddr::new(isp.address(family), PORT);
                let mut flow = Flow::open_to(lab.internet(), transport, at, SOON).unwrap();
                let client: IpAddr =
                    if family == Family::V4 { INTERNET_V4.into() } else { INTERNET_V6.into() };
                assert_eq!(flow.ask().unwrap(), client, "{transport:?} {family:?} by {}", isp.name());
                flow.ask().unwrap();
            }
        }
        assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
    }
}

#[test]
fn what_stays_on_the_machine_and_other_namespaces_are_left_alone() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    assert_ne!(new_mark(lab.router()), 0);
    assert_eq!(new_mark(lab.internet()), 0, "of another machine in the same cgroup");
    for to in ["127.0.0.1:9", "192.168.1.1:9", "192.168.1.77:9", "100.64.1.2:9", "224.0.0.1:9"] {
        let socket = make(lab.router(), Transport::Udp, Family::V4);
        socket.connect(&to.parse::<SocketAddr>().unwrap().into()).unwrap();
        assert_eq!(socket.mark().unwrap(), 0, "{to}");
    }
    // IPv4 by an IPv6 socket.
    for to in ["[::1]:9", "[fd00:1::1]:9", "[::ffff:127.0.0.1]:9"] {
        let socket = make(lab.router(), Transport::Udp, Family::V6);
        socket.connect(&to.parse::<SocketAddr>().unwrap().into()).unwrap();
        assert_eq!(socket.mark().unwrap(), 0, "{to}");
    }
    for foreign in [0x1_u32, 0xca6c] {
        let socket = make(lab.router(), Transport::Udp, Family::V4);
        socket.set_mark(foreign).unwrap();
        connect(&socket, Family::V4);
        assert_eq!(socket.mark().unwrap(), foreign);
    }
}
