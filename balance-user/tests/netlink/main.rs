//! The netlink side against a real kernel, each test in a network namespace of its own.
//!
//! Needs root; without it every test says so and passes, except in CI (`CI=true`), where that is a failure.

#[cfg(test)]
mod namespace;
#[cfg(test)]
mod reconcile;
#[cfg(test)]
mod watch;
