//! The fast path, end to end: which packets take it, and that whatever changes meanwhile is followed.
#![cfg(test)]

mod changes;
mod down;
mod flood;
mod learn;
mod restart;
mod support;
mod tcp;
mod timeouts;
