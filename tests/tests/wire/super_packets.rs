//! Packets that stand for several, and such whose checksum is left to a device: what comes of them on the wire.

use balance_lab::packet::tcp_flag::{ACK, PSH};
use balance_lab::{Family, ready};

use crate::case::{Case, Way, compare};
use crate::conversation::{Nat, Protocol};
use crate::scene::Shape;
use crate::shot::{Form, Shot, both, forth};
use crate::ways::ways;

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in ways().into_iter().filter(|(_, protocol, _)| *protocol != Protocol::Icmp) {
        let (_, protocol, family) = way;
        // The most that fits into 1,500 bytes, less than that, and a last one of a single byte.
        let most = if family == Family::V4 { 1460 } else { 1440 };
        let most = if protocol == Protocol::Udp { most + 12 } else { most };
        for (size, count, rest) in [(most, 20, 700), (500, 3, 0), (most, 2, 1)] {
            let data = usize::from(size) * count + rest;
            let shot = Shot { form: Form::Super(size), flags: ACK | PSH, ..forth(data) };
            let case = Case::fast(&format!("{data} bytes by {size}"), way, both(shot));
            cases.push(Case { arriving: 2 * data.div_ceil(size.into()), ..case });
        }
        cases.push(Case::fast("unsummed", way, both(Shot { form: Form::Unsummed, ..forth(100) })));
    }
    cases
}

#[test]
fn super_packets_become_the_segments_that_the_kernel_would_send() {
    if !ready() {
        return;
    }
    compare(Shape { like_wires: false, ..Shape::default() }, &cases());
}

#[test]
fn super_packets_become_the_segments_that_the_kernel_would_send_on_real_lines() {
    if !ready() {
        return;
    }
    compare(Shape::default(), &cases());
}

#[test]
fn super_packets_whose_segments_do_not_fit_the_isps_mtu_are_reported() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for way in
        ways().into_iter().filter(|(nat, protocol, _)| *nat == Nat::Masquerade && *protocol == Protocol::Tcp)
    {
        let fits = if way.2 == Family::V4 { 1360 } else { 1340 };
        let shot = |size: u16| Shot { form: Form::Super(size), ..forth(usize::from(size) * 4) };
        cases.push(Case { arriving: 4, ..Case::fast("segments that just fit", way, [shot(fits)]) });
        let too_long = Case::fast("segments too long", way, [shot(1440)]);
        cases.push(Case { arriving: 1, way: Way::Slow, ..too_long });
    }
    compare(Shape { isp_mtu: 1400, like_wires: false, ..Shape::default() }, &cases);
}
