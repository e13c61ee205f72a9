//! The mark of an ISP together with its mask.

use balance_common::IspId;

/// The mark of one ISP: its id, inside the mask; or of those that have lost theirs. Neither is ever zero, so a conntrack request made from it always
/// has a filter. An empty one would mean every flow of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IspMark {
    value: u32,
    mask: u32,
}

impl IspMark {
    /// The mark of that ISP, in host byte order; none if the id does not fit the mask.
    #[must_use]
    pub const fn new(id: IspId, mask: u32) -> Option<Self> {
        if mask == 0 {
            return None;
        }
        let shift = mask.trailing_zeros();
        let value = (id.get() as u32) << shift;
        // Neither bits of others may be used, nor bits be lost at the top.
        if value & !mask != 0 || value >> shift != id.get() as u32 {
            None
        } else {
            Some(Self { value, mask })
        }
    }

    /// The mark of connections that have lost their ISP and are to be reset: all bits of the mask, which is what an ISP of
    /// the highest id would have.
    #[must_use]
    pub const fn lost(mask: u32) -> Option<Self> {
        if mask == 0 { None } else { Some(Self { value: mask, mask }) }
    }

    /// The id's bits in their place in the mark.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }

    /// The bits of the mark that are ours.
    #[must_use]
    pub const fn mask(self) -> u32 {
        self.mask
    }
}

/// The ISP that a whole mark, with the bits of others, speaks of; none if it speaks of none.
pub(super) fn isp_of(whole: u32, mask: u32) -> Option<IspId> {
    let number = (whole & mask).checked_shr(mask.trailing_zeros())?;
    IspId::new(u8::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_never_empty_and_never_outside_its_mask() {
        for id in IspId::all() {
            for mask in [0, 0x3f00, 0x3f, 0xfc00_0000, 0x8000_0000, 0x00f0, 0x5000, u32::MAX] {
                if let Some(mark) = IspMark::new(id, mask) {
                    assert_ne!(mark.value(), 0);
                    assert_eq!(mark.value() & !mask, 0);
                    assert_eq!(isp_of(mark.value() | !mask, mask), Some(id));
                }
            }
            assert!(IspMark::new(id, 0x3f00).is_some(), "the default mask has room for all");
            assert_eq!(IspMark::new(id, 0), None);
        }
    }

    #[test]
    fn marks_of_others_are_no_isp() {
        assert_eq!(isp_of(0x4000_00ff, 0x3f00), None);
        assert_eq!(isp_of(0x100, 0), None);
        assert_eq!(isp_of(0xff00, 0xff00), None, "255 is not an id");
    }
}
