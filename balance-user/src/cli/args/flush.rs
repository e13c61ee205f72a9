//! The arguments of `flush`.

use clap::Args;

/// What `flush` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Flush {
    /// The ISP; all, and what goes between LANs, if none is named
    pub name: Option<String>,
}
