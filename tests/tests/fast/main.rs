//! The fast path, end to end: which packets take it, and that whatever changes meanwhile is followed.
#![cfg(test)]

mod changes;
mod learn;
mod support;
