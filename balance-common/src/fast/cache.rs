//! The flow cache: an index, and an array of slots that it leads to.
//!
//! What finding one of very many flows costs is the memory that is not in the CPU's caches, nor its page in the TLB. The index is
//! small (four bytes a flow, where a hash map of the kernel has a bucket of sixteen), and slots are given out one after the other,
//! so flows that began together are together. Nothing here locks. Whoever reads an entry copies it and then checks its seal, so one
//! that is just being replaced, or that two CPUs have written to at once, is none.

use core::mem::MaybeUninit;

use super::{Entry, Ip, Key};
use crate::flow::mix;

/// Ways of a row.
const WAYS: usize = 32;
/// Entries of a row where there is room for: half of its ways, since rows are not full alike.
const ENTRIES_OF_A_ROW: u32 = 16;

/// The most slots: what the index has bits for.
const MOST_SLOTS: u32 = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 25;
/// How many slots are looked at for one to give out, and how many of them one after the other.
const TRIES: u32 = 16;
const TRIES_IN_A_ROW: u32 = 4;
/// Of 2^32.
const GOLDEN_RATIO: u32 = 0x9e37_79b1;

/// The value of `INDEX_V4` and `INDEX_V6`, two cache lines: ways to the slots of flows with the same [`Place::row`]. Each is 0, or the
/// number of a slot and, in the uppermost bits, seven bits of the flow's hash. What leads to a slot that has become another flow's
/// leads nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Row([u32; WAYS]);

/// The value of `FLOWS_V4` and `FLOWS_V6`: an entry, and whose it is. Zeros to begin with. Slot 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot<A> {
    key: Key<A>,
    entry: Entry<A>,
}

/// The memory of a cache. Others may write to it at any time.
pub trait Cache<A> {
    /// A row of the index.
    fn row(&self, number: u32) -> Option<*mut Row>;

    /// A slot.
    fn slot(&self, number: u32) -> Option<*mut Slot<A>>;
}

/// How large a cache is, and how flows are spread in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Rows of the index.
    pub rows: u32,
    /// Slots: less than 2^25.
    pub slots: u32,
    /// Keeps others from choosing what meets in a row.
    pub seed: u64,
}

/// Where in the index a flow is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the row.
    pub row: u32,
    /// Which way of the row is looked at first.
    first: usize,
    /// The upper bits of its way.
    tag: u32,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub struct Found<A> {
    way: *mut u32,
    slot: *mut Slot<A>,
}

impl Dimensions {
    /// Those that have room for as good as all of so many entries. A fifth of the slots is kept free, so that a free one is soon found.
    #[must_use]
    pub const fn for_entries(entries: u32, seed: u64) -> Self {
        let (rows, slots) = (entries / ENTRIES_OF_A_ROW, entries.saturating_add(entries / 4));
        Self {
            rows: if rows == 0 { 1 } else { rows },
            slots: if slots < 2 {
                2
            } else if slots < MOST_SLOTS {
                slots
            } else {
                MOST_SLOTS - 1
            },
            seed,
        }
    }

    /// The place of a key.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "some of the bits are wanted")]
    pub fn place<A: Ip>(&self, key: &Key<A>) -> Place {
        // Multilinear hashing (Lemire and Kaser, 2014), with multipliers that nobody knows.
        let mut sum = self.seed;
        for index in 0..words_of::<Key<A>>() {
            // SAFETY: that many words are there.
            let word = unsafe { word(key, index) };
            sum = sum.wrapping_add(word.wrapping_mul((multiplier(index) ^ self.seed) | 1));
        }
        let hash = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Place {
            row: ((u64::from(hash as u32) * u64::from(self.rows)) >> 32) as u32,
            first: (hash >> 59) as usize,
            tag: ((hash >> 52) as u32) << SLOT_BITS,
        }
    }
}

impl Place {
    #[inline(always)]
    const fn leads_there(self, way: u32) -> bool {
        way & !(MOST_SLOTS - 1) == self.tag && slot_of(way) != 0
    }

    /// The ways of a row in the order in which they are looked at: those in one cache line with the first come first.
    #[inline(always)]
    fn way(self, row: *mut Row, number: usize) -> *mut u32 {
        // SAFETY: the mask leaves the ways that there are.
        unsafe { (&raw mut (*row).0).cast::<u32>().add((self.first ^ number) & (WAYS - 1)) }
    }
}

impl Row {
    /// The numbers of the slots that may be those of a flow with this place.
    pub fn slots(&self, place: Place) -> impl Iterator<Item = u32> {
        self.0.iter().copied().filter(move |way| place.leads_there(*way)).map(slot_of)
    }
}

impl<A: Ip> Slot<A> {
    /// What is in there, if anything is, and it is whole.
    #[must_use]
    pub fn content(&self) -> Option<(Key<A>, Entry<A>)> {
        // The key of a packet has a device.
        let is_used = self.key.origin.device() != 0 && self.entry.is_sealed_for(&self.key);
        is_used.then_some((self.key, self.entry))
    }
}

