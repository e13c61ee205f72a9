//! NAT, conntrack and kernel settings on the real kernel, in network namespaces of their own.
//!
//! Needs root, `ip`, `nft` and `conntrack`. Without them tests are skipped, loudly; with `CI=true` they fail.
#![cfg(test)]

mod conntrack;
mod netns;
mod nft;
mod packets;
mod sysctl;
