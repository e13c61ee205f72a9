use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<Ipv6Net> {
    texts.iter().map(|text| net(text)).collect()
}

fn mapped(inside: &[&str], outside: &str, taken: &[&str]) -> Vec<(String, String)> {
    let pairs = mapping(&nets(inside), net(outside), &nets(taken));
    pairs.into_iter().map(|(inside, outside)| (inside.to_string(), outside.to_string())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(inside, outside)| (inside.to_owned(), outside.to_owned())).collect()
}

/// An address behind another prefix, as nft translates it.
fn translated(address: Ipv6Addr, (inside, outside): (Ipv6Net, Ipv6Net)) -> Ipv6Addr {
    Ipv6Addr::from_bits(outside.addr().to_bits() | address.to_bits() & inside.hostmask().to_bits())
}

#[test]
fn sites_of_rfc_6296_keep_their_subnets_and_hosts() {
    // Its sections 2.1 and 2.3, and the addresses of its example but for the checksum's sixteen bits.
    assert_eq!(
        mapped(&["fd01:203:405::/48"], "2001:db8:1::/48", &[]),
        pairs(&[("fd01:203:405::/48", "2001:db8:1::/48")])
    );
    let site = (net("fd01:203:405::/48"), net("2001:db8:1::/48"));
    assert_eq!(
        translated("fd01:203:405:1::1234".parse().unwrap(), site),
        "2001:db8:1:1::1234".parse::<Ipv6Addr>().unwrap()
    );
    assert_eq!(
        mapped(&["fd01:203:405:1::/64", "fd01:203:405:2::/64"], "2001:db8:1::/48", &[]),
        pairs(&[("fd01:203:405:1::/64", "2001:db8:1:1::/64"), ("fd01:203:405:2::/64", "2001:db8:1:2::/64"),])
    );
}

#[test]
fn a_lan_that_finds_its_subnet_taken_gets_the_first_free_one() {
    // Of another site, with the same number; an address of ours; and nothing is free below these.
    assert_eq!(
        mapped(
            &["fd00:1:0:1::/64", "fd00:2:0:1::/64", "fd00:1:0:3::/64"],
            "2001:db8:a::/48",
            &["2001:db8:a::/64", "2001:db8:a:2::/64", "2001:db8:a:3::/64"]
        ),
        pairs(&[
            ("fd00:1:0:1::/64", "2001:db8:a:1::/64"),
            ("fd00:2:0:1::/64", "2001:db8:a:4::/64"),
            ("fd00:1:0:3::/64", "2001:db8:a:5::/64"),
        ])
    );
}

#[test]
fn what_finds_its_own_subnet_free_gets_it_whoever_else_wants_one() {
    assert_eq!(
        mapped(&["fd00:1::/64", "fd00:2::/64", "fd00:3:0:1::/64"], "2001:db8:a::/48", &[]),
        pairs(&[
            ("fd00:1::/64", "2001:db8:a::/64"),
            ("fd00:2::/64", "2001:db8:a:2::/64"),
            ("fd00:3:0:1::/64", "2001:db8:a:1::/64"),
        ])
    );
}

#[test]
fn without_room_the_first_get_it() {
    assert_eq!(
        mapped(&["fd00:1::/64", "fd00:2::/64"], "2001:db8:a:1::/64", &[]),
        pairs(&[("fd00:1::/64", "2001:db8:a:1::/64")])
    );
    assert_eq!(mapped(&["fd00:1::/60"], "2001:db8:a:1::/64", &[]), []);
    assert_eq!(mapped(&["fd00:1::/64"], "2001:db8:a:1::/64", &["2001:db8:a:1::/65"]), []);
}

#[test]
fn what_is_in_the_isps_prefix_is_not_translated() {
    assert_eq!(mapped(&["2001:db8:a:1::/64", "2001:db8::/32"], "2001:db8:a::/48", &[]), []);
}

#[test]
fn the_end_of_all_addresses_is_no_trouble() {
    let last = "ffff:ffff:ffff:ffff::/64";
    assert_eq!(mapped(&["fd00::/64"], last, &[last]), []);
}

/// Prefixes of various lengths, near each other.
fn any_net(bits: u128, lengths: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Ipv6Net> {
    (any::<u8>(), lengths).prop_map(move |(byte, length)| {
        let address = Ipv6Addr::from_bits(bits | u128::from(byte) << 64);
        Ipv6Net::new(address, length).unwrap().trunc()
    })
}

const INSIDE: u128 = 0xfd00 << 112;
const OUTSIDE: u128 = 0x2001_0db8 << 96;

proptest! {
    #[test]
    fn translation_is_one_to_one_and_keeps_out_of_what_is_taken(
        inside in prop::collection::vec(any_net(INSIDE, 58..=68), 0..12),
        outside in any_net(OUTSIDE, 54..=64),
        taken in prop::collection::vec(any_net(OUTSIDE, 58..=66), 0..6),
        host in any::<u128>(),
    ) {
        let pairs = mapping(&inside, outside, &taken);
        prop_assert_eq!(&pairs, &mapping(&inside, outside, &taken));
        for (place, &(from, to)) in pairs.iter().enumerate() {
            prop_assert_eq!(from.prefix_len(), to.prefix_len());
            prop_assert!(outside.contains(&to) && inside.contains(&from));
            prop_assert!(!taken.iter().any(|taken| overlap(taken, &to)));
            for &(other_from, other_to) in pairs.iter().skip(place + 1) {
                prop_assert!(!overlap(&from, &other_from) && !overlap(&to, &other_to));
            }
            // There and back again.
            let address = Ipv6Addr::from_bits(from.addr().to_bits() | host & from.hostmask().to_bits());
            let there = translated(address, (from, to));
            prop_assert!(to.contains(&there));
            prop_assert_eq!(translated(there, (to, from)), address);
        }
    }

    #[test]
    fn as_many_lans_have_a_place_as_there_are(
        numbers in prop::collection::btree_set(any::<u8>(), 0..40),
        bits in 0_u8..=6,
    ) {
        let numbers: BTreeSet<u8> = numbers;
        let lans = numbers.iter().map(|&number| {
            Ipv6Net::new(Ipv6Addr::from_bits(INSIDE | u128::from(number) << 64), 64).unwrap()
        });
        let outside = Ipv6Net::new(Ipv6Addr::from_bits(OUTSIDE), 64 - bits).unwrap();
        let pairs = mapping(&lans.collect::<Vec<_>>(), outside, &[]);
        prop_assert_eq!(pairs.len(), numbers.len().min(1 << bits));
    }
}
