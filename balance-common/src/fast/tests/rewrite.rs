//! What was learned from one packet does to all packets of the flow what the kernel does.

use proptest::prelude::*;

use super::super::{Arrival, Departure, Entry, Flags, Key, Mac, Origin, Snapshot, Words, learn, rewrite};
use super::*;
use crate::layout::path_index;

const LAN: u32 = 3;
const ISP: u32 = 4;
const ISP_ID: u8 = 5;

/// Where packets come in and leave.
#[derive(Clone, Copy, Debug)]
struct Way {
    from_isp: bool,
    to_isp: bool,
}

fn way() -> impl Strategy<Value = Way> {
    // From an ISP to an ISP there is none.
    prop::sample::select(vec![(false, true), (true, false), (false, false)])
        .prop_map(|(from_isp, to_isp)| Way { from_isp, to_isp })
}

fn words(macs: [[u8; 6]; 2]) -> [u32; 3] {
    let bytes = macs.concat();
    std::array::from_fn(|index| Words::get(&bytes[..], 4 * index).unwrap())
}

/// As the programs do it on the way in.
fn snapshot<A: TestIp>(frame: &[u8], way: Way) -> Snapshot<A> {
    let headers = headers::<A>(frame).unwrap();
    let device = if way.from_isp { ISP } else { LAN };
    let key = Key::new(&headers, Origin::new(device, 0, headers.l4).unwrap());
    let mac = Mac(std::array::from_fn(|index| Words::get(frame, 2 * index).unwrap()));
    let arrival = Arrival { mac, isp: if way.from_isp { ISP_ID } else { 0 }, hash: 0 };
    Snapshot::new(&headers, key, headers.flow().hash(1), &arrival)
}

/// And on the way out.
fn learned<A: TestIp>(before: &[u8], after: &[u8], way: Way) -> Option<Entry<A>> {
    let headers = headers::<A>(after)?;
    let departure = Departure {
        device: if way.to_isp { ISP } else { LAN },
        isp: if way.to_isp { ISP_ID } else { 0 },
        ethernet: Some(std::array::from_fn(|index| Words::get(after, 4 * index).unwrap())),
        vlan: 0,
        mark: 0x500,
        priority: 6,
    };
    learn(&snapshot::<A>(before, way), &headers, &departure)
}

/// The packet as XDP would send it.
fn forwarded<A: TestIp>(frame: &[u8], entry: &Entry<A>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let rest = rewrite(&mut bytes[..], &headers::<A>(frame).unwrap(), entry).unwrap();
    rest.update_checksum(&mut bytes[..]).unwrap();
    for (index, word) in entry.ethernet.into_iter().enumerate() {
        Words::set(&mut bytes[..], 4 * index, word).unwrap();
    }
    bytes
}

/// What the kernel makes of a packet: other ends, and a hop less.
fn by_kernel<A: TestIp>(content: &Content, ends: &Ends<A>) -> Vec<u8> {
    Content { ttl: content.ttl - 1, ..content.clone() }.between(ends)
}

/// New ends: of a random part of what NAT may change.
fn translated<A: TestIp>() -> impl Strategy<Value = (Ends<A>, Ends<A>)> {
    (ends::<A>(), ends::<A>(), any::<[bool; 4]>()).prop_map(
        |(old, other, [source, destination, first, second])| {
            let new = Ends {
                macs: other.macs,
                source: if source { other.source } else { old.source },
                destination: if destination { other.destination } else { old.destination },
                ports: [
                    if first { other.ports[0] } else { old.ports[0] },
                    if second { other.ports[1] } else { old.ports[1] },
                ],
            };
            (old, new)
        },
    )
}

fn first_and_others() -> impl Strategy<Value = Vec<Content>> {
    (l4(), any::<bool>()).prop_flat_map(|(l4, is_reply)| vec(content(l4, is_reply), 1..5))
}

