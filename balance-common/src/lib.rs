//! What both sides of the kernel boundary agree on: the parser, the hash, the mark, the selection and the
//! layout of the maps. No I/O, no allocation in what the kernel runs; everything is tested on the host.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

mod isp_id;

pub use isp_id::{Family, IspId, MAX_ISPS};
