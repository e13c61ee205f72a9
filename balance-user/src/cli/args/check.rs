//! The arguments of `check`.

use std::path::PathBuf;

use clap::Args;

use crate::config::DEFAULT_PATH;

/// What `check` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// The config
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}
