//! What `explain` says of a flow is what becomes of the flow, and asking changes nothing.
#![cfg(test)]

mod agreement;
mod changes;
mod says;
mod support;
mod untouched;