/// Finds what may be the entry of a key; [`Found::read`] says whether it is.
#[inline(always)]
pub fn find<A: Ip, C: Cache<A>>(cache: &C, dimensions: &Dimensions, key: &Key<A>) -> Option<Found<A>> {
    let place = dimensions.place(key);
    let row = cache.row(place.row)?;
    for number in 0..WAYS {
        let way = place.way(row, number);
        // SAFETY: it is one of a row.
        let value = unsafe { way.read_volatile() };
        if !place.leads_there(value) {
            continue;
        }
        let slot = cache.slot(slot_of(value))?;
        // SAFETY: it is a slot.
        let is_it = unsafe { is_same(&raw const (*slot).key, key) };
        if is_it {
            return Some(Found { way, slot });
        }
    }
    None
}

/// Keeps the entry of a key that has none, in a slot that is not in use, as told by when its lease ends. `next` is the slot to look at
/// first for that; each CPU has one of its own. None if there is no room for it now.
#[inline(always)]
pub fn insert<A: Ip, C: Cache<A>>(
    cache: &C,
    dimensions: &Dimensions,
    key: &Key<A>,
    entry: &Entry<A>,
    next: &mut u32,
    is_in_use: impl Fn(u64) -> bool + Copy,
) -> Option<()> {
    let place = dimensions.place(key);
    let (way, slot) = free_way(cache, dimensions, place, is_in_use)?;
    let slot = if slot == 0 { free_slot(cache, next, dimensions.slots, is_in_use)? } else { slot };
    // SAFETY: these are a slot and a way.
    unsafe {
        write(cache.slot(slot)?, key, entry);
        way.write_volatile(place.tag | slot);
    }
    Some(())
}

/// A way that leads nowhere (0), or to a slot that is not in use, whose number comes along.
#[inline(always)]
fn free_way<A: Ip, C: Cache<A>>(
    cache: &C,
    dimensions: &Dimensions,
    place: Place,
    is_in_use: impl Fn(u64) -> bool,
) -> Option<(*mut u32, u32)> {
    let row = cache.row(place.row)?;
    for number in 0..WAYS {
        let way = place.way(row, number);
        // SAFETY: it is one of a row.
        let value = unsafe { way.read_volatile() };
        if slot_of(value) == 0 {
            return Some((way, 0));
        }
        let slot = cache.slot(slot_of(value))?;
        // SAFETY: it is a slot.
        let (key, expires) = unsafe { (read_key(slot), expires_of(slot)) };
        if expires == 0 || !is_in_use(expires) {
            return Some((way, slot_of(value)));
        }
        let its = dimensions.place(&key);
        if its.row != place.row || !its.leads_there(value) {
            return Some((way, 0));
        }
    }
    None
}

/// The next slot that is not in use. Where all are, as where another CPU gives them out, it is looked for far from there.
#[inline(always)]
fn free_slot<A, C: Cache<A>>(
    cache: &C,
    next: &mut u32,
    slots: u32,
    is_in_use: impl Fn(u64) -> bool,
) -> Option<u32> {
    for tried in 1..=TRIES {
        let number = if *next == 0 || *next >= slots { 1 } else { *next };
        // SAFETY: it is a slot.
        let expires = unsafe { expires_of(cache.slot(number)?) };
        let is_free = expires == 0 || !is_in_use(expires);
        *next = if !is_free && tried % TRIES_IN_A_ROW == 0 { far_from(number, slots) } else { number + 1 };
        if is_free {
            return Some(number);
        }
    }
    None
}

/// The slot that a CPU begins with.
#[must_use]
#[inline(always)]
pub const fn first_slot(cpu: u32, slots: u32) -> u32 {
    far_part(cpu.wrapping_mul(GOLDEN_RATIO), slots)
}

/// Another slot, such that many of these in turn are evenly spread.
#[inline(always)]
const fn far_from(slot: u32, slots: u32) -> u32 {
    let far = slot + far_part(GOLDEN_RATIO, slots);
    if far < slots { far } else { far - slots }
}

#[inline(always)]
const fn far_part(part: u32, of: u32) -> u32 {
    ((part as u64 * of as u64) >> 32) as u32
}

impl<A: Ip> Found<A> {
    /// The entry, if it is one of this key, and whole.
    #[inline(always)]
    #[must_use]
    pub fn read(self, key: &Key<A>) -> Option<Entry<A>> {
        let mut entry = MaybeUninit::<Entry<A>>::uninit();
        for index in 0..words_of::<Entry<A>>() {
            // SAFETY: that many words are there, and there is room for them. What is checked must be what is used, so each is
            // read once.
            unsafe {
                let word = shared_word(&raw const (*self.slot).entry, index);
                entry.as_mut_ptr().cast::<u64>().add(index).write(word);
            }
        }
        // SAFETY: all words have been written, and any bits are an entry.
        let entry = unsafe { entry.assume_init() };
        entry.is_sealed_for(key).then_some(entry)
    }

