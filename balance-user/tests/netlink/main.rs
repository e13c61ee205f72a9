//! The netlink side against a real kernel, each test in a network namespace of its own.
//!
//! Needs root; without it every test says so and passes, except in CI (`CI=true`), where that is a failure.

mod namespace;
mod reconcile;
mod watch;
