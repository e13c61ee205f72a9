//! Connections that are idle after they went fast.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use balance_lab::addresses::INTERNET_V4;
use balance_lab::{Lab, ready, wait_until};

const CHUNK: usize = 1 << 20;
/// What conntrack gives a connection whose data was not acknowledged, for all it knows.
const FIVE_MINUTES: u64 = 300;

/// The timeouts, in seconds, of the connections that conntrack has to this port.
fn timeouts(lab: &Lab, port: u16) -> Vec<u64> {
    let entries = lab.router().sh(&format!("conntrack -L -p tcp --dport {port} 2>/dev/null")).unwrap();
    entries.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_connection_that_went_fast_is_remembered_as_long_as_any_other_when_it_is_idle() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let listener = lab.internet().run(|| TcpListener::bind((INTERNET_V4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.lan().run(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let send = |from: &mut TcpStream, to: &mut TcpStream| {
        std::thread::scope(|threads| {
            threads.spawn(|| from.write_all(&vec![7; CHUNK]).unwrap());
            to.read_exact(&mut vec![0; CHUNK]).unwrap();
        });
    };
    let fast = || -> u64 {
        let status = lab.status().unwrap();
        status["isps"].as_array().unwrap().iter().filter_map(|isp| isp["fast_packets"].as_u64()).sum()
    };
    // Again and again, until some of it was on the fast path while conntrack saw the rest.
    wait_until(Duration::from_secs(10), "data that conntrack knows of no acknowledgement of", || {
        send(&mut client, &mut server);
        send(&mut server, &mut client);
        fast() > 1000
    })
    .unwrap();
    let [timeout] = timeouts(&lab, address.port())[..] else { panic!("not one connection") };
    assert!(timeout > FIVE_MINUTES, "{timeout}");
}
