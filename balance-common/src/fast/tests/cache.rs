//! The flow cache keeps what is in use, finds it, and never hands out what was not written in one go.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::cache::{find, first_slot, insert};
use super::super::{Cache, Dimensions, Entry, Key, Origin, Row, Slot, V4, V6};
use super::{L4, TestIp};

struct Memory<A> {
    dimensions: Dimensions,
    rows: UnsafeCell<Vec<Row>>,
    slots: UnsafeCell<Vec<Slot<A>>>,
    next: u32,
}

impl<A: Copy + Default> Memory<A> {
    fn new(rows: u32, slots: u32, seed: u64) -> Self {
        Self {
            dimensions: Dimensions { rows, slots, seed },
            rows: vec![Row::default(); rows as usize].into(),
            slots: vec![Slot::default(); slots as usize].into(),
            next: 0,
        }
    }
}

impl<A> Cache<A> for Memory<A> {
    fn row(&self, number: u32) -> Option<*mut Row> {
        // SAFETY: there is one thread, which holds no reference to what is in there.
        let rows = unsafe { &mut *self.rows.get() };
        rows.get_mut(number as usize).map(std::ptr::from_mut)
    }

    fn slot(&self, number: u32) -> Option<*mut Slot<A>> {
        // SAFETY: as above.
        let slots = unsafe { &mut *self.slots.get() };
        slots.get_mut(number as usize).map(std::ptr::from_mut)
    }
}

impl<A: TestIp + Default> Memory<A> {
    fn insert(&mut self, key: &Key<A>, entry: &Entry<A>, is_in_use: impl Fn(u64) -> bool + Copy) -> bool {
        let (mut next, dimensions) = (self.next, self.dimensions);
        let is_in = insert(self, &dimensions, key, entry, &mut next, is_in_use).is_some();
        self.next = next;
        is_in
    }

    /// What is found, but for the seal.
    fn get(&self, key: &Key<A>) -> Option<Entry<A>> {
        let found = find(self, &self.dimensions, key)?.read(key);
        assert_eq!(found, self.as_user_space_sees_it(key));
        found.map(|entry| Entry { seal: 0, ..entry })
    }

    fn as_user_space_sees_it(&self, key: &Key<A>) -> Option<Entry<A>> {
        let place = self.dimensions.place(key);
        // SAFETY: as above.
        let (rows, slots) = unsafe { (&*self.rows.get(), &*self.slots.get()) };
        let mut contents =
            rows[place.row as usize].slots(place).filter_map(|slot| slots[slot as usize].content());
        contents.find_map(|(its, entry)| (its == *key).then_some(entry))
    }
}

