//! Every packet of the fixtures, and then some, through the kernel.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use balance_common::fast::{Headers, V4, V6, syn_class};
use balance_common::layout::{IspCounters, Verdict};
use balance_common::packet::{LinkLayer, flow_of, is_traffic};
use balance_common::{Family, Flow, IspId};
use balance_lab::checksum::complete;
use balance_lab::packet::tcp_flag::{ACK, FIN, RST, SYN};
use balance_lab::packet::{Ipv4, Ipv6, Payload, Segment};
use balance_lab::ready;

use crate::fixtures::{FAR_V4, FAR_V6, Fixture, LAN_V4, LAN_V6, fixtures, frame_v4, frame_v6};
use crate::kernel::{FOREIGN, Fate, Kernel, MASK, TCX_NEXT, VERDICTS, add};

const FOUR: [&[u16]; 2] = [&[3, 1, 2, 2], &[1, 2, 3, 4]];

fn syn_class_of(frame: &[u8]) -> Option<usize> {
    match frame.get(12..14)? {
        [0x08, 0x00] => syn_class::<V4, _>(frame, 14),
        [0x86, 0xdd] => syn_class::<V6, _>(frame, 14),
        _ => None,
    }
}

fn answers_syn(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => Headers::<V4>::parse(frame, 14, frame.len()).is_some_and(|it| it.answers_syn()),
        Some([0x86, 0xdd]) => Headers::<V6>::parse(frame, 14, frame.len()).is_some_and(|it| it.answers_syn()),
        _ => false,
    }
}

/// A packet through the kernel: it is as the host expects, and nothing but the mark has changed.
fn check(kernel: &Kernel, name: &str, packet: &[u8], mark: u32) -> Fate {
    let expected = kernel.expect(packet, mark);
    let outcome = kernel.run("lan_ingress", packet, mark).unwrap();
    assert_eq!(outcome.returned, TCX_NEXT, "{name}");
    assert_eq!(outcome.bytes, packet, "{name}");
    assert_eq!(outcome.mark, expected.mark, "{name}: {expected:?}");
    expected
}

#[test]
fn the_kernel_marks_every_packet_as_the_host_would() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new(FOUR);
    let mut counters = kernel.counters();
    let mut seen = HashSet::<Flow>::new();
    for link_layer in [LinkLayer::Ethernet, LinkLayer::Ip] {
        kernel.set_device(link_layer, 0);
        for Fixture { name, bytes, .. } in fixtures().iter().filter(|one| one.link_layer == link_layer) {
            for mark in [0, FOREIGN] {
                let fate = check(&kernel, name, bytes, mark);
                let is_new = fate.isp.is_some() && seen.insert(flow_of(&bytes[..], link_layer).unwrap());
                counters.add(fate, bytes.len(), is_new);
                assert_eq!(kernel.counters(), counters, "{name}: {fate:?}");
            }
        }
    }
    // All but `Local` and `NoIsp`, which have tests of their own.
    for verdict in [Verdict::Steered, Verdict::Unparsable, Verdict::NotIp] {
        assert_ne!(counters.verdicts[verdict as usize].packets, 0, "{verdict:?}");
    }
}

