//! The arguments of `set-weight`, `up`, `down` and `auto`.

use std::path::PathBuf;

use clap::Args;

use crate::config::{DEFAULT_PATH, WEIGHTS};

/// What `set-weight` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SetWeight {
    /// The ISP
    pub name: String,

    /// Its weight against the weights of the others
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(WEIGHTS.0)..=i64::from(WEIGHTS.1)))]
    pub weight: u16,

    /// Also write it to the config
    #[arg(long)]
    pub save: bool,

    /// The config to write it to
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Which ISP is meant.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct IspName {
    /// The ISP
    pub name: String,
}
