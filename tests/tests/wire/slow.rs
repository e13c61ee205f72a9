//! What the fast path leaves to the kernel, in the middle of a flow that is fast.

use balance_lab::packet::tcp_flag::{ACK, FIN, RST, SYN};
use balance_lab::packet::{Mac, ether_type};
use balance_lab::{Family, ready};

use crate::case::{Case, Way, compare};
use crate::conversation::{Nat, Protocol};
use crate::scene::Shape;
use crate::shot::{Fault, Form, Shot, Side, To, back, both, forth};
use crate::ways::{FAMILIES, ways};

type Path = (Nat, Protocol, Family);

const BROADCAST: Mac = Mac([0xff; 6]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 9, 9]);
const MY_TAG: &[(u16, u16)] = &[(ether_type::VLAN, 5)];
const NO_TAG: &[(u16, u16)] = &[(ether_type::VLAN, 0)];
const URGENT_NO_TAG: &[(u16, u16)] = &[(ether_type::VLAN, 0xe000)];

/// A case whose packets are the kernel's.
fn slow(name: &str, path: Path, shots: impl Into<Vec<Shot>>) -> Case {
    Case { way: Way::Slow, ..Case::fast(name, path, shots) }
}

/// A case whose packets nobody forwards.
fn stopped(name: &str, path: Path, shots: impl Into<Vec<Shot>>) -> Case {
    Case { arriving: 0, ..slow(name, path, shots) }
}

#[test]
fn the_beginning_and_the_end_of_a_connection_are_the_kernels() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways().into_iter().filter(|(_, protocol, _)| *protocol == Protocol::Tcp) {
        cases.push(slow("RST", path, [Shot { flags: RST | ACK, ..forth(0) }]));
        cases.push(slow("RST of the server", path, [Shot { flags: RST | ACK, ..back(0) }]));
        let fin = Shot { flags: FIN | ACK, ..forth(10) };
        cases.push(slow("FIN", path, [fin]));
        let end = [fin, back(0), Shot { from: Side::Server, ..fin }, forth(0)];
        cases.push(Case { way: Way::Either, ..slow("the end of a connection", path, end) });
        cases.push(slow("SYN", path, [Shot { flags: SYN, ..forth(0) }]));
        let data = [Shot { flags: SYN, ..forth(0) }, forth(100), back(100)];
        cases.push(Case { way: Way::Either, ..slow("data after a SYN", path, data) });
    }
    compare(Shape::default(), &cases);
}

#[test]
fn a_packet_that_has_come_to_its_end_is_reported_to_its_sender() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways() {
        // From the far side with a translated port, the report's words could not be compared.
        let shots = if path.0 == Nat::TakenPort { vec![forth(50)] } else { both(forth(50)).to_vec() };
        let shots: Vec<_> = shots.into_iter().map(|shot| Shot { ttl: 1, ..shot }).collect();
        cases.push(slow("TTL 1", path, shots));
    }
    compare(Shape::default(), &cases);
}

#[test]
fn options_and_fragments_are_the_kernels() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways() {
        let (_, protocol, family) = path;
        let options = slow("options", path, both(Shot { ip_options: true, ..forth(50) }));
        let is_v4 = family == Family::V4;
        cases.push(if is_v4 { options } else { Case { way: Way::Either, ..options } });
        if protocol == Protocol::Tcp {
            continue;
        }
        let pieces = Shot { form: Form::Fragments(600), dont_fragment: false, ..forth(1400) };
        // Conntrack puts them together; they come out as they came in. IPv4 does so whatever their sizes.
        cases.push(Case { arriving: 6, ..slow("fragments", path, both(pieces)) });
        let then = [pieces, forth(30), Shot { from: Side::Server, ..pieces }, back(30)];
        cases.push(Case { arriving: 8, way: Way::Either, ..slow("data after fragments", path, then) });
    }
    compare(Shape::default(), &cases);
}

