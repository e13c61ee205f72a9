//! The arguments of `doctor`.

use std::path::PathBuf;

use clap::Args;

use crate::config::DEFAULT_PATH;

/// What `doctor` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Doctor {
    /// The config
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// An array of objects
    #[arg(long)]
    pub json: bool,
}
