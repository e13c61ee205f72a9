//! The number that stands for an ISP in marks, buckets and maps.

/// How many ISPs there can be: ids run from 1 to this.
pub const MAX_ISPS: u8 = 63;

/// The id of an ISP: 1 to [`MAX_ISPS`]. It is what the mark carries, what a bucket holds, and the index of the
/// ISP's entry in the maps. 0 is never an id: it stands for "no ISP" in all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct IspId(u8);

impl IspId {
    /// The id with this number, if it is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 || number > MAX_ISPS { None } else { Some(Self(number)) }
    }

    /// The number, 1 to [`MAX_ISPS`].
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All ids, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=u8::MAX).map_while(Self::new)
    }
}

/// The two internet protocols. An ISP may have both or only one, so each has buckets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}
