//! Keys are hashed and compared by words, and both sides of the kernel boundary must see the same.

use std::mem::{offset_of, size_of_val};

use proptest::prelude::*;

use super::super::{Entry, Key, L4, Origin, V4, V6};
use super::l4;

#[test]
fn keys_and_entries_are_as_large_as_their_fields_and_have_no_padding() {
    fn key<A: Copy + Default>(expected: usize) {
        let Key { source, destination, ports, origin } = Key::<A>::default();
        let fields =
            size_of_val(&source) + size_of_val(&destination) + size_of_val(&ports) + size_of_val(&origin);
        assert_eq!((size_of::<Key<A>>(), fields), (expected, expected));
    }
    fn entry<A: Copy + Default>(expected: usize) {
        let Entry {
            expires,
            seal,
            longest,
            generation,
            arrives_at,
            vlan,
            ethernet,
            device,
            source,
            destination,
            ports,
            mark,
            priority,
            address_change,
            path,
            flags,
        } = Entry::<A>::default();
        let fields = [
            size_of_val(&expires),
            size_of_val(&seal),
            size_of_val(&longest),
            size_of_val(&generation),
            size_of_val(&arrives_at),
            size_of_val(&vlan),
            size_of_val(&ethernet),
            size_of_val(&device),
            size_of_val(&source),
            size_of_val(&destination),
            size_of_val(&ports),
            size_of_val(&mark),
            size_of_val(&priority),
            size_of_val(&address_change),
            size_of_val(&path),
            size_of_val(&flags),
        ];
        assert_eq!((size_of::<Entry<A>>(), fields.iter().sum()), (expected, expected));
    }
    key::<V4>(16);
    key::<V6>(40);
    // A cache line.
    entry::<V4>(64);
    entry::<V6>(88);
}

#[test]
fn what_is_written_while_an_entry_is_in_use_are_aligned_words() {
    assert_eq!(offset_of!(Entry<V4>, expires) % 8, 0);
    assert_eq!(offset_of!(Entry<V6>, expires) % 8, 0);
    assert_eq!(offset_of!(Entry<V4>, longest) % 2, 0);
    assert_eq!(offset_of!(Entry<V6>, longest) % 2, 0);
}

#[test]
fn what_changes_while_an_entry_is_in_use_is_in_its_first_two_words() {
    assert_eq!(offset_of!(Entry<V4>, arrives_at), 16, "all from here on is sealed");
    assert_eq!(offset_of!(Entry<V6>, arrives_at), 16);
}

fn origin() -> impl Strategy<Value = (u32, u16, L4)> {
    (0..Origin::MAX_DEVICE, 0..0x1000_u16, l4())
}

proptest! {
    #[test]
    fn an_origin_knows_its_device_and_no_two_are_alike(one in origin(), other in origin()) {
        let made = |(device, vlan, l4): (u32, u16, L4)| Origin::new(device, vlan, l4);
        prop_assert_eq!(made(one).map(Origin::device), Some(one.0));
        prop_assert_eq!(made(one) == made(other), one == other);
        let with_priority = (one.0, one.1 | 0xe000, one.2);
        prop_assert_eq!(made(with_priority), made(one), "of a tag only the number counts");
    }

    #[test]
    fn a_device_without_room_has_no_origin(device in Origin::MAX_DEVICE.., vlan in any::<u16>(), l4 in l4()) {
        prop_assert_eq!(Origin::new(device, vlan, l4), None);
    }
}

#[test]
fn neighbouring_origins_differ() {
    let (device, vlan) = (Origin::MAX_DEVICE - 1, 0xfff);
    let origins = [
        Origin::new(device, vlan, L4::Tcp),
        Origin::new(device, vlan, L4::Udp),
        Origin::new(device, vlan, L4::Echo),
        Origin::new(device, vlan - 1, L4::Echo),
        Origin::new(device, 0, L4::Tcp),
        Origin::new(device - 1, vlan, L4::Echo),
        Origin::new(0, 0, L4::Tcp),
    ];
    for (index, origin) in origins.iter().enumerate() {
        assert!(origin.is_some() && !origins[..index].contains(origin), "{index}");
    }
}