fn does_what_the_kernel_does<A: TestIp>(
    packets: &[Content],
    (old, new): &(Ends<A>, Ends<A>),
    way: Way,
) -> Result<(), TestCaseError> {
    let first = &packets[0];
    let Some(entry) = learned::<A>(&first.between(old), &by_kernel(first, new), way) else {
        return Err(TestCaseError::fail("nothing learned"));
    };
    prop_assert_eq!((entry.source, entry.destination), (new.source, new.destination));
    prop_assert_eq!((entry.mark, entry.priority, entry.ethernet), (0x500, 6, words(new.macs)));
    prop_assert_eq!(entry.device, if way.to_isp { ISP } else { LAN });
    let isp = if way.from_isp || way.to_isp { ISP_ID } else { 0 };
    prop_assert_eq!(entry.path, path_index(isp, A::FAMILY));
    prop_assert!(entry.flags.has(Flags::ETHERNET));
    prop_assert_eq!(entry.flags.has(Flags::FROM_ISP), way.from_isp);
    for packet in packets {
        // Also where the checksum is zero before or after.
        let zero_before = packet.clone().with_checksum_zero(old);
        let zero_after = packet.clone().with_checksum_zero(new);
        for packet in [packet, &zero_before, &zero_after] {
            prop_assert_eq!(forwarded(&packet.between(old), &entry), by_kernel(packet, new));
        }
    }
    Ok(())
}

type Change = (&'static str, fn(&mut Content));

/// What the kernel may do besides, which is not to be done again blindly.
const CHANGES: [Change; 12] = [
    ("DSCP", |after| after.tos ^= 0xb8),
    ("congestion", |after| after.tos ^= 3),
    ("another hop", |after| after.ttl = after.ttl.wrapping_sub(1)),
    ("no hop", |after| after.ttl = after.ttl.wrapping_add(1)),
    ("identification or flow label", |after| after.id ^= 1),
    ("don't fragment", |after| after.dont_fragment ^= true),
    ("sequence number", |after| after.sequence[0] ^= 1),
    ("acknowledgement number", |after| after.sequence[1] ^= 1),
    ("length", |after| after.data.push(0)),
    ("UDP without checksum", |after| after.without_checksum ^= true),
    ("another protocol", |after| after.l4 = if after.l4 == L4::Udp { L4::Tcp } else { L4::Udp }),
    ("another kind of echo", |after| after.is_reply ^= true),
];

/// Does the packet have what such a change is about?
fn concerns(name: &str, l4: L4, family: Family) -> bool {
    match name {
        "sequence number" => l4 != L4::Udp,
        "acknowledgement number" => l4 == L4::Tcp,
        "UDP without checksum" => l4 == L4::Udp,
        "another kind of echo" => l4 == L4::Echo,
        "don't fragment" => family == Family::V4,
        _ => true,
    }
}

fn learns_nothing_else<A: TestIp>(packet: &Content, (old, new): &(Ends<A>, Ends<A>), way: Way) {
    let before = packet.between(old);
    let kernels = Content { ttl: packet.ttl - 1, ..packet.clone() };
    for (name, change) in CHANGES.iter().filter(|(name, _)| concerns(name, packet.l4, A::FAMILY)) {
        let mut after = kernels.clone();
        change(&mut after);
        assert_eq!(learned::<A>(&before, &after.between(new), way), None, "{name}: {packet:?}");
    }
    let between_isps = Way { from_isp: true, to_isp: true };
    assert_eq!(learned::<A>(&before, &kernels.between(new), between_isps), None);
    for end in [1, 2, 4] {
        let ended = Content { tcp_flags: kernels.tcp_flags | end, ..kernels.clone() };
        let is_learned = learned::<A>(&before, &ended.between(new), way).is_some();
        assert_eq!(is_learned, packet.l4 != L4::Tcp);
    }
}

proptest! {
    #[test]
    fn packets_of_a_learned_flow_become_what_the_kernel_makes_of_them(
        packets in first_and_others(), v4 in translated::<V4>(), v6 in translated::<V6>(), way in way(),
    ) {
        does_what_the_kernel_does(&packets, &v4, way)?;
        does_what_the_kernel_does(&packets, &v6, way)?;
    }

    #[test]
    fn nothing_is_learned_from_what_cannot_be_done_again(
        packet in any_content(), v4 in translated::<V4>(), v6 in translated::<V6>(), way in way(),
    ) {
        learns_nothing_else(&packet, &v4, way);
        learns_nothing_else(&packet, &v6, way);
    }
}