#[test]
fn local_prefixes_are_left_alone_and_their_neighbours_are_not() {
    if !ready() {
        return;
    }
    let kernel = Kernel::new(FOUR);
    let mut counters = kernel.counters();
    let tcp = Payload::tcp(40_000, 443);
    let v4 = |a, b, c, d| frame_v4(&Ipv4::new(LAN_V4, Ipv4Addr::new(a, b, c, d)).carrying(&tcp));
    let v6 = |first| frame_v6(&Ipv6::new(LAN_V6, Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 1)).carrying(&tcp));
    let packets = [
        (v4(192, 168, 0, 0), true),
        (v4(192, 168, 255, 255), true),
        (v4(192, 169, 0, 0), false),
        (v4(192, 167, 255, 255), false),
        (v4(224, 0, 0, 251), true),
        (v4(239, 255, 255, 255), true),
        (v4(223, 255, 255, 255), false),
        (v4(240, 0, 0, 1), false),
        (v6(0xfd00), true),
        (v6(0xfdff), true),
        (v6(0xfcff), false),
        (v6(0xff02), true),
        (v6(0xfe80), false),
        // An IPv6 address that, cut short, would be 192.168.0.0/16.
        (v6(0xc0a8), false),
    ];
    for (packet, is_local) in packets {
        let destination = flow_of(&packet[..], LinkLayer::Ethernet).unwrap().destination;
        let fate = check(&kernel, "", &packet, FOREIGN);
        assert_eq!(fate.verdict == Verdict::Local, is_local, "{destination:?}");
        counters.add(fate, packet.len(), true);
    }
    assert_eq!(kernel.counters(), counters);
    assert_eq!(counters.verdicts[Verdict::Local as usize].packets, 7);
}

#[test]
fn a_family_without_an_isp_stays_unmarked() {
    if !ready() {
        return;
    }
    let kernel = Kernel::new([&[1], &[]]);
    let tcp = Payload::tcp(40_000, 443);
    let v4 = frame_v4(&Ipv4::new(LAN_V4, FAR_V4).carrying(&tcp));
    let v6 = frame_v6(&Ipv6::new(LAN_V6, FAR_V6).carrying(&tcp));
    assert_eq!(check(&kernel, "IPv4", &v4, FOREIGN).mark, FOREIGN & !MASK | 0x100);
    assert_eq!(check(&kernel, "IPv6", &v6, FOREIGN).verdict, Verdict::NoIsp);
    assert_eq!(kernel.counters().verdicts.map(|count| count.packets), [1, 0, 0, 0, 1, 0]);
}

#[test]
fn flows_spread_by_weight_and_each_counts_as_new_once() {
    if !ready() {
        return;
    }
    let kernel = Kernel::new([&[3, 1], &[1, 3]]);
    for round in 0..2_u64 {
        for port in 0..4_000 {
            let tcp = Payload::tcp(1_024 + port, 443);
            check(&kernel, "IPv4", &frame_v4(&Ipv4::new(LAN_V4, FAR_V4).carrying(&tcp)), 0);
            check(&kernel, "IPv6", &frame_v6(&Ipv6::new(LAN_V6, FAR_V6).carrying(&tcp)), 0);
        }
        let counters = kernel.counters();
        let new: Vec<u64> = counters.isps.iter().map(|isp| isp.new_flows).collect();
        let steered: Vec<u64> = counters.isps.iter().map(|isp| isp.steered.packets).collect();
        assert_eq!(new.iter().sum::<u64>(), 8_000, "round {round}");
        assert_eq!(steered, new.iter().map(|new| new * (round + 1)).collect::<Vec<_>>());
        // 3,000 and 1,000 of 4,000 each way: half of all each, and one deviation is about 39.
        assert!((3_800..4_200).contains(&new[0]) && new[0] + new[1] == 8_000, "{new:?}");
    }
}

#[test]
fn an_unknown_device_or_missing_settings_leave_packets_alone() {
    if !ready() {
        return;
    }
    let steering = balance_lab::Steering::load().unwrap();
    let packet = frame_v4(&Ipv4::new(LAN_V4, FAR_V4).carrying(&Payload::tcp(40_000, 443)));
    for program in ["lan_ingress", "isp_ingress", "egress"] {
        let outcome = steering.program(program).unwrap().run(&packet, FOREIGN).unwrap();
        assert_eq!((outcome.returned, outcome.mark), (TCX_NEXT, FOREIGN), "{program}");
        assert_eq!(outcome.bytes, packet, "{program}");
    }
}

