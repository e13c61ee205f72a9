//! Looks after the ISPs: carries out what [`crate::core::health`] wants to know.

pub mod prober;
