//! The arguments of `quota`.

use clap::Args;

use crate::amount::parse_size;

/// What `quota` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Quota {
    /// The ISP
    pub name: String,

    /// What it has used in the present period: a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub set: u64,
}