#[test]
fn what_an_isp_sends_and_receives_is_counted_and_nothing_else_happens_to_it() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new(FOUR);
    let mut counters = kernel.counters();
    for isp in [IspId::new(2).unwrap(), IspId::new(63).unwrap()] {
        kernel.set_device(LinkLayer::Ethernet, isp.get());
        for Fixture { name, bytes, .. } in fixtures() {
            for program in ["isp_ingress", "egress"] {
                let outcome = kernel.run(program, &bytes, FOREIGN).unwrap();
                assert_eq!((outcome.returned, outcome.mark), (TCX_NEXT, FOREIGN), "{name}");
                assert_eq!(outcome.bytes, bytes, "{name}");
            }
            // The bare IP packets' first bytes are no address of the device.
            if bytes.starts_with(&[0; 6]) && is_traffic(&bytes[..], LinkLayer::Ethernet) {
                add(&mut counters.isp(isp).rx, bytes.len());
                counters.isp(isp).syn_answers += u64::from(answers_syn(&bytes));
            }
            add(&mut counters.isp(isp).tx, bytes.len());
            if let Some(class) = syn_class_of(&bytes) {
                counters.isp(isp).syns[class] += 1;
            }
        }
        assert_eq!(kernel.counters(), counters);
    }
    let mut broadcast = frame_v4(&Ipv4::new(LAN_V4, FAR_V4).carrying(&Payload::udp(67, 68, &[])));
    for first in [0xff, 0x01, 0x02] {
        // To all, to a group, and to somebody else.
        broadcast[0] = first;
        if first == 0xff {
            broadcast[..6].fill(0xff);
        }
        kernel.run("isp_ingress", &broadcast, 0).unwrap();
    }
    assert_eq!(kernel.counters(), counters, "proof of nothing was counted");
}

#[test]
fn connections_that_are_asked_for_and_answered_are_counted_and_nothing_else_is_taken_for_them() {
    if !ready() {
        return;
    }
    let isp = IspId::new(2).unwrap();
    for link_layer in [LinkLayer::Ethernet, LinkLayer::Ip] {
        let mut kernel = Kernel::new(FOUR);
        kernel.set_device(link_layer, isp.get());
        let skipped = if link_layer == LinkLayer::Ip { 14 } else { 0 };
        for flags in 0..0x20 {
            for sequence in [0, 7] {
                let segment = Segment { flags, sequence, ..Segment::default() };
                let tcp = Payload::segment(443, 40_000, &segment);
                for mut frame in [
                    frame_v4(&Ipv4::new(FAR_V4, LAN_V4).carrying(&tcp)),
                    frame_v6(&Ipv6::new(FAR_V6, LAN_V6).carrying(&tcp)),
                ] {
                    complete(&mut frame).unwrap();
                    let before = *kernel.counters().isp(isp);
                    for program in ["isp_ingress", "egress"] {
                        kernel.run(program, &frame[skipped..], 0).unwrap();
                    }
                    let after = *kernel.counters().isp(isp);
                    let asked = flags & (FIN | SYN | RST | ACK) == SYN;
                    let answered = flags & (SYN | RST | ACK) == SYN | ACK
                        || flags & (SYN | RST | ACK) == RST | ACK && sequence == 0;
                    let syns = |of: &IspCounters| of.syns.iter().sum::<u32>();
                    assert_eq!(syns(&after) - syns(&before), u32::from(asked), "{flags:#x}");
                    // The first bytes of bare IP packets are no address of the device.
                    if link_layer == LinkLayer::Ethernet {
                        assert_eq!(
                            after.syn_answers - before.syn_answers,
                            u64::from(answered),
                            "{flags:#x} {sequence}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_verdict_is_known_by_its_index() {
    for (index, verdict) in VERDICTS.into_iter().enumerate() {
        assert_eq!(verdict as usize, index);
    }
    assert_eq!(Family::ALL.map(|family| family as usize), [0, 1]);
}
