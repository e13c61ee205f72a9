//! Connections of real sockets with much to say, through every way of forwarding.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use balance_lab::addresses::internet;
use balance_lab::{Family, Lab, ready};
use serde_json::Value;

use crate::mode::{MODES, Mode};
use crate::scene::SOON;
use crate::ways::FAMILIES;

/// Where the internet host says everything back.
const ECHO_PORT: u16 = 7100;
/// Bytes in each direction: thousands of segments.
const LENGTH: usize = 8 << 20;

/// Bytes that repeat nowhere, so that nothing lost, doubled or moved goes unnoticed.
fn content() -> Vec<u8> {
    (0..LENGTH as u64 / 8)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .collect()
}

/// Whatever is sent comes back as it was.
fn echoes(lab: &Lab, family: Family, content: &[u8]) {
    let address = internet(family, ECHO_PORT);
    let listener = lab.internet().run(|| TcpListener::bind(address)).unwrap();
    let near = lab.lan().run(|| TcpStream::connect_timeout(&address, SOON)).unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
    }
    let mut echo = Vec::with_capacity(content.len());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::copy(&mut &far, &mut &far).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            (&near).write_all(content).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
        });
        (&near).read_to_end(&mut echo).unwrap();
    });
    assert!(echo == content, "{} bytes came back wrong", echo.len());
}

fn sum(lab: &Lab, field: &str) -> u64 {
    let status = lab.status().unwrap();
    let isps = status["isps"].as_array().unwrap();
    isps.iter().map(|isp| isp.get(field).and_then(Value::as_u64).unwrap()).sum()
}

fn carries_bulk(mode: Mode, like_wires: bool) {
    let builder = Lab::builder();
    let lab = if like_wires { builder.like_wires() } else { builder }.build().unwrap();
    lab.write_config(&format!("{}\n{}", mode.config, lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    let content = content();
    for family in FAMILIES {
        echoes(&lab, family, &content);
    }
    if mode.is_fast {
        let (fast, slow) = (sum(&lab, "fast_packets"), sum(&lab, "slow_packets"));
        assert!(fast > slow, "{fast} packets went fast, {slow} slow");
    }
}

#[test]
fn what_is_sent_by_tcp_arrives_over_real_lines() {
    if !ready() {
        return;
    }
    for mode in MODES {
        carries_bulk(*mode, true);
    }
}

#[test]
fn what_is_sent_by_tcp_arrives_in_super_packets() {
    if !ready() {
        return;
    }
    for mode in MODES.iter().filter(|mode| mode.takes_offloads) {
        carries_bulk(*mode, false);
    }
}
