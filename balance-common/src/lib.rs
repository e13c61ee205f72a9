//! What both sides of the kernel boundary agree on: the parser, the hash, the mark, the selection and the
//! layout of the maps. No I/O, and no allocation in what the kernel runs; everything is tested on the host.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod fast;
pub mod layout;
pub mod packet;

mod flow;
mod isp_id;
mod mark;
mod policy;
#[cfg(any(test, feature = "user"))]
mod table;

pub use flow::{Address, Flow};
pub use isp_id::{Family, IspId, MAX_ISPS};
pub use mark::MarkMask;
pub use policy::{PolicyId, Sticky};
#[cfg(any(test, feature = "user"))]
pub use table::{Member, Table, build_table};

/// Slots of a selection table.
pub const BUCKETS: usize = 4096;

/// The bucket of a flow's hash: its top bits.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "twelve bits are left")]
pub const fn bucket_of(hash: u64) -> usize {
    (hash >> (64 - BUCKETS.trailing_zeros())) as usize
}
