//! The mark: an ISP's id inside the masked bits of `skb->mark` and `ct mark`.

use crate::IspId;

/// The bits of the mark that are ours: contiguous, not empty. All others belong to somebody else and are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct MarkMask(u32);

impl MarkMask {
    /// The mask, if its bits are contiguous and there is at least one.
    #[must_use]
    pub const fn new(mask: u32) -> Option<Self> {
        if mask == 0 {
            return None;
        }
        let shifted = mask >> mask.trailing_zeros();
        if shifted & shifted.wrapping_add(1) == 0 { Some(Self(mask)) } else { None }
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The highest id that fits.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        self.0 >> self.0.trailing_zeros()
    }

    /// The mark of an ISP: its id, shifted into the mask.
    #[must_use]
    pub const fn value(self, isp: IspId) -> u32 {
        ((isp.get() as u32) << self.0.trailing_zeros()) & self.0
    }

    /// `mark` with our bits set to this ISP's and all others as they were.
    #[must_use]
    pub const fn stamp(self, mark: u32, isp: IspId) -> u32 {
        (mark & !self.0) | self.value(isp)
    }

    /// The ISP whose mark this is, if it carries one.
    #[must_use]
    pub const fn isp(self, mark: u32) -> Option<IspId> {
        match ((mark & self.0) >> self.0.trailing_zeros()).to_be_bytes() {
            [0, 0, 0, number] => IspId::new(number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_with_gaps_or_without_bits_are_refused() {
        assert_eq!(MarkMask::new(0), None);
        assert_eq!(MarkMask::new(0x3500), None);
        assert!(MarkMask::new(0x3f00).is_some());
        assert!(MarkMask::new(u32::MAX).is_some());
        assert!(MarkMask::new(0x8000_0000).is_some());
    }

    proptest! {
        #[test]
        fn stamping_keeps_foreign_bits_and_can_be_read_back(old: u32, number in 1_u8..=63, shift in 0_u32..=26) {
            let mask = MarkMask::new(0x3f << shift).unwrap();
            let isp = IspId::new(number).unwrap();
            let stamped = mask.stamp(old, isp);
            prop_assert_eq!(stamped & !mask.bits(), old & !mask.bits());
            prop_assert_eq!(mask.isp(stamped), Some(isp));
        }
    }
}
