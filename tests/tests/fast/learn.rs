//! Which flows become fast, and which of their packets never go fast.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, SINK_PORT, internet};
use balance_lab::{Echo, Family, KINDS, Lab, open_flows, ready, wait_until};
use socket2::SockRef;

use crate::support::{FAMILIES, Live, SOON, cached, fast_packets, in_quiet, lab, packets, start, with_each};

#[test]
fn flows_that_were_answered_go_fast() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for (transport, family) in KINDS {
            let mut live = Live::open(&lab, transport, family);
            live.goes_fast(&lab);
            live.stays();
            assert!(packets(&lab, live.isp(&lab).name(), "slow_packets") > 0);
        }
        for family in FAMILIES {
            let mut echo = Echo::open(lab.lan(), internet(family, 0).ip(), SOON).unwrap();
            let before = fast_packets(&lab);
            for _ in 0..50 {
                echo.ask().unwrap();
            }
            assert!(fast_packets(&lab) - before >= 80, "{family:?}");
        }
    });
}

/// Someone who is never answered.
enum Talker {
    Udp(UdpSocket),
    Echo(Echo),
}

impl Talker {
    /// UDP to the internet host's sink.
    fn udp(lab: &Lab, family: Family) -> Self {
        let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.lan().run(|| UdpSocket::bind(any).unwrap());
        socket.connect(internet(family, SINK_PORT)).unwrap();
        Self::Udp(socket)
    }

    /// Echo requests to an address of the internet host that is made to be silent.
    fn echo(lab: &Lab, family: Family) -> Self {
        let to: IpAddr = match family {
            Family::V4 => "203.0.113.99".parse().unwrap(),
            Family::V6 => "2001:db8:ffff::99".parse().unwrap(),
        };
        let silent = "table inet silent {
            chain input {
                type filter hook input priority 0;
                ip daddr 203.0.113.99 drop
                ip6 daddr 2001:db8:ffff::99 drop
            }
        }";
        lab.internet().feed("nft", &["-f", "-"], silent).unwrap();
        Self::Echo(Echo::open(lab.lan(), to, SOON).unwrap())
    }

    fn say(&mut self, times: usize) {
        for _ in 0..times {
            match self {
                Self::Udp(socket) => drop(socket.send(b"anyone").unwrap()),
                Self::Echo(echo) => echo.say().unwrap(),
            }
        }
    }
}

#[test]
fn flows_that_persist_without_an_answer_go_fast_from_the_seventeenth_packet_on() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        let sent = || lab.isps().iter().map(|isp| packets(&lab, isp.name(), "tx_packets")).sum::<u64>();
        for family in FAMILIES {
            for mut talker in [Talker::udp(&lab, family), Talker::echo(&lab, family)] {
                let (before, fast_before) = (sent(), fast_packets(&lab));
                talker.say(16);
                wait_until(SOON, "the first packets", || sent() - before >= 16).unwrap();
                assert_eq!(fast_packets(&lab), fast_before, "{family:?}");
                talker.say(16);
                // All of them, unless a lease ends just then.
                wait_until(SOON, "fast packets", || fast_packets(&lab) - fast_before >= 12).unwrap();
                assert!(fast_packets(&lab) - fast_before <= 16);
            }
        }
    });
}

#[test]
fn packets_that_begin_and_end_a_connection_are_seen_by_conntrack() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for family in FAMILIES {
            for reset in [false, true] {
                let mut stream = lab.lan().run(|| TcpStream::connect(internet(family, SERVER_PORT)).unwrap());
                let port = stream.local_addr().unwrap().port();
                let state = || {
                    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
                    let list = format!("conntrack -L -f {family} -p tcp --sport {port} 2>/dev/null");
                    lab.router().sh(&list).unwrap()
                };
                assert!(state().contains("ESTABLISHED"), "{}", state());
                let before = fast_packets(&lab);
                for number in 0_u64..50 {
                    stream.write_all(&number.to_be_bytes()).unwrap();
                    stream.read_exact(&mut [0; 26]).unwrap();
                }
                assert!(fast_packets(&lab) - before >= 80);
                assert_eq!(cached(&lab, port), 2, "a way there and a way back");
                assert!(state().contains("ESTABLISHED"), "{}", state());
                if reset {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                drop(stream);
                let open = || lab.internet().sh("ss -tnH state established sport = 7000").unwrap();
                wait_until(SOON, "the server's end of the connection", || open().is_empty()).unwrap();
                // Conntrack has not seen all that was acknowledged. So it may still expect a challenge against the reset,
                // but forgets as soon as if the connection was closed.
                let ended = || {
                    let seconds = state().split_whitespace().nth(2).and_then(|word| word.parse::<u32>().ok());
                    if reset { seconds <= Some(10) } else { state().contains(" TIME_WAIT ") }
                };
                wait_until(SOON, &format!("the end of {}", state()), ended).unwrap();
                // Of a reset the other end knows nothing to say, and the last acknowledgement is a packet like others.
                assert_eq!(cached(&lab, port), 1);
            }
        }
    });
}

#[test]
fn without_acceleration_no_packet_goes_fast() {
    let _others = in_quiet();
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, "off", "");
    for (transport, family) in KINDS {
        let mut flows = open_flows(lab.lan(), 40, transport, family).unwrap();
        for _ in 0..40 {
            assert!(flows.ask(SOON).iter().all(Result::is_ok));
        }
    }
    assert_eq!(fast_packets(&lab), 0);
    for isp in lab.isps() {
        let status = lab.isp_status(isp.name()).unwrap();
        let [slow, sent, received] =
            ["slow_packets", "tx_packets", "rx_packets"].map(|field| status[field].as_u64().unwrap());
        assert!(slow > 1000 && slow == sent + received, "{status:#}");
    }
    let mut talker = Talker::udp(&lab, Family::V4);
    talker.say(100);
    assert_eq!((fast_packets(&lab), cached(&lab, SERVER_PORT)), (0, 0));
}
