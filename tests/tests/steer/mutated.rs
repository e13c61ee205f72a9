//! Packets as an attacker might send them: the fixtures, mutated.

use balance_common::packet::LinkLayer;
use balance_lab::ready;

use crate::fixtures::{Fixture, fixtures};
use crate::kernel::{FOREIGN, Kernel, TCX_NEXT, add};

const PACKETS: u64 = 10_000;
/// The same packets every time.
const SEED: u64 = 0x5eed;
/// In bytes.
const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

#[test]
fn ten_thousand_mutated_packets_pass_and_are_marked_as_the_host_would() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new([&[3, 1], &[1, 2, 3]]);
    let mut verdicts = kernel.verdicts();
    let mut like_original = 0;
    for (link_layer, count) in [(LinkLayer::Ethernet, PACKETS * 3 / 4), (LinkLayer::Ip, PACKETS / 4)] {
        kernel.set_device(link_layer, 0);
        let mut originals = fixtures();
        originals.retain(|fixture| fixture.link_layer == link_layer);
        for number in 0..count {
            let mut random = Random(SEED.wrapping_add(number << 32));
            let original = &originals[random.below(originals.len())];
            let packet = mutated(original, &originals, &mut random);
            let expected = kernel.expect(&packet, FOREIGN);
            let outcome = kernel.run("lan_ingress", &packet, FOREIGN);
            add(&mut verdicts[expected.verdict as usize], packet.len());
            let agrees = outcome.as_ref().is_ok_and(|outcome| {
                (outcome.returned, outcome.mark) == (TCX_NEXT, expected.mark) && outcome.bytes == packet
            });
            assert!(
                agrees && kernel.verdicts() == verdicts,
                "seed {SEED:#x}, packet {number} on {link_layer:?}, from {}: {packet:02x?}: \
                 expected {expected:x?}, got {outcome:x?}",
                original.name
            );
            let unchanged = kernel.expect(&original.bytes, FOREIGN);
            like_original += u64::from(expected.verdict == unchanged.verdict);
        }
    }
    // The mutations must not be so wild that only the parser's first check is ever tested, nor so tame that few are.
    let [steered, _, unparsable, ..] = verdicts.map(|count| count.packets);
    assert!(steered > PACKETS / 5 && unparsable > PACKETS / 5, "{verdicts:?}");
    assert!((PACKETS / 5..PACKETS * 4 / 5).contains(&like_original), "{like_original}");
}

/// One to three mutations, most of them in the headers.
pub(crate) fn mutated(original: &Fixture, others: &[Fixture], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.bytes.clone();
    for _ in 0..=random.below(3) {
        let headers = bytes.len().min(80);
        let at = random.below(headers);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next().to_be_bytes()[0],
            // The values that fields have their limits at.
            2 => bytes[at] = [0, 1, 0x0f, 0x45, 0x4f, 0x60, 0x7f, 0xff][random.below(8)],
            3 => bytes.truncate(random.below(bytes.len())),
            4 => {
                // Lengths, of IPv4 and IPv6, with and without an Ethernet header.
                let field = [2, 4, 16, 18, 20, 22][random.below(6)];
                let length = u16::try_from(random.below(bytes.len() + 2)).unwrap();
                if let Some(target) = bytes.get_mut(field..field + 2) {
                    target.copy_from_slice(&length.to_be_bytes());
                }
            }
            _ => {
                let other = &others[random.below(others.len())].bytes;
                bytes.truncate(at);
                bytes.extend(&other[at.min(other.len())..]);
            }
        }
        bytes.resize(bytes.len().max(ETHERNET_HEADER), 0);
    }
    // For a test the kernel takes no less than an Ethernet header and, going by the type in there, an IP header. It does
    // not look behind a VLAN tag.
    let least = match bytes[12..14] {
        [0x08, 0x00] => ETHERNET_HEADER + IPV4_HEADER,
        [0x86, 0xdd] => ETHERNET_HEADER + IPV6_HEADER,
        _ => 0,
    };
    if bytes.len() < least {
        bytes.splice(12..12, [0x81, 0x00, 0x00, 0x01]);
    }
    bytes
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}
