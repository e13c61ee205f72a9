//! The fast path: what the kernel did with a flow's packets, done again without it.
//!
//! A packet is looked at where it enters ([`Headers`], kept as a [`Snapshot`]) and again where it leaves. The difference is
//! an [`Entry`] of the flow cache ([`learn`]), by which the next packets of the flow are rewritten ([`rewrite`]). The same
//! code runs in TC, in XDP and on the host.

pub mod cache;
mod checksum;
mod confirmations;
mod entry;
mod headers;
mod rewrite;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Dimensions, Row, Slot};
pub use confirmations::Confirmations;
pub use entry::{Arrival, Departure, Entry, Flags, Key, Mac, Origin, Snapshot, learn};
pub use headers::{Headers, L4, SYN_CLASSES, syn_class};
pub use rewrite::{ChecksumChange, Rewrite, rewrite};

use core::ffi::c_void;

use crate::{Address, Family};

/// The bytes of a packet, read and written in place by words. A word is as the packet has it, whatever the byte order of
/// the machine: its bytes in memory are the packet's.
pub trait Words {
    /// The word at this offset, or `None` where the packet is too short.
    fn get<T: Word>(&self, offset: usize) -> Option<T>;

    /// Replaces the word at this offset; `None` where the packet is too short.
    fn set<T: Word>(&mut self, offset: usize, word: T) -> Option<()>;
}

/// An unsigned integer.
pub trait Word: Copy {
    /// Reads one.
    ///
    /// # Safety
    /// As many bytes must be readable there.
    unsafe fn load(from: *const c_void) -> Self;

    /// Writes it.
    ///
    /// # Safety
    /// As many bytes must be writable there.
    unsafe fn store(self, to: *mut c_void);
}

macro_rules! word {
    ($($integer:ty),*) => {$(
        impl Word for $integer {
            #[inline(always)]
            unsafe fn load(from: *const c_void) -> Self {
                // SAFETY: the caller's. In the kernel an unaligned load would become one load a byte, which the
                // verifier does not ask for where the machine can do better.
                unsafe {
                    if cfg!(target_arch = "bpf") {
                        from.cast::<Self>().read()
                    } else {
                        from.cast::<Self>().read_unaligned()
                    }
                }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut c_void) {
                // SAFETY: the caller's, and as above.
                unsafe {
                    if cfg!(target_arch = "bpf") {
                        to.cast::<Self>().write(self);
                    } else {
                        to.cast::<Self>().write_unaligned(self);
                    }
                }
            }
        }
    )*};
}

word!(u8, u16, u32, u64);

impl Words for [u8] {
    fn get<T: Word>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: that many bytes are there.
        Some(unsafe { T::load(bytes.as_ptr().cast()) })
    }

    fn set<T: Word>(&mut self, offset: usize, word: T) -> Option<()> {
        let bytes = self.get_mut(offset..)?.get_mut(..size_of::<T>())?;
        // SAFETY: that many bytes are there.
        unsafe { word.store(bytes.as_mut_ptr().cast()) };
        Some(())
    }
}

/// The address of a family, as it is in a packet.
pub trait Ip: Copy + PartialEq {
    /// The family.
    const FAMILY: Family;

    /// Reads the source and destination of the IP header at this offset.
    fn read<W: Words + ?Sized>(packet: &W, header: usize) -> Option<(Self, Self)>;

    /// Writes them.
    fn write<W: Words + ?Sized>(packet: &mut W, header: usize, source: Self, destination: Self)
    -> Option<()>;

    /// The sum of its 16-bit words, for checksums.
    fn sum(self) -> u64;

    /// As the address of a flow.
    fn address(self) -> Address;
}

/// An IPv4 address; its bytes in memory are in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address; its bytes in memory are in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct V6(pub [u64; 2]);

impl Ip for V4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn read<W: Words + ?Sized>(packet: &W, header: usize) -> Option<(Self, Self)> {
        Some((Self(packet.get(header + 12)?), Self(packet.get(header + 16)?)))
    }

    #[inline(always)]
    fn write<W: Words + ?Sized>(packet: &mut W, header: usize, source: Self, to: Self) -> Option<()> {
        packet.set(header + 12, source.0)?;
        packet.set(header + 16, to.0)
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        u64::from(self.0)
    }

    #[inline(always)]
    fn address(self) -> Address {
        Address::v4(self.0.to_ne_bytes())
    }
}

impl Ip for V6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn read<W: Words + ?Sized>(packet: &W, header: usize) -> Option<(Self, Self)> {
        let source = [packet.get(header + 8)?, packet.get(header + 16)?];
        let destination = [packet.get(header + 24)?, packet.get(header + 32)?];
        Some((Self(source), Self(destination)))
    }

    #[inline(always)]
    fn write<W: Words + ?Sized>(packet: &mut W, header: usize, source: Self, to: Self) -> Option<()> {
        packet.set(header + 8, source.0[0])?;
        packet.set(header + 16, source.0[1])?;
        packet.set(header + 24, to.0[0])?;
        packet.set(header + 32, to.0[1])
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        let [high, low] = self.0;
        (high & 0xffff_ffff) + (high >> 32) + (low & 0xffff_ffff) + (low >> 32)
    }

    #[inline(always)]
    fn address(self) -> Address {
        let [high, low] = self.0;
        Address::v6((u128::from(u64::from_be(high)) << 64 | u128::from(u64::from_be(low))).to_be_bytes())
    }
}
