//! Checksums that are updated, against those computed from scratch.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::checksum::{change, fold, updated};
use super::internet_checksum;

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn checksum(words: &[u16]) -> u16 {
    u16::from_ne_bytes(internet_checksum(&[&bytes(words)]).to_be_bytes())
}

fn sum(words: &[u16]) -> u64 {
    words.iter().map(|&word| u64::from(word)).sum()
}

/// Words, with those that are special more often than by chance.
fn words(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u16>> {
    vec(prop_oneof![4 => any::<u16>(), 1 => Just(0), 1 => Just(0xffff)], count)
}

proptest! {
    #[test]
    fn an_updated_checksum_is_the_one_computed_from_scratch(
        rest in words(1..20), old in words(1..9), new in words(1..9),
    ) {
        // Data that is all zero has no packet: there, a checksum has two forms.
        prop_assume!(rest.iter().any(|&word| word != 0));
        let before = checksum(&[&rest[..], &old].concat());
        let after = checksum(&[&rest[..], &new].concat());
        prop_assert_eq!(updated(before, change(sum(&old), sum(&new)).into()), after);
    }

    #[test]
    fn changes_add_up(rest in words(1..20), words in vec((any::<u16>(), any::<u16>()), 1..9)) {
        prop_assume!(rest.iter().any(|&word| word != 0));
        let (old, new): (Vec<_>, Vec<_>) = words.iter().copied().unzip();
        let changes = words.iter().map(|&(old, new)| u64::from(change(old.into(), new.into())));
        let before = checksum(&[&rest[..], &old].concat());
        prop_assert_eq!(updated(before, fold(changes.sum()).into()), checksum(&[&rest[..], &new].concat()));
    }

    #[test]
    fn a_sum_of_any_length_is_folded_to_what_is_left_after_division_by_65535(sum in any::<u64>()) {
        let folded = fold(sum);
        prop_assert_eq!(u64::from(folded) % 0xffff, sum % 0xffff);
        prop_assert_eq!(folded == 0, sum == 0, "zero is nothing but the sum of nothing");
    }
}

#[test]
fn what_does_not_change_changes_a_checksum_by_one_of_the_two_zeros() {
    for word in [0, 1, 0x1234, 0xfffe, 0xffff] {
        assert!([0, 0xffff].contains(&change(word, word)), "{word:#x}");
    }
}
