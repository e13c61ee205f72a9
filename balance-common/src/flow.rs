//! A flow and its hash.

use crate::Family;

/// An IPv4 or IPv6 address; IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so that one kind of key serves both.
///
/// It is kept as two words, because in the kernel sixteen single bytes would cost more than all the rest of steering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    high: u64,
    low: u64,
}

impl Address {
    /// An IPv6 address, in network byte order.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "one half, then the other")]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let word = u128::from_be_bytes(octets);
        Self { high: (word >> 64) as u64, low: word as u64 }
    }

    /// An IPv4 address, in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { high: 0, low: 0xffff << 32 | u32::from_be_bytes(octets) as u64 }
    }

    /// The sixteen bytes, in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        ((self.high as u128) << 64 | self.low as u128).to_be_bytes()
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

/// A flow, as seen where it enters the router.
///
/// The ports are in host byte order. ICMP echo has its identifier in both; what has neither ports nor
/// identifier, and every fragment, has 0 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Who started it, or rather: who sent this packet.
    pub source: Address,
    /// Whom it is for.
    pub destination: Address,
    /// The protocol number (IANA).
    pub protocol: u8,
    /// See above.
    pub source_port: u16,
    /// See above.
    pub destination_port: u16,
}

impl Flow {
    /// The same flow as its other end sends it.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// A hash for choosing a bucket: the same on every machine for the same seed, and spread evenly in all bits.
    /// The kernel's own flow hash would not do: its seed changes with every boot.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        let Address { high: source_high, low: source } = self.source;
        let Address { high: destination_high, low: destination } = self.destination;
        let ports = (self.source_port as u64) << 32
            | (self.destination_port as u64) << 16
            | (self.protocol as u64) << 8
            | self.family as u64;
        match self.family {
            Family::V4 => mix(mix(seed ^ (source << 32 | destination & 0xffff_ffff)) ^ ports),
            Family::V6 => {
                mix(mix(mix(mix(mix(seed ^ source_high) ^ source) ^ destination_high) ^ destination) ^ ports)
            }
        }
    }
}

/// The finalizer of MurmurHash3 (fmix64): every input bit changes every output bit with probability one half.
#[inline(always)]
pub(crate) const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BUCKETS, bucket_of};

    fn flow(family: Family, number: u32) -> Flow {
        let [_, b, c, d] = number.to_be_bytes();
        let (source, destination) = match family {
            Family::V4 => (Address::v4([192, 168, 1, 10]), Address::v4([203, b, c, d])),
            Family::V6 => {
                let mut far = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                far[4..7].copy_from_slice(&[b, c, d]);
                (Address::v6([0xfd; 16]), Address::v6(far))
            }
        };
        Flow {
            family,
            source,
            destination,
            protocol: 6,
            source_port: (number & 0xffff).try_into().unwrap(),
            destination_port: 443,
        }
    }

    #[test]
    fn flows_that_differ_little_spread_evenly_over_the_buckets() {
        for family in Family::ALL {
            let count = u32::try_from(BUCKETS).unwrap() * 100;
            let mut buckets = vec![0_u32; BUCKETS];
            for number in 0..count {
                buckets[bucket_of(flow(family, number).hash(7))] += 1;
            }
            // Chi-square with 4095 degrees of freedom: mean 4095, standard deviation about 90.
            let chi: f64 = buckets.iter().map(|&n| (f64::from(n) - 100.0).powi(2) / 100.0).sum();
            assert!((3600.0..4600.0).contains(&chi), "{family:?}: chi-square {chi}");
        }
    }

    #[test]
    fn every_field_and_the_seed_change_the_hash() {
        for family in Family::ALL {
            let one = flow(family, 1);
            let others = [
                Flow { source: Address::v4([1, 2, 3, 4]), ..one },
                Flow { destination: Address::v4([1, 2, 3, 4]), ..one },
                Flow { protocol: 17, ..one },
                Flow { source_port: 2, ..one },
                Flow { destination_port: 80, ..one },
                one.reversed(),
            ];
            for other in others {
                assert_ne!(one.hash(7), other.hash(7), "{other:?}");
            }
            assert_ne!(one.hash(7), one.hash(8));
        }
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        assert_eq!(flow(Family::V4, 1).hash(7), 7_522_677_901_757_637_350);
        assert_eq!(flow(Family::V6, 1).hash(7), 11_655_728_655_810_457_351);
    }
}