fn key<A: TestIp>(number: u32) -> Key<A> {
    let [a, b, c, d] = number.to_be_bytes();
    let source = A::from_bytes([10, 0, 0, c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let destination = A::from_bytes([203, 0, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    Key {
        source,
        destination,
        ports: u32::from_ne_bytes([c, d, 0, 53]),
        origin: Origin::new(7, 0, L4::Udp).unwrap(),
    }
}

/// One whose fields all depend on the number.
fn entry<A: TestIp>(number: u32, expires: u64) -> Entry<A> {
    let [a, b, c, d] = number.to_be_bytes();
    let (short, long) = (u16::from_be_bytes([c, d]), number.wrapping_mul(0x9e37_79b1));
    Entry {
        expires,
        seal: 0,
        longest: short,
        generation: short ^ 0x55,
        arrives_at: super::super::Mac([short; 3]),
        vlan: short,
        ethernet: [long; 3],
        device: long,
        source: A::from_bytes([d; 16]),
        destination: A::from_bytes([c; 16]),
        ports: long,
        mark: long,
        priority: long,
        address_change: short,
        path: b,
        flags: super::super::Flags::ETHERNET.when(a & 1 == 0),
    }
}

fn room_for_all<A: TestIp + Default>() {
    const ENTRIES: u32 = 65_536;
    let Dimensions { rows, slots, seed } = Dimensions::for_entries(ENTRIES, 0x5eed);
    let mut memory = Memory::<A>::new(rows, slots, seed);
    let (kept, left): (Vec<u32>, Vec<u32>) =
        (0..ENTRIES).partition(|&number| memory.insert(&key(number), &entry(number, 9), |_| true));
    for number in kept {
        assert_eq!(memory.get(&key(number)), Some(entry(number, 9)));
    }
    // Rows are not full alike.
    assert!(left.len() < ENTRIES as usize / 10_000, "{} had no room", left.len());
    assert_eq!(memory.get(&key(ENTRIES)), None);
}

#[test]
fn there_is_room_for_as_good_as_all_flows_that_it_is_made_for() {
    room_for_all::<V4>();
    room_for_all::<V6>();
}

#[test]
fn what_is_in_use_stays_and_what_is_not_makes_room() {
    let mut memory = Memory::<V4>::new(2, 40, 1);
    let fits: Vec<u32> =
        (0..200).filter(|&number| memory.insert(&key(number), &entry(number, 100), |_| true)).collect();
    assert!((30..=39).contains(&fits.len()), "{} of 39", fits.len());
    for &number in &fits {
        assert_eq!(memory.get(&key(number)), Some(entry(number, 100)), "{number}");
    }
    // Their leases have ended.
    let newer: Vec<u32> = (1000..1200)
        .filter(|&number| memory.insert(&key(number), &entry(number, 300), |expires| 200 < expires))
        .collect();
    assert!((30..=39).contains(&newer.len()), "{} of 39", newer.len());
    for &number in &newer {
        assert_eq!(memory.get(&key(number)), Some(entry(number, 300)), "{number}");
    }
}

#[test]
fn one_that_waits_to_be_confirmed_is_found_but_makes_room() {
    let mut memory = Memory::<V6>::new(1, 2, 1);
    assert!(memory.insert(&key(1), &entry(1, 100), |_| true));
    assert!(!memory.insert(&key(2), &entry(2, 100), |_| true));
    find(&memory, &memory.dimensions, &key(1)).unwrap().set_expires(0);
    assert_eq!(memory.get(&key(1)), Some(entry(1, 0)));
    assert!(memory.insert(&key(2), &entry(2, 100), |_| true));
    assert_eq!((memory.get(&key(1)), memory.get(&key(2))), (None, Some(entry(2, 100))));
}

#[test]
fn the_lease_and_the_length_change_while_an_entry_is_in_use() {
    let mut memory = Memory::<V4>::new(1, 9, 1);
    assert!(memory.insert(&key(1), &entry(1, 100), |_| true));
    let found = find(&memory, &memory.dimensions, &key(1)).unwrap();
    found.set_expires(200);
    found.set_longest(1400);
    assert_eq!(memory.get(&key(1)), Some(Entry { longest: 1400, ..entry(1, 200) }));
}

#[test]
fn one_who_comes_where_all_slots_are_in_use_looks_elsewhere() {
    const SLOTS: u32 = 100_000;
    let mut memory = Memory::<V4>::new(SLOTS / 16, SLOTS, 1);
    for number in 0..SLOTS / 2 {
        assert!(memory.insert(&key(number), &entry(number, 100), |_| true));
    }
    // As another CPU that begins there.
    memory.next = 1;
    for number in SLOTS..SLOTS + 1000 {
        assert!(memory.insert(&key(number), &entry(number, 100), |_| true), "{number}");
    }
    let begins: Vec<u32> = (0..8).map(|cpu| first_slot(cpu, SLOTS)).collect();
    let apart = |one: &u32, other: &u32| one.abs_diff(*other) > SLOTS / 20;
    assert!(begins.iter().enumerate().all(|(cpu, one)| begins[..cpu].iter().all(|other| apart(one, other))));
}

/// Every way in which the words of one content may be mixed with those of another.
fn never_read_by_halves<A: TestIp + Default>() {
    let written = |number| {
        let mut memory = Memory::<A>::new(1, 2, 1);
        assert!(memory.insert(&key(number), &entry(number, 100), |_| true));
        memory
    };
    let words = |memory: &Memory<A>| -> Vec<u64> {
        let slot = memory.slot(1).unwrap().cast::<u64>();
        // SAFETY: that many words are there.
        (0..size_of::<Slot<A>>() / 8).map(|index| unsafe { slot.add(index).read() }).collect()
    };
    let (one, other) = (written(1), written(2));
    let (its, others) = (words(&one), words(&other));
    let all = its.len();
    // The lease comes right after the key and belongs to either.
    let lease = size_of::<Key<A>>() / 8;
    for from in 0..all {
        for to in from + 1..=all {
            let memory = written(1);
            for (index, &word) in others.iter().enumerate().take(to).skip(from) {
                // SAFETY: as above.
                unsafe { memory.slot(1).unwrap().cast::<u64>().add(index).write(word) };
            }
            let is_whole = |range: std::ops::Range<usize>| {
                range.clone().all(|index| index == lease || its[index] == others[index])
            };
            let (is_its, is_others) = (is_whole(from..to), is_whole(0..from) && is_whole(to..all));
            let read = |number| {
                find(&memory, &memory.dimensions, &key(number)).and_then(|found| found.read(&key(number)))
            };
            assert_eq!(read(1).is_some(), is_its, "words {from} to {to}");
            // The way to it has the other one's tag.
            assert!(read(2).is_none() || is_others, "words {from} to {to}");
            // SAFETY: nobody writes to it.
            let content = unsafe { &*memory.slot(1).unwrap() }.content();
            assert_eq!(content.is_some(), is_its || is_others, "words {from} to {to}");
        }
    }
}

#[test]
fn what_was_not_written_in_one_go_is_nothing() {
    never_read_by_halves::<V4>();
    never_read_by_halves::<V6>();
}

#[test]
fn an_entry_of_another_key_in_the_same_slot_is_not_found_by_the_old_way() {
    let mut memory = Memory::<V4>::new(4, 2, 1);
    assert!(memory.insert(&key(1), &entry(1, 100), |_| true));
    let elsewhere = (2..100)
        .find(|&number| {
            memory.dimensions.place(&key::<V4>(number)).row != memory.dimensions.place(&key::<V4>(1)).row
        })
        .unwrap();
    assert!(memory.insert(&key(elsewhere), &entry(elsewhere, 100), |_| false));
    assert_eq!(memory.get(&key(1)), None);
    assert_eq!(memory.get(&key(elsewhere)), Some(entry(elsewhere, 100)));
    // Its way is free, though what it leads to is in use.
    memory.slots.get_mut().push(Slot::default());
    memory.dimensions.slots = 3;
    assert!(memory.insert(&key(1), &entry(1, 100), |_| true));
    assert_eq!(memory.get(&key(1)), Some(entry(1, 100)));
    assert_eq!(memory.get(&key(elsewhere)), Some(entry(elsewhere, 100)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Learn(u32, u32),
    End(u32),
}

fn step() -> impl Strategy<Value = Step> {
    // Few flows, so that they meet.
    prop_oneof![
        3 => (0_u32..300, any::<u32>()).prop_map(|(flow, number)| Step::Learn(flow, number)),
        1 => (0_u32..300).prop_map(Step::End),
    ]
}

proptest! {
    #[test]
    fn it_finds_what_was_kept_last_and_has_not_ended(steps in prop::collection::vec(step(), 1..600), seed in any::<u64>()) {
        let mut memory = Memory::<V4>::new(8, 200, seed);
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Learn(flow, number) => {
                    let (key, entry) = (key(flow), entry(number, 100));
                    if let Some(found) = find(&memory, &memory.dimensions, &key) {
                        found.replace(&key, &entry);
                        prop_assert!(model.insert(flow, number).is_some());
                    } else if memory.insert(&key, &entry, |_| true) {
                        prop_assert!(model.insert(flow, number).is_none());
                    } else {
                        prop_assert!(!model.contains_key(&flow));
                        prop_assert!(model.len() > 100, "full with {}", model.len());
                    }
                }
                Step::End(flow) => {
                    let found = find(&memory, &memory.dimensions, &key::<V4>(flow));
                    prop_assert_eq!(found.is_some(), model.remove(&flow).is_some());
                    if let Some(found) = found {
                        found.remove();
                    }
                }
            }
        }
        for flow in 0..300 {
            let expected = model.get(&flow).map(|&number| entry(number, 100));
            prop_assert_eq!(memory.get(&key(flow)), expected);
        }
    }

    #[test]
    fn every_place_is_in_the_index(number in any::<u32>(), seed in any::<u64>(), rows in 1_u32..) {
        let dimensions = Dimensions { rows, slots: 2, seed };
        prop_assert!(dimensions.place(&key::<V4>(number)).row < rows);
        prop_assert!(dimensions.place(&key::<V6>(number)).row < rows);
    }
}
