//! What is a packet for the fast path.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fast::{SYN_CLASSES, syn_class};
use crate::packet::{LinkLayer, flow_of};

/// Does the parser that steers agree, if this one takes the packet?
fn agrees<A: TestIp>(frame: &[u8]) -> Result<(), TestCaseError> {
    for (bytes, l3, link_layer) in [
        (frame, ETHERNET, LinkLayer::Ethernet),
        (frame.get(ETHERNET..).unwrap_or_default(), 0, LinkLayer::Ip),
    ] {
        // Whoever asks has seen what the frame says that it is.
        let is_of_family = match link_layer {
            LinkLayer::Ethernet => bytes.get(12..14) == Some(&A::ETHER_TYPE),
            LinkLayer::Ip => {
                bytes.first().is_some_and(|byte| byte >> 4 == if A::FAMILY == Family::V4 { 4 } else { 6 })
            }
        };
        if let Some(headers) = Headers::<A>::parse(bytes, l3, bytes.len()).filter(|_| is_of_family) {
            prop_assert_eq!(flow_of(bytes, link_layer), Ok(headers.flow()));
            prop_assert!(headers.transport + 8 <= bytes.len());
            prop_assert!(headers.l3 + usize::from(headers.length) <= bytes.len());
        }
    }
    Ok(())
}

/// Bytes that are changed, mostly in the headers, to values that fields have their limits at, too.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let value = prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 6, 17, 58, 0x45, 0x46, 0x60, 0xff])];
    vec((0..80_usize, value), 1..4)
}

