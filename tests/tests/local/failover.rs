//! ISPs that die, or are taken out.

use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, internet};
use balance_lab::checks::SOON;
use balance_lab::{Family, KINDS, Lab, Transport, open_new_flows, ready, wait_until};
use socket2::Socket;

use crate::support::{ask, ask_connected, balancing, by_cable, connect, make};

/// How long a failure may take to be noticed and dealt with on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends the first packet of so many TCP connections.
fn begin_to_connect(lab: &Lab, count: usize, family: Family) -> Vec<Socket> {
    let begin = |_| {
        let socket = make(lab.router(), Transport::Tcp, family);
        socket.set_nonblocking(true).unwrap();
        let begun = socket.connect(&internet(family, SERVER_PORT).into());
        assert!(begun.is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)));
        socket
    };
    (0..count).map(begin).collect()
}

#[test]
fn when_an_isp_dies_everything_goes_on_by_the_other_at_once() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    let cable = |family| lab.isp("CABLE").address(family);
    let dsl = |family| lab.isp("DSL").address(family);
    let mut clients = Vec::new();
    for family in [Family::V4, Family::V6] {
        for is_connected in [false, true] {
            let client = std::iter::repeat_with(|| {
                let socket = make(lab.router(), Transport::Udp, family);
                if is_connected {
                    connect(&socket, family);
                }
                socket
            });
            let ask = move |socket: &Socket| {
                if is_connected { ask_connected(socket) } else { ask(socket, family) }
            };
            let by_cable = client.take(100).find(|socket| ask(socket).unwrap() == cable(family)).unwrap();
            clients.push((by_cable, family, ask));
        }
    }
    lab.isp("CABLE").die_silently().unwrap();
    // It begins before anybody knows, and goes on when it is known.
    let early = [Family::V4, Family::V6].map(|family| begin_to_connect(&lab, 20, family));
    lab.wait_state("CABLE", "down").unwrap();

    for (client, family, ask) in &clients {
        wait_until(PATIENCE, "an answer by the ISP that lives", || {
            ask(client).is_ok_and(|it| it == dsl(*family))
        })
        .unwrap();
        for _ in 0..20 {
            assert_eq!(ask(client).unwrap(), dsl(*family));
        }
    }
    for (transport, family) in KINDS {
        let answers = open_new_flows(lab.router(), 200, transport, family).unwrap().ask(SOON);
        assert_eq!(by_cable(&lab, &answers, family), 0, "{transport:?} {family:?}");
    }
    for (sockets, family) in early.iter().zip([Family::V4, Family::V6]) {
        for socket in sockets {
            wait_until(PATIENCE, "a connection", || socket.peer_addr().is_ok()).unwrap();
            socket.set_nonblocking(false).unwrap();
            assert_eq!(ask_connected(socket).unwrap(), dsl(family));
        }
    }

    lab.isp("CABLE").revive().unwrap();
    lab.wait_all_up().unwrap();
    for (client, family, ask) in &clients {
        assert_eq!(ask(client).unwrap(), dsl(*family), "what has moved stays");
    }
    let answers = open_new_flows(lab.router(), 400, Transport::Tcp, Family::V4).unwrap().ask(SOON);
    assert!((250..=350).contains(&by_cable(&lab, &answers, Family::V4)), "it is used again");
}

/// A client that makes a socket for each query, as resolvers do: whatever it asks once the failure is known is answered.
#[test]
fn names_can_be_resolved_through_a_failover() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    let query = || {
        let socket = make(lab.router(), Transport::Udp, Family::V4);
        // A resolver tries each query several times.
        (0..3).any(|_| ask(&socket, Family::V4).is_ok())
    };
    assert!((0..50).all(|_| query()));
    lab.isp("CABLE").die_silently().unwrap();
    wait_until(PATIENCE, "CABLE being down", || {
        query();
        lab.isp_status("CABLE").unwrap()["state"] == "down"
    })
    .unwrap();
    assert!((0..50).all(|_| query()));
}

#[test]
fn an_isp_that_is_forced_down_gets_no_new_flows_and_keeps_those_it_has() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    let sockets: Vec<_> = (0..40).map(|_| make(lab.router(), Transport::Udp, Family::V4)).collect();
    let (old, new) = sockets.split_at(20);
    let ask = |sockets: &[Socket]| sockets.iter().map(|it| ask(it, Family::V4)).collect::<Vec<_>>();
    let before = ask(old);
    assert!(by_cable(&lab, &before, Family::V4) > 0);
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    wait_until(PATIENCE, "marks of CABLE being replaced", || {
        lab.router().sh("nft list table inet balance").unwrap().contains("goto move_ipv4")
    })
    .unwrap();
    assert_eq!(lab.isps_of(&ask(old)), lab.isps_of(&before));
    assert!(lab.isps_of(&ask(new)).iter().all(|isp| *isp == Some("DSL")), "{:?}", ask(new));
}

#[test]
fn while_isps_are_taken_out_and_back_nothing_is_lost() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    std::thread::scope(|scope| {
        let switching = scope.spawn(|| {
            for _ in 0..15 {
                for command in ["down", "auto"] {
                    lab.balance_ok(&[command, "CABLE"]).unwrap();
                }
            }
        });
        let mut asked = 0;
        while !switching.is_finished() {
            for family in [Family::V4, Family::V6] {
                let socket = make(lab.router(), Transport::Udp, family);
                assert!(ask(&socket, family).is_ok(), "{family:?}, after {asked}");
                asked += 1;
            }
        }
        assert!(asked > 100);
    });
}
