//! What a port of the lab sees of a line.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use balance_lab::addresses::{ROUTER_V4, ROUTER_V6};
use balance_lab::checksum::{complete, verify};
use balance_lab::packet::{Ipv4, Mac, Payload, ether_type, frame};
use balance_lab::{Family, Frame, Lab, Port, ready};

use crate::scene::SOON;
use crate::ways::FAMILIES;

/// Every frame of a connection in which the LAN host says more to the router than fits into one.
fn frames_of_a_connection(lab: &Lab, family: Family) -> Vec<Frame> {
    let port = Port::open(lab.router(), "lan0").unwrap();
    let address = match family {
        Family::V4 => (ROUTER_V4, 7200).into(),
        Family::V6 => (ROUTER_V6, 7200).into(),
    };
    let listener = lab.router().run(|| TcpListener::bind(address)).unwrap();
    let mut stream = lab.lan().run(|| TcpStream::connect_timeout(&address, SOON)).unwrap();
    let mut content = vec![7; 20_000];
    content.extend(b"the end");
    stream.write_all(&content).unwrap();
    let mut frames = Vec::new();
    let end = port.wait(SOON, |frame| {
        frames.push(frame.clone());
        frame.bytes.ends_with(b"the end")
    });
    assert!(end.unwrap().is_some(), "the end of {family:?} does not come");
    drop(listener);
    frames
}

#[test]
fn lines_like_wires_carry_complete_packets() {
    if !ready() {
        return;
    }
    let lab = Lab::builder().like_wires().build().unwrap();
    for family in FAMILIES {
        for frame in frames_of_a_connection(&lab, family) {
            assert_eq!((frame.partial, frame.cut), (None, None));
            assert!(frame.bytes.len() <= 1514, "{} bytes", frame.bytes.len());
            if frame.bytes[12..14] != ether_type::ARP.to_be_bytes() {
                verify(&frame.bytes).unwrap();
            }
        }
    }
}

#[test]
fn super_packets_are_seen_as_what_they_become() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    for family in FAMILIES {
        let frames = frames_of_a_connection(&lab, family);
        assert!(frames.iter().any(|frame| frame.cut.is_some()), "{family:?}");
        for frame in frames {
            for bytes in frame.on_the_wire().unwrap() {
                assert!(bytes.len() <= 1514, "{} bytes", bytes.len());
                if bytes[12..14] != ether_type::ARP.to_be_bytes() {
                    verify(&bytes).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_vlan_tag_is_seen_where_it_was_put() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let (near, far) = (Port::open(lab.lan(), "eth0").unwrap(), Port::open(lab.router(), "lan0").unwrap());
    let packet =
        Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).carrying(&Payload::udp(1, 2, b"tagged"));
    for tags in [&[(ether_type::VLAN, 0xe005)][..], &[(ether_type::SERVICE_VLAN, 5), (ether_type::VLAN, 6)]] {
        let mut bytes = frame(far.mac(), Mac([2, 0, 0, 0, 0, 7]), tags, ether_type::IPV4, &packet);
        complete(&mut bytes).unwrap();
        near.send(&bytes.clone().into()).unwrap();
        let found = far.wait(SOON, |frame| frame.bytes.ends_with(b"tagged")).unwrap();
        assert_eq!(found.unwrap().bytes, bytes);
    }
}
