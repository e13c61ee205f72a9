//! TC and XDP forward the same packets, and in the same way.

use balance_common::fast::{Arrival, learn};
use balance_common::fast::{Departure, Entry, Flags, Headers, Ip, Key, Mac, Origin, Snapshot, V4, V6};
use balance_common::packet::LinkLayer;
use balance_lab::packet::{Ipv4, Ipv6, Payload};
use balance_lab::{LOOPBACK, Steering, checksum, ready};

use crate::fixtures::{Fixture, fixtures, frame_v4, frame_v6};
use crate::kernel::{MASK, SEED};
use crate::mutated::{Random, mutated};

const PACKETS: u64 = 10_000;
const GENERATION: u16 = 3;
const L3: usize = 14;
/// What the programs return for a packet that they forward.
const TC_ACT_REDIRECT: i32 = 7;
const XDP_REDIRECT: i32 = 4;

/// The addresses and ports of packets that have been on the way.
struct Translation {
    random: Random,
}

#[test]
fn xdp_and_tc_agree_on_ten_thousand_random_packets() {
    if !ready() {
        return;
    }
    let mut steering = Steering::load().unwrap();
    steering.set_settings(SEED, MASK).unwrap();
    steering.set_device(LinkLayer::Ethernet, 0).unwrap();
    steering.set_generation(GENERATION.into()).unwrap();
    steering.allow_xdp().unwrap();
    let mut originals = fixtures();
    originals.retain(|fixture| fixture.link_layer == LinkLayer::Ethernet);
    let (mut forwarded, mut kept) = (0, 0);
    for number in 0..PACKETS {
        let mut random = Random(0xa9ee_u64.wrapping_add(number << 32));
        let packet = match random.below(4) {
            0 => {
                let original = &originals[random.below(originals.len())];
                mutated(original, &originals, &mut random)
            }
            1 => {
                let bytes = proper(&mut random);
                let original = Fixture { name: String::new(), bytes, ..originals[0].clone() };
                mutated(&original, &originals, &mut random)
            }
            _ => proper(&mut random),
        };
        let mut translation = Translation { random };
        translation.add::<V4>(&mut steering, &packet);
        translation.add::<V6>(&mut steering, &packet);

        let tc = steering.program("lan_ingress").unwrap().run(&packet, 0).unwrap();
        let xdp = steering.run_xdp(&packet).unwrap();
        let context = || format!("packet {number}: {packet:02x?}: TC {tc:02x?}, XDP {xdp:02x?}");
        assert_eq!(tc.returned == TC_ACT_REDIRECT, xdp.returned == XDP_REDIRECT, "{}", context());
        assert_eq!(tc.bytes, xdp.bytes, "{}", context());
        if xdp.returned == XDP_REDIRECT {
            forwarded += 1;
            assert_ne!(xdp.bytes, packet);
            if checksum::verify(&packet).is_ok() {
                checksum::verify(&xdp.bytes).unwrap_or_else(|error| panic!("{error}: {}", context()));
            }
        } else {
            kept += 1;
            assert_eq!(xdp.bytes, packet, "{}", context());
        }
    }
    assert!(forwarded > PACKETS / 3 && kept > PACKETS / 3, "{forwarded} forwarded, {kept} kept");
}