fn mutated<A: TestIp>(mut frame: Vec<u8>, mutations: &[(usize, u8)], cut: usize, mend: bool) -> Vec<u8> {
    for &(at, value) in mutations {
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    frame.truncate(frame.len() - cut.min(frame.len()));
    // Else nearly all mutations of a header would be found by its checksum.
    if let Some(header) = frame.get_mut(ETHERNET..ETHERNET + 20).filter(|_| mend && A::FAMILY == Family::V4) {
        header[10..12].fill(0);
        let checksum = internet_checksum(&[header]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

fn is_understood<A: TestIp>(content: &Content, ends: &Ends<A>) -> Result<(), TestCaseError> {
    let frame = content.between(ends);
    let Some(headers) = headers::<A>(&frame) else {
        return Err(TestCaseError::fail(format!("no headers: {frame:02x?}")));
    };
    prop_assert_eq!((headers.source, headers.destination), (ends.source, ends.destination));
    prop_assert_eq!((headers.l4, headers.ttl, headers.ends()), (content.l4, content.ttl, false));
    prop_assert_eq!(headers.transport, ETHERNET + A::HEADER);
    let whole = ETHERNET + usize::from(headers.length);
    prop_assert_eq!(frame.len(), whole.max(SHORTEST_FRAME));
    prop_assert!(headers.may_go_fast());
    agrees::<A>(&frame)
}

fn cut_or_longer_is_refused<A: TestIp>(content: &Content, ends: &Ends<A>) -> Result<(), TestCaseError> {
    let frame = content.between(ends);
    let whole = ETHERNET + usize::from(headers::<A>(&frame).map_or(0, |headers| headers.length));
    for length in 0..whole {
        prop_assert!(headers::<A>(&frame[..length]).is_none(), "{} of {}", length, whole);
    }
    // Padding is for short frames only.
    let longer = [&frame[..], &[0]].concat();
    prop_assert!(headers::<A>(&longer).is_none());
    Ok(())
}

proptest! {
    #[test]
    fn what_goes_fast_is_understood(content in any_content(), v4 in ends::<V4>(), v6 in ends::<V6>()) {
        is_understood(&content, &v4)?;
        is_understood(&content, &v6)?;
    }

    #[test]
    fn mutated_packets_have_the_flow_that_steering_sees(
        content in any_content(), v4 in ends::<V4>(), v6 in ends::<V6>(),
        mutations in mutations(), cut in prop_oneof![3 => Just(0_usize), 1 => 0..60_usize], mend in any::<bool>(),
    ) {
        agrees::<V4>(&mutated::<V4>(content.between(&v4), &mutations, cut, mend))?;
        agrees::<V6>(&mutated::<V6>(content.between(&v6), &mutations, cut, mend))?;
    }

    #[test]
    fn random_bytes_have_the_flow_that_steering_sees(bytes in vec(any::<u8>(), 0..120), of_v4 in any::<bool>()) {
        // After a first byte that is right.
        let start = if of_v4 { [&V4::ETHER_TYPE[..], &[0x45]] } else { [&V6::ETHER_TYPE[..], &[0x60]] };
        let frame = [&[0; 12][..], &start.concat(), &bytes].concat();
        agrees::<V4>(&mutated::<V4>(frame.clone(), &[], 0, of_v4))?;
        agrees::<V6>(&frame)?;
    }

    #[test]
    fn a_packet_that_is_cut_or_longer_than_it_says_is_none(
        content in any_content(), v4 in ends::<V4>(), v6 in ends::<V6>(),
    ) {
        cut_or_longer_is_refused(&content, &v4)?;
        cut_or_longer_is_refused(&content, &v6)?;
    }
}

/// One packet of each family.
fn sample(l4: L4) -> (Content, Ends<V4>, Ends<V6>) {
    let content = Content {
        l4,
        is_reply: false,
        ttl: 64,
        tos: 0,
        id: 1,
        dont_fragment: true,
        sequence: [1, 2],
        tcp_flags: 0x10,
        window: 500,
        without_checksum: false,
        data: vec![7; 32],
        padding: 0,
    };
    let v4 = Ends { macs: [[2; 6], [3; 6]], source: V4(1), destination: V4(2), ports: [40_000, 443] };
    let v6 = Ends { macs: v4.macs, source: V6([1, 2]), destination: V6([3, 4]), ports: v4.ports };
    (content, v4, v6)
}

#[test]
fn what_begins_or_ends_a_connection_or_its_own_life_does_not_go_fast() {
    for flags in 0..=u8::MAX {
        let (content, v4, _) = sample(L4::Tcp);
        let headers = headers::<V4>(&Content { tcp_flags: flags, ..content }.between(&v4)).unwrap();
        let has_fin_syn_rst = flags & 7 != 0;
        assert_eq!(headers.ends(), has_fin_syn_rst, "{flags:#x}");
        assert_eq!(headers.may_go_fast(), !has_fin_syn_rst, "{flags:#x}");
    }
    for (ttl, expected) in [(0, false), (1, false), (2, true), (255, true)] {
        let (content, v4, v6) = sample(L4::Udp);
        let content = Content { ttl, ..content };
        assert_eq!(headers::<V4>(&content.between(&v4)).unwrap().may_go_fast(), expected, "{ttl}");
        assert_eq!(headers::<V6>(&content.between(&v6)).unwrap().may_go_fast(), expected, "{ttl}");
    }
}

#[test]
fn a_question_for_a_connection_and_its_answers_are_told_by_their_flags() {
    for flags in 0..=u8::MAX {
        for first in [0, 1] {
            let (content, v4, v6) = sample(L4::Tcp);
            let content = Content { tcp_flags: flags, sequence: [first, 2], ..content };
            let frames = [content.between(&v4), content.between(&v6)];
            let asks =
                [syn_class::<V4, _>(&frames[0][..], ETHERNET), syn_class::<V6, _>(&frames[1][..], ETHERNET)];
            let expected = flags & 0x17 == 2;
            assert_eq!(
                asks.map(|class| class.is_some_and(|class| class < SYN_CLASSES)),
                [expected; 2],
                "{flags:#x}"
            );
            let answers = [
                headers::<V4>(&frames[0]).unwrap().answers_syn(),
                headers::<V6>(&frames[1]).unwrap().answers_syn(),
            ];
            let expected = flags & 0x16 == 0x12 || flags & 0x16 == 0x14 && first == 0;
            assert_eq!(answers, [expected; 2], "{flags:#x}");
        }
    }
    let (content, v4, _) = sample(L4::Udp);
    assert_eq!(syn_class::<V4, _>(&content.between(&v4)[..], ETHERNET), None);
}

#[test]
fn hosts_that_are_asked_are_spread_over_all_classes() {
    let (content, v4, v6) = sample(L4::Tcp);
    let content = Content { tcp_flags: 2, ..content };
    let mut counts = [[0; SYN_CLASSES]; 2];
    for host in 0..1600_u32 {
        let v4 = Ends { destination: V4(host.to_be()), ..v4 };
        let v6 = Ends { destination: V6([3, u64::from(host).to_be()]), ..v6 };
        counts[0][syn_class::<V4, _>(&content.between(&v4)[..], ETHERNET).unwrap()] += 1;
        counts[1][syn_class::<V6, _>(&content.between(&v6)[..], ETHERNET).unwrap()] += 1;
    }
    for count in counts.as_flattened() {
        assert!((50..200).contains(count), "{counts:?}");
    }
}

#[test]
fn what_is_special_has_no_headers() {
    const IP: usize = ETHERNET;
    const L4_V4: usize = ETHERNET + 20;
    const L4_V6: usize = ETHERNET + 40;
    let v4: [(&str, L4, usize, &[u8]); 10] = [
        ("options", L4::Tcp, IP, &[0x46]),
        ("a header that is too short", L4::Tcp, IP, &[0x44]),
        ("IPv6 in disguise", L4::Tcp, IP, &[0x65]),
        ("a first fragment", L4::Udp, IP + 6, &[0x20, 0]),
        ("a last fragment", L4::Udp, IP + 6, &[0, 1]),
        ("SCTP", L4::Tcp, IP + 9, &[132]),
        ("ICMPv6 in IPv4", L4::Echo, IP + 9, &[58]),
        ("ICMP unreachable", L4::Echo, L4_V4, &[3]),
        ("ICMPv6's echo", L4::Echo, L4_V4, &[128]),
        ("an echo with a code", L4::Echo, L4_V4 + 1, &[1]),
    ];
    let v6: [(&str, L4, usize, &[u8]); 7] = [
        ("IPv4 in disguise", L4::Tcp, IP, &[0x45]),
        ("hop-by-hop options", L4::Tcp, IP + 6, &[0]),
        ("a fragment", L4::Udp, IP + 6, &[44]),
        ("ICMP in IPv6", L4::Echo, IP + 6, &[1]),
        ("a neighbour solicitation", L4::Echo, L4_V6, &[135]),
        ("ICMP's echo", L4::Echo, L4_V6, &[8]),
        ("packet too big", L4::Echo, L4_V6, &[2]),
    ];
    let changes = |at: usize, bytes: &[u8]| (at..).zip(bytes.iter().copied()).collect::<Vec<_>>();
    for (name, l4, at, bytes) in v4 {
        let (content, ends, _) = sample(l4);
        let frame = content.between(&ends);
        assert!(headers::<V4>(&mutated::<V4>(frame.clone(), &[], 0, true)).is_some());
        assert!(headers::<V4>(&mutated::<V4>(frame, &changes(at, bytes), 0, true)).is_none(), "{name}");
    }
    for (name, l4, at, bytes) in v6 {
        let (content, _, ends) = sample(l4);
        let frame = content.between(&ends);
        assert!(headers::<V6>(&frame).is_some());
        assert!(headers::<V6>(&mutated::<V6>(frame, &changes(at, bytes), 0, true)).is_none(), "{name}");
    }
}

#[test]
fn a_wrong_header_checksum_is_the_kernels_to_drop() {
    let (content, ends, _) = sample(L4::Udp);
    let frame = content.between(&ends);
    for bit in 0..8 * 20 {
        let mut wrong = frame.clone();
        wrong[ETHERNET + bit / 8] ^= 1 << (bit % 8);
        assert!(headers::<V4>(&wrong).is_none(), "bit {bit}");
    }
}

#[test]
fn what_is_padding_by_its_length_is_no_transport_header() {
    for l4 in [L4::Tcp, L4::Udp, L4::Echo] {
        let (content, v4, v6) = sample(l4);
        let content = Content { data: Vec::new(), ..content };
        let (v4, v6) = (content.between(&v4), content.between(&v6));
        // By a byte shorter, says the last byte of the length field.
        let shorter = |frame: &[u8], field: usize| [(field, frame[field] - 1)];
        let cut_v4 = mutated::<V4>(v4.clone(), &shorter(&v4, ETHERNET + 3), 0, true);
        let cut_v6 = mutated::<V6>(v6.clone(), &shorter(&v6, ETHERNET + 5), 0, true);
        assert!(headers::<V4>(&v4).is_some() && headers::<V6>(&v6).is_some(), "{l4:?}");
        assert!(headers::<V4>(&cut_v4).is_none() && headers::<V6>(&cut_v6).is_none(), "{l4:?}");
    }
}