#[test]
fn icmp_errors_about_a_fast_flow_reach_its_ends() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways().into_iter().filter(|(nat, ..)| *nat != Nat::TakenPort) {
        let (_, protocol, family) = path;
        // Unreachable, of several kinds, too big, and time exceeded.
        let kinds: &[(u8, u8)] = match family {
            Family::V4 => &[(3, 1), (3, 3), (3, 4), (11, 0)],
            Family::V6 => &[(1, 3), (1, 4), (2, 0), (3, 0)],
        };
        for &error in kinds {
            let shots = both(Shot { error: Some(error), ..forth(0) });
            // Nobody complains about the answer to an echo, so it is the server that does.
            let shots = if protocol == Protocol::Icmp { &shots[1..] } else { &shots[..] };
            cases.push(slow(&format!("ICMP error {error:?}"), path, shots));
        }
    }
    compare(Shape::default(), &cases);
}

#[test]
fn frames_that_are_not_for_the_router_are_not_forwarded() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for family in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let path = (Nat::Masquerade, protocol, family);
            let one = forth(50);
            cases.push(stopped("for another MAC", path, both(Shot { to: To::Device(STRANGER), ..one })));
            cases.push(stopped("for all", path, both(Shot { to: To::Device(BROADCAST), ..one })));
            cases.push(stopped("in a VLAN that nobody has", path, both(Shot { tags: MY_TAG, ..one })));
            cases.push(stopped("to a group", path, [Shot { to: To::Group, ..one }]));
        }
    }
    compare(Shape::default(), &cases);
}

#[test]
fn a_priority_tag_changes_nothing() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways() {
        let tagged = [NO_TAG, URGENT_NO_TAG].map(|tags| both(Shot { tags, ..forth(50) }));
        cases.push(Case { way: Way::Either, ..slow("priority tag", path, tagged.concat()) });
    }
    compare(Shape::default(), &cases);
}

#[test]
fn a_corrupt_packet_is_never_made_right() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways().into_iter().filter(|(nat, ..)| *nat != Nat::TakenPort) {
        if path.2 == Family::V4 {
            let corrupt = both(Shot { fault: Some(Fault::Network), ..forth(50) });
            cases.push(stopped("a corrupt IPv4 header", path, corrupt));
        }
        let corrupt = both(Shot { fault: Some(Fault::Transport), ..forth(51) });
        let corrupt = Case::fast("corrupt data", path, corrupt);
        cases.push(Case { is_right: false, way: Way::Either, ..corrupt });
    }
    compare(Shape { checks_checksums: false, ..Shape::default() }, &cases);
}

#[test]
fn what_does_not_fit_the_isps_mtu_is_reported_or_fragmented() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for path in ways().into_iter().filter(|(nat, ..)| [Nat::Masquerade, Nat::TakenPort].contains(nat)) {
        let (_, protocol, family) = path;
        // By their data alone.
        let too_long = forth(1400);
        let fits = Shot { data: if family == Family::V4 { 1360 } else { 1340 }, ..forth(0) };
        cases.push(Case::fast("just fits", path, both(fits)));
        cases.push(slow("too long", path, [too_long]));
        cases.push(Case { way: Way::Either, ..slow("data after one too long", path, [too_long, forth(9)]) });
        if family == Family::V4 && protocol != Protocol::Tcp {
            let pieces =
                slow("too long, may be fragmented", path, [Shot { dont_fragment: false, ..too_long }]);
            cases.push(Case { arriving: 2, ..pieces });
        }
    }
    compare(Shape { isp_mtu: 1400, ..Shape::default() }, &cases);
}

#[test]
fn what_does_not_fit_a_lans_mtu_is_reported_to_the_internet() {
    if !ready() {
        return;
    }
    let cases: Vec<_> = ways()
        .into_iter()
        .filter(|(nat, ..)| *nat == Nat::Masquerade)
        .map(|path| slow("too long", path, [back(1400)]))
        .collect();
    compare(Shape { lan_mtu: 1400, ..Shape::default() }, &cases);
}