/// A whole packet of any kind that may go fast, and of some that may not.
fn proper(random: &mut Random) -> Vec<u8> {
    let data: Vec<u8> = (0..random.below(200)).map(|_| random.next().to_be_bytes()[0]).collect();
    let [p0, p1, p2, p3, ttl, ..] = random.next().to_be_bytes();
    let (source, destination) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([p2, p3]));
    let is_v6 = random.below(2) == 1;
    let mut payload = match random.below(4) {
        0 => Payload::tcp(source, destination),
        1 | 2 => Payload::udp(source, destination, &data),
        _ if is_v6 => Payload::icmp_v6(128 + p0 % 2, [p1, p2, p3, 0], &data),
        _ => Payload::icmp(p0 % 2 * 8, [p1, p2, p3, 0], &data),
    };
    if payload.protocol == 6 && random.below(8) > 0 {
        payload.bytes[13] = 0x10;
    }
    let mut frame = if is_v6 {
        frame_v6(
            &Ipv6::new(address_v6(random).into(), address_v6(random).into())
                .hop_limit(ttl)
                .carrying(&payload),
        )
    } else {
        frame_v4(&Ipv4::new(address_v4(random).into(), address_v4(random).into()).ttl(ttl).carrying(&payload))
    };
    checksum::complete(&mut frame).unwrap();
    if payload.protocol == 17 && !is_v6 && random.below(4) == 0 {
        frame[L3 + 20 + 6..][..2].fill(0);
    }
    if frame.len() < 60 && random.below(2) == 0 {
        frame.resize(60, 0);
    }
    frame
}

fn address_v4(random: &mut Random) -> [u8; 4] {
    u32::try_from(random.next() >> 32).unwrap().to_be_bytes()
}

fn address_v6(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next().to_be_bytes());
    bytes
}

/// A family of which there are random addresses.
trait Random16: Ip {
    fn random(random: &mut Random) -> Self;
}

impl Random16 for V4 {
    fn random(random: &mut Random) -> Self {
        Self(u32::from_ne_bytes(address_v4(random)))
    }
}

impl Random16 for V6 {
    fn random(random: &mut Random) -> Self {
        Self([random.next(), random.next()])
    }
}

impl Translation {
    /// Adds an entry for the packet, if it has headers of this family: a valid one most of the time.
    fn add<A>(&mut self, steering: &mut Steering, packet: &[u8])
    where
        A: Random16,
    {
        let Some(headers) = Headers::<A>::parse(packet, L3, packet.len()) else { return };
        let random = &mut self.random;
        let key = Key::new(&headers, Origin::new(LOOPBACK, 0, headers.l4).unwrap());
        let half = |at: usize| u16::from_ne_bytes([packet[at], packet[at + 1]]);
        let mac = Mac([half(0), half(2), half(4)]);
        let snapshot = Snapshot::new(&headers, key, 1, &Arrival { mac, isp: 0, hash: 0 });
        let mut after = headers;
        (after.ttl, after.flags) = (headers.ttl.wrapping_sub(1), 0);
        if random.below(4) > 0 {
            after.source = A::random(random);
        }
        if random.below(4) == 0 {
            after.destination = A::random(random);
        }
        if random.below(3) == 0 {
            let [_, _, kind, code] = headers.ports.to_ne_bytes();
            let [p0, p1, p2, p3, ..] = random.next().to_be_bytes();
            let is_echo = headers.l4 == balance_common::fast::L4::Echo;
            after.ports = u32::from_ne_bytes(if is_echo { [p0, p1, kind, code] } else { [p0, p1, p2, p3] });
        }
        let ethernet =
            [random.next(), random.next(), random.next()].map(|word| u32::try_from(word >> 32).unwrap());
        let departure =
            Departure { device: LOOPBACK, isp: 5, ethernet: Some(ethernet), vlan: 0, mark: 0, priority: 0 };
        let learned = learn(&snapshot, &after, &departure).unwrap();
        assert!(learned.flags.has(Flags::ETHERNET));
        let one_in = |random: &mut Random, count| random.below(count) == 0;
        steering
            .add_entry(
                &key,
                &Entry {
                    expires: if one_in(random, 20) { 0 } else { u64::MAX },
                    longest: headers.length - u16::from(one_in(random, 20)),
                    generation: GENERATION - u16::from(one_in(random, 20)),
                    arrives_at: if one_in(random, 20) { Mac([1, 2, 3]) } else { mac },
                    ..learned
                },
            )
            .unwrap();
    }
}
