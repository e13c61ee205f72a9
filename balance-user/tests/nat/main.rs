//! NAT, conntrack and kernel settings on the real kernel, in network namespaces of their own.
//!
//! Needs root, `ip`, `nft` and `conntrack`. Without them tests are skipped, loudly; with `CI=true` they fail.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests, where a failure should end the test"
)]

mod conntrack;
mod netns;
mod nft;
mod packets;
mod sysctl;