    /// Puts another entry of the key there.
    #[inline(always)]
    pub fn replace(self, key: &Key<A>, entry: &Entry<A>) {
        // SAFETY: it is a slot.
        unsafe { write(self.slot, key, entry) }
    }

    /// Says until when the entry may be used. If it has become another flow's meanwhile, that one is confirmed at another time.
    #[inline(always)]
    pub fn set_expires(self, expires: u64) {
        // SAFETY: it is a slot.
        unsafe { (&raw mut (*self.slot).entry.expires).write_volatile(expires) }
    }

    /// Says how long its packets may be.
    #[inline(always)]
    pub fn set_longest(self, longest: u16) {
        // SAFETY: it is a slot.
        unsafe { (&raw mut (*self.slot).entry.longest).write_volatile(longest) }
    }

    /// Takes the entry away.
    #[inline(always)]
    pub fn remove(self) {
        // SAFETY: these are a way and a slot.
        unsafe {
            self.way.write_volatile(0);
            for index in 0..words_of::<Key<A>>() {
                (&raw mut (*self.slot).key).cast::<u64>().add(index).write_volatile(0);
            }
            (&raw mut (*self.slot).entry.expires).write_volatile(0);
        }
    }
}

impl<A: Ip> Entry<A> {
    #[inline(always)]
    fn is_sealed_for(&self, key: &Key<A>) -> bool {
        self.seal == self.computed_seal(key)
    }

    /// The upper half of a multilinear hash of the key and of all that does not change while the entry is in use.
    #[inline(always)]
    fn computed_seal(&self, key: &Key<A>) -> u32 {
        // The words with the lease, and with the seal itself.
        const CHANGING: usize = 2;
        let mut number = 0;
        let mut sum = multiplier(number);
        let mut add = |word: u64| {
            number += 1;
            sum = sum.wrapping_add(word.wrapping_mul(multiplier(number)));
        };
        add(u64::from(self.generation));
        for index in 0..words_of::<Key<A>>() {
            // SAFETY: that many words are there.
            add(unsafe { word(key, index) });
        }
        for index in CHANGING..words_of::<Self>() {
            // SAFETY: as above.
            add(unsafe { word(self, index) });
        }
        (sum >> 32) as u32
    }
}

#[inline(always)]
const fn slot_of(way: u32) -> u32 {
    way & (MOST_SLOTS - 1)
}

/// # Safety
/// It must be a slot.
#[inline(always)]
unsafe fn write<A: Ip>(slot: *mut Slot<A>, key: &Key<A>, entry: &Entry<A>) {
    let entry = Entry { seal: entry.computed_seal(key), ..*entry };
    // SAFETY: that many words are there.
    unsafe {
        for index in 0..words_of::<Key<A>>() {
            (&raw mut (*slot).key).cast::<u64>().add(index).write_volatile(word(key, index));
        }
        for index in 0..words_of::<Entry<A>>() {
            (&raw mut (*slot).entry).cast::<u64>().add(index).write_volatile(word(&raw const entry, index));
        }
    }
}

/// # Safety
/// It must be a slot.
#[inline(always)]
unsafe fn expires_of<A>(slot: *const Slot<A>) -> u64 {
    // SAFETY: the caller's.
    unsafe { (&raw const (*slot).entry.expires).read_volatile() }
}

/// # Safety
/// It must be a slot.
#[inline(always)]
unsafe fn read_key<A: Ip>(slot: *const Slot<A>) -> Key<A> {
    let mut key = MaybeUninit::<Key<A>>::uninit();
    // SAFETY: that many words are there, and there is room for them; any bits are a key.
    unsafe {
        for index in 0..words_of::<Key<A>>() {
            key.as_mut_ptr().cast::<u64>().add(index).write(shared_word(&raw const (*slot).key, index));
        }
        key.assume_init()
    }
}

#[inline(always)]
const fn words_of<T>() -> usize {
    size_of::<T>() / size_of::<u64>()
}

/// An odd number that is nothing special.
#[inline(always)]
const fn multiplier(number: usize) -> u64 {
    mix(number as u64 + 1) | 1
}

/// A word of what nobody else writes to.
///
/// # Safety
/// It must have that many, and be aligned as words are.
#[inline(always)]
unsafe fn word<T>(of: *const T, index: usize) -> u64 {
    // SAFETY: the caller's.
    unsafe { of.cast::<u64>().add(index).read() }
}

/// A word of what others may write to.
///
/// # Safety
/// As of [`word`].
#[inline(always)]
unsafe fn shared_word<T>(of: *const T, index: usize) -> u64 {
    // SAFETY: the caller's.
    unsafe { of.cast::<u64>().add(index).read_volatile() }
}

/// Does it have the same words as what nobody else writes to?
///
/// # Safety
/// As of [`word`].
#[inline(always)]
unsafe fn is_same<T>(shared: *const T, own: *const T) -> bool {
    for index in 0..words_of::<T>() {
        // SAFETY: the caller's.
        let differs = unsafe { shared_word(shared, index) != word(own, index) };
        if differs {
            return false;
        }
    }
    true
}
