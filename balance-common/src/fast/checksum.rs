//! The internet checksum (RFC 1071), updated instead of computed again (RFC 1624). Its sums do not depend on byte order.

/// A one's complement sum of 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "three rounds leave sixteen bits")]
pub(super) const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What a sum changes by when words that sum up to `old` are replaced by words that sum up to `new`.
#[inline(always)]
pub(super) const fn change(old: u64, new: u64) -> u16 {
    fold(!fold(old) as u64 + new)
}

/// A checksum after the sum of its data changed by this.
#[inline(always)]
pub(super) const fn updated(checksum: u16, change: u64) -> u16 {
    !fold(!checksum as u64 + change)
}
